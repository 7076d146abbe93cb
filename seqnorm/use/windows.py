"""The windows of a model: side by side along chromosomes, or around intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from data_tools.encode import AMBIGUOUS, Codes
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.splits import check_chromosomes
from data_tools.windows import summit_windows, window_codes

__all__ = ["Ambiguous", "around", "known_windows", "tile_count", "tiles"]

Ambiguous = Literal["skip", "score"]
"""Windows with N (or past the end of a chromosome): no score, or N as a column of zeros."""


def tiles(
    genome: Genome, chroms: Sequence[str], width: int, step: int, rows: int
) -> Iterator[pd.DataFrame]:
    """Windows from the first base of each chromosome on, ``step`` apart, ``rows`` at a time.

    A rest shorter than a window, at the end of a chromosome, has none.

    Yields
    ------
    DataFrame
        ``chrom``, ``start``, ``end``; of one chromosome.
    """
    for chrom in chroms:
        count = _count(genome.lengths[chrom], width, step)
        for first in range(0, count, rows):
            start = np.arange(first, min(count, first + rows), dtype=np.int64) * step
            yield pd.DataFrame({"chrom": chrom, "start": start, "end": start + width})


def tile_count(genome: Genome, chroms: Sequence[str], width: int, step: int) -> int:
    """How many windows `tiles` gives.

    Raises
    ------
    InputError
        For an unknown chromosome, one that is named twice, or a step below 1.
    """
    if step < 1:
        raise InputError(f"the step must be at least 1 base, got {step}")
    check_chromosomes(list(chroms), genome.lengths)
    if len(set(chroms)) < len(chroms):
        raise InputError("a chromosome is named twice; name each once")
    return sum(_count(genome.lengths[chrom], width, step) for chrom in chroms)


def _count(length: int, width: int, step: int) -> int:
    return max(0, (length - width) // step + 1)


def around(intervals: pd.DataFrame, genome: Genome, width: int) -> pd.DataFrame:
    """Windows around the summits of intervals, or their middles; they may leave the chromosome."""
    return summit_windows(intervals, genome.lengths, width, on_edge="pad")


def known_windows(
    intervals: pd.DataFrame, genome: Genome, width: int, ambiguous: Ambiguous
) -> tuple[pd.DataFrame, Codes]:
    """Windows around intervals and their codes, without those that are to be skipped.

    Returns
    -------
    DataFrame
        ``chrom``, ``start``, ``end`` of the windows and ``name`` of the intervals, if any.
    ndarray of uint8, shape (N, width)
    """
    windows = around(intervals, genome, width)
    if "name" in intervals:
        windows = windows.assign(name=intervals["name"].to_numpy())
    codes = window_codes(genome, windows, outside="pad")
    if ambiguous == "score":
        return windows, codes
    known = ~(codes == AMBIGUOUS).any(axis=1)
    return windows[known].reset_index(drop=True), codes[known]
