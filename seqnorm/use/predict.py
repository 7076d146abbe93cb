"""Scores along a genome, part by part, in memory that does not grow with it.

At any time there are the codes of one part (1 MiB, or one batch where that is more), one batch as
one-hot and what the model makes of it, and of a file of intervals its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from data_tools.genome import Genome
from data_tools.windows import window_codes
from seqnorm.use.scorer import Scorer
from seqnorm.use.windows import Ambiguous, around, tile_count, tiles

__all__ = ["as_bins", "in_genome_order", "predict_intervals", "predict_tiles"]

Progress = Callable[[int, int], None]
"""Is told how many windows are done, and of how many."""


def predict_tiles(
    scorer: Scorer,
    genome: Genome,
    *,
    chroms: Sequence[str] = (),
    step: int | None = None,
    ambiguous: Ambiguous = "skip",
    progress: Progress | None = None,
) -> Iterator[pd.DataFrame]:
    """Score windows along whole chromosomes.

    Parameters
    ----------
    scorer : Scorer
    genome : Genome
    chroms : sequence of str
        All of the genome unless given.
    step : int, optional
        From the start of a window to that of the next; their width unless given.
    ambiguous : {"skip", "score"}
        For windows that hold an N: NaN, or the score with N as a column of zeros.
    progress : callable, optional

    Yields
    ------
    DataFrame
        ``chrom``, ``start``, ``end`` of the windows, ``score`` (float32).

    Raises
    ------
    InputError
        For a chromosome that the genome lacks, a step below 1, or windows the model cannot take.
    """
    names = list(chroms) or list(genome.lengths)
    apart = scorer.width if step is None else step
    total, done = tile_count(genome, names, scorer.width, apart), 0
    for part in tiles(genome, names, scorer.width, apart, scorer.rows):
        codes = window_codes(genome, part)
        yield part.assign(score=scorer.known_scores(codes, ambiguous))
        done += len(part)
        if progress is not None:
            progress(done, total)


def predict_intervals(
    scorer: Scorer,
    genome: Genome,
    intervals: pd.DataFrame,
    *,
    ambiguous: Ambiguous = "skip",
    progress: Progress | None = None,
) -> Iterator[pd.DataFrame]:
    """Score a window around the summit of each interval, or its middle.

    Parameters
    ----------
    scorer : Scorer
    genome : Genome
    intervals : DataFrame
        ``chrom``, ``start``, ``end`` and, where there is one, ``summit``, as
        `data_tools.read_intervals` gives them.
    ambiguous : {"skip", "score"}
        For windows that hold an N or leave their chromosome: NaN, or the score with what is
        lacking as columns of zeros.
    progress : callable, optional

    Yields
    ------
    DataFrame
        ``chrom``, ``start``, ``end`` and ``name`` (if any) of the intervals, in their order,
        ``window_start``, ``window_end`` and ``score`` (float32).
    """
    columns = [name for name in ("chrom", "start", "end", "name") if name in intervals]
    for first in range(0, len(intervals), scorer.rows):
        part = intervals.iloc[first : first + scorer.rows]
        windows = around(part, genome, scorer.width)
        codes = window_codes(genome, windows, outside="pad")
        yield part[columns].assign(
            window_start=windows["start"].to_numpy(),
            window_end=windows["end"].to_numpy(),
            score=scorer.known_scores(codes, ambiguous),
        )
        if progress is not None:
            progress(first + len(part), len(intervals))


def as_bins(part: pd.DataFrame, step: int) -> pd.DataFrame:
    """Give each window's score to its middle ``step`` bases, so that windows do not overlap.

    Windows that are further apart than they are wide keep their width.

    Examples
    --------
    >>> part = pd.DataFrame({"chrom": "a", "start": [0, 4], "end": [10, 14], "score": [1.0, 2.0]})
    >>> as_bins(part, 4)[["start", "end"]].to_numpy().tolist()
    [[3, 7], [7, 11]]
    """
    width = part["end"] - part["start"]
    start = part["start"] + np.maximum(0, width - step) // 2
    return part.assign(start=start, end=start + np.minimum(width, step))


def in_genome_order(intervals: pd.DataFrame, genome: Genome) -> pd.DataFrame:
    """Intervals sorted by chromosome, as the genome has them, and start."""
    rank = {name: number for number, name in enumerate(genome.lengths)}
    order = np.lexsort((intervals["start"], intervals["chrom"].map(rank)))
    return intervals.iloc[order]
