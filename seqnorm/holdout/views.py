"""What the page shows of one section: its tables, cell by cell, and its figures."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqnorm.holdout import plots
from seqnorm.holdout.answer import sentence_of
from seqnorm.holdout.figures import Gallery, Picture
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import (
    PRIMARY,
    PRIMARY_METRIC,
    Section,
    Tables,
    estimates,
    narrowed,
    only,
    sections,
)
from seqnorm.holdout.titles import (
    METRIC_TITLES,
    NEGATIVES_TITLES,
    model_title,
    section_title,
    title,
)
from seqnorm.holdout.trial import BASELINE
from seqnorm.holdout.windows import VALIDATION

Row = dict[str, Any]

PERCENT = ("false_alarm_rate", "recall")
"""Metrics that are shown as percentages; their differences in points."""

FIGURES = {
    "forest": plots.forest_plot,
    "deciles": plots.deciles_plot,
    "dose": plots.dose_plot,
    "alarms": plots.false_alarm_strips,
    "auroc": plots.auroc_strips,
    "probe": plots.probe_plot,
    "calibration": plots.calibration_strips,
    "curves": plots.curve_plot,
    "rates": plots.rate_plot,
    "best_of": plots.best_of_plot,
}


def slug(spec: Spec, section: Section) -> str:
    """Name of a section in addresses and names of files."""
    task = [section.task] if len(spec.tasks) > 1 else []
    return "-".join([*task, section.model, section.negatives])


def section_view(spec: Spec, tables: Tables, section: Section, gallery: Gallery) -> Row:
    """One task, model and kind of training negatives, from its own tables."""
    figures: dict[str, Picture | None] = {}
    for name, draw in FIGURES.items():
        plot = draw(spec, tables)
        figures[name] = None if plot is None else gallery.add(plot, slug(spec, section))
    return {
        "slug": slug(spec, section),
        "title": section_title(spec, section),
        "sentence": sentence_of(spec, tables, section),
        "figures": figures,
        "metrics": [
            {"name": metric, "title": METRIC_TITLES[metric], "percent": metric in PERCENT}
            | _pivot(spec, tables, metric)
            for metric in METRIC_TITLES
        ],
        "differences": _differences(tables),
        "slopes": _slopes(tables),
        "points": _points(spec, tables),
        "tuning": _tuning(tables),
    }


def overview(spec: Spec, tables: Tables) -> list[Row]:
    """Every cell of the run, a row each: for runs of more than one section."""
    rows: list[Row] = []
    for section in sections(spec):
        part = narrowed(tables, section)
        primary = only(part.summary, chrom=PRIMARY)
        found = estimates(primary[primary["model"] != BASELINE], "norm", "metric")
        changes = estimates(only(part.differences, chrom=PRIMARY), "norm", "metric")
        for norm in dict.fromkeys(norm for norm, _ in found):
            values = {metric: found.get((norm, metric)) for metric in METRIC_TITLES}
            negatives = NEGATIVES_TITLES.get(section.negatives, section.negatives)
            cell = {"task": section.task, "model": model_title(section.model)}
            cell |= {"negatives": negatives, "norm": title(norm), "slug": slug(spec, section)}
            rows.append(cell | values | {"change": changes.get((norm, PRIMARY_METRIC))})
    return rows


def factors_view(tables: Tables) -> list[Row]:
    """What training negatives and models change, a row a norm."""
    rows: list[Row] = []
    keys = ["task", "model", "negatives", "norm", "factor", "against"]
    for names, part in tables.factors.groupby(keys, sort=False):
        task, model, negatives, norm, factor, against = map(str, names)
        own = {"negatives": negatives, "model": model}[factor]
        name = model_title if factor == "model" else NEGATIVES_TITLES.__getitem__
        found = estimates(part, "metric")
        rows.append(
            {"task": task, "level": name(own), "against": name(against), "norm": title(norm)}
            | {metric: found.get((metric,)) for metric in METRIC_TITLES}
        )
    return rows


def _pivot(spec: Spec, tables: Tables, metric: str) -> Row:
    """Norms down, chromosomes across, an estimate with its interval in each cell."""
    rows = only(tables.summary, metric=metric)
    chroms = [
        chrom for chrom in [VALIDATION, *spec.split.test, PRIMARY] if (rows["chrom"] == chrom).any()
    ]
    cells = estimates(rows, "norm", "chrom")
    names = dict.fromkeys(norm for norm, _ in cells)
    prevalence = tables.chromosomes.set_index("chrom")["prevalence"].to_dict()
    prevalence[PRIMARY] = np.mean([prevalence[chrom] for chrom in spec.split.primary])
    return {
        "chroms": chroms,
        "prevalence": [prevalence[chrom] for chrom in chroms] if metric == "auprc" else None,
        "rows": [(title(n), [cells.get((n, chrom)) for chrom in chroms]) for n in names],
    }


def _differences(tables: Tables) -> list[Row]:
    """Differences on the primary chromosomes; p values of the primary metric."""
    rows = only(tables.differences, chrom=PRIMARY)
    found = estimates(rows, "norm", "metric")
    tests = _by_norm(only(rows, metric=PRIMARY_METRIC).to_dict("records"))
    return [
        {"norm": title(norm), "test": tests.get(norm)}
        | {metric: found.get((norm, metric)) for metric in METRIC_TITLES}
        for norm in dict.fromkeys(norm for norm, _ in found)
    ]


def _slopes(tables: Tables) -> list[Row]:
    slopes = estimates(only(tables.slopes, kind="slope"), "norm")
    changes = estimates(only(tables.slopes, kind="difference"), "norm")
    tests = _by_norm(only(tables.slopes, kind="difference").to_dict("records"))
    return [
        {
            "norm": title(norm),
            "slope": slope,
            "change": changes.get((norm,)),
            "test": tests.get(norm),
        }
        for (norm,), slope in slopes.items()
    ]


def _by_norm(records: list[Any]) -> Mapping[str, Row]:
    return {str(record["norm"]): record for record in records}


def _points(spec: Spec, tables: Tables) -> list[Row]:
    """Metrics without intervals, as means over the seeds."""
    rows = tables.trials
    columns = ["gc_correlation", "calibration_error", "gc_probe"]
    means = rows.groupby(["norm", "chrom"], sort=False)[columns].mean()
    found: dict[Any, Any] = means.to_dict("index")
    return [
        {"norm": title(str(norm)), "cells": [found[norm, chrom] for chrom in spec.split.test]}
        for norm in dict.fromkeys(rows["norm"])
    ]


def _tuning(tables: Tables) -> list[Row]:
    rows = tables.tuning
    table: list[Row] = []
    for norm in dict.fromkeys(rows["norm"]):
        part = rows[rows["norm"] == norm]
        kept = part[part["chosen"]]
        scores = kept["validation_score"].replace(-np.inf, np.nan)
        table.append(
            {
                "norm": title(str(norm)),
                "rates": sorted({float(rate) for rate in kept["learning_rate"]}),
                "tried": sorted({float(rate) for rate in part["learning_rate"]}),
                "mean": float(scores.mean()),
                "lowest": float(scores.min()),
                "highest": float(scores.max()),
                "trained": len(part),
                "diverged": int(part["diverged"].sum()),
            }
        )
    return table
