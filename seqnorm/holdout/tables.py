"""The tables of a run: from the measures of the trials to tidy frames.

Intervals are percentile intervals of a two-level bootstrap: seeds are drawn with replacement,
and blocks of each chromosome. Every norm sees the same draws, so a difference between two norms
is paired by seed and by block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seqnorm import metrics
from seqnorm.holdout.measures import (
    DECILES,
    METRICS,
    POINTS,
    Measures,
    gc_decile_edges,
    part_names,
    part_rows,
)
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.trial import Trained, Trial

Floats = NDArray[np.float64]
PRIMARY = "primary"
"""Name of the mean over the primary chromosomes in the tables."""
BASELINE = "baseline"
CELL = ["model", "negatives", "norm"]


@dataclass(frozen=True)
class Tables:
    """Everything that the report is drawn from; each is a CSV of the run folder."""

    trials: pd.DataFrame
    summary: pd.DataFrame
    differences: pd.DataFrame
    deciles: pd.DataFrame
    tuning: pd.DataFrame
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


def reference_norm(spec: Spec) -> str:
    """Norm to which the others are compared: BatchNorm, or the first where it takes no part."""
    return "batch" if "batch" in spec.norms else spec.norms[0]


def build_tables(
    spec: Spec,
    evaluation: pd.DataFrame,
    measured: Mapping[Trial, Measures],
    tuned: Sequence[Trained],
    chosen: Mapping[tuple[str, str, str], float],
) -> Tables:
    """Build all tables of a run.

    Parameters
    ----------
    spec
        The experiment.
    evaluation
        Table of the evaluation windows.
    measured
        Measures of every final trial, baselines included.
    tuned
        Every trained network, those with a learning rate that was not chosen included.
    chosen
        Learning rate of each cell.
    """
    chromosomes = chromosome_table(spec, evaluation)
    cells = _cells(measured)
    return Tables(
        trials=_trials(spec, measured, chromosomes),
        summary=_summary(spec, cells),
        differences=_differences(spec, cells),
        deciles=_deciles(spec, cells, evaluation),
        tuning=_tuning(tuned, chosen),
        curves=_curves(tuned, chosen),
        chromosomes=chromosomes,
    )


def chromosome_table(spec: Spec, evaluation: pd.DataFrame) -> pd.DataFrame:
    """What each part of the evaluation holds, and its GC."""
    rows = []
    for name, index in zip(part_names(spec), part_rows(spec, evaluation), strict=True):
        part = evaluation.iloc[index]
        negative = part[part["label"] == 0]
        rows.append(
            {
                "chrom": name,
                "positives": int((part["label"] == 1).sum()),
                "negatives": len(negative),
                "prevalence": float((part["label"] == 1).mean()),
                "gc_negatives": float(negative["gc"].mean()),
                "gc_positives": float(part.loc[part["label"] == 1, "gc"].mean()),
                "blocks": int(part[["chrom", "block"]].drop_duplicates().shape[0]),
                "primary": name in spec.split.primary,
            }
        )
    return pd.DataFrame(rows)


def _named(cell: tuple[str, str, str]) -> dict[str, Any]:
    return dict(zip(CELL, cell, strict=True))


def _cells(measured: Mapping[Trial, Measures]) -> dict[tuple[str, str, str], list[Measures]]:
    """Measures of each cell in the order of the seeds."""
    cells: dict[tuple[str, str, str], list[Measures]] = {}
    for trial in measured:
        cells.setdefault(trial.cell, [])
    for cell, found in cells.items():
        mine = sorted((t for t in measured if t.cell == cell), key=lambda trial: trial.seed)
        found.extend(measured[trial] for trial in mine)
    return cells


def _interval(spec: Spec, values: Floats) -> dict[str, float]:
    """Estimate (entry 0) and percentile interval (the rest) along the last axis."""
    if np.isnan(values[0]):
        return {"estimate": float("nan"), "low": float("nan"), "high": float("nan")}
    tail = (1 - spec.evaluation.confidence) / 2
    low, high = np.nanquantile(values[1:], [tail, 1 - tail])
    return {"estimate": float(values[0]), "low": float(low), "high": float(high)}


def _trials(
    spec: Spec, measured: Mapping[Trial, Measures], chromosomes: pd.DataFrame
) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for trial, measures in measured.items():
        for part, chrom in enumerate(chromosomes.to_dict("records")):
            row: dict[str, Any] = {
                "model": trial.model,
                "negatives": trial.negatives,
                "norm": trial.norm,
                "seed": trial.seed,
                "learning_rate": trial.learning_rate,
                "chrom": chrom["chrom"],
                "positives": chrom["positives"],
                "n_negatives": chrom["negatives"],
                "prevalence": chrom["prevalence"],
                "blocks": chrom["blocks"],
                "threshold": measures.threshold,
            }
            for index, metric in enumerate(METRICS):
                interval = _interval(spec, measures.resampled[part, index])
                row[metric] = interval["estimate"]
                row[f"{metric}_low"] = interval["low"]
                row[f"{metric}_high"] = interval["high"]
            row |= dict(zip(POINTS, measures.points[part].tolist(), strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


def _seed_draws(seeds: int, resamples: int) -> NDArray[np.int64]:
    """Indices of shape (resamples + 1, seeds): every seed once first, then the resamples."""
    rng = np.random.default_rng(seeds)
    return np.vstack([np.arange(seeds)[None], rng.integers(0, seeds, size=(resamples, seeds))])


def _over_seeds(found: Sequence[Floats]) -> Floats:
    """Mean over the drawn seeds of arrays (..., resamples + 1), for each resample."""
    stacked = np.stack(found)
    draws = _seed_draws(len(found), stacked.shape[-1] - 1)
    resample = np.arange(stacked.shape[-1])[:, None]
    # Advanced indices on the first and last axis come to the front: (R + 1, seeds, ...).
    picked = stacked[draws, ..., resample]
    return np.moveaxis(picked.mean(axis=1), 0, -1)


def _with_primary(spec: Spec, resampled: Floats) -> tuple[list[str], Floats]:
    """Append the mean over the primary chromosomes to the parts."""
    names = part_names(spec)
    primary = resampled[[names.index(chrom) for chrom in spec.split.primary]].mean(axis=0)
    return [*names, PRIMARY], np.concatenate([resampled, primary[None]])


def _tidy(
    spec: Spec, cell: tuple[str, str, str], resampled: Floats, extra: dict[str, Any]
) -> list[dict[str, Any]]:
    names, values = _with_primary(spec, resampled)
    return [
        _named(cell)
        | {"chrom": chrom, "metric": metric}
        | _interval(spec, values[part, index])
        | extra
        for part, chrom in enumerate(names)
        for index, metric in enumerate(METRICS)
        if not np.isnan(values[part, index, 0])
    ]


def _summary(spec: Spec, cells: Mapping[tuple[str, str, str], list[Measures]]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for cell, found in cells.items():
        resampled = _over_seeds([measures.resampled for measures in found])
        rows += _tidy(spec, cell, resampled, {"seeds": len(found)})
    return pd.DataFrame(rows)


def _differences(spec: Spec, cells: Mapping[tuple[str, str, str], list[Measures]]) -> pd.DataFrame:
    """Norm minus reference, paired by seed and block, within a model and kind of negatives."""
    rows: list[dict[str, Any]] = []
    reference = reference_norm(spec)
    for cell, found in cells.items():
        model, negatives, norm = cell
        if model == BASELINE or norm == reference:
            continue
        others = cells[(model, negatives, reference)]
        paired = [a.resampled - b.resampled for a, b in zip(found, others, strict=True)]
        rows += _tidy(
            spec, cell, _over_seeds(paired), {"seeds": len(found), "reference": reference}
        )
    columns = [*CELL, "chrom", "metric", "estimate", "low", "high", "seeds", "reference"]
    return pd.DataFrame(rows, columns=columns)


def _deciles(
    spec: Spec, cells: Mapping[tuple[str, str, str], list[Measures]], evaluation: pd.DataFrame
) -> pd.DataFrame:
    """False-alarm rate of the test negatives by GC decile."""
    test = evaluation[(evaluation["part"] == "test") & (evaluation["label"] == 0)]
    stratum = metrics.gc_strata(test["gc"].to_numpy(), gc_decile_edges(spec, evaluation))
    middle = test.groupby(stratum)["gc"].median().reindex(range(DECILES))
    return pd.DataFrame(
        [
            _named(cell)
            | {"decile": decile + 1, "gc_median": float(middle[decile])}
            | _interval(spec, values[decile])
            for cell, found in cells.items()
            for values in [_over_seeds([measures.deciles for measures in found])]
            for decile in range(DECILES)
        ]
    )


def _tuning(tuned: Sequence[Trained], chosen: Mapping[tuple[str, str, str], float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "model": trained.trial.model,
                "negatives": trained.trial.negatives,
                "norm": trained.trial.norm,
                "learning_rate": trained.trial.learning_rate,
                "seed": trained.trial.seed,
                "validation_score": trained.validation_score,
                "best_epoch": trained.best_epoch + 1,
                "epochs": len(trained.curve),
                "diverged": trained.diverged,
                "chosen": chosen[trained.trial.cell] == trained.trial.learning_rate,
            }
            for trained in tuned
        ]
    )


def _curves(tuned: Sequence[Trained], chosen: Mapping[tuple[str, str, str], float]) -> pd.DataFrame:
    columns = [*CELL, "learning_rate", "seed", "epoch"]
    columns += ["train_loss", "validation_loss", "validation_score"]
    return pd.DataFrame(
        [
            _named(trained.trial.cell)
            | {
                "learning_rate": trained.trial.learning_rate,
                "seed": trained.trial.seed,
                "epoch": epoch + 1,
            }
            | entry
            for trained in tuned
            if chosen[trained.trial.cell] == trained.trial.learning_rate
            for epoch, entry in enumerate(trained.curve)
        ],
        columns=columns,
    )
