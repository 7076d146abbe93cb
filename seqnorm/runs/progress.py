"""Progress of a run: a bar with the time left on a terminal, a line a job elsewhere."""

import sys
from collections.abc import Callable
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar


class Progress:
    """Counts the steps of all jobs; a job that stopped early counts in full once it is done.

    Parameters
    ----------
    total
        Steps of all jobs.
    each
        Steps of one job at the most.
    unit
        What a step is, in the plural.
    say
        Takes lines where there is no terminal.
    """

    def __init__(self, total: int, each: int, unit: str, say: Callable[[str], None]) -> None:
        self._total = total
        self._each = each
        self._unit = unit
        self._say = say
        self._done: dict[str, int] = {}
        self._finished: set[str] = set()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{unit}, "),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            # Jobs differ in speed: look back over a few of them.
            speed_estimate_period=120,
            disable=not sys.stdout.isatty(),
        )
        self._task = self._bar.add_task("training", total=total)

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

    def step(self, name: str, done: int) -> None:
        """Note how many steps a job has behind it."""
        if name not in self._finished:
            self._done[name] = done
            self._show()

    def finish(self, name: str, outcome: str) -> None:
        """Note that a job is done, and what came of it."""
        self._finished.add(name)
        self._done[name] = self._each
        self._show()
        if self._bar.disable:
            self._say(f"{sum(self._done.values())}/{self._total} {self._unit}: {name}: {outcome}")

    def _show(self) -> None:
        self._bar.update(self._task, completed=sum(self._done.values()))
