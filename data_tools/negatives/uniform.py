"""Windows drawn uniformly from all places that are left."""

import numpy as np

from data_tools.negatives.allowed import IntArray, Occupied, draw_starts, without
from data_tools.negatives.drawn import Drawn, window_table


def uniform(
    allowed: dict[str, IntArray], count: int, width: int, rng: np.random.Generator
) -> Drawn:
    """Draw windows from everywhere, `count` in all or as many as fit."""
    occupied = Occupied(width)
    rows: list[tuple[str, int]] = []
    # Each round takes a window at least, and the next looks only at what is left.
    while allowed and len(rows) < count:
        for chrom, start in _tickets(allowed, 3 * (count - len(rows)), rng):
            if len(rows) < count and occupied.take(chrom, start):
                rows.append((chrom, start))
        if len(rows) < count:
            allowed = _left_over(allowed, rows, width)
    return Drawn(window_table(rows, width), count, np.empty(0, dtype=np.int64))


def _tickets(
    allowed: dict[str, IntArray], count: int, rng: np.random.Generator
) -> list[tuple[str, int]]:
    """Places drawn uniformly from all chromosomes, with replacement, no more than there are."""
    chroms = list(allowed)
    room = np.array([(gaps[:, 1] - gaps[:, 0]).sum() for gaps in allowed.values()])
    count = min(count, int(room.sum()))
    pick = rng.choice(len(chroms), size=count, p=room / room.sum())
    starts = np.empty(count, dtype=np.int64)
    for number, chrom in enumerate(chroms):
        mine = pick == number
        starts[mine] = draw_starts(allowed[chrom], int(mine.sum()), rng)
    return [(chroms[i], start) for i, start in zip(pick.tolist(), starts.tolist(), strict=True)]


def _left_over(
    allowed: dict[str, IntArray], rows: list[tuple[str, int]], width: int
) -> dict[str, IntArray]:
    """Allowed starts whose window overlaps none of the windows taken so far."""
    left: dict[str, IntArray] = {}
    for chrom, gaps in allowed.items():
        taken = np.array([start for name, start in rows if name == chrom], dtype=np.int64)
        found = without(gaps, np.column_stack([taken - width + 1, taken + width]))
        if len(found):
            left[chrom] = found
    return left
