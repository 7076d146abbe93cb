"""WindowTask: which windows of a genome carry a label, learnt by clients that hold some each."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from data_tools.atomic import write_atomic
from data_tools.errors import MissingFileError
from federated.tasks.outcomes import ranking
from federated.tasks.sites import read_names, write_names
from federated.tasks.task import POOLED, TEST, UNSEEN
from seqnorm.batches import LabelledWindows
from seqnorm.holdout.windows import WindowSet
from seqnorm.models import build_model
from seqnorm.training import predict

if TYPE_CHECKING:
    import pandas as pd

    from federated.spec import Spec

__all__ = ["WindowTask"]

_NO_ROWS = np.empty(0, dtype=np.intp)


class WindowTask:
    """Binary labels of DNA windows, one client's rows at a time.

    Parameters
    ----------
    spec : Spec
    windows : WindowSet
        Its table has ``client`` and ``part`` beside label and place; see `draw_windows`. First the
        clients' windows, then those of the site that never trains.
    clients : tuple of str
        All of the run, also those whose windows are not here.

    Notes
    -----
    Training batches are shuffled, shifted by up to ``data.jitter`` bases and on a random strand;
    all others are as stored.
    """

    metrics = ("auprc", "auroc")
    measured_at_once = 64

    def __init__(self, spec: Spec, windows: WindowSet, clients: tuple[str, ...]) -> None:
        self.spec, self.windows, self.clients = spec, windows, clients
        self._held: dict[tuple[str, str], LabelledWindows] = {}

    @cached_property
    def _places(self) -> dict[tuple[str, str], NDArray[np.intp]]:
        """Rows of every holder and part, found once: there may be a thousand clients."""
        table, found = self.windows.table, defaultdict(list)
        for row, key in enumerate(zip(table["client"], table["part"], strict=True)):
            found[key].append(row)
        return {key: np.array(rows, dtype=np.intp) for key, rows in found.items()}

    @classmethod
    def prepare(cls, spec: Spec, folder: Path) -> WindowTask:
        """Draw the windows, and save them and who holds them in the folder ``data``."""
        # Not at a client, which would wait for what this imports.
        from federated.tasks.draw import draw_windows

        drawn = draw_windows(spec)
        rows = drawn.rows.assign(client=drawn.rows["client"].fillna(""))
        data = spec.data
        assert data is not None
        windows = WindowSet(rows, drawn.codes, data.jitter)
        drawn.split.save(folder / "data")
        if drawn.assays is not None:
            write_atomic(folder / "data" / "assays.csv", drawn.assays.to_csv(index=False))
        windows.save(folder / "data" / "windows.npz")
        write_names(drawn.split.clients, folder)
        return cls(spec, windows, drawn.split.clients)

    @classmethod
    def load(cls, spec: Spec, folder: Path) -> WindowTask:
        """Open what :meth:`prepare` saved.

        Raises
        ------
        MissingFileError
            If there is nothing.
        """
        path = folder / "data" / "windows.npz"
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file; the server's side of the run draws it")
        return cls(spec, WindowSet.load(path), read_names(folder))

    def share(self, folder: Path, client: str) -> None:
        """Save what one site may know: its own windows, and the names of all clients.

        Parameters
        ----------
        folder : path
            Of the run at that site.
        client : str
            Or ``UNSEEN``: the server, which has the windows of the site that never trains.
        """
        table = self.windows.table
        name = "" if client == UNSEEN else client
        mine = np.flatnonzero((table["client"] == name) & (table["part"] != ""))
        own = table.iloc[mine].reset_index(drop=True)
        (folder / "data").mkdir(parents=True, exist_ok=True)
        WindowSet(own, self.windows.codes[mine], self.windows.margin).save(
            folder / "data" / "windows.npz"
        )
        write_names(self.clients, folder)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of codes, labels, clients and parts."""
        table = self.windows.table
        found = hashlib.sha256(self.windows.codes.tobytes())
        for name in ("label", "client", "part"):
            found.update("\n".join(table[name].astype(str)).encode())
        return found.hexdigest()

    def holdings(self, folder: Path) -> pd.DataFrame:
        """What each client holds, a line a client; see `federated.partition.Partition.table`."""
        from federated.partition import Partition

        split = Partition.load(folder / "data")
        return split.table(self.windows.table.iloc[: split.total])

    def build(self, norm: str, seed: int) -> nn.Module:
        """Make the spec's model; models that differ in norm alone start from equal weights."""
        return build_model(self.spec.model.name, norm, seed, **self.spec.model.options)

    def rows_of(self, client: str, part: str) -> LabelledWindows:
        """A client's windows of a part; none where it has none."""
        key = (client, part)
        if key not in self._held:
            if client == POOLED:
                every = [rows for (c, p), rows in self._places.items() if c and p == part]
                mine = np.sort(np.concatenate(every)) if every else _NO_ROWS
            else:
                mine = self._places.get(("" if client == UNSEEN else client, part), _NO_ROWS)
            labels = self.windows.table["label"].to_numpy(dtype=np.float32)[mine]
            codes = torch.from_numpy(self.windows.codes[mine])
            self._held[key] = LabelledWindows(codes, torch.from_numpy(labels), self.windows.margin)
        return self._held[key]

    def examples(self, client: str, part: str) -> int:
        """Count the windows of a client's part."""
        return len(self.rows_of(client, part))

    def batches(
        self, client: str, part: str, batch_size: int, order: tuple[int, int] | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One-hot windows (n, 4, width) with labels (n,)."""
        held = self.rows_of(client, part)
        if order is None:
            return held.in_order(batch_size)
        return held.shuffled(batch_size, *order)

    def inputs(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """The one-hot windows."""
        return batch[0]

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean binary cross-entropy."""
        x, labels = batch
        logits: Tensor = model(x)
        return F.binary_cross_entropy_with_logits(logits.reshape(-1), labels)

    def evaluate(self, model: nn.Module, client: str, part: str = TEST) -> dict[str, float]:
        """Measure a model on a client's windows; see :meth:`measures`."""
        held = self.rows_of(client, part)
        logits = predict(model, held, batch_size=self.measured_at_once)
        return self.measures(client, part, torch.from_numpy(logits))

    def measures(self, client: str, part: str, scores: Tensor) -> dict[str, float]:
        """Cross-entropy, average precision and AUROC of logits of a client's windows.

        Where all labels are equal the last two are NaN, and where a logit is not finite all three.
        """
        held, logits = self.rows_of(client, part), scores.reshape(-1)
        found: dict[str, float] = {"examples": len(held)}
        nothing: dict[str, Any] = dict.fromkeys(("loss", *self.metrics), math.nan)
        if not len(held) or not bool(logits.isfinite().all()):
            return found | nothing
        loss = F.binary_cross_entropy_with_logits(logits, held.labels)
        auprc, auroc = ranking(logits, held.labels)
        return found | {"loss": loss.item(), "auprc": auprc, "auroc": auroc}
