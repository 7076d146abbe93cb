"""Progress of a run: a bar with the time left on a terminal, a line a trial elsewhere."""

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

from seqnorm.holdout.trial import Trained


class Progress:
    """Counts epochs; a trial that stopped early counts in full once it is done.

    Parameters
    ----------
    total
        Epochs of all trials.
    epochs
        Epochs of one trial at the most.
    say
        Takes lines where there is no terminal.
    """

    def __init__(self, total: int, epochs: int, say: Callable[[str], None]) -> None:
        self._total = total
        self._epochs = epochs
        self._say = say
        self._done: dict[str, int] = {}
        self._finished: set[str] = set()
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("epochs, "),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            # Epochs of different norms differ in speed: look back over a few trials.
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

    def epoch(self, name: str, epoch: int) -> None:
        """Note that a trial has finished an epoch."""
        if name not in self._finished:
            self._done[name] = epoch
            self._show()

    def trained(self, trained: Trained) -> None:
        """Note that a trial is trained."""
        self._finished.add(trained.trial.id)
        self._done[trained.trial.id] = self._epochs
        self._show()
        if self._bar.disable:
            self._say(
                f"{sum(self._done.values())}/{self._total} epochs: {trained.trial.id}: best "
                f"validation score {trained.validation_score:.4f} in epoch "
                f"{trained.best_epoch + 1}, {trained.seconds:.0f} s"
            )

    def _show(self) -> None:
        self._bar.update(self._task, completed=sum(self._done.values()))
