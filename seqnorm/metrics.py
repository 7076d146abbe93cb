"""Metrics of a score on labelled windows, each also for every resample of the blocks.

The block bootstrap draws whole blocks of the chromosome with replacement (Kuensch 1989, Annals
of Statistics 17, 1217-1241), because windows near one another are not independent. A resample
is a vector of weights, one a block: how often it was drawn. Every metric below takes such weights
for many resamples at once, and weights of 1 give the plain metric, so that the point estimate and
its interval come from one formula.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
GC_CALIPER = 0.001
"""Largest GC difference of the pairs that GC-conditional AUROC compares.

Windows of up to 500 bases are thus compared at exactly equal GC. A caliper of 0.02, good enough
for matching nearest neighbours, is too wide here: where the density of GC is steep, GC alone still
scores 0.7 inside it.
"""


@dataclass(frozen=True)
class Scored:
    """Scores of the windows of one chromosome (or of the validation part).

    Attributes
    ----------
    scores, gc : numpy.ndarray
        float of shape (N,).
    labels, blocks : numpy.ndarray
        int of shape (N,); blocks are numbered from 0 without gaps.
    """

    scores: Floats
    labels: NDArray[np.int64]
    gc: Floats
    blocks: NDArray[np.int64]

    @cached_property
    def positives(self) -> NDArray[np.int64]:
        """Rows with label 1."""
        return np.flatnonzero(self.labels == 1)

    @cached_property
    def negatives(self) -> NDArray[np.int64]:
        """Rows with label 0."""
        return np.flatnonzero(self.labels == 0)

    @cached_property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return int(self.blocks.max()) + 1 if len(self.blocks) else 0


def block_numbers(chrom: pd.Series[str], block: pd.Series[int]) -> NDArray[np.int64]:
    """Number each row's block of its chromosome from 0 without gaps. Shape (N,).

    In the order of the names ``chrom:block``: which resample draws a block hangs on it.
    """
    keys = chrom.astype(str) + ":" + block.astype(str)
    _, number = np.unique(keys.to_numpy(dtype=np.str_), return_inverse=True)
    return number.astype(np.int64)


def block_weights(n_blocks: int, resamples: int, seed: int) -> Floats:
    """Weights of shape (resamples + 1, n_blocks): all ones first, then the resamples.

    Examples
    --------
    >>> block_weights(3, 2, seed=0).sum(axis=1)
    array([3., 3., 3.])
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_blocks, np.full(n_blocks, 1 / n_blocks), size=resamples)
    return np.vstack([np.ones((1, n_blocks)), drawn]).astype(np.float64)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """Divide; NaN where a resample holds nothing to divide by."""
    result = np.full(np.shape(top), np.nan)
    np.divide(top, bottom, out=result, where=bottom > 0)
    return result


def auroc(data: Scored, weights: Floats) -> Floats:
    """Probability that a positive scores above a negative; ties count half. Shape (R,)."""
    wins = np.zeros((len(data.positives), data.n_blocks))
    total = np.zeros(data.n_blocks)
    targets = data.scores[data.positives]
    for block in range(data.n_blocks):
        rows = data.negatives[data.blocks[data.negatives] == block]
        below = np.sort(data.scores[rows])
        total[block] = len(rows)
        wins[:, block] = 0.5 * (
            np.searchsorted(below, targets, "left") + np.searchsorted(below, targets, "right")
        )
    positive = weights[:, data.blocks[data.positives]]
    # Row r: sum over positives p and blocks b of w_p w_b wins[p, b].
    won = np.einsum("rb,rb->r", positive @ wins, weights)
    return _ratio(won, positive.sum(1) * (weights @ total))


def gc_conditional_auroc(data: Scored, weights: Floats, caliper: float = GC_CALIPER) -> Floats:
    """AUROC over the pairs whose GC differs by at most ``caliper``. Shape (R,).

    The mean over positives of the fraction of GC-matched negatives that score below (ties half);
    positives without such a negative are left out. Knowing GC alone gives nearly 0.5.
    """
    order = data.negatives[np.argsort(data.gc[data.negatives], kind="stable")]
    gc, scores, blocks = data.gc[order], data.scores[order], data.blocks[order]
    wins = np.zeros((len(data.positives), data.n_blocks))
    pairs = np.zeros_like(wins)
    low = np.searchsorted(gc, data.gc[data.positives] - caliper - 1e-9, "left")
    high = np.searchsorted(gc, data.gc[data.positives] + caliper + 1e-9, "right")
    for row, positive in enumerate(data.positives):
        near = slice(low[row], high[row])
        difference = data.scores[positive] - scores[near]
        won = (difference > 0) + 0.5 * (difference == 0)
        wins[row] = np.bincount(blocks[near], won, minlength=data.n_blocks)
        pairs[row] = np.bincount(blocks[near], minlength=data.n_blocks)
    fraction = _ratio(wins @ weights.T, pairs @ weights.T)
    weight = weights[:, data.blocks[data.positives]].T * ~np.isnan(fraction)
    return _ratio((weight * np.nan_to_num(fraction)).sum(0), weight.sum(0))


def average_precision(data: Scored, weights: Floats, prevalence: float | None = None) -> Floats:
    """Area under the precision-recall curve as a sum of steps. Shape (R,).

    With ``prevalence`` negatives are weighted so that positives are this share of all, since the
    precision of one and the same score rises with theirs; chromosomes then compare.
    """
    # Recall rises at the scores of positives alone: windows are counted above each of these.
    at = np.unique(data.scores[data.positives])
    place = np.searchsorted(at, data.scores, "right")
    cell = np.ravel_multi_index((place, data.blocks), (len(at) + 1, data.n_blocks))
    of_positives, of_negatives = (
        np.bincount(cell[rows], minlength=(len(at) + 1) * data.n_blocks)
        .reshape(-1, data.n_blocks)[:0:-1]
        .astype(np.float64)
        for rows in (data.positives, data.negatives)
    )
    above = of_negatives.cumsum(0)
    every = np.bincount(data.blocks[data.negatives], minlength=data.n_blocks)
    result = np.empty(len(weights))
    for first in range(0, len(weights), 100):
        weight = weights[first : first + 100]
        gained, called = weight @ of_positives.T, weight @ above.T
        found = gained.cumsum(1)
        total = gained.sum(1)
        if prevalence is not None:
            wanted = total * (1 - prevalence) / prevalence
            called *= _ratio(wanted, weight @ every)[:, None]
        called += found
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        result[first : first + 100] = _ratio((gained * precision).sum(1), total)
    return result


def threshold_at(data: Scored, weights: Floats, rate: float) -> Floats:
    """Lowest score above which at most ``rate`` of the negatives lie. Shape (R,).

    A window is called when its score is strictly above the threshold.
    """
    order = data.negatives[np.argsort(-data.scores[data.negatives], kind="stable")]
    scores = data.scores[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(order) - 1)
    result = np.empty(len(weights))
    for row, weight in enumerate(weights):
        above = np.cumsum(weight[data.blocks[order]])
        total = above[-1]
        # First distinct score whose inclusion would call more than the rate.
        over = np.flatnonzero(above[last] > rate * total * (1 + 1e-12))
        result[row] = scores[last[over[0]]] if total > 0 else np.nan
    return result


def called_fraction(
    data: Scored, rows: NDArray[np.int64], weights: Floats, thresholds: Floats
) -> Floats:
    """Fraction of the given rows above the threshold of each resample. Shape (R,).

    Of negatives it is the false-alarm rate, of positives the recall.
    """
    order = rows[np.argsort(data.scores[rows], kind="stable")]
    scores = data.scores[order]
    blocks = np.zeros((len(order), data.n_blocks))
    blocks[np.arange(len(order)), data.blocks[order]] = 1
    above = np.vstack([np.cumsum(blocks[::-1], axis=0)[::-1], np.zeros((1, data.n_blocks))])
    first = np.searchsorted(scores, thresholds, "right")
    called = np.einsum("rb,rb->r", above[first], weights)
    rate = _ratio(called, weights @ blocks.sum(0))
    rate[np.isnan(thresholds)] = np.nan
    return rate


def probe_r2(features: Floats, values: Floats, blocks: NDArray[np.int64]) -> float:
    """How much of some values a linear probe reads from features: R squared out of sample.

    The probe is fitted on every other block and read on the rest, both ways. Fitted elsewhere, on
    validation, it would mix two things: what the features tell of windows here, and whether their
    mean is the same here as there.

    Ridge regression on standardized features with a penalty of 1 (Alain & Bengio 2016,
    arXiv:1610.01644, probe layers alike).

    Parameters
    ----------
    features : numpy.ndarray
        Shape (N, F).
    values : numpy.ndarray
        Shape (N,).
    blocks : numpy.ndarray
        Number of each row's block, (N,).

    Returns
    -------
    float
        1 where the values are read exactly, 0 where they are not (or a little below); NaN where a
        half holds fewer rows than there are features, or where all values are equal.

    Examples
    --------
    >>> x = np.arange(8.0)[:, None]
    >>> round(probe_r2(x, 3 * x[:, 0] + 1, np.arange(8)), 2)
    0.95
    """
    _, place = np.unique(blocks, return_inverse=True)
    even = place % 2 == 0
    least = max(2, features.shape[1])
    if min(even.sum(), (~even).sum()) < least or np.ptp(values) == 0:
        return float("nan")
    rest = np.empty_like(values)
    for read in (even, ~even):
        rest[read] = values[read] - _read(features[~read], values[~read], features[read])
    return float(1 - (rest**2).sum() / ((values - values.mean()) ** 2).sum())


def _read(x: Floats, y: Floats, other: Floats) -> Floats:
    """What ridge regression of ``y`` on ``x`` says for other rows."""
    mean, scale = x.mean(0), x.std(0)
    # A feature that is constant says nothing: it becomes 0.
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    design = (x - mean) * inverse
    slope = np.linalg.solve(design.T @ design + np.eye(x.shape[1]), design.T @ (y - y.mean()))
    found: Floats = y.mean() + (other - mean) * inverse @ slope
    return found


def gc_correlation(data: Scored) -> float:
    """Spearman's correlation of score and GC among the negatives; NaN if either is constant."""
    scores, gc = data.scores[data.negatives], data.gc[data.negatives]
    if len(scores) < 3 or np.ptp(scores) == 0 or np.ptp(gc) == 0:
        return float("nan")
    # Here, since a client of a federation measures without it, and it takes a second to import.
    from scipy.stats import spearmanr

    return float(spearmanr(scores, gc).statistic)


def probability(logits: Floats) -> Floats:
    """Give the probability that each logit stands for."""
    chance: Floats = 1 / (1 + np.exp(-np.clip(logits, -60, 60)))
    return chance


def probability_bins(chance: Floats, bins: int) -> NDArray[np.int64]:
    """Which of equally wide bins each probability is in, 0 to ``bins - 1``."""
    return np.minimum((chance * bins).astype(np.int64), bins - 1)


def calibration_error(data: Scored, bins: int = 10) -> float:
    """Expected calibration error of the logits' probabilities over equal-width bins.

    The mean gap between the probability given to the positive class and its frequency, weighted
    by the number of windows in a bin; Guo et al. (2017), arXiv:1706.04599, do the same with the
    probability of the top class.
    """
    chance = probability(data.scores)
    bin_of = probability_bins(chance, bins)
    confidence = np.bincount(bin_of, chance, minlength=bins)
    accuracy = np.bincount(bin_of, data.labels, minlength=bins)
    return float(np.abs(confidence - accuracy).sum() / max(1, len(chance)))


def gc_strata(gc: Floats, edges: Floats) -> NDArray[np.int64]:
    """Number of the GC decile of each window, 0 to 9, for nine inner edges."""
    return np.searchsorted(edges, gc, side="right").astype(np.int64)


def false_alarms_by_gc(
    parts: Iterable[tuple[Scored, Floats]], edges: Floats, thresholds: Floats
) -> tuple[Floats, Floats]:
    """Called negatives and all negatives of each GC stratum, summed over parts with their weights.

    For R thresholds and E inner edges both have shape (E + 1, R); their ratio is the false-alarm
    rate. A resample without a threshold has called NaN, even of a part it drew nothing from.
    """
    called = np.zeros((len(edges) + 1, len(thresholds)))
    sizes = np.zeros_like(called)
    for data, weights in parts:
        stratum = gc_strata(data.gc, edges)
        for number in range(len(called)):
            here = np.flatnonzero((stratum == number) & (data.labels == 0))
            if len(here) == 0:
                continue
            rate = called_fraction(data, here, weights, thresholds)
            size = weights @ np.bincount(data.blocks[here], minlength=data.n_blocks)
            # No window of this part drawn is no false alarm; no threshold is no rate.
            found = np.where(size > 0, rate, 0.0) * size
            called[number] += np.where(np.isnan(thresholds), np.nan, found)
            sizes[number] += size
    return called, sizes
