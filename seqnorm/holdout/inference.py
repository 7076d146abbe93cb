"""What few seeds and few blocks say about a mean: intervals, p values, equivalence.

A figure is measured at each seed, and again on resamples of the blocks of the genome. Its mean
over the seeds has two sources of error: other seeds would have been trained to something else,
and other blocks hold other windows. Every seed sees the same blocks, as every reader of a
multi-reader study sees the same cases, and the variance is taken apart as it is there (Obuchowski
and Rockette 1995, Communications in Statistics: Simulation 24, 285-308):

- ``seed_variance``, the variance between the plain figures of the seeds over their number. It
  holds the seeds and what each makes of single blocks.
- ``block_variance``, the covariance, over the resamples, of the figures of two different seeds:
  the error that all seeds share, and that more seeds do not lessen.

The half-width h of an interval is h^2 = t_1^2 seed_variance + t_2^2 block_variance, each with the
quantile of Student's t at its own degrees of freedom (Banerjee 1960, Sankhya 22, 357-358). It
keeps at least its level, whatever the shares of the two: with Z normal and G the distribution
function of Z^2, which is concave, P(Z^2 <= sum_i share_i x_i) = E G(sum_i share_i x_i) >=
sum_i share_i E G(x_i), and each E G(x_i) is the level of a t interval. One t with degrees of
freedom as in Satterthwaite (1946, Biometrics Bulletin 2, 110-114) does not: at two or three seeds
it takes a seed variance that came out small by chance for many degrees of freedom, and over six
norms finds a difference in up to a quarter of studies without one. A percentile bootstrap of n
seeds is too narrow by (n - 1) / n in variance, and by the quantile of t.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
LEAST_LOG_P = -40.0
"""Natural logarithm of the smallest p value that is told apart, 4e-18."""
HALVINGS = 50
_ARRAYS = ("estimate", "seed_variance", "block_variance", "blocks", "dropped")


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with its error; every field has the shape of the leading axes.

    Attributes
    ----------
    estimate : numpy.ndarray
        The mean of the plain figures; NaN where a seed lacks one.
    seed_variance, block_variance : numpy.ndarray
        The two parts of the variance of the mean. The second is infinite where it is not known:
        with a single block, or where fewer than half of the resamples held something to measure.
    seeds : int
        Number of seeds.
    blocks : numpy.ndarray
        Blocks that were resampled in the part that has the fewest; one more than the second
        variance has degrees of freedom.
    dropped : numpy.ndarray
        Resamples that were left out because nothing was drawn that could be measured.
    of_parts : bool
        Whether the second variance is that between parts, which holds the seeds' as well.
    """

    estimate: Floats
    seed_variance: Floats
    block_variance: Floats
    seeds: int
    blocks: Floats
    dropped: NDArray[np.int64]
    of_parts: bool = False

    @property
    def one_seed(self) -> bool:
        """Whether the error holds the blocks alone, since one seed shows no spread of seeds."""
        return self.seeds == 1 and not self.of_parts

    def at(self, place: int) -> Mean:
        """One of the means that stand together, by its place on the last axis."""
        found: dict[str, Any] = {name: getattr(self, name)[..., place] for name in _ARRAYS}
        return replace(self, **found)

    def with_last(self, last: Mean) -> Mean:
        """Put other means in the last place of the first axis."""
        found: dict[str, Any] = {name: np.array(getattr(self, name)) for name in _ARRAYS}
        for name, column in found.items():
            column[-1] = getattr(last, name)
        return replace(self, **found)

    def half_width(self, tail: float | Floats) -> Floats:
        """Half the width of the interval with the chance ``tail`` on either side of it."""
        # scipy takes a second to import, and a spec with a typo is refused without it.
        from scipy.special import stdtrit

        of_seeds = stdtrit(max(1, self.seeds - 1), tail) ** 2 * self.seed_variance
        of_blocks = stdtrit(np.maximum(1, self.blocks - 1), tail) ** 2 * self.block_variance
        return np.asarray(np.sqrt(of_seeds + of_blocks))

    def interval(self, confidence: float = 0.95, family: int = 1) -> tuple[Floats, Floats]:
        """Lower and upper end.

        Parameters
        ----------
        confidence
            Chance that all intervals of the family hold what they are meant to hold.
        family
            Number of intervals that are read together. They are Bonferroni's: one that leaves out
            0 belongs to a difference that `holm` finds, too, but `holm`, which steps down, may
            find one more.
        """
        half = self.half_width((1 - confidence) / 2 / family)
        return self.estimate - half, self.estimate + half

    def p_value(self, null: float = 0.0) -> Floats:
        """Two-sided p value of the mean being ``null``: 1 - confidence of the interval up to it."""
        distance = np.abs(self.estimate - null)
        low = np.full(np.shape(distance), LEAST_LOG_P)
        high = np.zeros_like(low)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            covered = self.half_width(np.exp(middle) / 2) > distance
            low, high = np.where(covered, middle, low), np.where(covered, high, middle)
        found = np.where(distance == 0, 1.0, np.exp((low + high) / 2))
        return np.where(np.isnan(distance), np.nan, found)

    def p_above(self, bound: float) -> Floats:
        """One-sided p value of the mean being ``bound`` or less; small where it lies above."""
        tail = self.p_value(bound) / 2
        return np.where(self.estimate > bound, tail, 1 - tail)

    def p_equivalent(self, margin: float) -> Floats:
        """P value of two one-sided tests: small where the mean is within ``margin`` of 0.

        Schuirmann (1987), Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680. It is at
        most (1 - confidence) / 2 where the interval lies within the margin on both sides.
        """
        return np.maximum(self.p_above(-margin), 1 - self.p_above(margin))


def mean_over_seeds(values: ArrayLike, blocks: ArrayLike) -> Mean:
    """Mean of a figure, or of a paired difference of two, over seeds, with its error.

    Parameters
    ----------
    values
        Shape (..., seeds, resamples + 1): the plain figure first, then that of each resample; a
        resample draws the same blocks for every seed. NaN where nothing was drawn: that resample
        is left out for all seeds, and counted.
    blocks
        Number of blocks of the part that has the fewest, the one that sets the threshold
        included: an integer, or one for each of the leading axes.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> draws = rng.multinomial(20, np.full(20, 1 / 20), size=500) / 20
    >>> weights = np.vstack([np.full(20, 1 / 20), draws])
    >>> by_block = -0.03 + 0.02 * rng.standard_normal((4, 20))  # seeds x blocks
    >>> mean = mean_over_seeds(by_block @ weights.T, blocks=20)
    >>> low, high = mean.interval()
    >>> f"{mean.estimate:.3f}, {low:.3f} to {high:.3f}, p = {mean.p_value():.4f}"
    '-0.029, -0.035 to -0.023, p = 0.0003'
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim < 2 or values.shape[-2] < 1 or values.shape[-1] < 3:
        raise ValueError(
            f"values of shape {values.shape} must be (..., seeds, resamples + 1) with at least "
            "one seed and two resamples"
        )
    plain, resampled = values[..., 0], values[..., 1:]
    seeds = plain.shape[-1]
    usable = ~np.isnan(resampled).any(-2)
    covariance = _block_variance(np.where(usable[..., None, :], resampled, 0.0), usable)
    fewest = np.broadcast_to(np.asarray(blocks, dtype=np.float64), covariance.shape)
    # The variance of B drawn of B blocks is short by (B - 1) / B.
    longer = np.divide(fewest, fewest - 1, out=np.ones_like(covariance), where=fewest > 1)
    known = (fewest > 1) & (usable.mean(-1) >= 0.5)
    spread = plain.var(-1, ddof=1) / seeds if seeds > 1 else np.zeros(plain.shape[:-1])
    return Mean(
        estimate=np.asarray(plain.mean(-1)),
        seed_variance=np.asarray(spread),
        block_variance=np.where(known, np.maximum(covariance, 0.0) * longer, np.inf),
        seeds=seeds,
        blocks=fewest,
        dropped=(~usable).sum(-1),
    )


def mean_over_parts(values: ArrayLike, within: ArrayLike = 0.0) -> Mean:
    """Mean of a figure over parts of which each is one observation, with its error.

    Of chromosomes, each with a model that has never seen it, the spread holds that of blocks, of
    training, and of the chromosomes themselves: no other seed is needed to see it. Models of
    different parts share most of what they learnt from, which no variance of one
    cross-validation can show (Bengio and Grandvalet 2004, JMLR 5, 1089-1105).

    Parameters
    ----------
    values
        Shape (..., seeds, parts); the mean over the seeds is what is observed.
    within
        Variance of each part's figure by its blocks alone, (..., parts). The spread between parts
        holds it, but that of a few may come out smaller by chance: rates of few calls are often
        all the same. The larger of the two is taken.

    Examples
    --------
    >>> mean = mean_over_parts([[0.01, 0.03, 0.02, 0.04]])
    >>> f"{mean.estimate:.3f}, {mean.interval()[0]:.3f} to {mean.interval()[1]:.3f}"
    '0.025, 0.004 to 0.046'
    """
    values = np.asarray(values, dtype=np.float64)
    observed = values.mean(-2)
    parts = observed.shape[-1]
    least = np.broadcast_to(np.asarray(within, dtype=np.float64), observed.shape).sum(-1) / parts**2
    between = observed.var(-1, ddof=1) / parts if parts > 1 else np.inf
    return _of_degrees(observed.mean(-1), np.maximum(between, least), parts - 1, values.shape[-2])


def slope_over_parts(values: ArrayLike, doses: ArrayLike, within: ArrayLike = 0.0) -> Mean:
    """Slope of a figure on a dose with its error by least squares; the parts are as above.

    Parameters
    ----------
    values
        Shape (..., seeds, parts).
    doses
        Shape (parts,).
    within
        As above.

    Examples
    --------
    >>> slope = slope_over_parts([[0.01, 0.03, 0.02, 0.04]], [0.0, 0.1, 0.2, 0.3])
    >>> f"{slope.estimate:.2f}, {slope.interval()[0]:.2f} to {slope.interval()[1]:.2f}"
    '0.08, -0.10 to 0.26'
    """
    values = np.asarray(values, dtype=np.float64)
    observed, dose = values.mean(-2), np.asarray(doses, dtype=np.float64)
    centred = dose - dose.mean()
    slope = observed @ centred / (centred @ centred)
    fitted = observed.mean(-1)[..., None] + slope[..., None] * centred
    freedom = len(dose) - 2
    left = ((observed - fitted) ** 2).sum(-1)
    variance = left / freedom / (centred @ centred) if freedom > 0 else np.inf
    known = np.broadcast_to(np.asarray(within, dtype=np.float64), observed.shape)
    least = known @ centred**2 / (centred @ centred) ** 2
    return _of_degrees(slope, np.maximum(variance, least), freedom, values.shape[-2])


def variance_within(values: ArrayLike) -> Floats:
    """Variance of a figure by the blocks of its part alone, from the resamples.

    Parameters
    ----------
    values
        Shape (..., seeds, resamples + 1), entry 0 of the last axis the plain figure.

    Returns
    -------
    numpy.ndarray
        Shape (...); of the mean over the seeds. 0 where no two resamples held anything.
    """
    drawn = np.asarray(values, dtype=np.float64)[..., 1:].mean(-2)
    there = np.isfinite(drawn)
    count = there.sum(-1)
    mean = np.where(there, drawn, 0.0).sum(-1) / np.maximum(count, 1)
    squares = np.where(there, drawn - mean[..., None], 0.0) ** 2
    return np.asarray(squares.sum(-1) / np.maximum(count - 1, 1))


def _of_degrees(estimate: Floats, variance: ArrayLike, freedom: int, seeds: int) -> Mean:
    """Of one variance that is known with so many degrees of freedom."""
    estimate = np.asarray(estimate)
    return Mean(
        estimate=estimate,
        seed_variance=np.zeros(estimate.shape),
        block_variance=np.broadcast_to(np.asarray(variance, dtype=np.float64), estimate.shape),
        seeds=seeds,
        blocks=np.full(estimate.shape, freedom + 1.0),
        dropped=np.zeros(estimate.shape, dtype=np.int64),
        of_parts=True,
    )


def _block_variance(resampled: Floats, usable: NDArray[np.bool_]) -> Floats:
    """Mean covariance of two different seeds over the usable resamples; of one its variance."""
    seeds = resampled.shape[-2]
    number = usable.sum(-1)[..., None]
    rest = np.maximum(number - 1, 1)
    centre = resampled.sum(-1) / np.maximum(number, 1)
    centred = np.where(usable[..., None, :], resampled - centre[..., None], 0.0)
    of_mean = (centred.mean(-2) ** 2).sum(-1) / rest[..., 0]
    if seeds == 1:
        return np.asarray(of_mean)
    of_each = ((centred**2).sum(-1) / rest).mean(-1)
    # The variance of the mean of S seeds is (that of each + (S - 1) covariances) / S.
    return np.asarray((seeds * of_mean - of_each) / (seeds - 1))


def holm(p: ArrayLike) -> Floats:
    """P values adjusted for a family by stepping down; the family is the last axis.

    Holm (1979), Scandinavian Journal of Statistics 6, 65-70: rejecting where the adjusted value is
    at most 0.05 finds any difference that is none in at most 5 % of studies, however the tests hang
    together. NaN, which stands for no test, stays NaN and is not counted in the family.

    Examples
    --------
    >>> holm([0.04, 0.01, 0.03])
    array([0.06, 0.03, 0.06])
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, axis=-1, kind="stable")
    tests = (~np.isnan(values)).sum(-1, keepdims=True)
    left = np.maximum(tests - np.arange(values.shape[-1]), 1)
    ascending = np.take_along_axis(values, order, axis=-1) * left
    stepped = np.minimum(np.fmax.accumulate(ascending, axis=-1), 1.0)
    adjusted = np.empty_like(values)
    np.put_along_axis(adjusted, order, stepped, axis=-1)
    return np.where(np.isnan(values), np.nan, adjusted)
