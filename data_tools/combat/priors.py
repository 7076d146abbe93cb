"""Batch effects of genes, shrunk towards what is usual in the batch (empirical Bayes).

References
----------
Johnson, Li & Rabinovic (2007), Adjusting batch effects in microarray expression data using
empirical Bayes methods. Biostatistics 8, 118-127: equations 3.1 and 3.2, and the supplement's
section A.1 for the non-parametric prior.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_tools.errors import InputError

FloatArray = NDArray[np.float64]

_PAIRS = 1 << 22
"""Pairs of genes compared at a time: some 100 MB."""

_ROUNDS = 10_000


def parametric(
    data: FloatArray, gamma: FloatArray, delta: FloatArray, tolerance: float
) -> tuple[FloatArray, FloatArray]:
    """Posterior means under a normal prior of the shifts and an inverse gamma of the variances.

    Parameters
    ----------
    data
        Standardized values of one batch, shape (G, S), NaN where missing.
    gamma, delta
        Mean and variance of each gene in the batch, shape (G,).
    tolerance
        The iteration ends when no estimate moves by more than this part of itself.

    Returns
    -------
    gamma, delta : ndarray, shape (G,)
    """
    number = np.count_nonzero(~np.isnan(data), axis=1)
    centre, spread = gamma.mean(), gamma.var(ddof=1)
    shape, rate = _inverse_gamma(delta)
    total, squares = np.nansum(data, axis=1), np.nansum(data * data, axis=1)
    old_gamma, old_delta = gamma, delta
    for _ in range(_ROUNDS):
        weight = spread * number
        new_gamma = (weight * gamma + old_delta * centre) / (weight + old_delta)
        residue = squares - 2 * new_gamma * total + number * new_gamma**2
        new_delta = (residue / 2 + rate) / (number / 2 + shape - 1)
        # As published: the shift's change is divided by the shift with its sign, so that a
        # negative shift never holds the iteration up.
        moved = max(
            _largest((np.abs(new_gamma - old_gamma)), old_gamma),
            _largest(np.abs(new_delta - old_delta), old_delta),
        )
        old_gamma, old_delta = new_gamma, new_delta
        if moved <= tolerance:
            return new_gamma, new_delta
    raise InputError(
        f"the empirical Bayes iteration did not settle in {_ROUNDS:,} rounds; raise the "
        "tolerance, or use the non-parametric prior"
    )


def shift_only(gamma: FloatArray) -> FloatArray:
    """Posterior means of the shifts where the variance is taken to be 1, as published (n = 1)."""
    spread = gamma.var(ddof=1)
    shrunk: FloatArray = (spread * gamma + gamma.mean()) / (spread + 1)
    return shrunk


def nonparametric(
    data: FloatArray, gamma: FloatArray, delta: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Posterior means under the prior that the batch's other genes are.

    Each gene's estimate is the mean of the other genes' estimates, weighted by the likelihood
    that they give to its data. The likelihood of gene i under gene j's shift and variance is a
    product of sums over i and of terms of j, so a block of genes is one product of matrices.
    Logarithms are taken relative to the largest, which keeps far-off genes from dividing 0 by 0.

    Parameters and result are those of `parametric`.
    """
    number = np.count_nonzero(~np.isnan(data), axis=1).astype(np.float64)
    sums = np.stack([np.nansum(data * data, axis=1), np.nansum(data, axis=1), number], axis=1)
    terms = np.stack(
        [-0.5 / delta, gamma / delta, -0.5 * (gamma**2 / delta + np.log(2 * np.pi * delta))]
    )
    wanted = np.stack([gamma, delta, np.ones_like(gamma)], axis=1)
    result = np.empty((len(data), 3))
    step = max(1, _PAIRS // max(1, len(data)))
    for lo in range(0, len(data), step):
        likelihood = sums[lo : lo + step] @ terms
        mine = np.arange(len(likelihood))
        likelihood[mine, lo + mine] = -np.inf
        likelihood -= likelihood.max(axis=1, keepdims=True)
        np.exp(likelihood, out=likelihood)
        result[lo : lo + step] = likelihood @ wanted
    return result[:, 0] / result[:, 2], result[:, 1] / result[:, 2]


def _inverse_gamma(delta: FloatArray) -> tuple[float, float]:
    """Shape and rate of the inverse gamma with the moments of these variances."""
    mean, variance = float(delta.mean()), float(delta.var(ddof=1))
    return (2 * variance + mean**2) / variance, (mean * variance + mean**3) / variance


def _largest(change: FloatArray, of: FloatArray) -> float:
    ratio = np.divide(change, of, out=np.zeros_like(change), where=(change != 0) & (of != 0))
    return float(ratio.max(initial=0.0))
