"""What DNA is made of: GC of a chromosome; dinucleotides, whichever strand they are read from."""

import numpy as np
from numpy.typing import NDArray

from data_tools.encode import AMBIGUOUS, BASES, as_codes
from data_tools.errors import InputError
from data_tools.genome import Genome


def _classes() -> tuple[tuple[str, ...], NDArray[np.intp]]:
    """Names of the strand-symmetric dinucleotides, and the class of each of the 16."""
    names: list[str] = []
    class_of = np.empty(16, dtype=np.intp)
    for first in range(4):
        for second in range(4):
            pair = 4 * first + second
            other = 4 * (3 - second) + (3 - first)
            if other >= pair:
                class_of[[pair, other]] = len(names)
                names.append(BASES[first] + BASES[second])
    return tuple(names), class_of


DINUCLEOTIDES, _CLASS = _classes()
"""The ten dinucleotides that are left when each is taken together with its reverse complement."""


def dinucleotide_fractions(codes: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of each strand-symmetric dinucleotide among those without an ambiguous base.

    Parameters
    ----------
    codes : ndarray of codes, shape (N, L)

    Returns
    -------
    ndarray of float64, shape (N, 10)
        In the order of `DINUCLEOTIDES`; a row sums to 1, or is NaN where it has none.

    Examples
    --------
    >>> from data_tools.encode import encode
    >>> fractions = dinucleotide_fractions(encode("ACGTT")[None])[0]
    >>> {name: float(share) for name, share in zip(DINUCLEOTIDES, fractions) if share}
    {'AA': 0.25, 'AC': 0.5, 'CG': 0.25}
    """
    known = as_codes(codes)
    if known.ndim != 2:
        raise InputError(f"codes have shape (N, L), got {known.shape}")
    # Codes up to 4 make pairs up to 24 in fives, so that pairs with an ambiguous base stand apart.
    pairs = known[:, :-1] * np.uint8(AMBIGUOUS + 1) + known[:, 1:]
    row = np.arange(len(known))[:, None] * 25
    counted = np.bincount((row + pairs).ravel(), minlength=25 * len(known))
    sixteen = counted.reshape(len(known), 5, 5)[:, :4, :4].reshape(len(known), 16)
    counts: NDArray[np.float64] = sixteen @ (_CLASS[:, None] == np.arange(len(DINUCLEOTIDES)))
    total = counts.sum(axis=1, keepdims=True)
    shares = np.full(counts.shape, np.nan)
    np.divide(counts, total, out=shares, where=total > 0)
    return shares


def composition(genome: Genome, chrom: str, span: int = 1 << 24) -> dict[str, float]:
    """Length, GC fraction and number of ambiguous bases, read a span at a time."""
    counts = np.zeros(5, dtype=np.int64)
    length = genome.lengths[chrom]
    for start in range(0, length, span):
        codes = genome.codes(chrom, start, min(start + span, length))
        counts += np.bincount(codes, minlength=5)
    known = int(counts[:4].sum())
    fraction = int(counts[1] + counts[2]) / known if known else float("nan")
    return {"length": length, "gc": fraction, "ambiguous": int(counts[4])}
