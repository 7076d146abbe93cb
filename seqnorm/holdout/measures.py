"""All metrics of one scored trial: per test chromosome, per GC decile, with their resamples.

Resamples are drawn from the chromosome's name alone, so that every trial of a run sees the same
ones: differences between norms are then paired block by block.
"""

import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.atomic import write_atomic
from seqnorm import metrics
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.windows import VALIDATION

Floats = NDArray[np.float64]

METRICS = ("auroc", "auprc", "false_alarm_rate", "recall", "gc_auroc")
"""Metrics that are resampled."""
NEEDS_POSITIVES = ("auroc", "auprc", "recall", "gc_auroc")
"""Metrics left out on chromosomes with few positives."""
POINTS = ("gc_correlation", "calibration_error")
"""Metrics without an interval."""
DECILES = 10


@dataclass(frozen=True)
class Measures:
    """Metrics of one trial.

    Attributes
    ----------
    resampled : numpy.ndarray
        Shape (parts, metrics, resamples + 1): the validation part, then each test chromosome;
        metrics as in `METRICS`; entry 0 of the last axis is the plain metric.
    points : numpy.ndarray
        Shape (parts, 2): metrics as in `POINTS`.
    deciles : numpy.ndarray
        Shape (10, resamples + 1): false-alarm rate of the test negatives by GC decile.
    threshold : float
        Score above which a window is called.
    """

    resampled: Floats
    points: Floats
    deciles: Floats
    threshold: float

    def save(self, path: Path) -> None:
        """Write without pickle, in one step."""
        stream = io.BytesIO()
        np.savez(
            stream,
            resampled=self.resampled,
            points=self.points,
            deciles=self.deciles,
            threshold=self.threshold,
        )
        write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Measures":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(
                stored["resampled"],
                stored["points"],
                stored["deciles"],
                float(stored["threshold"]),
            )


def part_names(spec: Spec) -> list[str]:
    """Names along the first axis of `Measures.resampled`."""
    return [VALIDATION, *spec.split.test]


def part_rows(spec: Spec, table: pd.DataFrame) -> list[NDArray[np.int64]]:
    """Rows of the evaluation table of each part."""
    validation = (table["part"] == VALIDATION).to_numpy()
    chrom = table["chrom"].to_numpy()
    return [
        np.flatnonzero(validation if name == VALIDATION else ~validation & (chrom == name))
        for name in part_names(spec)
    ]


def gc_decile_edges(spec: Spec, table: pd.DataFrame) -> Floats:
    """Nine GC fractions that cut all test negatives into ten equal parts."""
    test = (table["part"] != VALIDATION) & (table["label"] == 0)
    inner = np.linspace(0, 1, DECILES + 1)[1:-1]
    edges: Floats = np.quantile(table.loc[test, "gc"].to_numpy(dtype=np.float64), inner)
    return edges


def measure(spec: Spec, table: pd.DataFrame, scores: Floats) -> Measures:
    """Measure the scores of the evaluation windows.

    Parameters
    ----------
    spec
        The experiment.
    table
        Evaluation windows, as `seqnorm.holdout.windows.WindowSet.table`.
    scores
        Logits of shape (N,).
    """
    resamples = spec.evaluation.resamples
    edges = gc_decile_edges(spec, table)
    resampled, points, tested = [], [], []
    thresholds = np.empty(0)
    for name, rows in zip(part_names(spec), part_rows(spec, table), strict=True):
        data, weights = _scored(table, scores, rows, name, resamples)
        if name == VALIDATION:
            thresholds = metrics.threshold_at(data, weights, spec.evaluation.false_alarm_rate)
        else:
            tested.append((data, weights))
        resampled.append(_resampled(spec, data, weights, thresholds))
        points.append([metrics.gc_correlation(data), metrics.calibration_error(data)])
    called, sizes = metrics.false_alarms_by_gc(tested, edges, thresholds)
    deciles = np.divide(called, sizes, out=np.full_like(sizes, np.nan), where=sizes > 0)
    return Measures(np.stack(resampled), np.array(points), deciles, float(thresholds[0]))


def _scored(
    table: pd.DataFrame, scores: Floats, rows: NDArray[np.int64], name: str, resamples: int
) -> tuple[metrics.Scored, Floats]:
    part = table.iloc[rows]
    data = metrics.Scored(
        scores[rows],
        part["label"].to_numpy(dtype=np.int64),
        part["gc"].to_numpy(dtype=np.float64),
        metrics.block_numbers(part["chrom"], part["block"]),
    )
    return data, metrics.block_weights(data.n_blocks, resamples, zlib.crc32(name.encode()))


def _resampled(spec: Spec, data: metrics.Scored, weights: Floats, thresholds: Floats) -> Floats:
    found = {"false_alarm_rate": metrics.called_fraction(data, data.negatives, weights, thresholds)}
    if len(data.positives) >= spec.split.few_positives:
        found["auroc"] = metrics.auroc(data, weights)
        found["auprc"] = metrics.average_precision(data, weights)
        found["recall"] = metrics.called_fraction(data, data.positives, weights, thresholds)
        found["gc_auroc"] = metrics.gc_conditional_auroc(data, weights)
    missing = np.full(len(weights), np.nan)
    return np.stack([found.get(name, missing) for name in METRICS])
