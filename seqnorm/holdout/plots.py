"""Plots of the report, drawn from the tables alone, as SVG."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import PRIMARY, Tables, estimates, norms_in, only, reference_norm
from seqnorm.holdout.titles import title
from seqnorm.plot_style import (
    COLOURS,
    MARKERS,
    MUTED,
    RULE,
    SMALL,
    legend_below,
    plain,
    style,
)


def colour(spec: Spec, norm: str) -> str:
    """Colour of a norm, the same in every plot; grey for what is no norm."""
    return COLOURS[spec.norms.index(norm) % 7] if norm in spec.norms else COLOURS[7]


def marker(spec: Spec, norm: str) -> str:
    """Marker of a norm, the same in every plot."""
    return MARKERS[spec.norms.index(norm) % 7] if norm in spec.norms else MARKERS[7]


@style()
def gc_plot(spec: Spec, tables: Tables) -> Figure:
    """False-alarm rate by GC decile of the test negatives, a line a norm.

    Only the reference has its interval drawn: seven bands on one another hide all seven.
    """
    figure = Figure(figsize=(7.2, 4.6))
    axes = figure.add_subplot()
    shown = tables.deciles
    for (_, norm), part in shown.groupby(["model", "norm"], sort=False):
        name = str(norm)
        if name == "gc":
            continue
        line = part.sort_values("decile")
        axes.plot(
            line["gc_median"],
            100 * line["estimate"],
            color=colour(spec, name),
            marker=marker(spec, name),
            markersize=4.5,
            linewidth=1.6,
            linestyle="-" if name in spec.norms else "--",
            label=title(name),
        )
        if name == reference_norm(spec):
            axes.fill_between(
                line["gc_median"],
                100 * line["low"],
                100 * line["high"],
                color=colour(spec, name),
                alpha=0.12,
                linewidth=0,
            )
    aim = 100 * spec.evaluation.false_alarm_rate
    axes.axhline(aim, color=RULE, linewidth=1, linestyle=":")
    axes.annotate(
        f"aim: {aim:g} %",
        (float(shown["gc_median"].min()), aim),
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=SMALL,
        color=MUTED,
    )
    axes.set_xlabel("GC fraction of the window (median of the decile)")
    axes.set_ylabel("false-alarm rate, %")
    highest = float(shown.loc[shown["norm"] != "gc", "estimate"].max())
    if highest > 0:
        axes.set_ylim(0, 150 * highest)
    plain(axes)
    legend_below(axes, 3)
    return figure


@style()
def chromosome_plot(spec: Spec, tables: Tables, metric: str) -> Figure:
    """One metric per test chromosome in the spec's order, a marker with interval a norm."""
    rows = only(tables.summary, metric=metric)
    chroms = [chrom for chrom in spec.split.test if (rows["chrom"] == chrom).any()]
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.add_subplot()
    names = [n for n in dict.fromkeys(rows["norm"]) if n != "gc" or metric == "auroc"]
    scale = 1.0 if metric == "auroc" else 100.0
    for place, name in enumerate(names):
        part = rows[rows["norm"] == name].set_index("chrom").loc[chroms]
        offset = (place - (len(names) - 1) / 2) * 0.8 / len(names)
        low = np.maximum(part["estimate"] - part["low"], 0)
        high = np.maximum(part["high"] - part["estimate"], 0)
        axes.errorbar(
            np.arange(len(chroms)) + offset,
            scale * part["estimate"],
            yerr=scale * np.vstack([low, high]),
            color=colour(spec, name),
            marker=marker(spec, name) if name != "gc" else "_",
            markersize=5,
            linestyle="none",
            elinewidth=1.2,
            label=title(name),
        )
    gc = tables.chromosomes.set_index("chrom")["gc_negatives"]
    axes.set_xticks(
        range(len(chroms)), [f"{chrom}\nGC {gc[chrom]:.3f}" for chrom in chroms], fontsize=SMALL
    )
    if metric == "false_alarm_rate":
        axes.axhline(
            scale * spec.evaluation.false_alarm_rate, color=RULE, linewidth=1, linestyle=":"
        )
        axes.set_ylabel("false-alarm rate, %")
        axes.set_ylim(bottom=0)
    else:
        axes.set_ylabel("AUROC")
    plain(axes)
    legend_below(axes, 3)
    return figure


@style()
def difference_plot(spec: Spec, tables: Tables) -> Figure:
    """Difference to the reference on the primary chromosomes, with intervals, a panel a metric."""
    rows = only(tables.differences, chrom=PRIMARY)
    norms = [norm for norm in spec.norms if (rows["norm"] == norm).any()]
    panels: Sequence[tuple[str, str, float]] = (
        ("false_alarm_rate", "false-alarm rate, points", 100),
        ("recall", "recall, points", 100),
        ("auroc", "AUROC", 1),
    )
    figure = Figure(figsize=(7.2, 0.42 * len(norms) + 1.2))
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (metric, label, scale) in zip(grid, panels, strict=True):
        found = estimates(only(rows, metric=metric), "norm")
        for place, norm in enumerate(norms):
            if (norm,) not in found:
                continue
            row = found[norm,]
            axes.plot([scale * row.low, scale * row.high], [place] * 2, color=colour(spec, norm))
            axes.plot(scale * row.estimate, place, marker(spec, norm), color=colour(spec, norm))
        axes.axvline(0, color=RULE, linewidth=1)
        axes.set_xlabel(label, fontsize=SMALL)
        plain(axes, grid="x")
    grid[0].set_yticks(range(len(norms)), [title(norm) for norm in norms])
    grid[0].invert_yaxis()
    figure.tight_layout()
    return figure


@style()
def curve_plot(spec: Spec, tables: Tables) -> Figure:
    """Learning curves at the chosen rate: validation score by epoch, a thin line a seed."""
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.add_subplot()
    for norm in norms_in(spec, tables):
        part = only(tables.curves, norm=norm)
        for number, (_, line) in enumerate(part.groupby(["fold", "seed"])):
            axes.plot(
                line["epoch"],
                line["validation_score"],
                color=colour(spec, norm),
                marker=marker(spec, norm),
                markersize=3,
                linewidth=1,
                alpha=0.8,
                label=title(norm) if number == 0 else None,
            )
    axes.set_xlabel("epoch")
    axes.set_ylabel("average precision on validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain(axes)
    legend_below(axes, 3)
    return figure


@style()
def rate_plot(spec: Spec, tables: Tables) -> Figure:
    """Validation score by learning rate: every norm had the same rates to choose from."""
    figure = Figure(figsize=(7.2, 3.6))
    axes = figure.add_subplot()
    rows = tables.tuning
    trials = rows.groupby(["norm", "fold", "seed"])["learning_rate"]
    tuned: pd.Series[int] = trials.transform("nunique")
    rows = rows[tuned == len(spec.training.learning_rates)]
    means = rows.groupby(["norm", "learning_rate"])["validation_score"].mean()
    for norm in norms_in(spec, tables):
        if norm not in means.index.get_level_values("norm"):
            continue
        line = means.loc[norm].replace(-np.inf, np.nan)
        axes.plot(
            line.index,
            line,
            color=colour(spec, norm),
            marker=marker(spec, norm),
            linewidth=1.2,
            label=title(norm),
        )
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("average precision on validation")
    plain(axes)
    legend_below(axes, 3)
    return figure
