"""Labels that follow GC content as far as a dial says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_tools.errors import InputError

FloatArray = NDArray[np.float64]


def label_probability(
    gc: FloatArray, among: FloatArray, prevalence: float, confounding: float
) -> FloatArray:
    """Probability that a window of this GC content is positive.

    With the dial at 1 the most GC-rich windows are the positives, with 0 GC says nothing of
    labels, and in between a share ``confounding`` of the labels is given the one way and the
    rest the other. The prevalence is the same at each setting.

    Parameters
    ----------
    gc : ndarray, shape (N,)
        GC fraction of windows, or of the isochores that they lie in.
    among : ndarray, shape (M,)
        GC fractions of all windows, whose most GC-rich are meant.
    prevalence : float
        Share of positives, above 0 and below 1.
    confounding : float
        The dial, 0 to 1.

    Returns
    -------
    ndarray of float64, shape (N,)

    Examples
    --------
    >>> gc = np.array([0.3, 0.4, 0.5, 0.6])
    >>> label_probability(gc, gc, 0.5, 0.8).round(3).tolist()
    [0.1, 0.1, 0.9, 0.9]
    """
    if not 0 < prevalence < 1:
        raise InputError(f"the prevalence must lie between 0 and 1, not {prevalence}")
    if not 0 <= confounding <= 1:
        raise InputError(f"the confounding must be 0 to 1, not {confounding}")
    wanted = prevalence * len(among)
    cut = np.sort(among)[::-1][min(int(wanted), len(among) - 1)]
    above, equal = np.count_nonzero(among > cut), np.count_nonzero(among == cut)
    # Of windows of one GC content, as many as make the prevalence exact.
    rich = np.where(gc > cut, 1.0, np.where(gc == cut, (wanted - above) / equal, 0.0))
    result: FloatArray = confounding * rich + (1 - confounding) * prevalence
    return result


def log_odds(probability: FloatArray) -> FloatArray:
    """Logit, infinite at 0 and 1."""
    with np.errstate(divide="ignore"):
        odds: FloatArray = np.log(probability) - np.log1p(-probability)
    return odds
