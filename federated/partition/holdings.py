"""Who holds which rows: the result of a scheme, its tables, and its files."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_tools.atomic import write_atomic
from data_tools.errors import MissingFileError
from federated.partition.checks import Ints, PartitionError
from federated.partition.columns import ByChromosome, BySite
from federated.partition.drawn import IID, GCSkew, QuantitySkew, Scheme
from federated.partition.labels import BatchConfounded, LabelSkew
from federated.partition.summary import client_table

AnyScheme = Scheme | ByChromosome | BySite

SCHEMES: Mapping[str, type[AnyScheme]] = {
    scheme.kind: scheme
    for scheme in (IID, LabelSkew, GCSkew, QuantitySkew, BatchConfounded, ByChromosome, BySite)
}
"""Every scheme by its kind, as files name it."""

NOBODY = -1
"""Owner of a dropped row."""

_RECORD, _ROWS = "partition.json", "partition.csv"


@dataclass(frozen=True, eq=False)
class Partition:
    """Which client holds which rows of a table.

    Attributes
    ----------
    clients : tuple of str
        K names, sorted, fit for files.
    rows : tuple of ndarray of int64
        Positions (0-based, as for ``iloc``) of each client's rows, ascending and disjoint.
    scheme : IID, LabelSkew, GCSkew, QuantitySkew, BatchConfounded, ByChromosome or BySite
        What it was drawn by; `dial` and `seed` are the scheme's.
    batches : tuple of str
        Assay batch of each client: its own, but for `BatchConfounded`.
    dropped : pandas.DataFrame
        ``row`` and ``reason`` of rows that no client holds, by row. Every row of the table is
        either dropped or held by one client.

    Examples
    --------
    >>> from federated.partition import IID, partition
    >>> rows = pd.DataFrame({"label": [0, 1, 0, 1]})
    >>> split = partition(rows, IID(clients=2, seed=3))
    >>> split.table(rows)[["client", "rows", "positives"]].values.tolist()
    [['client-0', 2, 1], ['client-1', 2, 1]]
    """

    clients: tuple[str, ...]
    rows: tuple[Ints, ...]
    scheme: AnyScheme
    batches: tuple[str, ...]
    dropped: pd.DataFrame

    def __post_init__(self) -> None:
        if not len(self.clients) == len(self.rows) == len(self.batches):
            raise PartitionError(
                f"{len(self.clients)} clients, rows of {len(self.rows)} and batches of "
                f"{len(self.batches)}: give each client rows and a batch"
            )
        if list(self.clients) != sorted(set(self.clients)):
            raise PartitionError("names of clients must be sorted and differ from one another")
        every = np.concatenate([*self.rows, self.dropped["row"].to_numpy(dtype=np.int64)])
        twice = np.bincount(every) if len(every) and every.min() >= 0 else np.zeros(1)
        if (twice != 1).any():
            at = int((twice != 1).argmax())
            raise PartitionError(
                f"row {at} (0-based) is held or dropped {int(twice[at])} times, not once"
            )
        for name, held in zip(self.clients, self.rows, strict=True):
            if (np.diff(held) <= 0).any():
                raise PartitionError(f"{name}: its rows must ascend")

    @property
    def total(self) -> int:
        """Rows of the table, held and dropped."""
        return sum(len(held) for held in self.rows) + len(self.dropped)

    @property
    def dial(self) -> float | None:
        """Value of the scheme's dial; None where it has none."""
        return self.scheme.dial

    @property
    def seed(self) -> int | None:
        """Seed of the scheme; None where nothing was drawn."""
        return self.scheme.seed

    def owners(self) -> Ints:
        """Number of the client of each row, -1 for a dropped one, shape (N,)."""
        owner = np.full(self.total, NOBODY, dtype=np.int64)
        for client, held in enumerate(self.rows):
            owner[held] = client
        return owner

    def assignment(self) -> "pd.Series[Any]":
        """Name of the client of each row as a categorical of length N, NaN for a dropped one."""
        names = pd.Categorical.from_codes(self.owners(), categories=pd.Index(self.clients))
        return pd.Series(names, name="client")

    def table(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Describe what each client holds, a line a client; see `client_table`."""
        self.check_table(rows)
        site = self.scheme.column if isinstance(self.scheme, BySite) else None
        return client_table(self.clients, self.batches, self.rows, rows, site)

    def check_table(self, rows: pd.DataFrame) -> None:
        """Raise `PartitionError` unless the table has as many rows as were split."""
        if len(rows) != self.total:
            raise PartitionError(
                f"the table has {len(rows)} rows, the partition is of {self.total}; "
                "give the table that was split"
            )

    def save(self, folder: Path) -> None:
        """Write ``partition.csv``, a line a row, then ``partition.json``, which vouches for it."""
        folder.mkdir(parents=True, exist_ok=True)
        why = pd.Series("", index=range(self.total), dtype=object)
        why.loc[self.dropped["row"]] = self.dropped["reason"].to_numpy()
        lines = pd.DataFrame(
            {"client": self.assignment().astype(object).fillna(""), "dropped": why}
        )
        text = lines.to_csv(index_label="row", lineterminator="\n")
        write_atomic(folder / _ROWS, text)
        record = {
            "scheme": self.scheme.kind,
            "settings": asdict(self.scheme),
            "clients": self.clients,
            "batches": self.batches,
            "rows": self.total,
            "sha256": sha256(text.encode()).hexdigest(),
        }
        write_atomic(folder / _RECORD, json.dumps(record, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> "Partition":
        """Read what `save` wrote.

        Raises
        ------
        MissingFileError
            If one of the two files is not there.
        PartitionError
            If they are damaged or do not belong together.
        """
        for name in (_RECORD, _ROWS):
            if not (folder / name).is_file():
                raise MissingFileError(f"{folder / name}: no such file; save the partition first")
        raw = (folder / _ROWS).read_bytes()
        try:
            record = json.loads((folder / _RECORD).read_text())
            intact = record["sha256"] == sha256(raw).hexdigest()
            scheme = SCHEMES[record["scheme"]](**_tuples(record["settings"]))
            clients, batches = tuple(record["clients"]), tuple(record["batches"])
        except (ValueError, KeyError, TypeError) as error:
            raise PartitionError(
                f"{folder / _RECORD}: not the record of a partition ({error}); save it again"
            ) from error
        if not intact:
            raise PartitionError(
                f"{folder / _ROWS}: changed since {_RECORD} was written; save the partition again"
            )
        # "NA" is a name like any other here.
        lines = pd.read_csv(io.BytesIO(raw), dtype=str, keep_default_na=False)
        owner = lines["client"].to_numpy(dtype=object)
        lost = np.flatnonzero(owner == "")
        dropped = pd.DataFrame({"row": lost, "reason": lines["dropped"].to_numpy()[lost]})
        held = tuple(np.flatnonzero(owner == name) for name in clients)
        return cls(clients, held, scheme, batches, dropped)


def _tuples(settings: dict[str, Any]) -> dict[str, Any]:
    """Lists, which is what JSON makes of tuples, as tuples again."""

    def restored(value: Any) -> Any:
        return tuple(restored(v) for v in value) if isinstance(value, list) else value

    return {name: restored(value) for name, value in settings.items()}
