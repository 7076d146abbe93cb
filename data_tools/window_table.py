"""Tables of labelled windows, as the commands write them: CSV or TSV with a header line."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import FormatError, InputError
from data_tools.faults import Faults, shown
from data_tools.formats.delimited import delimited_rows
from data_tools.formats.location import Location, location
from data_tools.formats.values import DECIMAL, INTEGER_DIGITS

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_COORDINATE = rf"[0-9]{{1,{INTEGER_DIGITS}}}"
_WHOLE = "-?[0-9]{1,18}"
_ROWS = 1 << 16
"""Rows that are held as Python's strings at a time."""


def read_windows(
    path: str | os.PathLike[str], *columns: str, max_inflated: int | None = None
) -> pd.DataFrame:
    r"""Read a table of windows.

    Parameters
    ----------
    path : path
        CSV (``.csv``) or TSV (``.tsv``) with a header line, also gzip or bgzip.
    *columns : str
        Columns that must be there beside ``chrom``, ``start`` and ``end``.
    max_inflated : int, optional
        To how many bytes a compressed file may inflate; 16 MiB or 200 times its size unless given.

    Returns
    -------
    DataFrame
        All columns of the file: ``chrom`` as text, ``start`` and ``end`` as int64 (0-based,
        half-open), ``label``, where there is one, as int64 0 or 1, any other as numbers where all
        of its fields are numbers or empty (NaN), else as text.

    Raises
    ------
    FormatError
        At the first row that is no window, as ``file:line``, or for a column that is lacking.
    InputError
        If the file cannot be read.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "windows.csv"
    ...     _ = file.write_text("chrom,start,end,label,score\nNA,0,10,1,0.5\n")
    ...     read_windows(file, "label").to_dict("records")
    [{'chrom': 'NA', 'start': 0, 'end': 10, 'label': 1, 'score': 0.5}]
    """
    table = _text_table(location(path), max_inflated)
    remedy = "give a table of windows with a header line"
    for name in ("chrom", "start", "end", *columns):
        table.column(name, remedy)
    out: dict[str, Any] = dict(table.columns)
    table.demand("chrom", out["chrom"].str.fullmatch(r"\S+"), "chrom is empty or holds a blank")
    for name in ("start", "end"):
        table.demand(name, out[name].str.fullmatch(_COORDINATE), f"{name} is no whole number")
        out[name] = out[name].astype("int64")
    table.demand("end", out["end"] > out["start"], "end is not above start")
    if "label" in out:
        table.demand("label", out["label"].isin(["0", "1"]), "label is neither 0 nor 1")
        out["label"] = out["label"].astype("int64")
    for other in set(out) - {"chrom", "start", "end", "label"}:
        out[other] = _numbers_or_text(out[other])
    return pd.DataFrame(out)


def read_scores(
    path: str | os.PathLike[str], column: str, count: int, *, max_inflated: int | None = None
) -> NDArray[np.float64]:
    """Read one column of numbers from a CSV or TSV with a header line.

    Parameters
    ----------
    path : path
        CSV (``.csv``) or TSV (``.tsv``), also gzip or bgzip.
    column : str
        Name of the column.
    count : int
        How many rows there must be.
    max_inflated : int, optional
        To how many bytes a compressed file may inflate; 16 MiB or 200 times its size unless given.

    Returns
    -------
    ndarray of float64, shape (count,)

    Raises
    ------
    FormatError
        If the column is lacking, or at the first field that is no finite number, as ``file:line``.
    InputError
        If the file cannot be read or has another number of rows.
    """
    table = _text_table(location(path), max_inflated)
    text = table.column(column, "name another")
    table.demand(column, text.str.fullmatch(DECIMAL), f"{column} is no number")
    values = _decimals(text.to_numpy(dtype=object))
    table.demand(column, np.isfinite(values), f"{column} is no finite number")
    if len(values) != count:
        raise InputError(f"{path}: {len(values)} scores for {count} windows: give one each")
    return values


@dataclass(frozen=True)
class _TextTable:
    """The columns of a table as text, and the line of each row."""

    path: Location
    columns: dict[str, pd.Series[str]]
    lines: NDArray[np.int64]

    def column(self, name: str, remedy: str) -> pd.Series[str]:
        if name not in self.columns:
            names = ", ".join(map(shown, list(self.columns)[:10]))
            raise FormatError(f"{self.path}:1: no column '{name}' (there are {names}): {remedy}")
        return self.columns[name]

    def demand(self, name: str, good: pd.Series[bool] | NDArray[np.bool_], fault: str) -> None:
        flags = np.asarray(good, dtype=np.bool_)
        if not flags.all():
            row = int(flags.argmin())
            value = shown(self.columns[name].iloc[row])
            place = f"{self.path}:{self.lines[row]}"
            raise FormatError(f"{place}: {fault}: {value}; correct or remove this row")


def _text_table(where: Location, max_inflated: int | None) -> _TextTable:
    separator = _SEPARATORS.get(Path(where.name.lower().removesuffix(".gz")).suffix)
    if separator is None:
        raise InputError(f"{where}: a table of windows is a .csv or .tsv file, also with .gz")
    faults = Faults(where)
    rows = delimited_rows(faults, separator, max_inflated)
    first, names = next(rows, (0, []))
    if not first:
        raise faults.error(None, "is empty: check that it is the right file")
    if not names:
        raise faults.error(first, "an empty line: begin with the names of the columns")
    parts, lines = [], []
    while part := list(islice(rows, _ROWS)):
        for line, row in part:
            if not row:
                raise faults.error(line, "an empty line: remove it")
        lines.append(np.array([line for line, _ in part], dtype=np.int64))
        parts.append(pd.DataFrame([row for _, row in part], columns=names, dtype="str"))
    if not parts:
        raise faults.error(None, "holds no window: check that it is the right file")
    table = pd.concat(parts, ignore_index=True)
    return _TextTable(where, {name: table[name] for name in names}, np.concatenate(lines))


def _numbers_or_text(column: pd.Series[str]) -> NDArray[Any]:
    """Give a column as numbers, NaN where it is empty, if all that stands in it are numbers."""
    text = column.to_numpy(dtype=object)
    if column.str.fullmatch(_WHOLE).all():
        return text.astype(np.int64)
    empty = (column == "").to_numpy(dtype=np.bool_)
    if not (column.str.fullmatch(DECIMAL).to_numpy(dtype=np.bool_) | empty).all():
        return text
    values = _decimals(np.where(empty, "nan", text))
    return values if (np.isfinite(values) | empty).all() else text


def _decimals(text: NDArray[Any]) -> NDArray[np.float64]:
    # As Python's float reads each: to the nearest.
    return text.astype(object).astype(np.float64)
