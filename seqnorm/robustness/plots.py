"""Plots of a card, drawn from its tables alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqnorm.plot_style import (
    BLUE,
    COLOURS,
    MARKERS,
    MUTED,
    ORANGE,
    RULE,
    SMALL,
    legend_below,
    literal,
    plain,
    style,
)
from seqnorm.robustness.card import Card
from seqnorm.robustness.words import figures

MANY = 8
"""Chromosomes that have room for a colour and a level name each."""


@style()
def gc_plot(card: Card) -> Figure:
    """False-alarm rate by GC, with its interval."""
    rows = card.deciles[card.deciles["decile"].str.isdigit()]
    figure = Figure(figsize=(7.2, 3.8))
    axes = figure.add_subplot()
    x, y = rows["gc_median"], 100 * rows["estimate"]
    axes.fill_between(x, 100 * rows["low"], 100 * rows["high"], color=BLUE, alpha=0.18, linewidth=0)
    axes.plot(x, y, color=BLUE, marker="o", markersize=4.5, linewidth=1.6)
    _aim(card, axes, float(x.min()))
    axes.set_xlabel("GC fraction of the window (median of the tenth)")
    axes.set_ylabel("false-alarm rate, %")
    axes.set_ylim(bottom=0)
    plain(axes)
    return figure


@style()
def chromosome_plot(card: Card) -> Figure:
    """False-alarm rate of each chromosome, in order of the GC of its negatives."""
    found = figures(card)
    order = card.windows.sort_values("gc_negatives")
    chroms = [str(c) for c in order["chrom"] if (str(c), "false_alarm_rate") in found]
    figure = Figure(figsize=(7.2, 3.8))
    axes = figure.add_subplot()
    for place, chrom in enumerate(chroms):
        rate = found[chrom, "false_alarm_rate"]
        axes.plot([place] * 2, [100 * rate.low, 100 * rate.high], color=BLUE, linewidth=1.4)
        axes.plot(place, 100 * rate.estimate, "o", color=BLUE, markersize=5)
    gc = order.set_index("chrom")["gc_negatives"]
    names = [f"{literal(chrom)}\n{gc[chrom]:.3f}" for chrom in chroms]
    turned = 90 if len(chroms) > MANY else 0
    axes.set_xticks(range(len(chroms)), names, fontsize=SMALL, rotation=turned)
    axes.set_xlabel("chromosome, and the mean GC of its negatives")
    axes.set_ylabel("false-alarm rate, %")
    axes.set_ylim(bottom=0)
    _aim(card, axes, -0.4)
    plain(axes)
    return figure


@style()
def skill_plot(card: Card) -> Figure | None:
    """AUROC of the model, at equal GC, and of GC alone, a row a chromosome."""
    found = figures(card)
    chroms = [str(c) for c in card.windows["chrom"] if (str(c), "auroc") in found]
    if not chroms:
        return None
    figure = Figure(figsize=(7.2, 0.4 * len(chroms) + 1.4))
    axes = figure.add_subplot()
    for metric, label, colour, marker, offset in (
        ("auroc", "model", BLUE, "o", -0.2),
        ("auroc_at_equal_gc", "model, among windows of equal GC", ORANGE, "s", 0.0),
        ("auroc_of_gc_alone", "GC alone", MUTED, "|", 0.2),
    ):
        for place, chrom in enumerate(chroms):
            one = found[chrom, metric]
            axes.plot([one.low, one.high], [place + offset] * 2, color=colour, linewidth=1.4)
            axes.plot(
                one.estimate, place + offset, marker, color=colour, label=None if place else label
            )
    axes.axvline(0.5, color=RULE, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(chroms)), [literal(chrom) for chrom in chroms])
    axes.invert_yaxis()
    axes.set_xlabel("AUROC")
    plain(axes, grid="x")
    axes.legend(frameon=False, fontsize=SMALL, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


@style()
def calibration_plot(card: Card) -> Figure | None:
    """Share of positives against mean probability, a line a chromosome."""
    if card.calibration.empty:
        return None
    figure = Figure(figsize=(7.2, 4.2))
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=RULE, linewidth=1, linestyle=":")
    chroms = list(dict.fromkeys(card.calibration["chrom"]))
    for place, chrom in enumerate(chroms):
        rows: pd.DataFrame = card.calibration[card.calibration["chrom"] == chrom]
        alone = len(chroms) > MANY
        axes.plot(
            rows["mean_probability"],
            rows["share_of_positives"],
            color=BLUE if alone else COLOURS[place % len(COLOURS)],
            marker=None if alone else MARKERS[place % len(MARKERS)],
            alpha=0.5 if alone else 1,
            markersize=4,
            linewidth=1.2,
            label=None if alone else literal(str(chrom)),
        )
    axes.set_xlabel("probability that the model gives")
    axes.set_ylabel("share of positives")
    axes.set_xticks(np.linspace(0, 1, 6))
    plain(axes)
    legend_below(axes, 4)
    return figure


def _aim(card: Card, axes: Axes, at: float) -> None:
    axes.axhline(100 * card.threshold.aim, color=RULE, linewidth=1, linestyle=":")
    if card.threshold.chosen:
        axes.annotate(
            f"aim: {100 * card.threshold.aim:g} %",
            (at, 100 * card.threshold.aim),
            xytext=(0, 4),
            textcoords="offset points",
            fontsize=SMALL,
            color=MUTED,
        )
