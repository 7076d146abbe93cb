"""A hypothesis, as a spec states it before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Hypothesis:
    """What is claimed of a norm against its reference, before anything is trained.

    Attributes
    ----------
    name, text : str
        Short name, such as "H1", and the claim in words.
    norm, reference : str
        Norms that are compared.
    metric : str
        Primary metric; effects and margins have its unit (a rate is a fraction: 2 points are 0.02).
    direction : {"lower", "higher"}
        Where the norm is claimed to move the metric.
    smallest_effect : float
        Smallest change that matters; the claim is one of at least this size.
    margin : float
        Changes below it count as no difference; at most ``smallest_effect``.
    guard_metric, guard_margin
        Metric that the norm must leave within a margin of the reference's, if any.

    Examples
    --------
    >>> Hypothesis(
    ...     "H1", "LayerNorm lowers false alarms.", "layer", "batch", "false_alarm_rate", "lower",
    ...     smallest_effect=0.02, margin=0.01, guard_metric="auroc", guard_margin=0.01,
    ... ).direction
    'lower'
    """

    name: str
    text: str
    norm: str
    reference: str
    metric: str
    direction: Literal["lower", "higher"]
    smallest_effect: float
    margin: float
    guard_metric: str | None = None
    guard_margin: float | None = None

    def __post_init__(self) -> None:
        where = f"hypothesis '{self.name}': "
        if self.direction not in ("lower", "higher"):
            raise ValueError(f"{where}direction must be 'lower' or 'higher', not {self.direction}")
        if self.norm == self.reference:
            raise ValueError(f"{where}norm and reference are both '{self.norm}'; name two")
        if not 0 < self.margin <= self.smallest_effect < float("inf"):
            raise ValueError(
                f"{where}margin {self.margin} must lie above 0 and not above smallest_effect "
                f"{self.smallest_effect}: else an effect could matter and be no difference"
            )
        if (self.guard_metric is None) != (self.guard_margin is None):
            raise ValueError(f"{where}guard_metric and guard_margin go together; give both or none")
        if self.guard_margin is not None and not 0 < self.guard_margin < float("inf"):
            raise ValueError(f"{where}guard_margin {self.guard_margin} must lie above 0")
