"""Numbers as a reader is told them."""

import math

from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import Estimate
from seqnorm.holdout.verdicts import POINTS

__all__ = [
    "adjusted_for",
    "level",
    "p_value",
    "paired",
    "percent",
    "points",
    "ranged",
    "signed",
    "sized",
    "thousandths",
    "undecided",
]


def percent(value: float) -> str:
    """A measured fraction as a percentage."""
    return f"{100 * value:.1f} %"


def signed(value: float, digits: int) -> str:
    """A difference with its sign; one that rounds to nothing has none.

    Examples
    --------
    >>> signed(-0.12, 1), signed(0.12, 1), signed(-0.01, 1)
    ('−0.1', '+0.1', '0.0')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def thousandths(row: Estimate) -> str:
    """A difference of scores between 0 and 1 with its interval.

    Examples
    --------
    >>> thousandths(Estimate(-0.004, -0.006, 0.002))
    '−0.004, −0.006 to +0.002'
    """
    change, low, high = (signed(value, 3) for value in row)
    return f"{change}, {low} to {high}"


def adjusted_for(comparisons: int) -> str:
    """Remark on intervals of a family of comparisons.

    Examples
    --------
    >>> adjusted_for(9)
    ' (intervals adjusted for 9 comparisons)'
    """
    return f" (intervals adjusted for {comparisons} comparisons)" if comparisons > 1 else ""


def level(value: float) -> str:
    """A fraction that the spec sets, as a percentage with the digits it has.

    Examples
    --------
    >>> level(0.01), level(0.005), level(0.95), level(0.999)
    ('1 %', '0.5 %', '95 %', '99.9 %')
    """
    return f"{100 * value:g} %"


def p_value(value: float) -> str:
    """A p value; a dash where there is none.

    Examples
    --------
    >>> p_value(0.0312), p_value(0.9), p_value(1e-9), p_value(float("nan"))
    ('0.031', '0.900', '<0.001', '–')
    """
    if math.isnan(value):
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def sized(metric: str, value: float) -> str:
    """A size that the spec sets, in the unit of a metric.

    Examples
    --------
    >>> sized("false_alarm_rate", 0.01), sized("recall", 0.02), sized("auroc", 0.01)
    ('1 point', '2 points', '0.01')
    """
    if metric not in POINTS:
        return f"{value:g}"
    text = f"{100 * value:g}"
    return f"{text} point" if text == "1" else f"{text} points"


def points(row: Estimate) -> str:
    """A difference of rates."""
    return f"{signed(100 * row.estimate, 1)} points"


def ranged(spec: Spec, row: Estimate, *, digits: int = 1, scale: float = 100.0) -> str:
    """The interval of a difference, or that there is none."""
    if not (math.isfinite(row.low) and math.isfinite(row.high)):
        return "too few blocks for an interval"
    ends = f"{signed(scale * row.low, digits)} to {signed(scale * row.high, digits)}"
    return f"{level(spec.evaluation.confidence)} interval {ends}"


def paired(spec: Spec) -> str:
    """By what the differences between norms are paired."""
    by_chromosome = spec.evaluation.unit == "chromosome"
    return "paired by chromosome and seed" if by_chromosome else "paired by seed and block"


def undecided(row: Estimate) -> bool:
    """Whether the interval of a difference holds 0, or is none."""
    return not (row.low > 0 or row.high < 0)
