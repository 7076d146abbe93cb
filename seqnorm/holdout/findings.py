"""What else the tables say, a sentence each: slopes on GC, controls, ceilings, what features hold.

Every sentence reads one interval, or says that there is none.
"""

import math

import pandas as pd

from seqnorm.holdout.baselines import OPTIMUM
from seqnorm.holdout.design import task_of
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import (
    PRIMARY,
    PRIMARY_METRIC,
    Estimate,
    Tables,
    adjusted,
    estimates,
    narrowed,
    norms_in,
    only,
    reference_norm,
    sections,
)
from seqnorm.holdout.titles import level_title, metric_title, section_title, title
from seqnorm.holdout.trial import BASELINE
from seqnorm.holdout.words import (
    adjusted_for,
    level,
    percent,
    points,
    ranged,
    signed,
    thousandths,
    undecided,
)

CHANCE = 0.5
"""AUROC of a score that ranks nothing."""


def findings(spec: Spec, tables: Tables) -> list[str]:
    """Sentences on the first section, on other negatives and models, and on the controls."""
    first = narrowed(tables, sections(spec)[0])
    found = [*_slopes(spec, first), *_again(spec, first), *_ceiling(first), *_probe(spec, first)]
    return found + _factors(spec, tables) + _controls(spec, tables)


def _slopes(spec: Spec, tables: Tables) -> list[str]:
    """How false alarms follow the GC of the chromosomes."""
    reference = reference_norm(spec)
    slopes = estimates(only(tables.slopes, kind="slope"), "norm")
    if (reference,) not in slopes:
        return []
    row = slopes[reference,]
    size = f"{signed(row.estimate, 2)} points for one point of GC, {_slope_range(spec, row)}"
    if undecided(row):
        say = f"Whether false alarms of {title(reference)} change with the chromosomes' GC is open"
    else:
        verb = "rise" if row.low > 0 else "fall"
        say = f"False alarms of {title(reference)} {verb} with the chromosomes' GC"
    others = only(tables.slopes, kind="difference")
    family = int(others["family"].max()) if len(others) else 1
    changes = adjusted(others, "norm")
    sure = {
        norm: changes[norm,]
        for norm in norms_in(spec, tables)
        if (norm,) in changes and not norm.endswith("+again") and not undecided(changes[norm,])
    }
    lines = [f"{say} ({size})."]
    if sure:
        said = [
            f"{title(norm)} {signed(change.estimate, 2)}, {_slope_range(spec, change)}"
            for norm, change in sure.items()
        ]
        lines.append(
            f"Against {title(reference)} the slope is another with {'; '.join(said)}"
            f"{adjusted_for(family)}."
        )
    return lines


def _slope_range(spec: Spec, row: Estimate) -> str:
    return ranged(spec, row, digits=2, scale=1)


def _again(spec: Spec, tables: Tables) -> list[str]:
    """The control of the reference against itself."""
    reference = reference_norm(spec)
    rows = only(tables.differences, chrom=PRIMARY, metric=PRIMARY_METRIC)
    found = estimates(rows, "norm").get((f"{reference}+again",))
    if found is None:
        return []
    size = f"{signed(100 * found.estimate, 2)} points, {ranged(spec, found, digits=2)}"
    missed = level(1 - spec.evaluation.confidence)
    says = (
        "so no difference is found where there is none"
        if undecided(found)
        else f"which leaves out 0 where there is no difference, as {missed} of such intervals do"
    )
    line = (
        f"Control: {title(reference)} against itself with other random numbers gives a "
        f"difference of the false-alarm rate of {size}, {says}."
    )
    rest = only(tables.differences, chrom=PRIMARY, norm=f"{reference}+again")
    others = estimates(rest[rest["metric"] != PRIMARY_METRIC], "metric")
    off = [
        f"{metric_title(metric)} {thousandths(row)}"
        for (metric,), row in others.items()
        if not undecided(row)
    ]
    if off:
        line += (
            f" Of its {len(others)} other metrics {len(off)} leave{'s' * (len(off) == 1)} out 0 "
            f"({'; '.join(off)}); {missed} of such intervals do by chance."
        )
    return [line]


def _ceiling(tables: Tables) -> list[str]:
    """The best there is, where a simulation knows it."""
    rows = only(tables.summary, model=BASELINE, norm=OPTIMUM, chrom=PRIMARY)
    found = {metric: row.estimate for (metric,), row in estimates(rows, "metric").items()}
    if not found:
        return []
    ranks = f"AUROC {found['auroc']:.3f} and " if "auroc" in found else ""
    return [
        f"Ceiling: the best score that there is has {ranks}a false-alarm rate of "
        f"{percent(found[PRIMARY_METRIC])} on the primary chromosomes."
    ]


def _probe(spec: Spec, tables: Tables) -> list[str]:
    """What a linear probe reads of GC; there is no interval, so no norm is called better."""
    trials = only(tables.trials, chrom=list(spec.split.test))
    means = trials.groupby("norm", sort=False)["gc_probe"].mean().dropna()
    if means.empty:
        return []
    said = [f"{title(str(norm))} {float(value):.2f}" for norm, value in means.items()]
    return [
        "GC that a linear probe reads from the features, mean R² over seeds and test chromosomes, "
        f"without an interval: {'; '.join(said)}.".replace(" -", " −")
    ]


def _factors(spec: Spec, tables: Tables) -> list[str]:
    """What other training negatives and other models make of the false-alarm rate."""
    rows = only(tables.factors, metric=PRIMARY_METRIC)
    lines = []
    for keys, part in rows.groupby(["task", "factor", "against"], sort=False):
        task, factor, against = map(str, keys)
        of_task = f" of {task}" if len(spec.tasks) > 1 else ""
        for value, found in part.groupby(factor, sort=False):
            changes = [
                f"{title(norm)} {points(row)}, {ranged(spec, row)}"
                for (norm,), row in estimates(found, "norm").items()
            ]
            lines.append(
                f"With {level_title(factor, str(value))} in place of "
                f"{level_title(factor, against)} the false-alarm rate{of_task} changes: "
                f"{'; '.join(changes)} (not adjusted for several comparisons)."
            )
    return lines


def _controls(spec: Spec, tables: Tables) -> list[str]:
    lines = []
    for section in sections(spec):
        control = task_of(spec, section.task).control
        if control is None:
            continue
        rows = only(narrowed(tables, section).summary, metric="auroc")
        rows = rows[rows["model"] != BASELINE]
        mean = only(rows, chrom=PRIMARY)
        if mean.empty:
            continue
        name = section_title(spec, section)
        if control == "permuted":
            lines.append(_permuted(spec, name, mean, only(rows, chrom=list(spec.split.test))))
        else:
            lines.append(_composition(spec, name, mean))
    return lines


def _permuted(spec: Spec, name: str, mean: pd.DataFrame, parts: pd.DataFrame) -> str:
    found = {norm: row for (norm,), row in estimates(mean, "norm").items()}
    off = [
        f"{title(norm)} {row.estimate:.3f} ({row.low:.3f} to {row.high:.3f})"
        for norm, row in found.items()
        if not _holds_chance(row)
    ]
    single = estimates(parts, "norm", "chrom").values()
    held = sum(_holds_chance(row) for row in single)
    line = (
        f"Control, {name}: with permuted labels, {len(found) - len(off)} of {len(found)} intervals "
        f"of the primary mean of AUROC hold 0.5"
    )
    if off:
        line += f" (not {', '.join(off)})"
    return (
        f"{line}, and those of {held} of {len(single)} single chromosomes; "
        f"{level(spec.evaluation.confidence)} of them are to be expected."
    )


def _holds_chance(row: Estimate) -> bool:
    return math.isfinite(row.low) and math.isfinite(row.high) and row.low <= CHANCE <= row.high


def _composition(spec: Spec, name: str, rows: pd.DataFrame) -> str:
    said = [
        f"{title(norm)} {row.estimate:.3f} ({row.low:.3f} to {row.high:.3f})"
        for (norm,), row in estimates(rows, "norm").items()
    ]
    return (
        f"Control, {name}: from windows whose bases are shuffled, so that composition alone is "
        f"left, AUROC is {', '.join(said)} ({level(spec.evaluation.confidence)} intervals)."
    )
