"""Least squares of many genes at once, each on the samples that it has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_GENES = 1 << 12
"""Genes with missing values that are solved at a time."""


def solve(design: FloatArray, table: FloatArray) -> FloatArray:
    """Coefficients of each gene; the shortest ones where the design lacks rank.

    Parameters
    ----------
    design
        Shape (S, P).
    table
        Shape (G, S), NaN where missing.

    Returns
    -------
    ndarray, shape (P, G)

    Examples
    --------
    >>> design = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
    >>> solve(design, np.array([[1.0, 3.0, 5.0], [1.0, np.nan, 5.0]])).round(9).tolist()
    [[1.0, 1.0], [2.0, 2.0]]
    """
    known = ~np.isnan(table)
    whole = known.all(axis=1)
    result = np.empty((design.shape[1], len(table)))
    result[:, whole] = np.linalg.lstsq(design, table[whole].T)[0]
    products = np.einsum("sp,sq->spq", design, design).reshape(len(design), -1)
    holes = np.flatnonzero(~whole)
    for lo in range(0, len(holes), _GENES):
        genes = holes[lo : lo + _GENES]
        gram = (known[genes] @ products).reshape(len(genes), design.shape[1], design.shape[1])
        moment = np.where(known[genes], table[genes], 0) @ design
        result[:, genes] = (np.linalg.pinv(gram, hermitian=True) @ moment[:, :, None])[..., 0].T
    return result


def residual_variance(residuals: FloatArray, missing: bool) -> FloatArray:
    """Variance of each gene's residuals, as published: by n without, by n - 1 with missing data.

    Where any gene misses a value all genes are divided by n - 1, about their mean.
    """
    if missing:
        variance: FloatArray = np.nanvar(residuals, axis=1, ddof=1)
    else:
        variance = np.mean(residuals**2, axis=1)
    return variance
