"""Curves of a study: what more trials would have reached, and how a figure follows a dose."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def expected_best_of_k(scores: ArrayLike) -> Floats:
    """Expected best score of k of the n trials, for k = 1 to n. Shape (n,).

    What k random trials would have reached (Dodge et al. 2019, arXiv:1909.03004), as the mean of
    the best over all subsets of k trials, which is unbiased where drawing with replacement is not
    (Tang et al. 2020, ACL, "Showing Your Work Doesn't Always Work").

    Parameters
    ----------
    scores
        Validation scores of n trials, higher is better. NaN and -inf are trials that failed: they
        count as trials, and below any other. Where a draw of k may hold failed ones alone, its
        best is not defined and neither is the mean: NaN.

    Examples
    --------
    >>> expected_best_of_k([0.8, 0.6, 0.9]).round(3)
    array([0.767, 0.867, 0.9  ])
    >>> expected_best_of_k([0.8, float("nan"), 0.9]).round(3)
    array([  nan, 0.867, 0.9  ])
    """
    from scipy.special import gammaln

    values = np.asarray(scores, dtype=np.float64)
    failed = np.isnan(values) | np.isneginf(values)
    ordered = np.sort(values[~failed])
    n = len(values)
    k, rank = np.arange(1, n + 1)[:, None], np.arange(failed.sum() + 1, n + 1)[None, :]
    # The chance that the best of k is the one of this rank: C(rank - 1, k - 1) / C(n, k).
    above = gammaln(rank) + gammaln(n - k + 1) - gammaln(np.maximum(rank - k, 0) + 1)
    chance = np.where(rank >= k, k * np.exp(above - gammaln(n + 1)), 0.0)
    return np.where(k[:, 0] > failed.sum(), chance @ ordered, np.nan)


def slopes(values: ArrayLike, doses: ArrayLike) -> Floats:
    """Slope of a figure on a dose, by least squares over the parts.

    Parameters
    ----------
    values
        Shape (..., parts, resamples + 1), as (seeds, parts, resamples + 1).
    doses
        Shape (parts,), such as the GC shift of each part.

    Returns
    -------
    numpy.ndarray
        Shape (..., resamples + 1): change of the figure for a dose of 1, NaN where a part is NaN.
        Of an array (seeds, parts, resamples + 1), `mean_over_seeds` takes it as it is.

    Raises
    ------
    ValueError
        Where all doses are the same, or their number is not that of the parts.

    Examples
    --------
    >>> slopes([[[0.01], [0.03], [0.05]]], [0.0, 0.1, 0.2]).round(6)
    array([[0.2]])
    """
    figures, dose = np.asarray(values, dtype=np.float64), np.asarray(doses, dtype=np.float64)
    if dose.shape != figures.shape[-2:-1]:
        raise ValueError(f"doses of shape {dose.shape} do not fit {figures.shape[-2]} parts")
    centred = dose - dose.mean()
    if not np.ptp(dose) > 0:
        raise ValueError("a slope needs parts of at least two different doses")
    return np.asarray(np.einsum("p,...pr->...r", centred / (centred @ centred), figures))
