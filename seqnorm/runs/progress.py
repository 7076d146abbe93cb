"""Progress of a run: a bar with the time left on a terminal, a line a job elsewhere."""

import sys
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from seqnorm.runs.time_left import TimeLeft, Work, in_words


class Progress:
    """Counts the steps of all jobs; a job that stopped early counts in full once it is done.

    Parameters
    ----------
    works
        All jobs by their names, in the order in which they will run.
    workers
        Jobs at a time.
    unit
        What a step is, in the plural.
    say
        Takes lines where there is no terminal.
    """

    def __init__(
        self, works: Mapping[str, Work], workers: int, unit: str, say: Callable[[str], None]
    ) -> None:
        self._works = works
        self._total = sum(work.steps for work in works.values())
        self._unit = unit
        self._say = say
        self._done = dict.fromkeys(works, 0)
        self._finished: set[str] = set()
        self._left = TimeLeft(works, workers)
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{unit}, "),
            TimeElapsedColumn(),
            TextColumn("elapsed, {task.fields[left]}"),
            disable=not sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("training", total=self._total, left="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def hint(self, speed: Hashable, seconds: float) -> None:
        """Tell what a step of the jobs of a speed may take, as measured beforehand."""
        self._left.hint(speed, seconds)

    def step(self, name: str, done: int, seconds: float) -> None:
        """Note how many steps a job has behind it, so many seconds after it began."""
        if name not in self._finished:
            self._done[name] = done
            self._left.step(name, done, seconds)
            self._show()

    def finish(
        self,
        name: str,
        done: int,
        seconds: float,
        told: str | None = None,
        kept: bool = False,
    ) -> tuple[int, float]:
        """Note that a job is done after so many steps and seconds.

        Parameters
        ----------
        name, done, seconds
            As for `step`.
        told
            What came of it, for a line where there is no terminal.
        kept
            Whether an earlier session did it, and it was only read back.

        Returns
        -------
        tuple
            What `TimeLeft.finish` does.
        """
        self._finished.add(name)
        self._done[name] = self._works[name].steps
        seen = self._left.finish(name, done, seconds, kept)
        left = self._show()
        if self._bar.disable and told is not None:
            line = f"{sum(self._done.values())}/{self._total} {self._unit}: {told}"
            self._say(f"{line}; {left}" if left else line)
        return seen

    def _show(self) -> str:
        left = in_words(self._left.left()) if len(self._finished) < len(self._works) else ""
        self._bar.update(self._task, completed=sum(self._done.values()), left=left)
        return left
