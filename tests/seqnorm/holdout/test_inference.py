"""The error of a mean over seeds against tests of scipy, analysis of variance and brute force."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from seqnorm.holdout.inference import (
    Mean,
    holm,
    mean_over_parts,
    mean_over_seeds,
    slope_over_parts,
    variance_within,
)

Floats = NDArray[np.float64]


def resampled(table: Floats) -> Floats:
    """Figures of a table (seeds, blocks) for draws with exactly the variance of random ones."""
    blocks = table.shape[1]
    contrast = np.eye(blocks) - 1 / blocks
    step = np.sqrt((2 * blocks - 1) / 2) / blocks
    draws = 1 / blocks + step * np.vstack([contrast, -contrast])
    return np.asarray(table @ np.vstack([np.full(blocks, 1 / blocks), draws]).T)


def table(seeds: int, blocks: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    each = rng.standard_normal((seeds, blocks)) + 0.4
    return np.asarray(each + rng.standard_normal((seeds, 1)) + rng.standard_normal(blocks))


means = st.builds(
    lambda estimate, of_seeds, of_blocks, seeds, blocks: Mean(
        np.asarray(estimate),
        np.asarray(of_seeds),
        np.asarray(of_blocks),
        seeds,
        np.asarray(float(blocks)),
        np.asarray(0),
    ),
    st.floats(-5, 5),
    st.floats(0.01, 4),
    st.floats(0, 4),
    st.integers(1, 12),
    st.integers(2, 200),
)


def test_the_variances_are_those_of_a_two_way_analysis_of_variance() -> None:
    figures = table(seeds=5, blocks=12)
    mean = mean_over_seeds(resampled(figures), 12)
    by_seed, by_block = figures.mean(1), figures.mean(0)
    rest = figures - by_seed[:, None] - by_block + figures.mean()
    of_rest = (rest**2).sum() / (4 * 11)
    of_blocks = 5 * by_block.var(ddof=1)
    assert mean.block_variance == pytest.approx((of_blocks - of_rest) / 5 / 12, rel=1e-12)
    assert mean.seed_variance == pytest.approx(by_seed.var(ddof=1) / 5, rel=1e-12)
    assert mean.estimate == pytest.approx(figures.mean(), rel=1e-12)


def test_where_seeds_agree_more_than_by_chance_blocks_add_no_error() -> None:
    figures = np.array([[1.0, -1.0, 0.5, -0.5], [-1.0, 1.0, -0.5, 0.5]])
    assert mean_over_seeds(resampled(figures), 4).block_variance == 0


def test_one_seed_gives_the_t_test_of_its_blocks_and_says_that_it_is_one() -> None:
    figures = table(seeds=1, blocks=9)
    mean = mean_over_seeds(resampled(figures), 9)
    peer = stats.ttest_1samp(figures[0], 0.1)
    assert mean.one_seed
    assert mean.interval(0.9) == pytest.approx(peer.confidence_interval(0.9), rel=1e-9)
    assert mean.p_value(0.1) == pytest.approx(peer.pvalue, rel=1e-9)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_without_blocks_that_differ_it_is_the_t_test_of_the_seeds(seeds: int) -> None:
    figures = np.repeat(table(seeds, 1), 50, axis=1)
    mean = mean_over_seeds(figures, 8)
    peer = stats.ttest_1samp(figures[:, 0], 0.0)
    assert not mean.one_seed
    assert mean.interval() == pytest.approx(peer.confidence_interval(), rel=1e-9)
    assert mean.p_value() == pytest.approx(peer.pvalue, rel=1e-9)
    above = stats.ttest_1samp(figures[:, 0], -2.0, alternative="greater").pvalue
    below = stats.ttest_1samp(figures[:, 0], 2.0, alternative="less").pvalue
    assert mean.p_above(-2.0) == pytest.approx(above, rel=1e-9)
    assert mean.p_equivalent(2.0) == pytest.approx(max(above, below), rel=1e-9)


@given(means, st.floats(0.5, 0.999))
def test_the_p_value_is_small_exactly_where_the_interval_leaves_out_zero(
    mean: Mean, confidence: float
) -> None:
    p = float(mean.p_value())
    low, high = mean.interval(confidence)
    if abs(p - (1 - confidence)) > 1e-9:
        assert (p < 1 - confidence) == bool(low > 0 or high < 0)


@given(means, st.floats(0.01, 6), st.floats(0.5, 0.999))
def test_equivalence_is_found_exactly_where_the_interval_lies_within_the_margin(
    mean: Mean, margin: float, confidence: float
) -> None:
    p = float(mean.p_equivalent(margin))
    low, high = mean.interval(confidence)
    if abs(p - (1 - confidence) / 2) > 1e-9:
        assert (p < (1 - confidence) / 2) == bool(-margin < low and high < margin)


@given(means, st.floats(0.01, 10))
def test_intervals_and_p_values_do_not_hang_on_unit_or_sign(mean: Mean, unit: float) -> None:
    other = Mean(
        -unit * mean.estimate,
        unit**2 * mean.seed_variance,
        unit**2 * mean.block_variance,
        mean.seeds,
        mean.blocks,
        mean.dropped,
    )
    low, high = mean.interval()
    assert other.interval() == pytest.approx((-unit * high, -unit * low), rel=1e-9, abs=1e-9)
    assert other.p_value(-unit) == pytest.approx(mean.p_value(1.0), rel=1e-6)


def test_many_means_at_once_are_the_means_one_by_one() -> None:
    values = np.stack([[resampled(table(4, 10, seed=3 * i + j)) for j in range(3)] for i in (0, 1)])
    values[1, 2, 0, 5] = np.nan
    together = mean_over_seeds(values, [10, 8, 6])
    p = together.p_value()
    for i, j in itertools.product(range(2), range(3)):
        alone = mean_over_seeds(values[i, j], [10, 8, 6][j])
        assert together.estimate[i, j] == alone.estimate
        assert together.block_variance[i, j] == pytest.approx(alone.block_variance, rel=1e-12)
        assert p[i, j] == pytest.approx(alone.p_value(), rel=1e-12)
        assert together.dropped[i, j] == alone.dropped == (i == 1 and j == 2)


def test_a_resample_that_held_nothing_is_left_out_for_all_seeds_and_counted() -> None:
    values = resampled(table(3, 20))
    holes = values.copy()
    holes[1, [4, 9]] = np.nan
    holes[2, 9] = np.nan
    mean = mean_over_seeds(holes, 20)
    without = mean_over_seeds(np.delete(values, [4, 9], axis=1), 20)
    assert mean.dropped == 2
    assert mean.block_variance == pytest.approx(without.block_variance, rel=1e-12)
    assert mean.interval() == pytest.approx(without.interval(), rel=1e-12)


@pytest.mark.parametrize("why", ["one block", "few resamples"])
def test_an_error_that_is_not_known_is_infinite(why: str) -> None:
    values = resampled(table(3, 20))
    if why == "few resamples":
        values[0, 1:22] = np.nan
    mean = mean_over_seeds(values, 1 if why == "one block" else 20)
    assert mean.interval() == (-np.inf, np.inf)
    assert mean.p_value() == pytest.approx(1)
    assert mean.p_equivalent(1e9) == pytest.approx(0.5)


def test_a_figure_that_a_seed_lacks_is_no_figure() -> None:
    values = resampled(table(3, 20))
    values[1] = np.nan
    mean = mean_over_seeds(values, 20)
    assert np.isnan([mean.estimate, *mean.interval(), mean.p_value(), mean.p_above(0)]).all()
    assert mean.dropped == 40


def test_seeds_that_agree_to_the_bit_have_no_error() -> None:
    mean = mean_over_seeds(np.full((3, 50), 0.2), 20)
    assert mean.interval() == pytest.approx((0.2, 0.2), rel=1e-12)
    assert mean.p_value() < 1e-15
    assert mean_over_seeds(np.zeros((3, 50)), 20).p_value() == 1


@pytest.mark.parametrize("shape", [(5,), (3, 2), (0, 10)])
def test_values_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(\.\.\., seeds, resamples \+ 1\)"):
        mean_over_seeds(np.zeros(shape), 10)


p_values = arrays(np.float64, st.integers(1, 8), elements=st.floats(0, 1))


@given(p_values)
def test_holm_rejects_what_stepping_down_by_hand_rejects(p: Floats) -> None:
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.3):
        rejected: set[Any] = set()
        for step, index in enumerate(np.argsort(p, kind="stable")):
            if p[index] * (len(p) - step) > level:
                break
            rejected.add(index)
        assert set(np.flatnonzero(adjusted <= level)) == rejected


@given(p_values, st.integers(0, 3))
def test_holm_does_not_count_tests_that_were_not_made(p: Floats, missing: int) -> None:
    padded = np.insert(p, 0, np.full(missing, np.nan))
    adjusted = holm(padded)
    assert np.isnan(adjusted[:missing]).all()
    assert adjusted[missing:].tolist() == holm(p).tolist()


def test_holm_adjusts_every_family_of_an_array() -> None:
    p = np.random.default_rng(0).random((2, 3, 5))
    assert (holm(p)[1, 2] == holm(p[1, 2])).all()


@given(st.lists(means, min_size=2, max_size=6))
def test_an_adjusted_interval_without_zero_belongs_to_a_difference_that_holm_finds(
    family: list[Mean],
) -> None:
    adjusted = holm([float(mean.p_value()) for mean in family])
    for mean, p in zip(family, adjusted, strict=True):
        low, high = mean.interval(family=len(family))
        if low > 0 or high < 0:
            assert p <= 0.05 + 1e-9


def test_a_mean_over_parts_is_the_t_test_of_the_parts() -> None:
    figures = table(seeds=3, blocks=7)
    mean = mean_over_parts(figures)
    wanted = stats.ttest_1samp(figures.mean(0), 0.0)
    assert mean.estimate == pytest.approx(figures.mean())
    assert mean.p_value() == pytest.approx(wanted.pvalue, rel=1e-9)
    assert mean.interval(0.9) == pytest.approx(tuple(wanted.confidence_interval(0.9)))
    assert not mean_over_parts(figures[:1]).one_seed
    assert np.isinf(mean_over_parts(figures[:, :1]).half_width(0.025))


def test_a_slope_over_parts_is_that_of_linear_regression() -> None:
    figures, dose = table(seeds=2, blocks=9), np.linspace(0.3, 0.6, 9) ** 2
    slope = slope_over_parts(figures, dose)
    wanted = stats.linregress(dose, figures.mean(0))
    assert slope.estimate == pytest.approx(wanted.slope)
    assert slope.p_value() == pytest.approx(wanted.pvalue, rel=1e-9)
    half = stats.t.ppf(0.975, 7) * wanted.stderr
    assert slope.half_width(0.025) == pytest.approx(half)
    assert np.isinf(slope_over_parts(figures[:, :2], dose[:2]).half_width(0.025))


def test_parts_that_agree_by_chance_are_as_sure_as_their_blocks_and_no_surer() -> None:
    same = np.full((1, 5), 0.01)
    assert mean_over_parts(same).half_width(0.025) == 0
    within = np.array([4.0, 1.0, 1.0, 2.0, 2.0]) * 1e-6
    half = stats.t.ppf(0.975, 4) * np.sqrt(within.sum()) / 5
    assert mean_over_parts(same, within).half_width(0.025) == pytest.approx(half)
    figures = table(seeds=2, blocks=5)
    wide = mean_over_parts(figures).half_width(0.025)
    assert mean_over_parts(figures, within * 1e-9).half_width(0.025) == wide


def test_a_slope_of_parts_on_a_line_is_as_sure_as_their_blocks() -> None:
    dose = np.array([0.3, 0.4, 0.45, 0.6])
    line, within = 0.5 * dose[None], np.array([1.0, 2.0, 3.0, 4.0]) * 1e-4
    centred = dose - dose.mean()
    half = stats.t.ppf(0.975, 2) * np.sqrt((centred**2 * within).sum()) / (centred**2).sum()
    assert slope_over_parts(line, dose, within).half_width(0.025) == pytest.approx(half)


def test_the_variance_of_resamples_leaves_out_those_that_held_nothing() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 2, 51))
    values[1, :, 10:20] = np.nan
    values[2] = np.nan
    found = variance_within(values)
    assert found[0] == pytest.approx(values[0, :, 1:].mean(0).var(ddof=1))
    assert found[1] == pytest.approx(np.nanvar(values[1, :, 1:].mean(0), ddof=1))
    assert found[2] == 0
