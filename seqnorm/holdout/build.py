"""From the measures of the trials to the tables of a run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from seqnorm import metrics
from seqnorm.holdout.compare import Comparison
from seqnorm.holdout.curves import expected_best_of_k
from seqnorm.holdout.design import Cell, folds_of
from seqnorm.holdout.measures import DECILES, METRICS, POINTS, Measures, gc_decile_edges, part_rows
from seqnorm.holdout.schedule import Results
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import Tables
from seqnorm.holdout.trial import Trial
from seqnorm.holdout.windows import VALIDATION


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
    compared = Comparison(spec, results.measured, chromosomes)
    return Tables(
        trials=_trials(spec, results.measured, chromosomes, compared),
        summary=compared.summary(),
        differences=compared.differences(),
        factors=compared.factors(),
        hypotheses=compared.hypotheses(),
        deciles=compared.deciles({task: _middles(table) for task, table in evaluation.items()}),
        slopes=compared.slopes(),
        tuning=_tuning(results),
        best_of=_best_of(results),
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
    choosing = evaluation[evaluation["part"] == VALIDATION]
    fewest = choosing.drop_duplicates(["fold", "chrom", "block"]).groupby("fold").size().min()
    for name, index in part_rows(once, spec.split.test).items():
        part = once.iloc[index]
        negative = part[part["label"] == 0]
        blocks = part[["chrom", "block"]].drop_duplicates().shape[0]
        rows.append(
            {
                "chrom": name,
                "positives": int((part["label"] == 1).sum()),
                "negatives": len(negative),
                "prevalence": float((part["label"] == 1).mean()),
                "gc_negatives": float(negative["gc"].mean()),
                "gc_positives": float(part.loc[part["label"] == 1, "gc"].mean()),
                # A threshold comes from the validation blocks of one fold.
                "blocks": int(fewest) if name == VALIDATION else blocks,
                "primary": name in spec.split.primary,
            }
        )
    return pd.DataFrame(rows)


def _middles(evaluation: pd.DataFrame) -> "pd.Series[float]":
    """Median GC of the test negatives of each decile."""
    test = (evaluation["part"] == "test") & (evaluation["label"] == 0)
    gc = evaluation.loc[test, "gc"].to_numpy(dtype=np.float64)
    stratum = metrics.gc_strata(gc, gc_decile_edges(gc))
    return pd.Series(gc).groupby(stratum).median().reindex(range(DECILES))


def _trials(
    spec: Spec,
    measured: Mapping[Trial, Measures],
    chromosomes: pd.DataFrame,
    compared: Comparison,
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
                values = measures.resampled[part, index]
                interval = compared.of_one_seed(values, trial.task, chrom)
                row[metric] = interval["estimate"]
                row[f"{metric}_low"] = interval["low"]
                row[f"{metric}_high"] = interval["high"]
            row |= dict(zip(POINTS, measures.points[part].tolist(), strict=True))
            rows.append(row)
    return pd.DataFrame(rows)


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


def _best_of(results: Results) -> pd.DataFrame:
    """Best validation score expected of k of the rates tried, a mean over tuning seeds and folds.

    Only seeds that tried every rate take part: of the others the chosen rate alone is known.
    """
    tried: dict[tuple[Cell, str, int], list[float]] = {}
    for trained in results.tuned:
        trial = trained.trial
        key = (trial.cell, trial.fold, trial.seed)
        tried.setdefault(key, []).append(trained.validation_score)
    rates = max((len(scores) for scores in tried.values()), default=0)
    rows = [
        cell._asdict() | {"k": k + 1, "expected": value}
        for (cell, _, _), scores in tried.items()
        if len(scores) == rates
        for k, value in enumerate(expected_best_of_k(scores).tolist())
    ]
    keys = [*Cell._fields, "k"]
    table = pd.DataFrame(rows, columns=[*keys, "expected"])
    return table.groupby(keys, sort=False)["expected"].mean().reset_index()


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
