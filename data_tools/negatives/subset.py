"""Of windows that are labelled already, negatives with the GC of the positives."""

import zlib

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.negatives.matched import GC_CALIPER

IntArray = NDArray[np.int64]


def match_rows(
    windows: pd.DataFrame, count: int = 1, *, caliper: float = GC_CALIPER, seed: int = 0
) -> tuple[IntArray, IntArray]:
    """Choose, for each positive, negatives of its chromosome with nearly its GC.

    Positives come in random order, and each takes the nearest ``count`` negatives that are left,
    all within the caliper, or none: what has no match is dropped, and told.

    Parameters
    ----------
    windows : DataFrame
        ``chrom``, ``label`` (0 or 1) and ``gc``.
    count : int
        Negatives a positive.
    caliper : float
        Largest difference in GC fraction within a pair.
    seed : int
        Of the order; each chromosome has a stream of its own.

    Returns
    -------
    kept : ndarray of int
        Rows, ascending: positives that have their matches, and these.
    unmatched : ndarray of int
        Rows of the other positives.

    Examples
    --------
    >>> table = pd.DataFrame({"chrom": "a", "label": [1, 0, 0, 1], "gc": [0.5, 0.505, 0.3, 0.9]})
    >>> [rows.tolist() for rows in match_rows(table)]
    [[0, 1], [3]]
    """
    table = windows.reset_index(drop=True)
    kept: list[int] = []
    unmatched: list[int] = []
    for chrom, part in table.groupby("chrom", sort=False):
        rng = np.random.default_rng([seed, 2, zlib.crc32(str(chrom).encode())])
        negatives = part[part["label"] == 0]
        # Of equal GC in random order: in that of the start, all would crowd at one end.
        negatives = negatives.iloc[rng.permutation(len(negatives))].sort_values("gc", kind="stable")
        gc, rows = negatives["gc"].to_numpy(), negatives.index.to_numpy()
        free = np.ones(len(gc), dtype=np.bool_)
        positives = part[part["label"] == 1]
        for place in rng.permutation(len(positives)).tolist():
            goal, row = positives["gc"].iloc[place], int(positives.index[place])
            low, high = np.searchsorted(gc, [goal - caliper - 1e-9, goal + caliper + 1e-9])
            near = low + np.flatnonzero(free[low:high])
            if len(near) < count:
                unmatched.append(row)
                continue
            taken = near[np.argsort(np.abs(gc[near] - goal), kind="stable")[:count]]
            free[taken] = False
            kept += [row, *rows[taken].tolist()]
    return np.array(sorted(kept), np.int64), np.array(sorted(unmatched), np.int64)
