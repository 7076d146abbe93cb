"""Where a background window may start, worked out exactly, as half-open intervals of starts."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.encode import AMBIGUOUS
from data_tools.genome import Genome

IntArray = NDArray[np.int64]

_SPAN = 1 << 24
"""Bases read at a time."""


def allowed_starts(
    genome: Genome, taken: pd.DataFrame, regions: pd.DataFrame, width: int, margin: int
) -> dict[str, IntArray]:
    """Half-open intervals of allowed starts of each chromosome, as arrays of shape (M, 2)."""
    allowed: dict[str, IntArray] = {}
    for name, part in regions.groupby("chrom", sort=False):
        chrom = str(name)
        blocked = taken.loc[taken["chrom"] == chrom, ["start", "end"]].to_numpy(dtype=np.int64)
        pieces = []
        for low, high in part[["start", "end"]].to_numpy(dtype=np.int64):
            walls = np.vstack([blocked, _ambiguous(genome, chrom, int(low), int(high))])
            # A window [s, s + width) widened by the margin touches [a, b) iff
            # a - width - margin < s < b + margin.
            walls = walls + np.array([1 - width - margin, margin])
            pieces.append(_gaps(walls, int(low) + margin, int(high) - width - margin + 1))
        # Regions may come in any order or overlap; a start that two of them allow counts once.
        found = without(np.vstack(pieces), np.empty((0, 2), dtype=np.int64))
        if len(found):
            allowed[chrom] = found
    return allowed


def _ambiguous(genome: Genome, chrom: str, low: int, high: int) -> IntArray:
    """Half-open runs of ambiguous bases in [low, high), cut where a span of reading ends."""
    runs = [
        start + _runs(genome.codes(chrom, start, min(start + _SPAN, high)) == AMBIGUOUS)
        for start in range(low, max(high, low + 1), _SPAN)
    ]
    return np.vstack(runs)


def _runs(flag: NDArray[np.bool_]) -> IntArray:
    """Half-open runs of True, shape (M, 2)."""
    # Compared as bytes: differences would make the array eight times as wide.
    edges = np.flatnonzero(flag[1:] != flag[:-1]) + 1
    ends = [[0]] * bool(flag[:1].any()), [[len(flag)]] * bool(flag[-1:].any())
    return np.concatenate([*ends[0], edges, *ends[1]]).reshape(-1, 2).astype(np.int64)


def _gaps(walls: IntArray, low: int, high: int) -> IntArray:
    """What the half-open walls leave of [low, high), shape (M, 2)."""
    if high <= low:
        return np.empty((0, 2), dtype=np.int64)
    walls = walls[np.argsort(walls[:, 0], kind="stable")]
    reach = np.maximum.accumulate(np.concatenate([[low], walls[:, 1]]))
    until = np.minimum(np.concatenate([walls[:, 0], [high]]), high)
    gaps = np.column_stack([reach, until])
    return gaps[gaps[:, 0] < gaps[:, 1]]


def without(gaps: IntArray, walls: IntArray) -> IntArray:
    """What the half-open walls leave of the gaps, sorted and merged."""
    end = int(gaps[:, 1].max(initial=0))
    return _gaps(np.vstack([_gaps(gaps, 0, end), walls]), 0, end)


def draw_starts(gaps: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Starts drawn uniformly, with replacement, from half-open intervals."""
    sizes = gaps[:, 1] - gaps[:, 0]
    ends = np.cumsum(sizes)
    ticket = rng.integers(0, int(ends[-1]), size=count)
    piece = np.searchsorted(ends, ticket, side="right")
    starts: IntArray = gaps[piece, 0] + ticket - (ends[piece] - sizes[piece])
    return starts


class Occupied:
    """Windows taken so far: says in constant time whether another of equal width fits."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.bins: dict[tuple[str, int], int] = {}

    def take(self, chrom: str, start: int) -> bool:
        """Take a window if it overlaps none that is taken."""
        # Two windows that do not overlap never share a bin as wide as a window.
        home = start // self.width
        for near in (home - 1, home, home + 1):
            other = self.bins.get((chrom, near))
            if other is not None and abs(other - start) < self.width:
                return False
        self.bins[chrom, home] = start
        return True

    def release(self, chrom: str, starts: list[int]) -> None:
        """Give windows back."""
        for start in starts:
            del self.bins[chrom, start // self.width]


def holds(gaps: IntArray, starts: IntArray) -> NDArray[np.bool_]:
    """Which of the starts lie in sorted half-open intervals that do not overlap."""
    at = np.searchsorted(gaps[:, 0], starts, side="right") - 1
    if not len(gaps):
        return np.zeros(len(starts), dtype=np.bool_)
    inside: NDArray[np.bool_] = (at >= 0) & (starts < gaps[np.maximum(at, 0), 1])
    return inside


def only_at(gaps: IntArray, starts: IntArray) -> IntArray:
    """Those of the starts that the intervals allow, each once, as intervals of one start."""
    kept = np.unique(starts[holds(gaps, starts)])
    return np.column_stack([kept, kept + 1])
