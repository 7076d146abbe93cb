"""How the norms learnt, and how their learning rates were chosen."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from seqnorm.holdout.plots.plot import (
    BEHIND,
    WIDTH,
    Plot,
    behind,
    by_norm,
    colour,
    floats,
    label,
    marker,
    names,
    panels,
    spoken,
)
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import Tables, reference_norm
from seqnorm.holdout.titles import title
from seqnorm.plot_style import SMALL, legend_below, plain, style

SCORE = "average precision on validation"
MANY = 24
"""Above so many lines in a panel, their range is drawn instead."""


@style()
def curve_plot(spec: Spec, tables: Tables) -> Plot:
    """Learning curves at the chosen rate, a panel a norm."""
    rows = by_norm(spec, tables.curves)
    figure, found = panels(names(rows), 1.25)
    for norm, axes in found.items():
        other = behind(spec, rows, norm)
        if other is not None:
            mean = other.groupby("epoch")["validation_score"].mean()
            axes.plot(mean.index, mean, color=BEHIND, linewidth=1.2)
        _curves(axes, rows[norm], colour(spec, norm))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    label(figure, "epoch", SCORE)
    best = {
        norm: part.groupby(["fold", "seed"])["validation_score"].max().mean()
        for norm, part in rows.items()
    }
    return Plot(
        "learning_curves",
        "Learning curves",
        figure,
        tables.curves,
        spoken(
            ["Best validation score, mean over seeds"]
            + [f"{title(norm)}: {value:.3f}" for norm, value in best.items()]
        ),
        "Validation score by epoch at the chosen learning rate, a line a seed and fold (where "
        f"there are more than {MANY}, their mean and range). Grey: the mean of "
        f"{title(reference_norm(spec))}.",
    )


def _curves(axes: Axes, part: pd.DataFrame, own: str) -> None:
    lines = part.groupby(["fold", "seed"], sort=False)
    if lines.ngroups <= MANY:
        for _, line in lines:
            axes.plot(line["epoch"], line["validation_score"], color=own, linewidth=1, alpha=0.8)
        return
    by_epoch = part.groupby("epoch")["validation_score"].agg(["mean", "min", "max"])
    axes.fill_between(
        by_epoch.index, by_epoch["min"], by_epoch["max"], color=own, alpha=0.15, linewidth=0
    )
    axes.plot(by_epoch.index, by_epoch["mean"], color=own, linewidth=1.4)


@style()
def rate_plot(spec: Spec, tables: Tables) -> Plot | None:
    """Validation score by learning rate, a panel a norm."""
    table = _tuned(spec, tables)
    if table["learning_rate"].nunique() < 2:
        return None
    rows = by_norm(spec, table)
    means = {norm: part.groupby("learning_rate")["score"].mean() for norm, part in rows.items()}
    figure, found = panels(names(rows), 1.25)
    reference = means.get(reference_norm(spec))
    for norm, axes in found.items():
        if reference is not None and norm != reference_norm(spec):
            axes.plot(reference.index, reference, color=BEHIND, linewidth=1.2)
        part, own = rows[norm], colour(spec, norm)
        axes.plot(part["learning_rate"], part["score"], ".", color=own, markersize=3, alpha=0.5)
        mark = marker(spec, norm)
        axes.plot(means[norm].index, means[norm], color=own, marker=mark, markersize=4)
        kept = means[norm][means[norm].index.isin(part.loc[part["chosen"], "learning_rate"])]
        axes.plot(kept.index, kept, "o", markersize=11, markerfacecolor="none", color=own)
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(NullFormatter())
    rates = sorted(set(floats(table, "learning_rate")))
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.set_xlim(rates[0] / 1.4, rates[-1] * 1.4)
    scores = floats(table, "score")
    low, high = np.nanmin(scores, initial=1.0), np.nanmax(scores, initial=0.0)
    axes.set_ylim(low - 0.12 * (high - low) - 0.005, high + 0.12 * (high - low) + 0.005)
    label(figure, "learning rate", SCORE)
    best = {norm: float(str(mean.idxmax())) for norm, mean in means.items() if mean.notna().any()}
    return Plot(
        "learning_rates",
        "Learning-rate curves",
        figure,
        table,
        spoken(
            ["Learning rate with the best mean validation score"]
            + [f"{title(norm)}: {rate:g}" for norm, rate in best.items()]
        ),
        "Every norm tried the same rates with the same seeds; a dot a trial, the line their mean, "
        f"a ring what validation chose (in each fold). Grey: {title(reference_norm(spec))}. A "
        "best rate at the end of the range may lie beyond it.",
    )


def _tuned(spec: Spec, tables: Tables) -> pd.DataFrame:
    """Trials of the seeds that tried every rate; one that failed has no score."""
    table = tables.tuning
    tried = table.groupby(["norm", "fold", "seed"])["learning_rate"].transform("nunique")
    table = table[tried == len(spec.training.learning_rates)]
    return table.assign(score=table["validation_score"].replace(-np.inf, np.nan))


@style()
def best_of_plot(spec: Spec, tables: Tables) -> Plot | None:
    """Expected best validation score of k of the rates tried."""
    table = tables.best_of[tables.best_of["expected"].notna()]
    if table.empty or table["k"].nunique() < 2:
        return None
    rows = by_norm(spec, table)
    figure = Figure(figsize=(WIDTH, 3.2))
    axes = figure.add_subplot()
    for norm, part in rows.items():
        own, mark = colour(spec, norm), marker(spec, norm)
        axes.plot(part["k"], part["expected"], color=own, marker=mark, label=title(norm))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("learning rates tried")
    axes.set_ylabel("expected best validation score", fontsize=SMALL)
    plain(axes)
    legend_below(axes, 2)
    last = {norm: part.sort_values("k")["expected"].iloc[[0, -1]] for norm, part in rows.items()}
    return Plot(
        "best_of_k",
        "Expected best of k trials",
        figure,
        table,
        spoken(
            ["Expected best validation score of one trial and of all"]
            + [f"{title(norm)}: {a:.3f} and {b:.3f}" for norm, (a, b) in last.items()]
        ),
        "What k of the learning rates, taken at random, would have reached on validation: a norm "
        "whose curve is flat needs little tuning.",
    )
