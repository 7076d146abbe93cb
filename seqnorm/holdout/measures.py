"""All metrics of one scored trial: per test chromosome, per GC decile, with their resamples.

Resamples are drawn from the chromosome's name alone, so that every trial of a run sees the same
ones: differences between norms are then paired block by block.
"""

import io
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.atomic import write_atomic
from seqnorm import metrics
from seqnorm.holdout.design import Fold
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.windows import VALIDATION

Floats = NDArray[np.float64]

METRICS = ("auroc", "auprc", "false_alarm_rate", "recall", "gc_auroc", "auprc_corrected")
"""Metrics that are resampled."""
NEEDS_POSITIVES = ("auroc", "auprc", "recall", "gc_auroc", "auprc_corrected")
"""Metrics left out on chromosomes with few positives."""
POINTS = ("gc_correlation", "calibration_error", "gc_probe")
"""Metrics without an interval."""
DECILES = 10


@dataclass(frozen=True)
class Measures:
    """Metrics of one trial, or of the trials of all folds of a design.

    Attributes
    ----------
    resampled : numpy.ndarray
        Shape (parts, metrics, resamples + 1): the validation part, then each test chromosome;
        metrics as in `METRICS`; entry 0 of the last axis is the plain metric.
    points : numpy.ndarray
        Shape (parts, 3): metrics as in `POINTS`.
    by_gc : numpy.ndarray
        Shape (2, 10, resamples + 1): false alarms, and test negatives, of each GC decile.
    thresholds : numpy.ndarray
        Shape (folds,): score above which a window is called.
    """

    resampled: Floats
    points: Floats
    by_gc: Floats
    thresholds: Floats

    @property
    def deciles(self) -> Floats:
        """False-alarm rate of the test negatives by GC decile, (10, resamples + 1)."""
        called, sizes = self.by_gc
        rates: Floats = np.full(sizes.shape, np.nan)
        np.divide(called, sizes, out=rates, where=sizes > 0)
        return rates

    def save(self, path: Path) -> None:
        """Write without pickle, in one step."""
        stream = io.BytesIO()
        np.savez(stream, **asdict(self))
        write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> "Measures":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{item.name: stored[item.name] for item in fields(cls)})


def merged(folds: Sequence[Measures]) -> Measures:
    """Measures of all folds: validation as their mean, the test chromosomes one after another."""
    return Measures(
        np.concatenate(
            [
                np.mean([fold.resampled[:1] for fold in folds], axis=0),
                *[fold.resampled[1:] for fold in folds],
            ]
        ),
        np.concatenate(
            [
                np.mean([fold.points[:1] for fold in folds], axis=0),
                *[fold.points[1:] for fold in folds],
            ]
        ),
        np.sum([fold.by_gc for fold in folds], axis=0),
        np.concatenate([fold.thresholds for fold in folds]),
    )


def part_rows(table: pd.DataFrame, chroms: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Rows of the evaluation table of each part: validation, then these test chromosomes."""
    validation = (table["part"] == VALIDATION).to_numpy()
    chrom = table["chrom"].to_numpy()
    rows = {VALIDATION: np.flatnonzero(validation)}
    return rows | {name: np.flatnonzero(~validation & (chrom == name)) for name in chroms}


def gc_decile_edges(gc: Floats) -> Floats:
    """Nine GC fractions that cut test negatives into ten equal parts."""
    edges: Floats = np.quantile(gc, np.linspace(0, 1, DECILES + 1)[1:-1])
    return edges


def measure(
    spec: Spec,
    fold: Fold,
    table: pd.DataFrame,
    scores: Floats,
    edges: Floats,
    features: Floats | None = None,
) -> Measures:
    """Measure the scores of the evaluation windows of a fold.

    Parameters
    ----------
    spec
        The experiment.
    fold
        Whose test chromosomes they are of.
    table
        Evaluation windows, as `seqnorm.holdout.windows.WindowSet.table`.
    scores
        Logits of shape (N,).
    edges
        GC fractions between the deciles.
    features
        What the model's head saw, (N, F), if it has one: tells how well GC can be read from it.
    """
    resamples = spec.evaluation.resamples
    resampled, points, tested = [], [], []
    thresholds, prevalence = np.empty(0), np.nan
    for name, rows in part_rows(table, fold.test).items():
        data, weights = _scored(table, scores, rows, name, resamples)
        if name == VALIDATION:
            thresholds = metrics.threshold_at(data, weights, spec.evaluation.false_alarm_rate)
            prevalence = float(data.labels.mean())
        else:
            tested.append((data, weights))
        resampled.append(_resampled(spec, data, weights, thresholds, prevalence))
        probe = np.nan if features is None else _probe(data, features[rows])
        points.append([metrics.gc_correlation(data), metrics.calibration_error(data), probe])
    by_gc = metrics.false_alarms_by_gc(tested, edges, thresholds)
    return Measures(np.stack(resampled), np.array(points), np.stack(by_gc), thresholds[:1])


def _probe(data: metrics.Scored, features: Floats) -> float:
    """R squared, on negatives, of GC as read from features by a linear probe."""
    rows = data.negatives
    # A window without one known base says nothing: half.
    return metrics.probe_r2(
        features[rows], np.nan_to_num(data.gc[rows], nan=0.5), data.blocks[rows]
    )


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


def _resampled(
    spec: Spec, data: metrics.Scored, weights: Floats, thresholds: Floats, prevalence: float
) -> Floats:
    found = {"false_alarm_rate": metrics.called_fraction(data, data.negatives, weights, thresholds)}
    if len(data.positives) >= spec.split.few_positives:
        found["auroc"] = metrics.auroc(data, weights)
        found["auprc"] = metrics.average_precision(data, weights)
        found["recall"] = metrics.called_fraction(data, data.positives, weights, thresholds)
        found["auprc_corrected"] = metrics.average_precision(data, weights, prevalence)
        found["gc_auroc"] = metrics.gc_conditional_auroc(data, weights)
    missing = np.full(len(weights), np.nan)
    return np.stack([found.get(name, missing) for name in METRICS])
