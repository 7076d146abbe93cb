"""Near-duplicate windows: segmental duplications and repeats that stand on both sides of a split.

Two windows are compared by their minimizers: of every run of ``span`` neighbouring k-mers the one
with the smallest hash. A k-mer counts as its smaller reading of the two strands, so that a window
and its reverse complement are equal, and windows that are shifted against each other share the
minimizers of what they have in common. All pairs are compared at once, as a product of sparse
matrices; nothing is sampled.

References
----------
Roberts et al. (2004), Reducing storage requirements for biological sequence comparison.
Bioinformatics 20, 3363-3369.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.encode import AMBIGUOUS, Codes, as_codes
from data_tools.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Hashes = NDArray[np.uint64]

_NONE = np.uint64(2**64 - 1)
_BASES_AT_A_TIME = 1 << 22
_PAIRS_AT_A_TIME = 1 << 22


def near_duplicates(
    windows: NDArray[np.integer],
    others: NDArray[np.integer],
    *,
    threshold: float = 0.5,
    k: int = 21,
    span: int = 11,
) -> pd.DataFrame:
    """Find, for each window, the one among the others that is most like it, if it is like enough.

    Parameters
    ----------
    windows, others : ndarray of codes, shapes (N, L) and (M, L')
        Such as from `data_tools.window_codes`.
    threshold : float
        Least similarity, above 0 to 1: shared minimizers as a share of those of the window
        that has fewer. Of two random windows it is 0; of windows that differ in a share ``d`` of
        their bases about ``(1 - d) ** k``.
    k : int
        Length of a k-mer, 1 to 31. k-mers with an ambiguous base do not count.
    span : int
        Neighbouring k-mers of which one is kept; 1 compares all k-mers.

    Returns
    -------
    DataFrame
        ``window`` and ``other`` (rows of the two arrays) and ``similarity``; one row for each
        window that has a near-duplicate, in order.

    Raises
    ------
    InputError
        For other shapes, or a threshold, k or span outside its range.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> first = rng.integers(0, 4, (3, 200), dtype=np.uint8)
    >>> second = rng.integers(0, 4, (4, 200), dtype=np.uint8)
    >>> second[2] = 3 - first[1, ::-1]
    >>> near_duplicates(first, second).to_dict("records")
    [{'window': 1, 'other': 2, 'similarity': 1.0}]
    """
    check_threshold(threshold)
    return alike(minimizers(windows, k, span), minimizers(others, k, span), threshold)


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that is no share."""
    if not 0 < threshold <= 1:
        raise InputError(f"the threshold is a share, above 0 to 1, not {threshold}")


def alike(left: Sequence[Hashes], right: Sequence[Hashes], threshold: float) -> pd.DataFrame:
    """Compare windows by their `minimizers`; what it gives is told at `near_duplicates`."""
    mine, theirs = _tables(left, right)
    counts, other_counts = (np.array([len(part) for part in side]) for side in (left, right))
    found = [pd.DataFrame({"window": [], "other": [], "similarity": []})]
    for first, last in _row_blocks(mine, theirs):
        shared = (mine[first:last] @ theirs.T).tocoo()
        row, column = shared.coords
        row = row + first
        similarity = shared.data / np.minimum(counts[row], other_counts[column])
        keep = similarity >= threshold
        pairs = {"window": row[keep], "other": column[keep], "similarity": similarity[keep]}
        found.append(_best(pd.DataFrame(pairs)))
    table = pd.concat(found[1:] or found, ignore_index=True)
    return table.astype({"window": "int64", "other": "int64", "similarity": "float64"})


def _best(pairs: pd.DataFrame) -> pd.DataFrame:
    """Of the pairs of each window the most similar, and of these the first."""
    order = pairs.sort_values(["window", "similarity", "other"], ascending=[True, False, True])
    return order.drop_duplicates("window")


def minimizers(windows: NDArray[np.integer], k: int = 21, span: int = 11) -> list[Hashes]:
    """Distinct minimizers of each window, sorted."""
    if not 1 <= k <= 31 or span < 1:
        raise InputError(f"k is 1 to 31 and span 1 or more, not k={k}, span={span}")
    codes = as_codes(windows)
    if codes.ndim != 2:
        raise InputError(f"windows are codes of shape (N, L), got {codes.shape}")
    if codes.shape[1] < k:
        raise InputError(f"windows of {codes.shape[1]} bases hold no k-mer of {k}; lower k")
    rows = max(1, _BASES_AT_A_TIME // codes.shape[1])
    result: list[Hashes] = []
    for first in range(0, len(codes), rows):
        hashes = _hashes(codes[first : first + rows], k)
        for row in _running_minimum(hashes, min(span, hashes.shape[1])):
            distinct = np.unique(row)
            result.append(distinct[distinct != _NONE])
    return result


def _hashes(codes: Codes, k: int) -> Hashes:
    """Hash of the canonical k-mer at each position, the largest number where one is ambiguous."""
    places = codes.shape[1] - k + 1
    forward = np.zeros((len(codes), places), dtype=np.uint64)
    reverse = np.zeros_like(forward)
    known = np.ones(forward.shape, dtype=np.bool_)
    for offset in range(k):
        base = codes[:, offset : offset + places].astype(np.uint64)
        known &= base < AMBIGUOUS
        forward = (forward << np.uint64(2)) | (base & np.uint64(3))
        reverse |= (np.uint64(3) - (base & np.uint64(3))) << np.uint64(2 * offset)
    mixed = _mix(np.minimum(forward, reverse))
    return np.where(known, mixed, _NONE)


def _mix(x: Hashes) -> Hashes:
    """Scatter numbers one to one, so that the smallest is as good as drawn.

    The finalizer of SplitMix64, Steele, Lea & Flood (2014), doi:10.1145/2660193.2660195.
    """
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _running_minimum(values: Hashes, span: int) -> Hashes:
    """Minimum of every `span` neighbours along the rows, by doubling."""
    reach = 1
    while 2 * reach <= span:
        values = np.minimum(values[:, :-reach], values[:, reach:])
        reach *= 2
    rest = span - reach
    return np.minimum(values[:, :-rest], values[:, rest:]) if rest else values


def _tables(left: Sequence[Hashes], right: Sequence[Hashes]) -> tuple[csr_array, csr_array]:
    """Ones at (window, minimizer), for the minimizers that both sides have."""
    # Here, because the rest of the package does without scipy.
    from scipy.sparse import csr_array

    flat_left, flat_right = (
        np.concatenate([*side, np.empty(0, np.uint64)]) for side in (left, right)
    )
    both = np.intersect1d(flat_left, flat_right)
    tables = []
    for side, flat in ((left, flat_left), (right, flat_right)):
        row = np.repeat(np.arange(len(side)), [len(part) for part in side])
        column = np.minimum(np.searchsorted(both, flat), max(len(both) - 1, 0))
        kept = both[column] == flat if len(both) else np.zeros(len(flat), dtype=np.bool_)
        ones = np.ones(int(kept.sum()), dtype=np.int32)
        tables.append(csr_array((ones, (row[kept], column[kept])), shape=(len(side), len(both))))
    return tables[0], tables[1]


def _row_blocks(mine: csr_array, theirs: csr_array) -> Iterator[tuple[int, int]]:
    """Cut the rows so that the product of each block is of bounded size."""
    met = np.bincount(theirs.indices, minlength=theirs.shape[1])[mine.indices]
    total = np.concatenate([[0], np.cumsum(met)])[mine.indptr[1:]]
    first = 0
    while first < len(total):
        before = total[first - 1] if first else 0
        last = int(np.searchsorted(total, before + _PAIRS_AT_A_TIME, side="right"))
        yield first, max(last, first + 1)
        first = max(last, first + 1)
