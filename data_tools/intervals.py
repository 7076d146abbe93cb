"""Read and check BED and narrowPeak files.

Coordinates are 0-based and half-open. The reader refuses what common readers guess at: a row
that is wrong stops the reading with ``file:line`` and the remedy, because a peak that is dropped
or shifted in silence is a wrong label later.

References
----------
BED: https://samtools.github.io/hts-specs/BEDv1.pdf;
narrowPeak: https://genome.ucsc.edu/FAQ/FAQformat.html#format12
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import FormatError, InputError, MissingFileError, unknown_chromosome

_BED = ["chrom", "start", "end", "name", "score", "strand"]
_NARROW_PEAK = [*_BED, "signal", "p_value", "q_value", "summit"]
_SUPPORTED = "supported are BED with 3 to 6 columns and narrowPeak with 10"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_INTEGER = re.compile(r"-?[0-9]{1,13}", re.ASCII)
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII)

Column = tuple[str, ...]


class _HasLengths(Protocol):
    @property
    def lengths(self) -> Mapping[str, int]: ...


def read_intervals(path: str | os.PathLike[str], genome: _HasLengths | None = None) -> pd.DataFrame:
    r"""Read a BED (3 to 6 columns) or narrowPeak (10 columns) file, plain or gzip.

    Comments, ``track`` and ``browser`` lines and empty lines are skipped; Windows line ends and
    a byte order mark are understood. Rows keep the order of the file.

    Parameters
    ----------
    path : path
        The file; compression is told by the content, not by the name.
    genome : Genome, optional
        Also check that every interval lies on a chromosome of it. Anything with ``lengths``.

    Returns
    -------
    DataFrame
        ``chrom``, ``start``, ``end`` (int64) and, as far as the file has them, ``name``,
        ``score`` (int64), ``strand``; for narrowPeak also ``signal``, ``p_value``, ``q_value``
        (float64, as in the file: -1 means not given) and ``summit``, the absolute position
        ``start`` + column 10: int64, or Int64 with missing values where column 10 is -1.

    Raises
    ------
    FormatError
        At the first row that does not keep to the format, as ``file:line``.
    InputError
        If the file cannot be read, or an interval does not fit the genome.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bed = Path(folder) / "peaks.bed"
    ...     _ = bed.write_text("chr1\t10\t20\tp1\nchr2\t0\t5\tp2\n")
    ...     table = read_intervals(bed)
    >>> table["end"].tolist(), list(table.columns)
    ([20, 5], ['chrom', 'start', 'end', 'name'])
    """
    where = Path(path)
    lines = _data_lines(where, _text(where))
    columns = _columns(where, lines)
    table = _Checker(where, [number for number, _ in lines]).table(columns)
    if genome is not None:
        _check_genome(where, [number for number, _ in lines], table, genome)
    return table


def _text(path: Path) -> str:
    """Read the whole file as text with LF line ends."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file: check the path") from None
    except OSError as err:
        raise InputError(f"{path}: cannot be read: {err.strerror}") from err
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, OSError, zlib.error) as err:
            message = f"{path}: broken gzip ({err}): fetch or compress the file again"
            raise FormatError(message) from err
    raw = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        raise FormatError(f"{path}:{line}: not UTF-8 text: save the file as UTF-8") from None
    if match := _CONTROL.search(text):
        line = text.count("\n", 0, match.start()) + 1
        raise FormatError(
            f"{path}:{line}: control character {match[0]!r}: save as plain text with LF line ends"
        )
    return text


def _data_lines(path: Path, text: str) -> list[tuple[int, str]]:
    """Give (line number, line) of the lines that hold an interval."""
    lines = [
        (number, line)
        for number, line in enumerate(text.split("\n"), start=1)
        # Only with a blank after it: a chromosome may be called track, and no row may vanish.
        if line and not line.startswith(("#", "track ", "browser "))
    ]
    if not lines:
        raise FormatError(f"{path}: holds no interval: check that it is the right file")
    return lines


def _columns(path: Path, lines: list[tuple[int, str]]) -> dict[str, Column]:
    """Split the lines at tabs into named columns of one length."""
    first, head = lines[0]
    count = head.count("\t") + 1
    if not (3 <= count <= 6 or count == 10):
        hint = "; columns are separated by tabs, not blanks" if count == 1 else ""
        raise FormatError(f"{path}:{first}: {count} columns, {_SUPPORTED}{hint}")
    rows = []
    for number, line in lines:
        row = line.split("\t")
        if len(row) != count:
            raise FormatError(
                f"{path}:{number}: {len(row)} columns, line {first} has {count}: "
                "give every row the same columns, separated by tabs"
            )
        rows.append(row)
    names = _NARROW_PEAK if count == 10 else _BED[:count]
    return dict(zip(names, zip(*rows, strict=True), strict=True))


class _Checker:
    """Turns columns of text into columns of values; knows the line of every row."""

    def __init__(self, path: Path, numbers: list[int]) -> None:
        self.path, self.numbers = path, numbers

    def table(self, columns: dict[str, Column]) -> pd.DataFrame:
        for name in ("chrom", "name"):
            if name in columns:
                good = [bool(v) and (name == "name" or not _blank(v)) for v in columns[name]]
                self._all(good, columns[name], f"{name} is empty or holds a blank")
        out: dict[str, Any] = {"chrom": list(columns["chrom"])}
        start = out["start"] = self._integers(columns["start"], "start")
        end = out["end"] = self._integers(columns["end"], "end")
        self._all(start >= 0, columns["start"], "start is below 0")
        self._all(end > start, columns["end"], "end is not above start")
        if "name" in columns:
            out["name"] = list(columns["name"])
        if "score" in columns:
            score = out["score"] = self._integers(columns["score"], "score")
            fault = "score is outside 0 to 1000"
            self._all((score >= 0) & (score <= 1000), columns["score"], fault)
        if "strand" in columns:
            good = [v in ("+", "-", ".") for v in columns["strand"]]
            self._all(good, columns["strand"], "strand is none of + - .")
            out["strand"] = list(columns["strand"])
        if "summit" in columns:
            out |= self._peak_columns(columns, start, end)
        return pd.DataFrame(out)

    def _peak_columns(
        self, columns: dict[str, Column], start: NDArray[np.int64], end: NDArray[np.int64]
    ) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name in ("signal", "p_value", "q_value"):
            out[name] = self._numbers(columns[name], name)
        for name in ("p_value", "q_value"):
            good = (out[name] >= 0) | (out[name] == -1)
            self._all(good, columns[name], f"{name} is below 0 and not -1 (not given)")
        offset = self._integers(columns["summit"], "summit")
        good = (offset >= -1) & (offset < end - start)
        fault = "summit (column 10, counted from start; -1 for none) lies outside the interval"
        self._all(good, columns["summit"], fault)
        summit = pd.Series(start + offset)
        missing = offset == -1
        out["summit"] = summit.astype("Int64").mask(missing) if missing.any() else summit
        return out

    def _integers(self, column: Column, name: str) -> NDArray[np.int64]:
        good = [_INTEGER.fullmatch(v) is not None for v in column]
        self._all(good, column, f"{name} is not an integer of at most 13 digits")
        return np.array([int(v) for v in column], dtype=np.int64)

    def _numbers(self, column: Column, name: str) -> NDArray[np.float64]:
        good = [_NUMBER.fullmatch(v) is not None for v in column]
        self._all(good, column, f"{name} is not a number")
        values = np.array([float(v) for v in column], dtype=np.float64)
        self._all(np.isfinite(values), column, f"{name} is too large")
        return values

    def _all(self, good: NDArray[np.bool_] | list[bool], column: Column, fault: str) -> None:
        flags = np.asarray(good, dtype=bool)
        if not flags.all():
            at = int(flags.argmin())
            raise FormatError(
                f"{self.path}:{self.numbers[at]}: {fault}: {column[at]!r}; "
                "correct or remove this row"
            )


def _blank(value: str) -> bool:
    return any(character.isspace() for character in value)


def _check_genome(path: Path, numbers: list[int], table: pd.DataFrame, genome: _HasLengths) -> None:
    lengths = genome.lengths
    limit = table["chrom"].map(dict(lengths)).to_numpy(dtype=np.float64, na_value=np.nan)
    good = table["end"].to_numpy() <= limit
    if good.all():
        return
    at = int(good.argmin())
    chrom, end = table["chrom"].iloc[at], table["end"].iloc[at]
    if chrom not in lengths:
        raise InputError(f"{path}:{numbers[at]}: {unknown_chromosome(chrom, lengths)}")
    raise InputError(
        f"{path}:{numbers[at]}: end {end} is past the end of {chrom} ({lengths[chrom]}): "
        "check that intervals and genome are of one assembly"
    )
