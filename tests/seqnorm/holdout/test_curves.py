"""Expected best of k against all subsets; slopes against a line that numpy fits."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqnorm.holdout.curves import expected_best_of_k, slopes
from seqnorm.holdout.inference import mean_over_seeds

scores = st.lists(
    st.one_of(st.floats(0, 1), st.sampled_from([0.5, float("nan"), float("-inf")])),
    min_size=1,
    max_size=7,
)


@given(scores)
def test_the_expected_best_is_the_mean_of_the_best_of_all_subsets(found: list[float]) -> None:
    curve = expected_best_of_k(found)
    worth = [-np.inf if np.isnan(score) else score for score in found]
    for k, value in enumerate(curve, start=1):
        best = [max(subset) for subset in itertools.combinations(worth, k)]
        if -np.inf in best:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(np.mean(best), rel=1e-9, abs=1e-12)


def test_more_trials_never_make_the_best_worse_and_all_trials_give_it() -> None:
    found = np.random.default_rng(0).standard_normal(2000)
    curve = expected_best_of_k(found)
    assert (np.diff(curve) >= -1e-9).all()
    assert curve[0] == pytest.approx(found.mean(), abs=1e-9)
    assert curve[-1] == pytest.approx(found.max(), rel=1e-9)


def test_the_curve_is_right_on_average_whatever_the_number_of_trials() -> None:
    # Of k uniform scores the best is k / (k + 1) on average.
    rng = np.random.default_rng(1)
    curves = np.mean([expected_best_of_k(rng.random(6)) for _ in range(4000)], axis=0)
    k = np.arange(1, 7)
    np.testing.assert_allclose(curves, k / (k + 1), atol=0.01)


@pytest.mark.parametrize("found", [[], [float("nan")], [float("-inf"), float("nan")]])
def test_without_a_trial_that_worked_there_is_no_best(found: list[float]) -> None:
    curve = expected_best_of_k(found)
    assert curve.shape == (len(found),)
    assert np.isnan(curve).all()


def test_slopes_are_those_of_lines_fitted_one_by_one() -> None:
    rng = np.random.default_rng(0)
    values, doses = rng.standard_normal((3, 5, 4)), rng.random(5)
    found = slopes(values, doses)
    assert found.shape == (3, 4)
    for seed, resample in np.ndindex(3, 4):
        line = np.polyfit(doses, values[seed, :, resample], 1)
        assert found[seed, resample] == pytest.approx(line[0], rel=1e-9)


def test_a_slope_has_an_interval_and_a_part_that_was_not_drawn_is_counted() -> None:
    rng = np.random.default_rng(2)
    doses = np.array([-0.1, 0.0, 0.1])
    values = 0.02 + 0.5 * doses[:, None] + 0.001 * rng.standard_normal((4, 3, 201))
    values[:, 1, 7] = np.nan
    mean = mean_over_seeds(slopes(values, doses), blocks=20)
    low, high = mean.interval()
    assert low < 0.5 < high
    assert high - low < 0.1
    assert mean.dropped == 1


@pytest.mark.parametrize(
    ("doses", "message"),
    [([0.1, 0.1, 0.1], "two different doses"), ([0.1, 0.2], "do not fit 3 parts")],
)
def test_doses_that_give_no_slope_are_refused(doses: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        slopes(np.zeros((2, 3, 4)), doses)
