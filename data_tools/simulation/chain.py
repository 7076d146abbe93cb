"""Backgrounds: Markov chains of order 1 with a stated GC content and CpG depletion."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_tools.encode import AMBIGUOUS, Codes, as_codes
from data_tools.errors import InputError

FloatArray = NDArray[np.float64]

_C, _G = 1, 2
_STEPS = 1 << 9
"""Steps whose random numbers are drawn at a time."""


@dataclass(frozen=True)
class Chain:
    """Backgrounds of N sequences, each a stationary chain of order 1.

    Attributes
    ----------
    bases : ndarray, shape (N, 4)
        Frequencies of A, C, G, T, at every position.
    steps : ndarray, shape (N, 4, 4)
        Probability of each base (last axis) after each base.
    """

    bases: FloatArray
    steps: FloatArray

    def of(self, rows: NDArray[np.int64]) -> Chain:
        """The chains of these rows."""
        return Chain(self.bases[rows], self.steps[rows])

    def sample(self, length: int, generator: np.random.Generator) -> Codes:
        """Draw a sequence from each chain, all a base at a time.

        Returns
        -------
        ndarray of uint8, shape (N, length)
        """
        number = len(self.bases)
        first = np.cumsum(self.bases, axis=1)[:, :3]
        following = np.cumsum(self.steps, axis=2)[:, :, :3]
        everyone = np.arange(number)
        out = np.empty((length, number), dtype=np.uint8)
        state = None
        for lo in range(0, length, _STEPS):
            drawn = generator.random((min(_STEPS, length - lo), number))
            for at, number_drawn in enumerate(drawn, start=lo):
                limits = first if state is None else following[everyone, state]
                state = (number_drawn[:, None] >= limits).sum(axis=1)
                out[at] = state
        return np.ascontiguousarray(out.T)


def mutated_chain(gc: ArrayLike, cpg: float = 1.0) -> Chain:
    """Chains of stated GC content in which CpG is as frequent as stated, and all else as free.

    The joint frequencies of two neighbours are those of independent bases, but for C followed by
    G, which has ``cpg`` times that frequency, and for the factors by which rows and columns are
    scaled so that the bases keep their frequencies (quasi-independence; in closed form, as only
    one cell is fixed). So the stationary composition is exact, and the chain reads the same on
    both strands.

    Parameters
    ----------
    gc : float or array, shape (N,)
        GC fraction, above 0 and below 1; C as frequent as G, A as T.
    cpg : float, default 1
        CpG observed over expected, f(CG) / (f(C) f(G)); some 0.2 in the human genome, below 2.

    Raises
    ------
    InputError
        For a value outside these.

    References
    ----------
    Gardiner-Garden & Frommer (1987), CpG islands in vertebrate genomes. J. Mol. Biol. 196,
    261-282 (observed over expected).

    Examples
    --------
    >>> chain = mutated_chain(0.4, cpg=0.25)
    >>> (chain.bases @ chain.steps).round(12).tolist()
    [[[0.3, 0.2, 0.2, 0.3]]]
    >>> float((chain.bases[0, 1] * chain.steps[0, 1, 2] / 0.2**2).round(12))
    0.25
    """
    content = np.atleast_1d(np.asarray(gc, dtype=np.float64))
    if content.ndim != 1 or not ((content > 0) & (content < 1)).all():
        raise InputError(f"GC fractions lie above 0 and below 1, got {content}")
    if not 0 <= cpg <= 2:
        raise InputError(f"CpG observed over expected must be 0 to 2, not {cpg}")
    bases = np.stack([1 - content, content, content, 1 - content], axis=1) / 2
    share = bases[:, _C]
    # A row that is not C gives G this part of itself, and the other bases the rest.
    to_g = share * (1 - cpg * share) / (1 - share)
    others = bases / (1 - share)[:, None]
    steps = np.repeat(((1 - to_g)[:, None] * others)[:, None], 4, axis=1)
    steps[:, :, _G] = to_g[:, None]
    steps[:, _C] = others * (1 - cpg * share)[:, None]
    steps[:, _C, _G] = cpg * share
    return Chain(bases, steps)


def fitted_chain(codes: Codes, pseudocount: float = 1.0) -> Chain:
    """Estimate a chain from each sequence: counts of neighbours, made alike on both strands.

    For real sequences, whose background is not known. Ambiguous bases count nothing.

    Parameters
    ----------
    codes : ndarray of codes, shape (N, L)
    pseudocount
        Added to each of the 16 counts.

    Examples
    --------
    >>> chain = fitted_chain(np.array([[0, 1, 2, 3, 0, 1, 2, 3]], dtype=np.uint8))
    >>> bool(np.allclose(chain.bases @ chain.steps, chain.bases))
    True
    """
    checked = as_codes(codes)
    if checked.ndim != 2:
        raise InputError(f"codes have shape (N, L), got {checked.shape}")
    joint = np.full((len(checked), 4, 4), float(pseudocount))
    known = (checked[:, 1:] < AMBIGUOUS) & (checked[:, :-1] < AMBIGUOUS)
    row, at = np.nonzero(known)
    np.add.at(joint, (row, checked[row, at], checked[row, at + 1]), 1)
    # On the other strand a pair (a, b) is (comp b, comp a).
    joint += joint[:, ::-1, ::-1].transpose(0, 2, 1)
    steps = joint / joint.sum(axis=2, keepdims=True)
    return Chain(_stationary(steps), steps)


def _stationary(steps: FloatArray) -> FloatArray:
    """Solve bases @ steps = bases, bases.sum() = 1."""
    system = steps.transpose(0, 2, 1) - np.eye(4)
    system[:, 3] = 1
    right = np.zeros((len(steps), 4, 1))
    right[:, 3] = 1
    bases: FloatArray = np.linalg.solve(system, right)[..., 0].astype(np.float64)
    return bases
