"""A CSV file of rows from several sites, read exactly: every fault names its line."""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import FormatError, MissingFileError
from federated.tasks.task import TEST, TRAIN

if TYPE_CHECKING:
    from federated.spec import Table

__all__ = ["TableRows", "read_table"]

MISSING = ("", "?", "na", "n/a", "nan", "null", "none")
"""What stands for a value that is not there, in any case of letters."""


@dataclass(frozen=True, eq=False)
class TableRows:
    """What a file says.

    Attributes
    ----------
    features : tuple of str
        Names of the F columns that a model sees.
    inputs : ndarray of float32, shape (N, F)
    target : ndarray of float64, shape (N, 1) or (N, 2)
        The label, or time and event.
    test : ndarray of bool, shape (N,), or None
        Which rows are for the test; None where the file does not say.
    columns : pandas.DataFrame
        All columns, numbers as such and the rest as text, with the outcome as ``label``: what a
        partition may go by.
    """

    features: tuple[str, ...]
    inputs: NDArray[np.float32]
    target: NDArray[np.float64]
    test: NDArray[np.bool_] | None
    columns: pd.DataFrame

    @property
    def outcome(self) -> NDArray[np.int64]:
        """Label or event of each row, 0 or 1, shape (N,)."""
        return self.target[:, -1].astype(np.int64)


def read_table(table: Table, site: str | None) -> TableRows:
    """Read the file of a spec.

    Parameters
    ----------
    table : Table
    site : str or None
        A further column that is no feature: whose row it is.

    Returns
    -------
    TableRows
        In the file's order.

    Raises
    ------
    MissingFileError
        If there is no file.
    FormatError
        For a file that is no CSV of equally long lines, a column that is missing, a feature that
        is no number, a value that is missing, a label or an event that is not 0 or 1, a negative
        time, or a part that is neither train nor test.
    """
    file = _File.open(Path(table.path))
    roles = [table.label, table.time, table.event, table.part, site]
    taken = [column for column in roles if column is not None]
    features = table.features or tuple(name for name in file.header if name not in taken)
    for column in (*taken, *features):
        file.need(column)
    if not features:
        raise FormatError(f"{file.path}: no column is left for a model to see; add features")
    if not file.rows:
        raise FormatError(f"{file.path}: has a header but no rows; add rows")
    inputs = np.column_stack([file.numbers(name, "a feature") for name in features])
    if table.label is not None:
        target = [file.numbers(table.label, "a label", _binary)]
    else:
        assert table.time is not None
        assert table.event is not None
        target = [
            file.numbers(table.time, "a time", _not_negative),
            file.numbers(table.event, "an event", _binary),
        ]
    test = None if table.part is None else file.parts(table.part)
    columns = pd.DataFrame({name: file.guess(name, name == site) for name in file.header})
    columns = columns.assign(label=target[-1].astype(np.int64))
    return TableRows(features, inputs.astype(np.float32), np.column_stack(target), test, columns)


def _binary(value: float) -> str:
    return "" if value in (0, 1) else "must be 0 or 1"


def _not_negative(value: float) -> str:
    return "" if value >= 0 else "must not be negative"


def _single(value: float) -> str:
    # Models compute in single precision.
    return "" if abs(value) <= float(np.finfo(np.float32).max) else "is too large"


@dataclass(frozen=True)
class _File:
    """Cells as text, with the line of each row."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    @classmethod
    def open(cls, path: Path) -> _File:
        try:
            with path.open(newline="", encoding="utf-8-sig") as stream:
                return cls._read(path, stream)
        except FileNotFoundError as error:
            raise MissingFileError(f"{path}: no such file; give the path of a CSV file") from error
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{path}: not UTF-8 text ({error.reason}); save it as such"
            ) from error

    @classmethod
    def _read(cls, path: Path, stream: Any) -> _File:
        reader = csv.reader(stream, strict=True)
        rows, lines = [], []
        try:
            header = [name.strip() for name in next(reader, [])]
            for row in reader:
                if not row:
                    continue  # an empty line is no row
                if len(row) != len(header):
                    raise FormatError(
                        f"{path}, line {reader.line_num}: {len(row)} values, the header names "
                        f"{len(header)} columns; give each row one value a column"
                    )
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
        except csv.Error as error:
            raise FormatError(f"{path}, line {reader.line_num}: not CSV: {error}") from error
        if not header:
            raise FormatError(f"{path}: is empty; the first line must name the columns")
        for name in header:
            if header.count(name) > 1:
                raise FormatError(f"{path}: two columns are named '{name}'; rename one")
        return cls(path, header, rows, lines)

    def need(self, column: str) -> None:
        if column not in self.header:
            near = difflib.get_close_matches(column, self.header, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise FormatError(
                f"{self.path}: no column '{column}'; {hint}It has {_some(self.header)}"
            )

    def cells(self, column: str) -> Sequence[str]:
        """Values of a column, none of which may be missing."""
        at = self.header.index(column)
        for row, line in zip(self.rows, self.lines, strict=True):
            if row[at].lower() in MISSING:
                raise FormatError(
                    f"{self.path}, line {line}, column '{column}': the value is missing "
                    f"({row[at]!r}); fill it in or leave the row out"
                )
        return [row[at] for row in self.rows]

    def numbers(
        self, column: str, what: str, fault: Callable[[float], str] = _single
    ) -> NDArray[np.float64]:
        """Numbers of a column, shape (N,)."""
        found = []
        for cell, line in zip(self.cells(column), self.lines, strict=True):
            value = _number(cell)
            said = "is no number" if value is None else fault(value)
            if said:
                advice = "" if what != "a feature" else ", or name the columns in table.features"
                raise FormatError(
                    f"{self.path}, line {line}, column '{column}': {what} {said}, got {cell!r}; "
                    f"correct it{advice}"
                )
            found.append(value)
        return np.array(found, dtype=np.float64)

    def parts(self, column: str) -> NDArray[np.bool_]:
        """Which rows are for the test, shape (N,)."""
        cells = self.cells(column)
        for cell, line in zip(cells, self.lines, strict=True):
            if cell not in (TRAIN, TEST):
                raise FormatError(
                    f"{self.path}, line {line}, column '{column}': must be '{TRAIN}' or '{TEST}', "
                    f"got {cell!r}; correct it"
                )
        return np.array([cell == TEST for cell in cells])

    def guess(self, column: str, required: bool) -> list[Any]:
        """A column as numbers, where all are."""
        at = self.header.index(column)
        cells = self.cells(column) if required else [row[at] for row in self.rows]
        numbers = [_number(cell) for cell in cells]
        if any(number is None for number in numbers):
            return list(cells)
        whole = all(number == int(number) for number in numbers if number is not None)
        return [int(number) if whole else number for number in numbers if number is not None]


def _number(cell: str) -> float | None:
    """A finite number; None for what is none."""
    if "_" in cell:  # Python's own way to write 1_000, and nobody else's
        return None
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(f"'{name}'" for name in names[:8]) + more
