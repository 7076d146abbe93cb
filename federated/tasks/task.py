"""Task: what clients learn. The only part of a run that knows what a row is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["POOLED", "TEST", "TRAIN", "UNSEEN", "VALIDATION", "Batch", "Task"]

TRAIN, VALIDATION, TEST = "train", "validation", "test"
"""Parts of a client's rows: learnt from, chosen with, reported."""

UNSEEN = "unseen"
"""The site that never trains: it has test rows alone."""

POOLED = "pooled"
"""All clients together, as if they were one."""

Batch = Any
"""Whatever the task makes of some rows; only the task looks into it."""


class Task(Protocol):
    """Rows of every client, a model for them, a loss and the measures.

    Attributes
    ----------
    clients : tuple of str
        Who trains, sorted.
    metrics : tuple of str
        What :meth:`evaluate` measures beside the loss, all from 0 to 1 and higher is better; the
        first one chooses learning rates and rounds. The server refuses what is out of range.
    digest : str
        Of the rows and who holds them: two runs of one digest have the same data.
    measured_at_once : int
        Rows that :meth:`evaluate` gives to the model in one batch.
    """

    @property
    def clients(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def metrics(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def measured_at_once(self) -> int: ...  # noqa: D102

    def holdings(self, folder: Path) -> pd.DataFrame:
        """Describe what each client holds, a line a client.

        Parameters
        ----------
        folder : path
            Of the run.

        Returns
        -------
        pandas.DataFrame
            As of :meth:`federated.partition.Partition.table`.
        """
        ...

    def share(self, folder: Path, client: str) -> None:
        """Save what one site may know, its own rows alone, as the folder of the run there.

        Parameters
        ----------
        folder : path
        client : str
            Or :data:`UNSEEN` for the server.
        """
        ...

    def build(self, norm: str, seed: int) -> nn.Module:
        """Make the model, with initial weights by seed."""
        ...

    def examples(self, client: str, part: str) -> int:
        """Count the rows of a client's part; 0 for a part that it does not have."""
        ...

    def batches(
        self, client: str, part: str, batch_size: int, order: tuple[int, int] | None
    ) -> Iterator[Batch]:
        """Go through a client's part.

        Parameters
        ----------
        client, part : str
        batch_size : int
            The last batch may be smaller.
        order : (int, int) or None
            Seed and epoch, of which the order is a pure function; None: as stored.
        """
        ...

    def inputs(self, batch: Batch) -> Tensor:
        """What of a batch the model is called with; its first axis is the rows."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch, to be differentiated."""
        ...

    def evaluate(self, model: nn.Module, client: str, part: str) -> dict[str, float]:
        """Measure a model on a client's part.

        Returns
        -------
        dict of str to float
            As of :meth:`measures`.
        """
        ...

    def measures(self, client: str, part: str, scores: Tensor) -> dict[str, float]:
        """Hold scores of a client's part against what is known of its rows.

        Parameters
        ----------
        client, part : str
        scores : Tensor
            What the model said of the rows in evaluation mode, (N,) or (N, 1), in stored order.

        Returns
        -------
        dict of str to float
            ``examples``, ``loss`` and :attr:`metrics`; NaN for a measure that the rows do not
            allow, such as AUROC where all labels are equal.
        """
        ...
