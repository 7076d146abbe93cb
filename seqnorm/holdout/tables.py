"""The tables of a run: from the measures of the trials to tidy frames.

Intervals are percentile intervals of a two-level bootstrap: seeds are drawn with replacement,
and blocks of each chromosome. Every norm sees the same draws, so a difference between two norms
is paired by seed and by block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seqnorm import metrics
from seqnorm.holdout.design import Cell, cells_of, folds_of
from seqnorm.holdout.measures import (
    DECILES,
    METRICS,
    POINTS,
    Measures,
    gc_decile_edges,
    merged,
    part_rows,
)
from seqnorm.holdout.schedule import Results
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.trial import BASELINE, Trial
from seqnorm.holdout.windows import VALIDATION

Floats = NDArray[np.float64]
PRIMARY = "primary"
"""Name of the mean over the primary chromosomes in the tables."""


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


def reference_norm(spec: Spec) -> str:
    """Norm to which the others are compared: BatchNorm, or the first where it takes no part."""
    return "batch" if "batch" in spec.norms else spec.norms[0]


def part_names(spec: Spec) -> list[str]:
    """Names along the first axis of the measures of all folds."""
    return [VALIDATION, *spec.split.test]


def build_tables(spec: Spec, evaluation: Mapping[str, pd.DataFrame], results: Results) -> Tables:
    """Build all tables of a run.

    Parameters
    ----------
    spec
        The experiment.
    evaluation
        Evaluation windows of each task, those of all folds, with a column ``fold``.
    results
        What came out of the trials.
    """
    chromosomes = pd.concat(
        [chromosome_table(spec, table).assign(task=task) for task, table in evaluation.items()],
        ignore_index=True,
    )
    cells = _cells(results.measured)
    return Tables(
        trials=_trials(spec, results.measured, chromosomes),
        summary=_summary(spec, cells),
        differences=_differences(spec, cells),
        deciles=_deciles(spec, cells, evaluation),
        tuning=_tuning(results),
        curves=_curves(results),
        chromosomes=chromosomes[["task", *chromosomes.columns.drop("task")]],
    )


def chromosome_table(spec: Spec, evaluation: pd.DataFrame) -> pd.DataFrame:
    """What each part of a task's evaluation holds, and its GC."""
    rows = []
    # The validation windows of one fold are those of another as well.
    place = ["part", "chrom", "start", "label"]
    copy = evaluation.groupby(["fold", *place]).cumcount()
    once = evaluation[~evaluation.assign(copy=copy).duplicated([*place, "copy"])]
    for name, index in part_rows(once, spec.split.test).items():
        part = once.iloc[index]
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


def _cells(measured: Mapping[Trial, Measures]) -> dict[Cell, list[Measures]]:
    """Measures of each cell, of all folds together, in the order of the seeds."""
    folds: dict[tuple[Cell, int], list[Measures]] = {}
    for trial, measures in measured.items():
        folds.setdefault((trial.cell, trial.seed), []).append(measures)
    cells: dict[Cell, list[Measures]] = {}
    for cell, seed in sorted(folds, key=lambda key: key[1]):
        cells.setdefault(cell, []).append(merged(folds[cell, seed]))
    return {cell: cells[cell] for cell in dict.fromkeys(trial.cell for trial in measured)}


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
    parts = chromosomes.set_index(["task", "chrom"]).to_dict("index")
    tested = {fold.name: [VALIDATION, *fold.test] for fold in folds_of(spec)}
    rows: list[dict[str, Any]] = []
    for trial, measures in measured.items():
        for part, chrom in enumerate(tested[trial.fold]):
            known = parts[trial.task, chrom]
            row: dict[str, Any] = trial.cell._asdict() | {
                "fold": trial.fold,
                "seed": trial.seed,
                "learning_rate": trial.learning_rate,
                "chrom": chrom,
                "positives": known["positives"],
                "n_negatives": known["negatives"],
                "prevalence": known["prevalence"],
                "blocks": known["blocks"],
                "threshold": measures.thresholds[0],
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


def _tidy(spec: Spec, cell: Cell, resampled: Floats, extra: dict[str, Any]) -> list[dict[str, Any]]:
    names, values = _with_primary(spec, resampled)
    return [
        cell._asdict()
        | {"chrom": chrom, "metric": metric}
        | _interval(spec, values[part, index])
        | extra
        for part, chrom in enumerate(names)
        for index, metric in enumerate(METRICS)
        if not np.isnan(values[part, index, 0])
    ]


def _summary(spec: Spec, cells: Mapping[Cell, list[Measures]]) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for cell, found in cells.items():
        resampled = _over_seeds([measures.resampled for measures in found])
        rows += _tidy(spec, cell, resampled, {"seeds": len(found)})
    return pd.DataFrame(rows)


def _differences(spec: Spec, cells: Mapping[Cell, list[Measures]]) -> pd.DataFrame:
    """Norm minus reference, paired by seed and block, within a task, model and negatives."""
    rows: list[dict[str, Any]] = []
    reference = reference_norm(spec)
    for cell, found in cells.items():
        others = cells.get(cell._replace(norm=reference))
        if others is None or cell.norm == reference:
            continue
        paired = [a.resampled - b.resampled for a, b in zip(found, others, strict=True)]
        rows += _tidy(
            spec, cell, _over_seeds(paired), {"seeds": len(found), "reference": reference}
        )
    columns = [*Cell._fields, "chrom", "metric", "estimate", "low", "high", "seeds", "reference"]
    return pd.DataFrame(rows, columns=columns)


def _deciles(
    spec: Spec, cells: Mapping[Cell, list[Measures]], evaluation: Mapping[str, pd.DataFrame]
) -> pd.DataFrame:
    """False-alarm rate of the test negatives by GC decile."""
    middle = {}
    for task, table in evaluation.items():
        gc = table.loc[(table["part"] == "test") & (table["label"] == 0), "gc"].to_numpy()
        stratum = metrics.gc_strata(gc, gc_decile_edges(gc))
        middle[task] = pd.Series(gc).groupby(stratum).median().reindex(range(DECILES))
    return pd.DataFrame(
        [
            cell._asdict()
            | {"decile": decile + 1, "gc_median": float(middle[cell.task][decile])}
            | _interval(spec, values[decile])
            for cell, found in cells.items()
            for values in [_over_seeds([measures.deciles for measures in found])]
            for decile in range(DECILES)
        ]
    )


def _tuning(results: Results) -> pd.DataFrame:
    return pd.DataFrame(
        [
            trained.trial.cell._asdict()
            | {
                "fold": trained.trial.fold,
                "learning_rate": trained.trial.learning_rate,
                "seed": trained.trial.seed,
                "validation_score": trained.validation_score,
                "best_epoch": trained.best_epoch + 1,
                "epochs": len(trained.curve),
                "diverged": trained.diverged,
                "chosen": results.rate(trained.trial) == trained.trial.learning_rate,
            }
            for trained in results.tuned
        ]
    )


def _curves(results: Results) -> pd.DataFrame:
    columns = [*Cell._fields, "fold", "learning_rate", "seed", "epoch"]
    columns += ["train_loss", "validation_loss", "validation_score"]
    return pd.DataFrame(
        [
            trained.trial.cell._asdict()
            | {
                "fold": trained.trial.fold,
                "learning_rate": trained.trial.learning_rate,
                "seed": trained.trial.seed,
                "epoch": epoch + 1,
            }
            | entry
            for trained in results.tuned
            if results.rate(trained.trial) == trained.trial.learning_rate
            for epoch, entry in enumerate(trained.curve)
        ],
        columns=columns,
    )
