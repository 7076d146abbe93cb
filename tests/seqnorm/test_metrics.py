import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seqnorm import metrics
from seqnorm.metrics import Scored


def make(seed: int, n: int = 300, blocks: int = 6, *, ties: bool = False) -> Scored:
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.int64)
    labels[:2] = [0, 1]
    scores = rng.normal(size=n) + labels
    if ties:
        scores = scores.round(0)
    block = rng.integers(0, blocks, n)
    block[:blocks] = np.arange(blocks)
    return Scored(scores, labels, rng.uniform(0.3, 0.6, n), block)


def resampled(data: Scored, weight: np.ndarray) -> np.ndarray:
    """Rows repeated as often as their block was drawn: the slow way to weight."""
    return np.repeat(np.arange(len(data.labels)), weight[data.blocks].astype(int))


SEEDS = st.integers(0, 10_000)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.booleans())
def test_auroc_and_average_precision_equal_scikit_learn_on_every_resample(
    seed: int, ties: bool
) -> None:
    data = make(seed, ties=ties)
    weights = metrics.block_weights(data.n_blocks, 5, seed)
    auroc, precision = metrics.auroc(data, weights), metrics.average_precision(data, weights)
    for row, weight in enumerate(weights):
        rows = resampled(data, weight)
        if len(set(data.labels[rows])) < 2:
            continue
        assert auroc[row] == pytest.approx(roc_auc_score(data.labels[rows], data.scores[rows]))
        assert precision[row] == pytest.approx(
            average_precision_score(data.labels[rows], data.scores[rows])
        )


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.booleans(), st.sampled_from([0.01, 0.1, 0.5]))
def test_the_threshold_calls_at_most_the_rate_and_the_next_lower_score_calls_more(
    seed: int, ties: bool, rate: float
) -> None:
    data = make(seed, ties=ties)
    weights = metrics.block_weights(data.n_blocks, 4, seed)
    thresholds = metrics.threshold_at(data, weights, rate)
    for weight, threshold in zip(weights, thresholds, strict=True):
        rows = resampled(data, weight)
        negative = data.scores[rows][data.labels[rows] == 0]
        assert (negative > threshold).mean() <= rate
        assert (negative >= threshold).mean() > rate


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.booleans())
def test_the_called_fraction_equals_a_plain_count_on_every_resample(seed: int, ties: bool) -> None:
    data = make(seed, ties=ties)
    weights = metrics.block_weights(data.n_blocks, 5, seed)
    thresholds = np.linspace(-1, 2, len(weights)).round(1)
    found = metrics.called_fraction(data, data.negatives, weights, thresholds)
    for row, weight in enumerate(weights):
        rows = resampled(data, weight)
        negative = data.scores[rows][data.labels[rows] == 0]
        if len(negative):
            assert found[row] == pytest.approx((negative > thresholds[row]).mean())


@settings(deadline=None, max_examples=15)
@given(SEEDS)
def test_gc_conditional_auroc_equals_a_loop_over_all_pairs(seed: int) -> None:
    data = make(seed, n=80, blocks=4)
    weights = metrics.block_weights(data.n_blocks, 3, seed)
    found = metrics.gc_conditional_auroc(data, weights, caliper=0.03)
    for row, weight in enumerate(weights):
        rows = resampled(data, weight)
        total, count = 0.0, 0
        for p in rows[data.labels[rows] == 1]:
            near = [n for n in rows if data.labels[n] == 0 and abs(data.gc[n] - data.gc[p]) <= 0.03]
            if near:
                total += np.mean([data.scores[p] > data.scores[n] for n in near])
                count += 1
        if count:
            assert found[row] == pytest.approx(total / count)


def test_knowing_gc_alone_gives_half_at_equal_gc_though_its_auroc_is_high() -> None:
    rng = np.random.default_rng(0)
    gc = np.concatenate([rng.normal(0.4, 0.05, 4000), rng.normal(0.5, 0.05, 1000)])
    labels = np.repeat([0, 1], [4000, 1000])
    data = Scored(gc, labels, gc, np.zeros(5000, dtype=np.int64))
    one = np.ones((1, 1))
    assert metrics.auroc(data, one)[0] > 0.9
    assert metrics.gc_conditional_auroc(data, one)[0] == pytest.approx(0.5, abs=0.03)


def test_the_first_weights_are_ones_and_resamples_depend_on_the_seed_alone() -> None:
    weights = metrics.block_weights(7, 50, seed=3)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 7).all()
    assert (weights == metrics.block_weights(7, 50, seed=3)).all()
    assert (weights != metrics.block_weights(7, 50, seed=4)).any()


def test_block_intervals_are_wider_than_naive_ones_where_blocks_are_alike_inside() -> None:
    rng = np.random.default_rng(1)
    blocks = np.repeat(np.arange(20), 100)
    # Whole blocks score high or low together, as neighbouring windows do.
    scores = rng.normal(size=20)[blocks] + 0.1 * rng.normal(size=2000)
    clustered = Scored(scores, np.zeros(2000, dtype=np.int64), scores, blocks)
    scattered = Scored(scores, clustered.labels, scores, rng.permutation(blocks))
    weights = metrics.block_weights(20, 500, seed=0)
    threshold = np.zeros(len(weights))
    spread = [
        metrics.called_fraction(data, data.negatives, weights, threshold)[1:].std()
        for data in (clustered, scattered)
    ]
    assert spread[0] > 3 * spread[1]


def test_calibration_error_of_a_calibrated_score_is_near_zero_and_of_a_shifted_one_is_not() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-logits))).astype(np.int64)
    block = np.zeros(20_000, dtype=np.int64)
    assert metrics.calibration_error(Scored(logits, labels, logits, block)) < 0.01
    assert metrics.calibration_error(Scored(logits + 2, labels, logits, block)) > 0.2
    extreme = Scored(np.array([900.0, -900.0]), np.array([1, 0]), np.zeros(2), block[:2])
    assert metrics.calibration_error(extreme) == pytest.approx(0)


def test_gc_correlation_is_over_negatives_and_missing_for_a_constant_score() -> None:
    gc = np.array([0.1, 0.2, 0.3, 0.9])
    labels = np.array([0, 0, 0, 1])
    block = np.zeros(4, dtype=np.int64)
    assert metrics.gc_correlation(Scored(np.array([3.0, 2, 1, 9]), labels, gc, block)) == -1
    assert np.isnan(metrics.gc_correlation(Scored(np.ones(4), labels, gc, block)))


def test_a_resample_without_positives_gives_nan_and_not_an_error() -> None:
    data = Scored(np.array([1.0, 2.0]), np.array([1, 0]), np.array([0.5, 0.5]), np.array([0, 1]))
    weights = np.array([[1.0, 1.0], [0.0, 2.0], [2.0, 0.0]])
    assert np.isnan(metrics.auroc(data, weights)[1:]).all()
    assert np.isnan(metrics.average_precision(data, weights)[1])
    assert np.isnan(metrics.threshold_at(data, weights, 0.1)[2])
    assert np.isnan(metrics.called_fraction(data, data.negatives, weights, np.zeros(3))[2])


def test_strata_are_deciles() -> None:
    gc = np.linspace(0, 1, 1000, endpoint=False)
    edges = np.quantile(gc, np.linspace(0.1, 0.9, 9))
    assert np.bincount(metrics.gc_strata(gc, edges)).tolist() == [100] * 10


def probed(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features that hold values up to noise, and the blocks of their rows."""
    rng = np.random.default_rng(3)
    features = rng.normal(size=(600, 5))
    values = features @ [1.0, -2.0, 0.0, 0.5, 0.0] + noise * rng.normal(size=600)
    return features, 0.05 * values + 0.4, rng.integers(0, 30, 600)


def test_the_probe_is_ridge_regression_fitted_on_the_other_blocks() -> None:
    features, values, blocks = probed(noise=2.0)
    read = np.empty_like(values)
    even = blocks % 2 == 0
    for own in (even, ~even):
        fitted = make_pipeline(StandardScaler(), Ridge()).fit(features[~own], values[~own])
        read[own] = fitted.predict(features[own])
    found = metrics.probe_r2(features, values, blocks)
    assert found == pytest.approx(r2_score(values, read), abs=1e-12)
    assert 0.4 < found < 0.7


def test_the_probe_reads_all_of_what_features_hold_and_nothing_of_what_they_do_not() -> None:
    features, values, blocks = probed()
    assert metrics.probe_r2(features, values, blocks) > 0.999
    strangers = np.random.default_rng(4).normal(size=features.shape)
    assert abs(metrics.probe_r2(strangers, values, blocks)) < 0.05


def test_features_that_lie_elsewhere_on_a_chromosome_tell_as_much() -> None:
    features, values, blocks = probed(noise=1.0)
    there = metrics.probe_r2(features + 7.0, values + 0.1, blocks)
    assert there == pytest.approx(metrics.probe_r2(features, values, blocks))


def test_too_few_rows_or_equal_values_have_no_probe() -> None:
    features, values, blocks = probed()
    assert np.isnan(metrics.probe_r2(features[:9], values[:9], np.arange(9)))
    assert np.isnan(metrics.probe_r2(features, values, np.zeros(600, int)))
    assert np.isnan(metrics.probe_r2(features, np.full(600, 0.4), blocks))
