"""Tables of labelled windows, as the commands write them: CSV or TSV with a header line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import FormatError, InputError, MissingFileError

_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_INTEGER = r"[0-9]{1,13}"


def read_windows(path: str | os.PathLike[str], *columns: str) -> pd.DataFrame:
    r"""Read a table of windows.

    Parameters
    ----------
    path : path
        CSV (``.csv``) or TSV (``.tsv``) with a header line, also gzipped.
    *columns : str
        Columns that must be there beside ``chrom``, ``start`` and ``end``.

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
    where = Path(path)
    table = _text_table(where)
    for name in ("chrom", "start", "end", *columns):
        if name not in table:
            raise FormatError(
                f"{where}:1: no column '{name}' (there are {', '.join(map(str, table))}): "
                "give a table of windows with a header line"
            )
    out = table.copy()
    _all(where, table["chrom"], table["chrom"].str.fullmatch(r"\S+"), "chrom is empty or blank")
    for name in ("start", "end"):
        _all(where, table[name], table[name].str.fullmatch(_INTEGER), f"{name} is no whole number")
        out[name] = table[name].astype("int64")
    _all(where, table["end"], out["end"] > out["start"], "end is not above start")
    if "label" in table:
        _all(where, table["label"], table["label"].isin(["0", "1"]), "label is neither 0 nor 1")
        out["label"] = table["label"].astype("int64")
    for other in set(table) - {"chrom", "start", "end", "label"}:
        out[other] = _numbers_or_text(table[other])
    return out


def read_scores(path: str | os.PathLike[str], column: str, count: int) -> NDArray[np.float64]:
    """Read one column of numbers from a CSV or TSV with a header line.

    Parameters
    ----------
    path : path
        CSV (``.csv``) or TSV (``.tsv``), also gzipped.
    column : str
        Name of the column.
    count : int
        How many rows there must be.

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
    where = Path(path)
    table = _text_table(where)
    if column not in table:
        names = ", ".join(map(str, table))
        raise FormatError(f"{where}:1: no column '{column}' (there are {names}): name another")
    text = table[column]
    values = pd.to_numeric(text, errors="coerce").to_numpy(np.float64)
    _all(where, text, np.isfinite(values), f"{column} is no number")
    if len(values) != count:
        raise InputError(f"{where}: {len(values)} scores for {count} windows: give one each")
    return values


def _text_table(where: Path) -> pd.DataFrame:
    separator = _SEPARATORS.get(Path(where.name.lower().removesuffix(".gz")).suffix)
    if separator is None:
        raise InputError(f"{where}: a table of windows is a .csv or .tsv file, also with .gz")
    try:
        table = pd.read_csv(
            where,
            sep=separator,
            dtype=str,
            na_filter=False,
            skip_blank_lines=False,
            index_col=False,
            compression="gzip" if where.name.lower().endswith(".gz") else None,
            encoding="utf-8-sig",
            on_bad_lines="error",
        )
    except FileNotFoundError:
        raise MissingFileError(f"{where}: no such file: check the path") from None
    except pd.errors.EmptyDataError:
        raise FormatError(f"{where}: is empty: check that it is the right file") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeDecodeError, EOFError) as err:
        what = " ".join(str(err).split())
        raise FormatError(f"{where}: cannot be read as a table ({what}): write it anew") from None
    except OSError as err:
        raise InputError(f"{where}: cannot be read: {err.strerror or err}") from None
    if table.empty:
        raise FormatError(f"{where}: holds no window: check that it is the right file")
    return table


def _numbers_or_text(column: pd.Series[str]) -> NDArray[Any]:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy()
    unread = pd.isna(numbers) & (column != "").to_numpy()
    fields: NDArray[Any] = column.to_numpy(dtype=object) if unread.any() else numbers
    return fields


def _all(
    where: Path, column: pd.Series[str], good: pd.Series[bool] | NDArray[np.bool_], fault: str
) -> None:
    flags = np.asarray(good, dtype=np.bool_)
    if not flags.all():
        row = int(flags.argmin())
        raise FormatError(
            f"{where}:{row + 2}: {fault}: {column.iloc[row]!r}; correct or remove this row"
        )
