"""What the intervals say of a hypothesis: one verdict, and a sentence.

The verdict is read from one interval, adjusted for the family of comparisons, and never says more
than it does. With the change counted as positive in the stated direction, d the smallest effect
and m the margin of equivalence, m <= d, the first line that holds is the verdict:

| the interval | verdict |
|---|---|
| lies below 0 | opposite |
| lies above 0 and below d | supported in direction, smaller than stated |
| lies within m of 0 | rejected, no difference (equivalent within m) |
| lies below d | rejected |
| any other, and the guard metric has changed | rejected, guard metric changed |
| lies at or above d, and the guard metric is equivalent | supported |
| lies at or above d, and the guard metric is undecided | effect supported, guard undecided |
| lies above 0 | supported in direction, size undecided |
| any other, or none | undecided |

An interval that lies within m of 0 is two one-sided tests (Schuirmann 1987) at half of 1 -
confidence. The guard metric is equivalent where its interval lies within its margin, changed where
it lies outside, undecided else; both must hold for "supported", so that its interval is not
adjusted for the family.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from seqnorm.holdout.hypotheses import Hypothesis
from seqnorm.holdout.inference import Mean

Label = Literal[
    "supported",
    "effect supported, guard undecided",
    "supported in direction, size undecided",
    "supported in direction, smaller than stated",
    "undecided",
    "rejected",
    "rejected, no difference",
    "rejected, guard metric changed",
    "opposite",
]
Guarded = Literal["equivalent", "undecided", "changed"]
POINTS = ("false_alarm_rate", "recall")
"""Metrics that are told in points of a percentage."""


class Verdict(NamedTuple):
    """What the intervals say of a hypothesis.

    Attributes
    ----------
    label : str
        One of `Label`.
    sentence : str
        The same in plain words, with the figures.
    """

    label: Label
    sentence: str


def judge(
    hypothesis: Hypothesis,
    effect: Mean,
    guard: Mean | None = None,
    *,
    confidence: float = 0.95,
    family: int = 1,
    title: Callable[[str], str] = str,
) -> Verdict:
    """Judge a hypothesis by the change of its metric and of its guard metric.

    Parameters
    ----------
    hypothesis
        The claim.
    effect
        Change of the metric: norm minus reference, with no leading axes.
    guard
        The same of the guard metric.
    confidence
        Confidence of the intervals, of those of the family together.
    family
        Number of comparisons that are read together; see `Mean.interval`.
    title
        Gives the name that a reader knows to a norm or a metric.

    Raises
    ------
    ValueError
        Where the hypothesis has a guard metric and no change of it is given, or the reverse.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnorm.holdout.hypotheses import Hypothesis
    >>> from seqnorm.holdout.inference import mean_over_seeds
    >>> claim = Hypothesis("H1", "", "layer", "batch", "false_alarm_rate", "lower", 0.02, 0.01)
    >>> change = np.array([-0.031, -0.029, -0.030, -0.030])[:, None] * np.ones(101)
    >>> verdict = judge(claim, mean_over_seeds(change, blocks=30))
    >>> verdict.label
    'supported'
    >>> print(verdict.sentence)  # doctest: +NORMALIZE_WHITESPACE
    H1 is supported: layer against batch, false_alarm_rate −3.00 points (95 % interval −3.13 to
    −2.87), lower by the stated 2 points or more.
    """
    if (guard is None) != (hypothesis.guard_metric is None):
        raise ValueError(
            f"hypothesis '{hypothesis.name}': the change of guard metric "
            f"'{hypothesis.guard_metric}' must be given where there is one, and only there"
        )
    low, high = (float(end) for end in effect.interval(confidence, family))
    if hypothesis.direction == "lower":
        low, high = -high, -low
    kept = _guarded(hypothesis, guard, confidence)
    label = _decide(low, high, hypothesis.smallest_effect, hypothesis.margin, kept)
    change = _told(hypothesis.metric, effect, confidence, family, title)
    verdict, reading = _words(hypothesis, label, max(-low, high) < hypothesis.margin)
    sentence = (
        f"{hypothesis.name} is {verdict}: {title(hypothesis.norm)} against "
        f"{title(hypothesis.reference)}, {change}{reading}"
    )
    if guard is not None:
        sentence += _guard_words(hypothesis, guard, kept, confidence, title)
    return Verdict(label, f"{sentence}.{_caveats(hypothesis, effect, guard)}")


def _guarded(hypothesis: Hypothesis, guard: Mean | None, confidence: float) -> Guarded:
    if guard is None or hypothesis.guard_margin is None:
        return "equivalent"
    low, high = guard.interval(confidence)
    if max(-low, high) < hypothesis.guard_margin:
        return "equivalent"
    return "changed" if max(low, -high) > hypothesis.guard_margin else "undecided"


def _decide(low: float, high: float, smallest: float, margin: float, guard: Guarded) -> Label:
    """Apply the table above; ``low`` and ``high`` count the stated direction as positive."""
    if high < 0:
        return "opposite"
    if low > 0 and high < smallest:
        return "supported in direction, smaller than stated"
    if max(-low, high) < margin:
        return "rejected, no difference"
    if high < smallest:
        return "rejected"
    if guard == "changed":
        return "rejected, guard metric changed"
    if low >= smallest:
        return "supported" if guard == "equivalent" else "effect supported, guard undecided"
    return "supported in direction, size undecided" if low > 0 else "undecided"


def _words(hypothesis: Hypothesis, label: Label, within: bool) -> tuple[str, str]:
    """Name of the verdict in a sentence, and how the interval is to be read."""
    stated = f"the stated {_size(hypothesis.metric, hypothesis.smallest_effect)}"
    margin = _size(hypothesis.metric, hypothesis.margin)
    way = hypothesis.direction
    other = "higher" if way == "lower" else "lower"
    little = f", and within {margin} of no difference" if within else ""
    words: dict[Label, tuple[str, str]] = {
        "supported": ("supported", f", {way} by {stated} or more"),
        "effect supported, guard undecided": (
            "supported in its effect, undecided in its guard metric",
            f", {way} by {stated} or more",
        ),
        "supported in direction, size undecided": (
            "supported in direction, undecided in size",
            f", {way}, but whether by {stated} is open",
        ),
        "supported in direction, smaller than stated": (
            "supported in direction, but the effect is smaller than stated",
            f", {way} by less than {stated}{little}",
        ),
        "undecided": ("undecided", f", which leaves open both no change and {stated}"),
        "rejected": ("rejected", f", which excludes {stated} {way}, but not every difference"),
        "rejected, no difference": (
            f"rejected, no difference (equivalent within {margin})",
            f", within {margin} of no difference",
        ),
        "rejected, guard metric changed": ("rejected, for its guard metric changed", ""),
        "opposite": ("rejected, the opposite holds", f", {other}{little}"),
    }
    return words[label]


def _guard_words(
    hypothesis: Hypothesis,
    guard: Mean,
    kept: Guarded,
    confidence: float,
    title: Callable[[str], str],
) -> str:
    metric = str(hypothesis.guard_metric)
    size = _size(metric, hypothesis.guard_margin or 0.0)
    reading = {
        "equivalent": f"equivalent within {size}",
        "undecided": f"neither surely within {size} nor surely outside",
        "changed": f"which is a change of more than {size}",
    }
    return f"; {_told(metric, guard, confidence, 1, title)}, {reading[kept]}"


def _told(
    metric: str, mean: Mean, confidence: float, family: int, title: Callable[[str], str]
) -> str:
    """Tell the change of a metric with its interval."""
    low, high = mean.interval(confidence, family)
    if mean.estimate != mean.estimate:
        return f"{title(metric)} could not be measured"
    unit = " points" if metric in POINTS else ""
    told = f"{title(metric)} {_signed(metric, float(mean.estimate))}{unit}"
    if high == float("inf"):
        return f"{told} (too few blocks for an interval)"
    adjusted = f" adjusted for {family} comparisons" if family > 1 else ""
    return (
        f"{told} ({100 * confidence:g} % interval{adjusted} {_signed(metric, float(low))} to "
        f"{_signed(metric, float(high))})"
    )


def _signed(metric: str, value: float) -> str:
    """Write a change with its sign; one that rounds to nothing has none."""
    text = f"{100 * value:+.2f}" if metric in POINTS else f"{value:+.4f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def _size(metric: str, value: float) -> str:
    if metric not in POINTS:
        return f"{value:g}"
    number = f"{100 * value:g}"
    return f"{number} point" if number == "1" else f"{number} points"


def _caveats(hypothesis: Hypothesis, effect: Mean, guard: Mean | None) -> str:
    """Say what the intervals leave out."""
    text = ""
    if effect.one_seed:
        text += " One seed: the interval holds no spread between seeds."
    for metric, mean in ((hypothesis.metric, effect), (hypothesis.guard_metric, guard)):
        if mean is not None and mean.dropped:
            text += (
                f" {int(mean.dropped)} resamples without {metric} (nothing drawn to measure it "
                "on) were left out."
            )
    return text
