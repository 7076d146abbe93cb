"""A store of windows as a torch data set: the batches of training without the windows in memory.

Order, shift and strand are drawn as `seqnorm.batches` draws them, per seed, epoch and window, so
that the batches are the same bits for any number of workers, and the same as from windows that
are held in memory.
"""

import os

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data_tools.errors import InputError
from data_tools.window_store import WindowStore
from seqnorm.batches import EpochDraw, one_hot


class WindowBatches(Dataset[tuple[Tensor, Tensor]]):
    r"""Batches of the windows of a store; an item is a batch.

    Parameters
    ----------
    path : path
        The folder that `data_tools.write_window_store` wrote.
    batch_size : int
        Windows a batch; the last one may be smaller.
    seed : int, optional
        Of order, shift within the margins, and strand. Without it the windows come in the order
        of their table, unshifted, on the given strand.
    label : str, default "label"
        The column of the labels.

    Raises
    ------
    InputError
        If there is no sound store, or its column is not of finite numbers.
    ValueError
        For a batch size below 1.

    Notes
    -----
    Give it to a ``DataLoader`` with ``batch_size=None``, and call `set_epoch` before each epoch.
    Workers may be forked or spawned: a pickle holds the path and the labels. In memory are the
    labels, and 17 bytes a window for the draw of an epoch. As in `LabelledWindows.shuffled`, a
    last batch of a single window is left out in training.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import pandas as pd
    >>> from torch.utils.data import DataLoader
    >>> from data_tools import Genome, write_window_store
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "tiny.fa").write_text(">chr1\nACGTNACGTT\n")
    >>> table = pd.DataFrame({"chrom": "chr1", "start": [1, 2], "end": [5, 6], "label": [1, 0]})
    >>> with Genome(folder / "tiny.fa", cache_dir=folder) as genome:
    ...     write_window_store(folder / "tiny.windows", genome, table, margin=1)
    >>> batches = WindowBatches(folder / "tiny.windows", batch_size=2, seed=0)
    >>> batches.set_epoch(3)
    >>> for x, y in DataLoader(batches, batch_size=None):
    ...     print(tuple(x.shape), sorted(y.tolist()))
    (2, 4, 4) [0.0, 1.0]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        batch_size: int,
        seed: int | None = None,
        *,
        label: str = "label",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"the batch size must be at least 1, not {batch_size}")
        self.store, self.batch_size, self.seed = WindowStore(path), batch_size, seed
        column = self.store.column(label)
        if column.dtype.kind not in "biuf" or not np.isfinite(column).all():
            raise InputError(f"{self.store.path}: column {label!r} is not of finite numbers alone")
        self.labels = torch.from_numpy(column.astype(np.float32))
        # In shared memory, so that workers that live for many epochs are told of the next.
        self._epoch = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._drawn: tuple[int, EpochDraw] | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_drawn": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__ |= state
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        count, size = len(self.store), self.batch_size
        alone = self.seed is not None and count % size == 1 < size and count > 1
        return -(-count // size) - alone

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch is to be drawn, to all workers; before the loader is iterated."""
        self._epoch[0] = epoch

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Give a batch.

        Returns
        -------
        one_hot : Tensor
            float32 of shape (n, 4, width).
        labels : Tensor
            float32 of shape (n,).
        """
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        part = slice(number * self.batch_size, (number + 1) * self.batch_size)
        if self.seed is None:
            index = torch.arange(part.start, min(part.stop, len(self.store)))
            margin = self.store.margin
            codes = self._codes(index)[:, margin : margin + self.store.width]
            return one_hot(codes), self.labels[index]
        draw = self._draw(self.seed)
        index = draw.order[part]
        return draw.applied(self._codes(index), index, self.store.width), self.labels[index]

    def _codes(self, index: Tensor) -> Tensor:
        return torch.from_numpy(self.store.codes(index.numpy()))

    def _draw(self, seed: int) -> EpochDraw:
        epoch = int(self._epoch)
        if self._drawn is None or self._drawn[0] != epoch:
            drawn = EpochDraw.of(len(self.store), self.store.margin, seed, epoch)
            self._drawn = epoch, drawn
            return drawn
        return self._drawn[1]
