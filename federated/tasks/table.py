"""TableTask: what rows of a table come to, learnt by clients that hold some each."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_tools.atomic import write_atomic
from data_tools.errors import InputError, MissingFileError
from federated.partition import partition
from federated.tasks.assays import assays_of, with_assays
from federated.tasks.linear import Linear
from federated.tasks.outcomes import Label, Outcome, Survival
from federated.tasks.parts import draw_parts
from federated.tasks.sites import read_names, write_names
from federated.tasks.table_file import read_table
from federated.tasks.task import POOLED, TEST

if TYPE_CHECKING:
    from federated.spec import Spec

__all__ = ["Held", "Rows", "TableTask"]

_NO_ROWS = np.empty(0, dtype=np.int64)


class Rows(NamedTuple):
    """A batch.

    Attributes
    ----------
    inputs : Tensor
        float32, (B, F).
    target : Tensor
        float64: labels (B, 1), or times and events (B, 2).
    """

    inputs: Tensor
    target: Tensor


@dataclass(frozen=True, eq=False)
class Held:
    """Rows, whose they are and what for, as they lie on disk.

    Attributes
    ----------
    features : ndarray of str, shape (F,)
    inputs : ndarray of float32, shape (N, F)
    target : ndarray of float64, shape (N, 1) or (N, 2)
        The label, or time and event.
    client, part : ndarray of str, shape (N,)
    """

    features: NDArray[np.str_]
    inputs: NDArray[np.float32]
    target: NDArray[np.float64]
    client: NDArray[np.str_]
    part: NDArray[np.str_]

    def save(self, path: Path) -> None:
        """Write a file, whole or not at all, without pickle."""
        stream = io.BytesIO()
        arrays: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        np.savez(stream, **arrays)
        write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> Held:
        """Read what :meth:`save` wrote."""
        if not path.is_file():
            raise MissingFileError(f"{path}: no such file; the server's side of the run writes it")
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
                return cls(**{field.name: stored[field.name] for field in fields(cls)})
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: damaged ({error}); begin the run anew") from error


class TableTask:
    """A label or a time to an event, by a linear model of a row's features.

    Parameters
    ----------
    held : Held
    clients : tuple of str, optional
        All of the run, also those whose rows are not here; those of the rows unless given.

    Examples
    --------
    >>> held = Held(
    ...     np.array(["age"]),
    ...     np.array([[1.0], [2.0]], dtype=np.float32),
    ...     np.array([[0.0], [1.0]]),
    ...     np.array(["here", "there"]),
    ...     np.array(["train", "test"]),
    ... )
    >>> task = TableTask(held)
    >>> task.clients, task.examples("here", "train"), task.examples("here", "test")
    (('here', 'there'), 1, 0)
    """

    measured_at_once = 1 << 30  # all rows: a score is a few multiplications

    def __init__(self, held: Held, clients: tuple[str, ...] | None = None) -> None:
        self.held = held
        self.clients: tuple[str, ...] = clients or tuple(sorted(set(held.client.tolist())))
        self.outcome: Outcome = Label() if held.target.shape[1] == 1 else Survival()
        whose = {client: held.client == client for client in self.clients}
        whose[POOLED] = np.ones(len(held.client), dtype=np.bool_)
        self._rows = {
            (client, part): np.flatnonzero(its & (held.part == part))
            for client, its in whose.items()
            for part in np.unique(held.part).tolist()
        }
        self._inputs = torch.from_numpy(held.inputs)
        self._target = torch.from_numpy(held.target)

    @classmethod
    def prepare(cls, spec: Spec, folder: Path) -> TableTask:
        """Read the file of a spec, share its rows out and save them in the folder ``data``.

        Raises
        ------
        FormatError
            For a file that is not as the spec says; see `federated.tasks.table_file.read_table`.
        PartitionError
            For rows that cannot be split over clients as asked.
        """
        table = spec.table
        assert table is not None
        scheme = spec.partition.build()
        rows = read_table(table, getattr(scheme, "column", None))
        split = partition(rows.columns, scheme)
        part = np.full(len(rows.target), "", dtype="<U10")
        names = np.full(len(rows.target), "", dtype=f"<U{max(map(len, split.clients))}")
        for client, mine in zip(split.clients, split.rows, strict=True):
            names[mine] = client
            test = None if rows.test is None else rows.test[mine]
            part[mine] = draw_parts(rows.outcome[mine], test, table, client)
        kept = names != ""
        inputs = rows.inputs
        if spec.assay is not None:
            inputs = with_assays(inputs, names, assays_of(spec.assay, split))
        held = Held(
            np.array(rows.features), inputs[kept], rows.target[kept], names[kept], part[kept]
        )
        (folder / "data").mkdir(parents=True, exist_ok=True)
        split.save(folder / "data")
        holdings = split.table(rows.columns).to_csv(index=False, float_format="%.17g")
        write_atomic(folder / "data" / "holdings.csv", holdings)
        held.save(folder / "data" / "table.npz")
        write_names(split.clients, folder)
        return cls(held, split.clients)

    @classmethod
    def load(cls, spec: Spec, folder: Path) -> TableTask:
        """Open what :meth:`prepare` saved.

        Raises
        ------
        MissingFileError
            If there is nothing.
        InputError
            If it is damaged.
        """
        return cls(Held.load(folder / "data" / "table.npz"), read_names(folder))

    def share(self, folder: Path, client: str) -> None:
        """Save what one site may know: its own rows, and the names of all clients.

        Parameters
        ----------
        folder : path
            Of the run at that site.
        client : str
            Or ``UNSEEN``: the server, which has no rows.
        """
        mine = self.held.client == client
        own = {f.name: getattr(self.held, f.name) for f in fields(self.held)}
        own |= {name: own[name][mine] for name in ("inputs", "target", "client", "part")}
        (folder / "data").mkdir(parents=True, exist_ok=True)
        Held(**own).save(folder / "data" / "table.npz")
        write_names(self.clients, folder)

    @property
    def metrics(self) -> tuple[str, ...]:
        """``accuracy`` and ``auroc`` of a label, ``c_index`` of a time to an event."""
        return self.outcome.metrics

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that :class:`Held` holds."""
        found = hashlib.sha256()
        for field in fields(self.held):
            values = getattr(self.held, field.name)
            found.update(f"{field.name} {values.dtype} {values.shape}\n".encode())
            found.update(values.tobytes())
        return found.hexdigest()

    def holdings(self, folder: Path) -> pd.DataFrame:
        """What each client holds, a line a client; see `federated.partition.Partition.table`.

        A time to an event counts as positive where the event was seen.
        """
        return pd.read_csv(folder / "data" / "holdings.csv", keep_default_na=False)

    def build(self, norm: str, seed: int) -> nn.Module:
        """Make the model, with initial weights by seed."""
        return Linear(self.held.inputs.shape[1], norm, seed)

    def rows_of(self, client: str, part: str) -> Rows:
        """A client's rows of a part, or those of all clients, ``POOLED``; in the file's order."""
        return self._take(self._rows.get((client, part), _NO_ROWS))

    def examples(self, client: str, part: str) -> int:
        """Count the rows of a client's part."""
        return len(self._rows.get((client, part), _NO_ROWS))

    def batches(
        self, client: str, part: str, batch_size: int, order: tuple[int, int] | None
    ) -> Iterator[Rows]:
        """Features (B, F) with targets, in the file's order or shuffled by seed and epoch."""
        mine = self._rows.get((client, part), _NO_ROWS)
        if order is not None:
            mine = np.random.default_rng(order).permutation(mine)
        for first in range(0, len(mine), batch_size):
            yield self._take(mine[first : first + batch_size])

    def inputs(self, batch: Rows) -> Tensor:
        """The features."""
        return batch.inputs

    def loss(self, model: nn.Module, batch: Rows) -> Tensor:
        """Mean loss of a batch; see `federated.tasks.outcomes`."""
        scores: Tensor = model(batch.inputs)
        return self.outcome.loss(scores, batch.target)

    def evaluate(self, model: nn.Module, client: str, part: str = TEST) -> dict[str, float]:
        """Loss and metrics of a client's part as a whole, in evaluation mode.

        All are NaN where there is no row or a score is not finite.
        """
        return self.evaluate_rows(model, self.rows_of(client, part))

    def evaluate_rows(self, model: nn.Module, rows: Rows) -> dict[str, float]:
        """As :meth:`evaluate`, of any rows, such as those of all clients together."""
        training = model.training
        model.eval()
        with torch.no_grad():
            scores = model(rows.inputs).cpu() if len(rows.target) else torch.empty(0)
        model.train(training)
        return self._measures(scores, rows.target)

    def measures(self, client: str, part: str, scores: Tensor) -> dict[str, float]:
        """Loss and metrics of scores of a client's part; see :meth:`evaluate`."""
        return self._measures(scores, self.rows_of(client, part).target)

    def _measures(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        found: dict[str, float] = {"examples": len(target)}
        found |= dict.fromkeys(("loss", *self.metrics), math.nan)
        if not len(target) or not bool(scores.isfinite().all()):
            return found
        loss = self.outcome.loss(scores.double(), target).item()
        return found | {"loss": loss} | self.outcome.measures(scores, target)

    def _take(self, rows: NDArray[np.int64]) -> Rows:
        at = torch.from_numpy(rows)
        return Rows(self._inputs[at], self._target[at])
