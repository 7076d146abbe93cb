"""Set algebra of tables of intervals: merge, overlap, subtract, complement.

A table has ``chrom``, ``start``, ``end`` (0-based, half-open). All of it is vectorized: the
chromosomes are laid end to end on one line, so that one sort serves them all.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import InputError, unknown_chromosome


class _Line:
    """All chromosomes laid end to end, so that one sort or search serves them all."""

    def __init__(self, *tables: pd.DataFrame) -> None:
        for table in tables:
            _check_table(table)
        chroms = [c for table in tables for c in table["chrom"].tolist()]
        self.names = list(dict.fromkeys(chroms))
        # One more than the last end: intervals of neighbouring chromosomes never touch.
        self.span = max((int(t["end"].max()) for t in tables if len(t)), default=0) + 1
        if len(self.names) * self.span >= 2**63:
            raise InputError("too many chromosomes with too large coordinates for one table")
        self._rank = {name: i * self.span for i, name in enumerate(self.names)}

    def place(self, table: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        chroms = table["chrom"].tolist()
        shift = np.fromiter(map(self._rank.__getitem__, chroms), np.int64, len(chroms))
        return shift + table["start"].to_numpy(np.int64), shift + table["end"].to_numpy(np.int64)

    def table(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> pd.DataFrame:
        rank = start // self.span
        names = np.array(self.names, dtype=object)[rank]
        shift = rank * self.span
        chrom = pd.Series(names, dtype="str")
        return pd.DataFrame({"chrom": chrom, "start": start - shift, "end": end - shift})


def _check_table(table: pd.DataFrame) -> None:
    lacking = [c for c in ("chrom", "start", "end") if c not in table.columns]
    if lacking:
        raise InputError(f"the table lacks the column {lacking[0]!r}: it needs chrom, start, end")
    for name in ("start", "end"):
        if len(table) and (table[name].dtype.kind not in "iu" or table[name].isna().any()):
            raise InputError(f"the column {name!r} holds {table[name].dtype}, not integers")
    bad = ((table["start"] < 0) | (table["end"] <= table["start"])).to_numpy(dtype=bool)
    if bad.any():
        row = int(bad.argmax())
        raise InputError(f"row {row} of the table: 0 <= start < end does not hold")


def merge(table: pd.DataFrame) -> pd.DataFrame:
    """Join intervals that overlap or touch.

    Parameters
    ----------
    table : DataFrame
        With chrom, start, end; in any order.

    Returns
    -------
    DataFrame
        chrom, start, end: disjoint, with gaps between; chromosomes in order of first
        appearance, then by start.

    Raises
    ------
    InputError
        If a column is lacking or a row is no interval.

    Examples
    --------
    >>> table = pd.DataFrame({"chrom": ["a", "a", "a"], "start": [5, 0, 8], "end": [8, 2, 9]})
    >>> merge(table)[["start", "end"]].to_numpy().tolist()
    [[0, 2], [5, 9]]
    """
    line = _Line(table)
    return line.table(*_merged(*line.place(table)))


def _merged(
    start: NDArray[np.int64], end: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not len(start):
        return start, end
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    new = np.flatnonzero(start[1:] > end[:-1]) + 1
    return start[np.append(0, new)], end[np.append(new - 1, len(end) - 1)]


def overlaps(a: pd.DataFrame, b: pd.DataFrame) -> NDArray[np.bool_]:
    """For each row of `a`, whether it shares at least one base with any row of `b`.

    Parameters
    ----------
    a, b : DataFrame
        With chrom, start, end; in any order.

    Returns
    -------
    ndarray of bool, shape (len(a),)
        Touching is not overlapping.

    Raises
    ------
    InputError
        If a column is lacking or a row is no interval.

    Examples
    --------
    >>> a = pd.DataFrame({"chrom": ["x", "x"], "start": [0, 10], "end": [10, 20]})
    >>> b = pd.DataFrame({"chrom": ["x"], "start": [5], "end": [10]})
    >>> overlaps(a, b).tolist()
    [True, False]
    """
    line = _Line(a, b)
    start, end = line.place(a)
    other_start, other_end = line.place(b)
    # Some b overlaps unless every b that starts before my end has also ended by my start.
    begun = np.searchsorted(np.sort(other_start), end, side="left")
    ended = np.searchsorted(np.sort(other_end), start, side="right")
    return begun > ended


def subtract(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Give the stretches that `a` covers and `b` does not.

    Parameters
    ----------
    a, b : DataFrame
        With chrom, start, end; in any order. Rows of `a` that overlap or touch are merged.

    Returns
    -------
    DataFrame
        chrom, start, end, disjoint and sorted as by `merge`.

    Raises
    ------
    InputError
        If a column is lacking or a row is no interval.

    Examples
    --------
    >>> a = pd.DataFrame({"chrom": ["x"], "start": [0], "end": [10]})
    >>> b = pd.DataFrame({"chrom": ["x"], "start": [3], "end": [4]})
    >>> subtract(a, b)[["start", "end"]].to_numpy().tolist()
    [[0, 3], [4, 10]]
    """
    line = _Line(a, b)
    start, end = _merged(*line.place(a))
    hole_start, hole_end = _merged(*line.place(b))
    edges = np.unique(np.concatenate([start, end, hole_start, hole_end]))
    left = edges[:-1]
    # Between neighbouring edges nothing changes, so the left edge speaks for the stretch.
    inside = np.searchsorted(start, left, "right") > np.searchsorted(end, left, "right")
    hole = np.searchsorted(hole_start, left, "right") > np.searchsorted(hole_end, left, "right")
    keep = inside & ~hole
    return line.table(*_merged(left[keep], edges[1:][keep]))


def complement(table: pd.DataFrame, lengths: Mapping[str, int]) -> pd.DataFrame:
    """Give the stretches of the chromosomes that no interval covers.

    Parameters
    ----------
    table : DataFrame
        With chrom, start, end; in any order.
    lengths : mapping of str to int
        The length of each chromosome, as in `Genome.lengths`.

    Returns
    -------
    DataFrame
        chrom, start, end, disjoint and sorted as by `merge`.

    Raises
    ------
    InputError
        If the table names a chromosome without a length.

    Examples
    --------
    >>> table = pd.DataFrame({"chrom": ["x"], "start": [3], "end": [4]})
    >>> complement(table, {"x": 5, "y": 2}).to_numpy().tolist()
    [['x', 0, 3], ['x', 4, 5], ['y', 0, 2]]
    """
    for name in table["chrom"].unique():
        if name not in lengths:
            raise InputError(f"the table: {unknown_chromosome(name, lengths)}")
    whole = pd.DataFrame({"chrom": list(lengths), "start": 0, "end": list(lengths.values())})
    return subtract(whole, table)
