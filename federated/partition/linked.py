"""Rows that share sequence, and so must stay with one client.

Two windows are linked when they overlap, or when one's sequence is the other's or its reverse
complement; and so on through third windows. Where linked rows are split over clients, one client
is tested on what another was trained on, and what is told apart as "sites" is not independent.
"""

from collections.abc import Iterator
from hashlib import blake2b
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_tools.encode import as_codes, reverse_complement
from federated.partition.checks import Ints, PartitionError, column, numbers

_COORDINATES = ("chrom", "start", "end")
_BYTES = 1 << 24
"""Bases to turn round at a time."""

_END = 27
"""Bases at an end that are looked at first: as many as an int64 holds, at five values a base."""


def linked_groups(rows: pd.DataFrame, codes: NDArray[np.uint8] | None = None) -> Ints:
    """Number the groups of rows that share sequence.

    Parameters
    ----------
    rows : pandas.DataFrame
        N rows. With the columns ``chrom``, ``start`` and ``end`` (0-based, half-open) they are
        windows, and windows that share a base are linked; windows that only touch are not. Rows
        of any other table are not linked by their place.
    codes : ndarray of uint8, shape (N, W), optional
        Base codes (A, C, G, T, N = 0 to 4). Rows with equal or reverse-complement sequences are
        linked. Where codes are wider than the windows (``W = width + 2 * margin``, as for
        jittered training), the margins count for overlap: they are read in training.

    Returns
    -------
    ndarray of int64, shape (N,)
        Group of each row, 0 to G - 1 without gaps. Groups of windows are numbered along the
        genome (chromosomes by name), so the numbers do not depend on the order of the rows;
        those of other tables by their first row.

    Raises
    ------
    PartitionError
        If the table is empty, a coordinate is missing or no whole number, a window is empty, or
        the codes do not fit the rows.

    Notes
    -----
    Linked rows are connected components of the graph of overlaps and equal sequences. Overlaps
    take one sort: a window starts a new run where it starts at or after the largest end so far.
    Sequences are compared by a 128-bit BLAKE2 digest of the lesser of the two strands. A tiling
    whose stride is less than its width links each chromosome to one group.

    Examples
    --------
    >>> rows = pd.DataFrame({"chrom": "chr1", "start": [90, 0, 10, 40], "end": [99, 9, 19, 49]})
    >>> linked_groups(rows)
    array([3, 0, 1, 2])
    >>> linked_groups(rows.assign(start=[90, 0, 8, 40]))
    array([2, 0, 0, 1])
    """
    if rows.empty:
        raise PartitionError("the table has no rows: there is nothing to split over clients")
    windows = all(name in rows.columns for name in _COORDINATES)
    margin = _check_codes(rows, codes, windows)
    count = len(rows)
    order = np.arange(count)
    parts: list[Ints] = []
    if windows:
        order, run = _overlaps(rows, margin)
        parts.append(run)
    if codes is not None:
        parts.append(_same_sequence(codes[:, margin : codes.shape[1] - margin]))
    return _number(_components(parts, count), order)


def _check_codes(rows: pd.DataFrame, codes: NDArray[np.uint8] | None, windows: bool) -> int:
    """Bases that the codes reach beyond a window on each side."""
    if codes is None:
        return 0
    as_codes(codes)
    if codes.ndim != 2 or len(codes) != len(rows) or codes.shape[1] == 0:
        raise PartitionError(
            f"codes have shape {codes.shape}, the table has {len(rows)} rows: give an array of "
            "shape (rows, width)"
        )
    if not windows:
        return 0
    width = (numbers(rows, "end", "a window") - numbers(rows, "start", "a window")).astype(np.int64)
    margin, odd = np.divmod(codes.shape[1] - width, 2)
    wrong = (odd != 0) | (margin < 0) | (margin != margin[0])
    if wrong.any():
        at = int(wrong.argmax())
        raise PartitionError(
            f"row {at} (0-based): the window is {width[at]} bases wide, its codes "
            f"{codes.shape[1]}: give codes of every window with one margin on both sides"
        )
    return int(margin[0])


def _overlaps(rows: pd.DataFrame, margin: int) -> tuple[Ints, Ints]:
    """Order of the rows along the genome, and the run of overlapping windows of each row."""
    chrom = column(rows, "chrom", "a window").astype(str).to_numpy(dtype=object)
    number = pd.factorize(chrom, sort=True)[0].astype(np.int64)
    start, end = _coordinate(rows, "start"), _coordinate(rows, "end")
    if (start >= end).any():
        at = int((start >= end).argmax())
        raise PartitionError(
            f"row {at} (0-based): the window {chrom[at]}:{start[at]}-{end[at]} is empty; "
            "starts are 0-based and ends come after them"
        )
    order = np.lexsort((end, start, number))
    # Chromosomes laid end to end, so far apart that none reaches the next.
    low, high = int(start.min()) - margin, int(end.max()) + margin
    shift = number * (high - low + 1)
    first = (start - margin + shift)[order]
    reach = np.maximum.accumulate((end + margin + shift)[order])
    run = np.empty(len(rows), dtype=np.int64)
    run[order] = np.concatenate([[0], np.cumsum(first[1:] >= reach[:-1])])
    return order, run


def _coordinate(rows: pd.DataFrame, name: str) -> Ints:
    values = numbers(rows, name, "a window")
    wrong = values != np.floor(values)
    if wrong.any():
        at = int(wrong.argmax())
        raise PartitionError(
            f"row {at} (0-based), column '{name}': {values[at]} is no whole number of bases"
        )
    return values.astype(np.int64)


def _same_sequence(codes: NDArray[np.uint8]) -> Ints:
    """Class of each sequence: equal for equal and for reverse-complement sequences."""
    classes = np.arange(len(codes))
    # Only rows whose two ends occur again are worth a look at every base.
    again = np.flatnonzero(pd.DataFrame(_ends(codes)).duplicated(keep=False))
    first: dict[bytes, int] = {}
    for row, key in zip(again.tolist(), _digests(codes, again), strict=True):
        classes[row] = first.setdefault(key, row)
    return classes


def _ends(codes: NDArray[np.uint8]) -> Ints:
    """First bases of both strands as two numbers, the lesser first: shape (N, 2)."""
    reach = min(_END, codes.shape[1])
    weights = 5 ** np.arange(reach, dtype=np.int64)
    strands = (codes[:, :reach], reverse_complement(codes[:, -reach:]))
    return np.sort([strand.astype(np.int64) @ weights for strand in strands], axis=0).T


def _digests(codes: NDArray[np.uint8], rows: Ints) -> Iterator[bytes]:
    """Digest of the lesser strand of each row."""
    width = codes.shape[1]
    step = max(1, _BYTES // width)
    for low in range(0, len(rows), step):
        block = codes[rows[low : low + step]].astype(np.uint8, copy=False)
        forward, reverse = block.tobytes(), reverse_complement(block).tobytes()
        for at in range(0, len(forward), width):
            strand = min(forward[at : at + width], reverse[at : at + width])
            yield blake2b(strand, digest_size=16).digest()


def _components(parts: list[Ints], count: int) -> Ints:
    """Join classifications: rows that share a class in any of them share a component."""
    if not parts:
        return np.arange(count)
    if len(parts) == 1:
        return parts[0]
    left, right = parts
    first = int(left.max()) + 1
    nodes = first + int(right.max()) + 1
    edges = coo_array((np.ones(count, dtype=np.int8), (left, first + right)), shape=(nodes, nodes))
    component = connected_components(edges, directed=False)[1]
    return cast("Ints", component[left].astype(np.int64))


def _number(component: Ints, order: Ints) -> Ints:
    """Number components 0 to G - 1 by their first row in an order."""
    group = np.empty(len(component), dtype=np.int64)
    group[order] = pd.factorize(component[order])[0]
    return group
