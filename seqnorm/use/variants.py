"""What an allele does to a score: the window with ALT less the window with REF.

A window of the model's width is laid around the middle of the allele that it shows: its base
``width // 2`` is the allele's base ``length // 2``, and the genome fills it up on both sides. So
where the lengths of the alleles differ, the outer bases of the two windows differ, by half of it on
either side. Of an allele that is wider than the window, the window shows the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.encode import Codes, encode
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.windows import window_codes
from seqnorm.use.scorer import CODES, Scorer
from seqnorm.use.windows import Ambiguous

__all__ = ["allele_windows", "variant_effects"]


def variant_effects(
    scorer: Scorer,
    genome: Genome,
    variants: pd.DataFrame,
    *,
    shifts: Sequence[int] = (0,),
    ambiguous: Ambiguous = "skip",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[pd.DataFrame]:
    """Score both alleles of each variant.

    Parameters
    ----------
    scorer : Scorer
    genome : Genome
    variants : DataFrame
        As `data_tools.read_variants` gives them with this genome: one row an allele.
    shifts : sequence of int
        Scores are means over windows that are moved by so many bases.
    ambiguous : {"skip", "score"}
        For windows that hold an N or leave their chromosome: NaN, or the score with what is
        lacking as columns of zeros.
    progress : callable, optional
        Is told how many alleles are done, and of how many.

    Yields
    ------
    DataFrame
        ``chrom``, ``pos`` (from 1, as in VCF), ``id``, ``ref``, ``alt``, ``allele``,
        ``ref_score``, ``alt_score``, ``effect`` (float32).

    Raises
    ------
    InputError
        For shifts that take the variant out of the window, or none, or one that is given twice.
    """
    reach = max((abs(shift) for shift in shifts), default=scorer.width)
    if reach >= scorer.width // 2 or len(set(shifts)) < len(shifts):
        raise InputError(
            f"shifts must be different numbers of bases below {scorer.width // 2}, half of the "
            f"window; got {', '.join(map(str, shifts)) or 'none'}"
        )
    # Two flanks a row, each half a window and the largest shift.
    step = max(1, CODES // (4 * scorer.width))
    for first in range(0, len(variants), step):
        part = variants.iloc[first : first + step]
        flanks = _flanks(genome, part, scorer.width, reach)
        both = [
            _mean_scores(scorer, flanks, part[name].tolist(), shifts, ambiguous)
            for name in ("ref", "alt")
        ]
        yield pd.DataFrame(
            {
                "chrom": part["chrom"].to_numpy(),
                "pos": part["start"].to_numpy() + 1,
                "id": part["name"].to_numpy(),
                **{name: part[name].to_numpy() for name in ("ref", "alt", "allele")},
                "ref_score": both[0],
                "alt_score": both[1],
                "effect": both[1] - both[0],
            }
        )
        if progress is not None:
            progress(first + len(part), len(variants))


def allele_windows(
    left: Codes, right: Codes, alleles: Sequence[str], width: int, shift: int = 0
) -> Codes:
    """Windows around the middles of alleles.

    Parameters
    ----------
    left, right : ndarray of uint8, shape (N, F)
        What stands before and after each allele; F is at least half a window and the shift.
    alleles : sequence of str
    width : int
    shift : int
        By how many bases the windows are moved to the right.

    Returns
    -------
    ndarray of uint8, shape (N, width)

    Examples
    --------
    >>> from data_tools.encode import decode
    >>> left, right = encode("AAAA")[None], encode("TTTT")[None]
    >>> [decode(allele_windows(left, right, [allele], 4)[0]) for allele in ("C", "CGG", "CCCCGGGG")]
    ['AACT', 'ACGG', 'CCGG']
    """
    flank = left.shape[1]
    out = np.empty((len(alleles), width), dtype=np.uint8)
    for row, allele in enumerate(alleles):
        whole = np.concatenate([left[row], encode(allele), right[row]])
        start = flank + len(allele) // 2 - width // 2 + shift
        out[row] = whole[start : start + width]
    return out


def _flanks(genome: Genome, part: pd.DataFrame, width: int, reach: int) -> tuple[Codes, Codes]:
    """What the genome has before and after REF, far enough for every shift."""
    far = width - width // 2 + reach
    before = pd.DataFrame({"chrom": part["chrom"], "start": part["start"] - far})
    after = pd.DataFrame({"chrom": part["chrom"], "start": part["end"]})
    left, right = (
        window_codes(genome, side.assign(end=side["start"] + far), outside="pad")
        for side in (before, after)
    )
    return left, right


def _mean_scores(
    scorer: Scorer,
    flanks: tuple[Codes, Codes],
    alleles: list[str],
    shifts: Sequence[int],
    ambiguous: Ambiguous,
) -> NDArray[np.float32]:
    total = np.zeros(len(alleles))
    for shift in shifts:
        codes = allele_windows(*flanks, alleles, scorer.width, shift)
        total += scorer.known_scores(codes, ambiguous)
    return (total / len(shifts)).astype(np.float32)
