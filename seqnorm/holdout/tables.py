"""The tables of a run, as tidy frames, and what of them is read together."""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import pandas as pd

from seqnorm.holdout.design import cells_of
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.trial import BASELINE

PRIMARY = "primary"
"""Name of the mean over the primary chromosomes in the tables."""
PRIMARY_METRIC = "false_alarm_rate"
"""Metric on which norms are compared first."""

NAMES = dict.fromkeys(
    ["task", "model", "negatives", "norm", "reference", "fold", "chrom", "metric", "name"], str
)
"""Columns of names, for readers that would take them for numbers."""


@dataclass(frozen=True)
class Tables:
    """Everything that the report is drawn from; each is a CSV of the run folder.

    Attributes
    ----------
    trials : DataFrame
        Every metric of every final trial on every part.
    summary : DataFrame
        Means over seeds with their intervals.
    differences : DataFrame
        Norm minus reference, paired by seed and block, with intervals and p values. Where
        chromosomes are the units, ``block_variance`` and ``blocks`` of the primary rows are the
        variance between them and their number.
    factors : DataFrame
        Change of the primary means with the training negatives or the model, paired alike.
    hypotheses : DataFrame
        What was claimed before the run, and the verdicts.
    deciles : DataFrame
        False-alarm rates by GC decile.
    slopes : DataFrame
        Rise of the false-alarm rate with GC over the test chromosomes.
    tuning, best_of : DataFrame
        Validation score of every learning rate tried, and the best expected of k trials.
    curves : DataFrame
        Learning curves.
    chromosomes : DataFrame
        What was tested on.
    """

    trials: pd.DataFrame
    summary: pd.DataFrame
    differences: pd.DataFrame
    factors: pd.DataFrame
    hypotheses: pd.DataFrame
    deciles: pd.DataFrame
    slopes: pd.DataFrame
    tuning: pd.DataFrame
    best_of: pd.DataFrame
    curves: pd.DataFrame
    chromosomes: pd.DataFrame


def only(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Rows in which each named column has the wanted value, or one of the wanted list.

    Examples
    --------
    >>> table = pd.DataFrame({"norm": ["batch", "layer"], "seed": [0, 1]})
    >>> only(table, norm=["layer", "rms"], seed=1).index.tolist()
    [1]
    """
    keep = np.ones(len(table), dtype=np.bool_)
    for column, value in wanted.items():
        values = value if isinstance(value, list) else [value]
        keep &= table[column].isin(values).to_numpy()
    return table[keep]


class Section(NamedTuple):
    """What is shown together: the norms of one task, model and kind of training negatives."""

    task: str
    model: str
    negatives: str


def sections(spec: Spec) -> list[Section]:
    """Sections in the order of the spec."""
    return list(dict.fromkeys(Section(*cell[:3]) for cell in cells_of(spec)))


def narrowed(tables: Tables, section: Section) -> Tables:
    """The rows of a section, with its baselines."""
    cell = {"model": [section.model, BASELINE], "negatives": section.negatives}
    found = {}
    for item in fields(tables):
        table = only(getattr(tables, item.name), task=section.task)
        found[item.name] = only(table, **cell) if "norm" in table else table
    return Tables(**found)


def norms_in(spec: Spec, tables: Tables) -> list[str]:
    """Norms of the spec that a section compares."""
    there = set(tables.tuning["norm"]) | set(tables.summary["norm"])
    return [norm for norm in spec.norms if norm in there]


class Estimate(NamedTuple):
    """A figure with its interval."""

    estimate: float
    low: float
    high: float


def estimates(table: pd.DataFrame, *keys: str) -> dict[tuple[str, ...], Estimate]:
    """Figures of a summary or a table of differences, by the values of the key columns.

    Examples
    --------
    >>> row = {"norm": "batch", "estimate": 0.9, "low": 0.8, "high": 1.0}
    >>> estimates(pd.DataFrame([row]), "norm")["batch",].low
    0.8
    """
    columns = [*keys, "estimate", "low", "high"]
    return {
        tuple(str(value) for value in row[: len(keys)]): Estimate(*map(float, row[len(keys) :]))
        for row in table[columns].itertuples(index=False, name=None)
    }


def adjusted(table: pd.DataFrame, *keys: str) -> dict[tuple[str, ...], Estimate]:
    """The same with the intervals that are adjusted for the comparisons of their family."""
    ends = {"low_adjusted": "low", "high_adjusted": "high"}
    return estimates(table[[*keys, "estimate", *ends]].rename(columns=ends), *keys)


def reference_norm(spec: Spec) -> str:
    """Norm to which the others are compared: BatchNorm, or the first where it takes no part."""
    return "batch" if "batch" in spec.norms else spec.norms[0]
