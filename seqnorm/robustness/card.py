"""What an audit found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

ALL = "all"
"""Name of the row over all tenths by GC."""
SLOPE = "richest less poorest"
"""Name of the row with the difference of the last tenth and the first."""


@dataclass(frozen=True)
class Threshold:
    """The one threshold of a card.

    Attributes
    ----------
    value : float
        A window is called when its score is above it.
    aim : float
        False-alarm rate aimed at among the negatives that set it.
    chosen : bool
        Whether these negatives set it, and not the caller.
    chromosomes : tuple of str
        Where they lie.
    apart : bool
        Whether they take no part in the rest of the card.
    negatives, blocks : int
        How many they are, in how many blocks.
    """

    value: float
    aim: float
    chosen: bool
    chromosomes: tuple[str, ...]
    apart: bool
    negatives: int
    blocks: int


@dataclass(frozen=True)
class Card:
    """A GC-robustness card.

    Attributes
    ----------
    name : str
        Of the model.
    threshold : Threshold
        Where windows are called.
    scale : str
        What the scores were taken for.
    block, resamples : int
        Of the bootstrap.
    confidence : float
        Of the intervals.
    windows : DataFrame
        A row a chromosome: counts, mean GC, blocks, Spearman's correlation of score and GC.
    chromosomes : DataFrame
        ``chrom``, ``metric``, ``estimate``, ``low``, ``high``.
    deciles : DataFrame
        False-alarm rate of the negatives by GC, in ten equal parts, over all, and the difference
        of the richest and the poorest part.
    calibration : DataFrame
        Mean probability and share of positives by bin; empty for scores that are no probability.
    """

    name: str
    threshold: Threshold
    scale: str
    block: int
    resamples: int
    confidence: float
    windows: pd.DataFrame
    chromosomes: pd.DataFrame
    deciles: pd.DataFrame
    calibration: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Give the card as what JSON can hold; a figure that does not exist is None."""
        return {
            "model": self.name,
            "threshold": asdict(self.threshold),
            "scale": self.scale,
            "bootstrap": {
                "block": self.block,
                "resamples": self.resamples,
                "confidence": self.confidence,
            },
            **{
                table: [
                    {str(key): _value(value) for key, value in row.items()}
                    for row in getattr(self, table).to_dict("records")
                ]
                for table in ("windows", "chromosomes", "deciles", "calibration")
            },
        }


def _value(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
