"""The windows next to each positive."""

import numpy as np
import pandas as pd

from data_tools.negatives.allowed import IntArray, Occupied, holds
from data_tools.negatives.drawn import Drawn, window_table


def flank(positives: pd.DataFrame, allowed: dict[str, IntArray], count: int, width: int) -> Drawn:
    """Take, for each positive, the nearest windows whole widths away, left and right in turn."""
    occupied = Occupied(width)
    rows: list[tuple[str, int]] = []
    short: list[int] = []
    for member, (chrom, start) in enumerate(
        zip(positives["chrom"], positives["start"].tolist(), strict=True)
    ):
        gaps = allowed.get(chrom, np.empty((0, 2), dtype=np.int64))
        found: list[int] = []
        for step in range(1, 4 * count + 1):
            for candidate in (start - step * width, start + step * width):
                room = len(found) < count and holds(gaps, np.array([candidate]))[0]
                if room and occupied.take(chrom, candidate):
                    found.append(candidate)
        if len(found) < count:
            occupied.release(chrom, found)
            short.append(member)
        else:
            rows.extend((chrom, place) for place in found)
    return Drawn(window_table(rows, width), count * len(positives), np.array(short, dtype=np.int64))
