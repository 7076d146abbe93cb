"""The measures of a GC-robustness card, each with a block-bootstrap interval."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seqnorm import metrics
from seqnorm.metrics import Scored
from seqnorm.robustness.card import ALL, SLOPE, Card, Threshold

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DECILES = 10
FEW_POSITIVES = 10
"""Chromosomes with fewer positives (or negatives) have no measure that compares the two."""


@dataclass(frozen=True)
class Settings:
    """What `audit` was asked for; see there."""

    name: str
    aim: float
    threshold: float | None
    scale: str
    block: int
    resamples: int
    confidence: float


@dataclass(frozen=True)
class Part:
    """The windows of one chromosome with the resamples of its blocks."""

    data: Scored
    weights: Floats

    @property
    def gc_alone(self) -> Scored:
        """The same windows scored by their GC."""
        return Scored(self.data.gc, self.data.labels, self.data.gc, self.data.blocks)


def measure(table: pd.DataFrame, scores: Floats, reference: Bools, settings: Settings) -> Card:
    """Make the card of scored windows; `reference` are those that set the threshold."""
    used = reference if reference.any() else np.ones(len(table), dtype=np.bool_)
    calibrated = _part(table, scores, used, settings, "reference")
    tested = table.loc[~reference] if reference.any() else table
    names = list(dict.fromkeys(tested["chrom"]))
    parts = {
        name: _part(table, scores, (table["chrom"] == name).to_numpy() & ~reference, settings, name)
        for name in names
    }
    thresholds = _thresholds(calibrated, settings)
    recall = metrics.called_fraction(
        calibrated.data, calibrated.data.positives, calibrated.weights, thresholds
    )
    richer = _gc_points_up(tested)
    rows: list[dict[str, object]] = []
    for name, part in parts.items():
        found = _of_chromosome(part, thresholds, recall, richer, settings)
        rows += [{"chrom": name, "metric": key, **_interval(v, settings)} for key, v in found]
    return Card(
        name=settings.name,
        threshold=Threshold(
            value=float(thresholds[0]),
            aim=settings.aim,
            chosen=settings.threshold is None,
            chromosomes=tuple(dict.fromkeys(table.loc[used, "chrom"])),
            apart=bool(reference.any()),
            negatives=len(calibrated.data.negatives),
            blocks=calibrated.data.n_blocks,
        ),
        scale=settings.scale,
        block=settings.block,
        resamples=settings.resamples,
        confidence=settings.confidence,
        windows=pd.DataFrame([_counts(name, part) for name, part in parts.items()]),
        chromosomes=pd.DataFrame(rows),
        deciles=_deciles(parts, thresholds, settings),
        calibration=_calibration(parts, settings),
    )


def _part(table: pd.DataFrame, scores: Floats, rows: Bools, settings: Settings, name: str) -> Part:
    mine = table.loc[rows]
    data = Scored(
        scores[rows],
        mine["label"].to_numpy(dtype=np.int64),
        mine["gc"].to_numpy(dtype=np.float64),
        metrics.block_numbers(mine["chrom"], mine["start"] // settings.block),
    )
    seed = zlib.crc32(name.encode())
    return Part(data, metrics.block_weights(data.n_blocks, settings.resamples, seed))


def _thresholds(part: Part, settings: Settings) -> Floats:
    if settings.threshold is not None:
        return np.full(settings.resamples + 1, settings.threshold)
    return metrics.threshold_at(part.data, part.weights, settings.aim)


def _gc_points_up(tested: pd.DataFrame) -> bool:
    """Whether positives are the GC-richer ones, over all tested windows: GC's own best guess."""
    means = tested.groupby("label")["gc"].mean()
    return bool(means.get(1, 0.0) >= means.get(0, 0.0))


def _of_chromosome(
    part: Part, thresholds: Floats, reference_recall: Floats, richer: bool, settings: Settings
) -> Iterator[tuple[str, Floats]]:
    data, weights = part.data, part.weights
    if len(data.negatives):
        rate = metrics.called_fraction(data, data.negatives, weights, thresholds)
        yield "false_alarm_rate", rate
        yield "threshold_shift", rate - settings.aim
    if min(len(data.positives), len(data.negatives)) < FEW_POSITIVES:
        return
    yield "recall", metrics.called_fraction(data, data.positives, weights, thresholds)
    own = metrics.threshold_at(data, weights, settings.aim)
    at_own = metrics.called_fraction(data, data.positives, weights, own)
    yield "recall_at_own_threshold", at_own
    yield "ranking_shift", at_own - reference_recall
    auroc = metrics.auroc(data, weights)
    gc_alone = metrics.auroc(part.gc_alone, weights)
    yield "auroc", auroc
    yield "auroc_of_gc_alone", gc_alone if richer else 1 - gc_alone
    yield "skill_above_gc", auroc - (gc_alone if richer else 1 - gc_alone)
    yield "auroc_at_equal_gc", metrics.gc_conditional_auroc(data, weights)
    if settings.scale != "score":
        gap, error = _calibration_resampled(part, settings)
        yield "calibration_gap", gap
        yield "calibration_error", error


def _probability_bins(scores: Floats, scale: str) -> tuple[Floats, NDArray[np.int64]]:
    """Probability of each window and which of ten equal bins it is in."""
    probability = scores if scale == "probability" else metrics.probability(scores)
    return probability, metrics.probability_bins(probability, DECILES)


def _calibration_resampled(part: Part, settings: Settings) -> tuple[Floats, Floats]:
    """Mean probability less prevalence, and expected calibration error over ten equal bins."""
    data = part.data
    probability, bin_of = _probability_bins(data.scores, settings.scale)
    place = bin_of * data.n_blocks + data.blocks
    shape = (DECILES, data.n_blocks)
    excess = np.bincount(place, probability - data.labels, minlength=DECILES * data.n_blocks)
    sizes = np.bincount(data.blocks, minlength=data.n_blocks)
    off = excess.reshape(shape) @ part.weights.T
    total = part.weights @ sizes
    return off.sum(0) / total, np.abs(off).sum(0) / total


def _interval(values: Floats, settings: Settings) -> dict[str, float]:
    """The plain figure and its percentile interval over the resamples that have one."""
    tail = (1 - settings.confidence) / 2
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.quantile(drawn, [tail, 1 - tail]) if len(drawn) else (np.nan, np.nan)
    return {"estimate": float(values[0]), "low": float(low), "high": float(high)}


def _counts(name: str, part: Part) -> dict[str, object]:
    data = part.data
    both = (data.positives, data.negatives)
    gc = [float(data.gc[rows].mean()) if len(rows) else float("nan") for rows in both]
    return {
        "chrom": name,
        "positives": len(data.positives),
        "negatives": len(data.negatives),
        "gc_positives": gc[0],
        "gc_negatives": gc[1],
        "blocks": data.n_blocks,
        "gc_correlation": metrics.gc_correlation(data),
    }


def _deciles(parts: Mapping[str, Part], thresholds: Floats, settings: Settings) -> pd.DataFrame:
    """False-alarm rate of the negatives of all chromosomes in ten equal parts by GC."""
    every = np.concatenate([part.data.gc[part.data.negatives] for part in parts.values()])
    if not len(every):
        return pd.DataFrame()
    edges = np.quantile(every, np.linspace(0, 1, DECILES + 1))
    called, sizes = metrics.false_alarms_by_gc(
        ((part.data, part.weights) for part in parts.values()), edges[1:-1], thresholds
    )
    rates = np.divide(called, sizes, out=np.full_like(sizes, np.nan), where=sizes > 0)
    stratum = metrics.gc_strata(every, edges[1:-1])
    used = np.unique(stratum).tolist()
    rows = [
        {
            "decile": str(decile + 1),
            "gc_low": float(edges[decile]),
            "gc_high": float(edges[decile + 1]),
            "gc_median": float(np.median(every[stratum == decile])),
            "negatives": int((stratum == decile).sum()),
            **_interval(rates[decile], settings),
        }
        for decile in used
    ]
    total = {"gc_low": edges[0], "gc_high": edges[-1], "gc_median": float(np.median(every))}
    for name, figure in (
        (ALL, called.sum(0) / sizes.sum(0)),
        (SLOPE, rates[used[-1]] - rates[used[0]]),
    ):
        rows.append(
            {"decile": name, **total, "negatives": len(every), **_interval(figure, settings)}
        )
    return pd.DataFrame(rows)


def _calibration(parts: Mapping[str, Part], settings: Settings) -> pd.DataFrame:
    """Mean probability and share of positives in ten equal bins, in each chromosome."""
    if settings.scale == "score":
        return pd.DataFrame()
    rows = []
    for name, part in parts.items():
        probability, bin_of = _probability_bins(part.data.scores, settings.scale)
        for number in np.unique(bin_of):
            here = bin_of == number
            rows.append(
                {
                    "chrom": name,
                    "bin": int(number),
                    "windows": int(here.sum()),
                    "mean_probability": float(probability[here].mean()),
                    "share_of_positives": float(part.data.labels[here].mean()),
                }
            )
    return pd.DataFrame(rows)
