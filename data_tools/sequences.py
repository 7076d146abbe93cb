"""Tables of sequences with labels: FASTA, TSV, CSV, parquet and GenBank as one DataFrame.

Names and labels are text as it stands in the file (a sample called NA is not missing), until a
whole column is numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd

from data_tools.counts import Counts
from data_tools.encode import LETTERS
from data_tools.errors import InputError
from data_tools.faults import Faults, shown
from data_tools.formats.location import Location, location
from data_tools.formats.sequence_files import READERS, Record
from data_tools.formats.values import WrongRowError, integer, number
from data_tools.policies import Duplicates, ErrorOrDrop, Sieve, check_policy

SequenceFormat = Literal["fasta", "tsv", "csv", "parquet", "genbank"]

_SUFFIXES: dict[str, SequenceFormat] = {
    **dict.fromkeys((".fa", ".fasta", ".fna", ".ffn", ".fas"), "fasta"),
    **dict.fromkeys((".tsv", ".tab", ".txt"), "tsv"),
    ".csv": "csv",
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".gb", ".gbk", ".genbank", ".gbff"), "genbank"),
}
_KEPT = ("name", "sequence")


def read_sequences(
    path: str | os.PathLike[str],
    labels: str | os.PathLike[str] | None = None,
    *,
    format: SequenceFormat | None = None,  # noqa: A002
    name: str = "name",
    sequence: str = "sequence",
    ambiguous: Literal["keep", "error", "drop"] = "keep",
    duplicates: Duplicates = "error",
    unlabelled: ErrorOrDrop = "error",
    counts: Counts | None = None,
    max_inflated: int | None = None,
) -> pd.DataFrame:
    r"""Read named sequences and their labels.

    Parameters
    ----------
    path : path or URL
        FASTA, whose headers are ``>name key=value key=value``; TSV or CSV with a line of column
        names (fields may be quoted); parquet (needs ``pyarrow``); or GenBank. All but parquet
        also gzip or bgzip.
    labels : path, optional
        A TSV, CSV or parquet table with a column of names and one for each label, to be joined to
        the sequences by name; it must label every sequence, and may hold more.
    format : {"fasta", "tsv", "csv", "parquet", "genbank"}, optional
        Told by the end of the file's name unless given.
    name, sequence : str
        The columns of a table that hold them. Without a column ``name``, a table's rows are
        called by their numbers, from 1.
    ambiguous : {"keep", "error", "drop"}
        For sequences with a letter other than A, C, G and T that is legal in DNA (N, R, Y, ...).
    duplicates : {"error", "drop", "keep"}
        For sequences with the name of an earlier one. ``"drop"`` keeps the first.
    unlabelled : {"error", "drop"}
        For sequences that the table of labels does not name.
    counts : Counts, optional
        Learns how many were read, dropped and why. Without it, what is dropped is a
        `DroppedWarning`.
    max_inflated : int, optional
        To how many bytes a compressed file may inflate; 16 MiB or 200 times its size unless given.

    Returns
    -------
    DataFrame
        ``name``, ``sequence`` (letters as in the file) and the labels: int64 or float64 where
        all of a column's values are that, else text. Of GenBank, the labels are ``organism``,
        ``molecule_type`` and ``description``.

    Raises
    ------
    FormatError
        At the first record that is not sound, as ``file:line``.
    InputError
        If the file cannot be read, or a record does not fit a policy.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "a.fa"
    ...     _ = file.write_text(">NA bound=1\nACGT\nAC\n>b bound=0\nTT\n")
    ...     read_sequences(file).to_numpy().tolist()
    [['NA', 'ACGTAC', 1], ['b', 'TT', 0]]
    """
    check_policy("ambiguous", ambiguous, Literal["keep", "error", "drop"])
    check_policy("duplicates", duplicates, Duplicates)
    check_policy("unlabelled", unlabelled, ErrorOrDrop)
    faults = Faults(location(path))
    table, sieve = _read(faults, format, name, sequence, counts, max_inflated)
    _judge(table, sieve, ambiguous, duplicates)
    if labels is not None:
        other = read_labels(location(labels), name, max_inflated)
        known = table["name"].isin(other.index).to_numpy()
        sieve.judge(
            known,
            unlabelled,
            f"without a label in {labels}",
            lambda row: f"{shown(table['name'].iloc[row])} has no label in {labels}: add its row",
        )
        both = [key for key in table if key in other]
        if both:
            raise faults.error(
                None,
                f"the label {shown(both[0])} is in {labels} as well: rename it in one",
                InputError,
            )
        table = table[sieve.keep].join(other, on="name")
    else:
        table = table[sieve.keep]
    if table.empty:
        raise faults.error(None, "no sequence is left, all of them were dropped", InputError)
    return table.reset_index(drop=True)


def check_with_faults(
    faults: Faults,
    format: SequenceFormat,  # noqa: A002
    max_inflated: int | None = None,
) -> pd.DataFrame:
    """Read with the usual policies; ``faults`` decides whether the first fault ends it."""
    table, sieve = _read(faults, format, "name", "sequence", None, max_inflated)
    _judge(table, sieve, "keep", "error")
    return table[sieve.keep]


def read_labels(path: Location, name: str, max_inflated: int | None = None) -> pd.DataFrame:
    """Read a table of labels, by name."""
    faults = Faults(path)
    records = list(_records(faults, None, name, None, max_inflated))
    seen: dict[str, int] = {}
    for record in records:
        if record.name in seen:
            raise faults.error(
                record.line, f"{shown(record.name)} has labels on line {seen[record.name]} already"
            )
        seen[record.name] = record.line
    return _label_columns(faults, records).set_index(pd.Index(list(seen), name=name))


def sequence_format(path: Location) -> SequenceFormat | None:
    """Tell the format by the end of a file's name.

    Examples
    --------
    >>> sequence_format(Path("a.FASTA.gz")), sequence_format(Path("a.bed"))
    ('fasta', None)
    """
    bare = path.name.lower().removesuffix(".gz").removesuffix(".bgz")
    return _SUFFIXES.get(Path(bare).suffix)


def _records(
    faults: Faults,
    format: SequenceFormat | None,  # noqa: A002
    name: str,
    sequence: str | None,
    max_inflated: int | None,
) -> Iterator[Record]:
    kind = format or sequence_format(faults.path)
    if kind is None or kind not in get_args(SequenceFormat):
        known = ", ".join(get_args(SequenceFormat))
        what = "" if format is None else f" {format!r}"
        raise faults.error(
            None,
            f"unknown format{what} of a sequence file: pass format=, one of {known}",
            InputError,
        )
    if sequence is None and kind in ("fasta", "genbank"):
        raise faults.error(None, "labels are read from TSV, CSV or parquet", InputError)
    return READERS[kind](faults, name, sequence, max_inflated)


def _read(
    faults: Faults,
    format: SequenceFormat | None,  # noqa: A002
    name: str,
    sequence: str,
    counts: Counts | None,
    max_inflated: int | None,
) -> tuple[pd.DataFrame, Sieve]:
    records = []
    for record in _records(faults, format, name, sequence, max_inflated):
        if _sound(record, faults):
            records.append(record)
    if not records and not faults.count:
        raise faults.error(None, "holds no sequence: check that it is the right file")
    names = pd.DataFrame(
        {"name": [r.name for r in records], "sequence": [r.sequence for r in records]}, dtype="str"
    )
    table = pd.concat([names, _label_columns(faults, records)], axis=1)
    return table, Sieve(faults, np.array([r.line for r in records], dtype=np.int64), counts)


def _sound(record: Record, faults: Faults) -> bool:
    letters = record.sequence
    if record.name and letters.isascii() and not letters.encode().translate(None, LETTERS):
        if letters:
            return True
        faults.add(record.line, f"{shown(record.name)} has no sequence: add it or remove the name")
    elif not record.name:
        faults.add(record.line, "the name is empty: give every sequence one")
    else:
        odd = next(c for c in letters if c.encode() not in LETTERS)
        rna = "; this is RNA, write T for U" if odd in "Uu" else ""
        faults.add(
            record.line,
            f"{shown(record.name)} holds the illegal character {odd!r} at position "
            f"{letters.index(odd) + 1}: only IUPAC letters of DNA{rna}",
        )
    return False


def _label_columns(faults: Faults, records: list[Record]) -> pd.DataFrame:
    """Give one column for each label; every record must have each."""
    if not records:
        return pd.DataFrame()
    keys = list(records[0].labels)
    columns: dict[str, list[str]] = {key: [] for key in keys}
    for record in records:
        if list(record.labels) != keys and set(record.labels) != set(keys):
            faults.add(
                record.line,
                f"{shown(record.name)} has the labels {sorted(record.labels)}, the first record "
                f"has {sorted(keys)}: give every record the same",
            )
        for key in keys:
            columns[key].append(record.labels.get(key, ""))
    for key in keys:
        if key in _KEPT:
            raise faults.error(records[0].line, f"a label cannot be called {key!r}: rename it")
        for record, value in zip(records, columns[key], strict=True):
            if not value and key in record.labels:
                faults.add(record.line, f"the label {shown(key)} is empty: fill it in")
    return pd.DataFrame({key: _typed(values) for key, values in columns.items()})


def _typed(values: list[str]) -> pd.Series:
    for read, kind in ((integer, "int64"), (number, "float64")):
        try:
            return pd.Series([read(value, "") for value in values], dtype=kind)
        except WrongRowError:
            continue
    return pd.Series(values, dtype="str")


def _judge(table: pd.DataFrame, sieve: Sieve, ambiguous: str, duplicates: str) -> None:
    if ambiguous != "keep" or sieve.counts is not None:
        bare = [not s.encode().translate(None, b"ACGTacgt") for s in table["sequence"]]
        sieve.judge(
            np.array(bare, dtype=bool),
            ambiguous,
            "with ambiguous letters",
            lambda row: (
                f"{shown(table['name'].iloc[row])} holds letters other than A, C, G, T: "
                "pass ambiguous='keep' or 'drop'"
            ),
        )
    again = np.zeros(len(table), dtype=bool)
    again[sieve.keep] = table.loc[sieve.keep, "name"].duplicated().to_numpy()
    sieve.judge(
        ~again,
        duplicates,
        "duplicates",
        lambda row: (
            f"the name {shown(table['name'].iloc[row])} occurs twice: rename one of the records, "
            "or pass duplicates='drop' or 'keep'"
        ),
    )
