"""Every pair of intervals has one verdict, and it never says more than they do."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqnorm.holdout.hypotheses import Hypothesis
from seqnorm.holdout.inference import Mean
from seqnorm.holdout.verdicts import Label, judge

H1: dict[str, Any] = {
    "name": "H1",
    "text": "LayerNorm lowers false alarms by at least 2 points at equal AUROC.",
    "norm": "layer",
    "reference": "batch",
    "metric": "false_alarm_rate",
    "direction": "lower",
    "smallest_effect": 0.02,
    "margin": 0.01,
}
GUARDED = H1 | {"guard_metric": "auroc", "guard_margin": 0.01}
ORDER: dict[Label, int] = {
    "opposite": 0,
    "rejected": 1,
    "rejected, no difference": 1,
    "undecided": 2,
    "supported in direction, smaller than stated": 2,
    "supported in direction, size undecided": 3,
    "effect supported, guard undecided": 4,
    "supported": 4,
}
"""How far a verdict lies in the stated direction."""


def mean_of(
    estimate: float, half: float, *, seeds: int = 4, dropped: int = 0, family: int = 1
) -> Mean:
    """Give a mean whose 95 % interval has the half-width ``half``."""
    quantile = Mean(*map(np.asarray, (0.0, 1.0, 0.0)), seeds, np.asarray(30.0), np.asarray(0))
    width = half / float(quantile.half_width(0.025 / family)) if seeds > 1 else half
    variances = (width**2, 0.0) if seeds > 1 else (0.0, width**2)
    return Mean(
        np.asarray(estimate),
        np.asarray(variances[0]),
        np.asarray(variances[1]),
        seeds,
        np.asarray(30.0),
        np.asarray(dropped),
    )


def told(low: float, high: float, **claim: Any) -> Label:
    """Verdict on an interval in the stated direction: lower by ``low`` to ``high``."""
    mean = mean_of(-(low + high) / 2, (high - low) / 2)
    return judge(Hypothesis(**(H1 | claim)), mean).label


sizes = st.floats(-0.08, 0.08)
halves = st.floats(0.0005, 0.06)


@pytest.mark.parametrize(
    ("low", "high", "label"),
    [
        (0.021, 0.05, "supported"),
        (0.005, 0.03, "supported in direction, size undecided"),
        (0.002, 0.015, "supported in direction, smaller than stated"),
        (0.002, 0.005, "supported in direction, smaller than stated"),
        (-0.01, 0.03, "undecided"),
        (-0.015, 0.015, "rejected"),
        (-0.03, 0.005, "rejected"),
        (-0.005, 0.009, "rejected, no difference"),
        (-0.03, -0.001, "opposite"),
        (-0.003, -0.001, "opposite"),
    ],
)
def test_the_verdict_on_an_interval_is_that_of_the_table(
    low: float, high: float, label: Label
) -> None:
    assert told(low, high) == label


@given(sizes, halves, sizes, halves, st.floats(0.001, 0.05), st.floats(0.1, 1))
def test_exactly_one_verdict_fits_and_it_is_the_one_that_is_given(
    centre: float, half: float, middle: float, width: float, smallest: float, part: float
) -> None:
    margin = part * smallest
    claim = Hypothesis(**(GUARDED | {"smallest_effect": smallest, "margin": margin}))
    effect, guard = mean_of(-centre, half), mean_of(middle, width)
    low, high = sorted(-float(end) for end in effect.interval())
    least, most = map(float, guard.interval())
    same = max(-least, most) < 0.01
    changed = least > 0.01 or most < -0.01
    around = low <= 0 <= high
    open_size = high >= smallest
    fits: dict[Label, bool] = {
        "opposite": high < 0,
        "supported in direction, smaller than stated": low > 0 and not open_size,
        "rejected, no difference": around and -margin < low and high < margin,
        "rejected": around and not open_size and not (-margin < low and high < margin),
        "rejected, guard metric changed": open_size and changed,
        "supported": low >= smallest and same,
        "effect supported, guard undecided": low >= smallest and not same and not changed,
        "supported in direction, size undecided": 0 < low < smallest <= high and not changed,
        "undecided": low <= 0 and open_size and not changed,
    }
    assert [label for label, holds in fits.items() if holds] == [judge(claim, effect, guard).label]


@given(halves, sizes, sizes, st.sampled_from([0.0005, 0.02]))
def test_moving_the_interval_in_the_stated_direction_never_moves_the_verdict_against_it(
    half: float, first: float, second: float, guard_half: float
) -> None:
    claim, guard = Hypothesis(**GUARDED), mean_of(0.0, guard_half)
    lower, upper = (
        ORDER[judge(claim, mean_of(-centre, half), guard).label]
        for centre in sorted((first, second))
    )
    assert lower <= upper


@given(sizes, halves, st.integers(1, 6))
def test_a_claim_of_higher_is_judged_as_the_mirror_of_a_claim_of_lower(
    centre: float, half: float, family: int
) -> None:
    lower = judge(Hypothesis(**H1), mean_of(-centre, half), family=family)
    mirror = Hypothesis(**(H1 | {"direction": "higher"}))
    assert judge(mirror, mean_of(centre, half), family=family).label == lower.label


@given(sizes, halves, st.integers(2, 6))
def test_what_a_family_of_comparisons_shows_is_shown_by_one_alone(
    centre: float, half: float, family: int
) -> None:
    effect = mean_of(centre, half)
    together = judge(Hypothesis(**H1), effect, family=family).label
    if together not in ("undecided", "rejected", "supported in direction, size undecided"):
        alone = judge(Hypothesis(**H1), effect).label
        # No difference may turn out to be a small one, which lies within the margin, too.
        small = ("supported in direction, smaller than stated", "opposite")
        assert alone == together or (together == "rejected, no difference" and alone in small)


@pytest.mark.parametrize(
    ("middle", "half", "label"),
    [
        (0.001, 0.004, "supported"),
        (0.001, 0.02, "effect supported, guard undecided"),
        (-0.03, 0.004, "rejected, guard metric changed"),
        (0.03, 0.004, "rejected, guard metric changed"),
    ],
)
def test_an_effect_counts_only_while_the_guard_metric_stays(
    middle: float, half: float, label: Label
) -> None:
    verdict = judge(Hypothesis(**GUARDED), mean_of(-0.04, 0.01), mean_of(middle, half))
    assert verdict.label == label


def test_the_sentence_holds_the_figures_and_the_names_that_a_reader_knows() -> None:
    names = {"layer": "LayerNorm", "false_alarm_rate": "false-alarm rate", "auroc": "AUROC"}
    verdict = judge(
        Hypothesis(**GUARDED),
        mean_of(-0.031, 0.004, dropped=3, family=6),
        mean_of(0.001, 0.004, dropped=2),
        family=6,
        title=lambda name: names.get(name, name),
    )
    assert verdict.sentence == (
        "H1 is supported: LayerNorm against batch, false-alarm rate −3.10 points (95 % interval "
        "adjusted for 6 comparisons −3.50 to −2.70), lower by the stated 2 points or more; AUROC "
        "+0.0010 (95 % interval −0.0030 to +0.0050), equivalent within 0.01. 3 resamples "
        "without false_alarm_rate (nothing drawn to measure it on) were left out. 2 resamples "
        "without auroc (nothing drawn to measure it on) were left out."
    )


@pytest.mark.parametrize(
    ("effect", "words"),
    [
        (mean_of(0.0, 0.008), "is rejected, no difference (equivalent within 1 point)"),
        (mean_of(0.03, 0.008), "rejected, the opposite holds: layer against batch"),
        (mean_of(-0.003, 0.001), "lower by less than the stated 2 points, and within 1 point of"),
        (mean_of(0.0, 0.015), "which excludes the stated 2 points lower, but not every diff"),
        (mean_of(-0.01, 0.03), "leaves open both no change and the stated 2 points"),
        (mean_of(-0.02, 0.015), "lower, but whether by the stated 2 points is open"),
        (mean_of(-0.05, 0.01, seeds=1), "One seed: the interval holds no spread between seeds."),
        (mean_of(float("nan"), 0.01), "H1 is undecided: layer against batch, false_alarm_rate cou"),
        (mean_of(-0.05, float("inf")), "(too few blocks for an interval)"),
    ],
)
def test_the_sentence_says_what_the_interval_says(effect: Mean, words: str) -> None:
    assert words in judge(Hypothesis(**H1), effect).sentence


def test_a_guard_metric_that_was_not_measured_leaves_the_claim_open() -> None:
    verdict = judge(Hypothesis(**GUARDED), mean_of(-0.04, 0.01), mean_of(float("nan"), 0.01))
    assert verdict.label == "effect supported, guard undecided"
    assert "auroc could not be measured" in verdict.sentence


@pytest.mark.parametrize("guarded", [True, False])
def test_a_guard_metric_must_come_with_its_change(guarded: bool) -> None:
    guard = None if guarded else mean_of(0.0, 0.01)
    with pytest.raises(ValueError, match="must be given where there is one"):
        judge(Hypothesis(**(GUARDED if guarded else H1)), mean_of(-0.04, 0.01), guard)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"direction": "down"}, "direction must be 'lower' or 'higher'"),
        ({"margin": 0.03}, "else an effect could matter and be no difference"),
        ({"margin": 0.0}, "must lie above 0"),
        ({"smallest_effect": float("nan")}, "must lie above 0"),
        ({"smallest_effect": float("inf")}, "must lie above 0"),
        ({"norm": "batch"}, "norm and reference are both 'batch'"),
        ({"guard_metric": "auroc"}, "guard_metric and guard_margin go together"),
        ({"guard_metric": "auroc", "guard_margin": -1.0}, "guard_margin -1.0 must lie above 0"),
    ],
)
def test_a_hypothesis_that_cannot_be_judged_is_refused(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Hypothesis(**(H1 | changed))
