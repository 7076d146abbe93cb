"""The best score that there can be: the log likelihood ratio of a window, planted or not.

Planting at place i overwrites K letters of a stationary chain. What is left of it is still a
chain, with K + 1 steps at once across the site, so that against the untouched chain

    P(x | site at i) / P(x) =
        site(x[i:i+K]) * P^(K+1)(x[i-1], x[i+K]) / prod_{j=i}^{i+K} P(x[j-1], x[j])

with the stationary frequencies in the place of steps from before the window, and no factor
for steps beyond it. The mean of this over places and strands, as the rule weighs them, is the
likelihood ratio, exactly.

References
----------
Neyman & Pearson (1933), On the problem of the most efficient tests of statistical hypotheses.
Phil. Trans. R. Soc. A 231, 289-337: no score separates better at any rate of false alarms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from data_tools.encode import AMBIGUOUS, Codes, as_codes
from data_tools.errors import InputError
from data_tools.simulation.chain import Chain
from data_tools.simulation.planting import Site

FloatArray = NDArray[np.float64]

_CELLS = 1 << 21
"""Bases scored at a time."""


def optimal_score(
    codes: Codes, chain: Chain, site: Site, decoy: Site | None = None, decoys: float = 0.0
) -> FloatArray:
    """Log likelihood ratio (natural) of each window: holding the site, over not holding it.

    Add the prior log odds to get the log odds that a window is positive. No model that sees the
    windows has a better ROC, as long as the chain is the truth.

    Parameters
    ----------
    codes : ndarray of codes, shape (N, W)
        Windows without ambiguous bases.
    chain : Chain
        Background of each window, N rows.
    site : Site
        What positive windows hold.
    decoy : Site, optional
        What a share ``decoys`` of the negative windows holds.

    Returns
    -------
    ndarray of float64, shape (N,)

    Raises
    ------
    InputError
        For ambiguous bases, other shapes, or a site that does not fit.
    """
    windows = as_codes(codes)
    if windows.ndim != 2 or len(windows) != len(chain.bases):
        raise InputError(f"{len(chain.bases)} chains for windows of shape {windows.shape}")
    if (windows == AMBIGUOUS).any():
        row = int((windows == AMBIGUOUS).any(axis=1).argmax())
        raise InputError(f"window {row} holds an ambiguous base: leave it out")
    if not 0 <= decoys <= 1 or (decoys > 0 and decoy is None):
        raise InputError(f"the share of decoys must be 0 to 1 and they need a decoy, got {decoys}")
    result = np.empty(len(windows))
    step = max(1, _CELLS // windows.shape[1])
    for lo in range(0, len(windows), step):
        rows = np.arange(lo, min(lo + step, len(windows)))
        part, background = windows[rows], chain.of(rows)
        ratio = _log_ratio(part, background, site)
        if decoy is not None and decoys > 0:
            with np.errstate(divide="ignore"):
                none, some = np.log1p(-decoys), np.log(decoys)
            ratio -= np.logaddexp(none, some + _log_ratio(part, background, decoy))
        result[rows] = ratio
    return result


def _log_ratio(codes: Codes, chain: Chain, site: Site) -> FloatArray:
    """Log of the mean, over places and strands, of P(x | site there) / P(x)."""
    low, high = site.starts(codes.shape[1])
    places = np.arange(low, high + 1)
    background = _across(codes, chain, places, site.frequencies.shape[1])
    weights = np.log(site.frequencies)
    strands = []
    for share, table in ((site.forward, weights), (1 - site.forward, weights[::-1, ::-1])):
        if share > 0:
            strands.append(_match(codes, table, places) + background + np.log(share))
    total: FloatArray = logsumexp(np.concatenate(strands, axis=1), axis=1)
    return total - float(np.log(len(places)))


def _match(codes: Codes, weights: FloatArray, places: NDArray[np.int64]) -> FloatArray:
    score = np.zeros((len(codes), len(places)))
    for at, column in enumerate(weights.T):
        score += column[codes[:, places[0] + at : places[-1] + at + 1]]
    return score


def _across(codes: Codes, chain: Chain, places: NDArray[np.int64], size: int) -> FloatArray:
    """What the chain gives the letters around a site at each place, less what it gives all."""
    width = codes.shape[1]
    rows = np.arange(len(codes))[:, None]
    # before[:, j] is the log probability of the letters up to and without j.
    letters = np.log(chain.steps)[rows, codes[:, :-1], codes[:, 1:]]
    first = np.log(chain.bases)[rows, codes[:, :1]]
    before = np.concatenate([np.zeros((len(codes), 1)), first, letters], axis=1).cumsum(axis=1)
    end = places + size
    left, right = places > 0, end < width
    jump = np.log(np.linalg.matrix_power(chain.steps, size + 1))
    ratio: FloatArray = before[:, places] - before[:, np.minimum(end + 1, width)]
    inner = left & right
    ratio[:, inner] += jump[rows, codes[:, places[inner] - 1], codes[:, end[inner]]]
    only = ~left & right
    ratio[:, only] += np.log(chain.bases)[rows, codes[:, end[only]]]
    return ratio
