"""For each positive, windows of its own chromosome with the same composition, or none.

Matching within the chromosome and within a caliper is what keeps a model from telling windows by
their GC content: a match from another chromosome, or the nearest one left where none is near,
leaves GC a score of its own.
"""

import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.composition import DINUCLEOTIDES, dinucleotide_fractions
from data_tools.genome import Genome
from data_tools.negatives.allowed import IntArray, Occupied, draw_starts
from data_tools.negatives.drawn import Drawn, window_table
from data_tools.windows import window_codes_in_parts, window_gc

Floats = NDArray[np.float64]
Progress = Callable[[int, int], None]

GC_CALIPER = 0.02
"""Largest difference in GC fraction within a matched pair."""

_CANDIDATES = 40
"""Places looked at for each matched window, unless there are fewer."""

_LEAST_CANDIDATES = 10_000
"""Places looked at in a chromosome, also where few windows are asked for."""

_FIRST_LOOK = 32
"""Nearest candidates looked at first for each window wanted; more where these are taken."""

#: Gives the candidates (rows of the pool) that suit a positive, best first, from those still free.
Suitable = Callable[[int, NDArray[np.bool_]], Iterator[int]]

#: Gives the starts of a chromosome's pool, in an order of its own, and what suits of it.
SuitableIn = Callable[[pd.DataFrame], tuple[IntArray, Suitable]]


def near_in_gc(genome: Genome, positives: pd.DataFrame, caliper: float) -> SuitableIn:
    """Windows within the caliper in GC fraction, the nearest first."""
    target = window_gc(genome, positives)
    tolerance = caliper + 1e-9

    def suitable_in(pool: pd.DataFrame) -> tuple[IntArray, Suitable]:
        # Of equal GC in the order of the draw: in that of the start, all would crowd at one end.
        pool = pool.assign(gc=window_gc(genome, pool)).sort_values("gc", kind="stable")
        gc = pool["gc"].to_numpy()

        def suitable(member: int, free: NDArray[np.bool_]) -> Iterator[int]:
            goal = target[member]
            low, high = np.searchsorted(gc, [goal - tolerance, goal + tolerance])
            near = low + np.flatnonzero(free[low:high])
            # Of thousands that are near the first few are looked at.
            return map(int, near[np.argsort(np.abs(gc[near] - goal), kind="stable")])

        return pool["start"].to_numpy(), suitable

    return suitable_in


def near_in_dinucleotides(
    genome: Genome, positives: pd.DataFrame, caliper: float, count: int
) -> SuitableIn:
    """Windows within the caliper in GC fraction, the nearest in dinucleotide fractions first."""
    # Here, because it takes longer to import than the other kinds take to draw.
    from scipy.spatial import cKDTree

    target, target_gc = _fractions(genome, positives), window_gc(genome, positives)
    tolerance = caliper + 1e-9

    def suitable_in(pool: pd.DataFrame) -> tuple[IntArray, Suitable]:
        gc = window_gc(genome, pool)
        tree = cKDTree(_fractions(genome, pool))

        def suitable(member: int, free: NDArray[np.bool_]) -> Iterator[int]:
            if np.isnan(target_gc[member]):
                return
            looked = 0
            while looked < len(gc):
                more = min(len(gc), max(_FIRST_LOOK * count, 4 * looked))
                _, order = tree.query(target[member], k=np.arange(looked + 1, more + 1))
                for row in np.asarray(order).tolist():
                    if free[row] and abs(gc[row] - target_gc[member]) <= tolerance:
                        yield row
                looked = more

        return pool["start"].to_numpy(), suitable

    return suitable_in


def _fractions(genome: Genome, windows: pd.DataFrame) -> Floats:
    parts = [dinucleotide_fractions(codes) for codes in window_codes_in_parts(genome, windows)]
    # Windows without a single known pair are all alike.
    every: Floats = np.nan_to_num(np.concatenate([np.empty((0, len(DINUCLEOTIDES))), *parts]))
    return every


def matched(
    positives: pd.DataFrame,
    allowed: dict[str, IntArray],
    suitable_in: SuitableIn,
    *,
    count: int,
    width: int,
    seed: int,
    progress: Progress | None = None,
) -> Drawn:
    """Take, for each positive, ``count`` of the windows that suit it best, or none."""
    occupied = Occupied(width)
    rows: list[tuple[str, int]] = []
    short: list[int] = []
    done = 0
    for name, index in positives.reset_index(drop=True).groupby("chrom", sort=False).groups.items():
        chrom = str(name)
        members = np.asarray(index, dtype=np.int64)
        done += len(members)
        if chrom not in allowed:
            short.extend(members.tolist())
            continue
        rng = np.random.default_rng([seed, 1, zlib.crc32(chrom.encode())])
        looked_at = max(_CANDIDATES * count * len(members), _LEAST_CANDIDATES)
        places = _candidates(allowed[chrom], looked_at, rng)
        pool = pd.DataFrame({"chrom": chrom, "start": places, "end": places + width})
        starts, suitable = suitable_in(pool)
        free = np.ones(len(pool), dtype=np.bool_)
        for member in rng.permutation(members).tolist():
            found = _take(suitable(member, free), starts, free, count, occupied, chrom)
            rows.extend((chrom, start) for start in found)
            if len(found) < count:
                short.append(member)
        if progress is not None:
            progress(done, len(positives))
    return Drawn(
        window_table(rows, width), count * len(positives), np.array(sorted(short), dtype=np.int64)
    )


def _candidates(gaps: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Places in random order: every one where there are few, else a draw."""
    if (gaps[:, 1] - gaps[:, 0]).sum() > count:
        return draw_starts(gaps, count, rng)
    return rng.permutation(np.concatenate([np.arange(low, high) for low, high in gaps]))


def _take(
    suitable: Iterator[int],
    starts: IntArray,
    free: NDArray[np.bool_],
    count: int,
    occupied: Occupied,
    chrom: str,
) -> list[int]:
    """Take ``count`` of the suitable candidates, the best first, or none."""
    found: list[int] = []
    looked_at: list[int] = []
    for candidate in suitable:
        # Taken or blocked for good: what overlaps a taken window never fits again.
        free[candidate] = False
        looked_at.append(candidate)
        if occupied.take(chrom, int(starts[candidate])):
            found.append(int(starts[candidate]))
            if len(found) == count:
                return found
    free[looked_at] = True
    occupied.release(chrom, found)
    return []
