"""Levels and power in simulated studies: six norms and a reference, seeds that share blocks."""

from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from seqnorm.holdout.inference import Mean, holm, mean_over_seeds

Floats = NDArray[np.float64]
NORMS = 6
STUDIES = 1000
RESAMPLES = 100
Generator = Literal["even", "heavy", "again", "threshold", "threshold again"]
GENERATORS: tuple[Generator, ...] = ("even", "heavy", "again", "threshold", "threshold again")
"""Normal effects, equal shares; heavy tails (t with 3 degrees of freedom); the A/A control, in
which blocks act on all norms alike; false alarms above a threshold that a resampled part sets, and
the A/A control of it."""


def simulate(kind: Generator, studies: int, seeds: int, blocks: int, seed: int) -> Floats:
    """Differences without a true one, shape (studies, norms, seeds, resamples + 1)."""
    rng = np.random.default_rng(seed)
    draws = [_draws(rng, blocks) for _ in range(3)]
    if kind.startswith("threshold"):
        figures = [_false_alarms(rng, draws, (studies, k, seeds), kind) for k in (NORMS, 1)]
    else:
        figures = [_linear(rng, draws[0], (studies, k, seeds), kind) for k in (NORMS, 1)]
    return figures[0] - figures[1]


def _draws(rng: np.random.Generator, blocks: int) -> Floats:
    """Weights (resamples + 1, blocks) that sum to 1; the first are the plain ones."""
    even = np.full(blocks, 1 / blocks)
    return np.vstack([even, rng.multinomial(blocks, even, size=RESAMPLES) / blocks])


def _linear(
    rng: np.random.Generator, draws: Floats, shape: tuple[int, int, int], kind: Generator
) -> Floats:
    studies, norms, seeds = shape
    blocks = draws.shape[1]

    def noise(*size: int) -> Any:
        return rng.standard_t(3, size) if kind == "heavy" else rng.standard_normal(size)

    of_blocks = 0.0 if kind == "again" else noise(studies, norms, 1, blocks)
    # The seeds' mean and the blocks' mean vary alike, so that neither part of the error rules.
    both = of_blocks + 0.5 * noise(studies, norms, seeds, blocks)
    by_block = noise(studies, norms, seeds, 1) + np.sqrt(blocks / seeds) * both
    return np.asarray(by_block @ draws.T)


def _false_alarms(
    rng: np.random.Generator, draws: list[Floats], shape: tuple[int, int, int], kind: Generator
) -> Floats:
    """Mean false-alarm rate of two chromosomes at the threshold that gives 1 % on a third part.

    The negatives of block b score above t at the rate exp(u_b - t), so that the threshold of a
    resample and the rates above it have a closed form; u is normal, hence a rate log-normal.
    """
    studies, norms, seeds = shape
    of_part = []
    for draw in draws:
        blocks = draw.shape[1]
        size = rng.integers(20, 100, size=blocks).astype(np.float64)
        on_blocks = 0.0 if "again" in kind else rng.standard_normal((studies, norms, 1, blocks))
        own = rng.standard_normal((studies, norms, seeds, blocks))
        of_seed = 0.2 * rng.standard_normal((studies, norms, seeds, 1))
        odds = np.exp(0.5 * on_blocks + 0.4 * own + of_seed)
        of_part.append(((odds * size) @ draw.T) / (draw @ size))
    validation, first, second = of_part
    return np.asarray(0.01 * (first + second) / 2 / validation)


def found(mean: Mean) -> Any:
    """In which studies Holm's procedure at level .05 finds any difference.

    It does where the smallest of the p values is at most .05 / 6, hence where an interval that is
    adjusted for the family leaves out 0, which takes no search for p values.
    """
    low, high = mean.interval(family=NORMS)
    return ((low > 0) | (high < 0)).any(-1)


def covered(mean: Mean) -> float:
    low, high = mean.interval()
    return float(((low <= 0) & (high >= 0)).mean())


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("kind", GENERATORS)
def test_of_studies_without_a_difference_five_in_a_hundred_find_one_and_intervals_cover(
    kind: Generator, seeds: int
) -> None:
    false, cover = [], []
    for blocks in (8, 30, 100):
        values = simulate(kind, STUDIES, seeds, blocks, seed=1000 * seeds + blocks)
        mean = mean_over_seeds(values, blocks)
        false.append(found(mean).mean())
        cover.append(covered(mean))
    # The standard error of a rate of .05 is .007 over 1,000 studies, .004 over the three sizes.
    assert max(false) <= 0.065
    assert np.mean(false) <= 0.055
    assert min(cover) >= 0.94
    # Two seeds pay for their level where both parts of the error are large.
    assert max(cover) <= (0.995 if seeds <= 3 else 0.99)


def test_the_control_with_other_seeds_finds_no_difference_in_95_of_100_studies() -> None:
    rates = []
    for kind in ("again", "threshold again"):
        for seeds in (3, 5, 10):
            values = simulate(kind, STUDIES, seeds, 30, seed=seeds)
            rates.append(found(mean_over_seeds(values, 30)).mean())
    assert np.mean(rates) <= 0.05


def test_the_percentile_bootstrap_finds_differences_that_are_none() -> None:
    # What the level costs is needed: this is how the intervals were made before.
    values = simulate("even", STUDIES, 3, 30, seed=7)
    rng = np.random.default_rng(8)
    times = rng.multinomial(3, np.full(3, 1 / 3), size=RESAMPLES).T / 3
    resampled = np.einsum("...sr,sr->...r", values[..., 1:], times)
    low, high = np.quantile(resampled, [0.025, 0.975], axis=-1)
    assert ((low <= 0) & (high >= 0)).mean() < 0.92
    assert covered(mean_over_seeds(values, 30)) >= 0.95


def test_one_seed_alone_is_told_apart_since_its_interval_is_too_narrow() -> None:
    mean = mean_over_seeds(simulate("again", STUDIES, 1, 30, seed=9), 30)
    assert mean.one_seed
    assert covered(mean) < 0.8


@pytest.mark.parametrize(("seeds", "least"), [(3, 0.2), (5, 0.6), (10, 0.85)])
def test_a_difference_of_four_standard_errors_is_found_more_often_with_more_seeds(
    seeds: int, least: float
) -> None:
    mean = mean_over_seeds(simulate("even", STUDIES // 2, seeds, 30, seed=seeds), 30)
    adjusted = holm(mean.p_value(4 * float(mean.estimate.std())))
    assert (adjusted <= 0.05).mean() >= least


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_of_a_plain_mean_cover_it_where_it_is_skewed(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    draws = [_draws(rng, 30) for _ in range(3)]
    mean = mean_over_seeds(_false_alarms(rng, draws, (STUDIES, 1, seeds), "threshold"), 30)
    low, high = mean.interval()
    truth = mean.estimate.mean()
    assert ((low <= truth) & (truth <= high)).mean() >= 0.93
