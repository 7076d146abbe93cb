"""Plots of the report, drawn from the tables alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from federated.answer import MEASURE_TITLES, arm_title, metric_title
from federated.curves import MEASURES, REFERENCES
from federated.spec import Spec
from federated.tables import Tables, records_of
from federated.tasks.task import UNSEEN
from seqnorm.holdout.tables import only
from seqnorm.holdout.titles import title
from seqnorm.plot_style import (
    BLUE,
    COLOURS,
    MARKERS,
    MUTED,
    ORANGE,
    RULE,
    SKY,
    SMALL,
    literal,
    plain,
    style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["curve_plot", "difference_plot", "level_plot", "partition_plot"]

_WIDTH = 7.8
"""Of every plot, in inches."""
_LONGEST = 24
"""Letters of a client's name in a plot."""


def _colour(spec: Spec, norm: str) -> str:
    """Colour of a norm, the same in every plot."""
    return COLOURS[spec.norms.index(norm) % 7] if norm in spec.norms else COLOURS[7]


def _marker(spec: Spec, norm: str) -> str:
    return MARKERS[spec.norms.index(norm) % 7] if norm in spec.norms else MARKERS[7]


@style()
def level_plot(spec: Spec, tables: Tables) -> Figure:
    """Draw what every arm reaches on test: mean with interval, worst client, unseen site.

    Parameters
    ----------
    spec, tables
        Of one setting; a grey dot is a client's mean over the seeds.
    """
    arms = records_of(tables.summary)
    figure = Figure(figsize=(_WIDTH, 0.42 * len(arms) + 1.1), layout="constrained")
    axes = figure.add_subplot()
    for place, arm in enumerate(arms):
        _levels_of(axes, place, arm, tables.clients, _colour(spec, arm["norm"]))
    own = sum(arm["policy"] not in REFERENCES for arm in arms)
    if own < len(arms):
        axes.axhline(own - 0.5, color=RULE, linewidth=1)
    names = [arm_title(arm["norm"], arm["policy"]) for arm in arms]
    axes.set_yticks(range(len(arms)), [literal(name) for name in names])
    axes.set_ylim(len(arms) - 0.5, -0.5)
    axes.set_xlabel(f"{literal(metric_title(tables.metric))} on test rows")
    plain(axes, grid="x")
    shown = [("o", "mean over clients, with interval"), ("v", "worst client"), (".", "a client")]
    if tables.summary["unseen"].notna().any():
        shown.append(("D", "unseen site"))
    for marker, name in shown:
        grey = RULE if marker == "." else MUTED
        face = "white" if marker == "D" else grey
        axes.plot([], [], marker, color=grey, markerfacecolor=face, label=name)
    _legend(figure, axes, 4)
    return figure


def _levels_of(
    axes: Axes, place: int, arm: dict[str, Any], clients: pd.DataFrame, colour: str
) -> None:
    here = only(clients, norm=arm["norm"], policy=arm["policy"])
    sites = here.loc[here["client"] != UNSEEN, "test"]
    axes.plot(sites, [place] * len(sites), ".", color=RULE, markersize=5, zorder=2)
    axes.plot([arm["test_low"], arm["test_high"]], [place] * 2, color=colour, linewidth=1.8)
    axes.plot(arm["test"], place, "o", color=colour, markersize=7, zorder=4)
    axes.plot(arm["worst"], place, "v", color=colour, markersize=6, zorder=3)
    (hollow,) = axes.plot(arm["unseen"], place, "D", color=colour, markersize=5.5, zorder=3)
    hollow.set_markerfacecolor("white")


@style()
def difference_plot(spec: Spec, tables: Tables, against: str) -> Figure:
    """Draw differences with intervals, a panel a measure.

    Parameters
    ----------
    spec, tables
        Of one setting.
    against : {"baseline", "fedavg"}
        With what arms are compared.
    """
    rows = only(tables.differences, against=against)
    arms = list(dict.fromkeys(zip(rows["norm"], rows["policy"], strict=True)))
    measures = [m for m in MEASURES if only(rows, measure=m)["estimate"].notna().any()]
    figure = Figure(figsize=(_WIDTH, 0.42 * len(arms) + 1.2))
    grid = figure.subplots(1, max(1, len(measures)), sharey=True, squeeze=False)[0]
    for axes, measure in zip(grid, measures, strict=False):
        for line in records_of(only(rows, measure=measure)):
            place = arms.index((line["norm"], line["policy"]))
            colour = _colour(spec, line["norm"])
            axes.plot([line["low"], line["high"]], [place] * 2, color=colour)
            axes.plot(line["estimate"], place, _marker(spec, line["norm"]), color=colour)
        axes.axvline(0, color=RULE, linewidth=1)
        axes.set_xlabel(MEASURE_TITLES[measure], fontsize=SMALL)
        axes.locator_params(axis="x", nbins=3)
        axes.xaxis.set_major_formatter("{x:g}")  # "0", not "0.000", so that three find room
        plain(axes, grid="x")
    grid[0].set_yticks(range(len(arms)), [literal(arm_title(*arm)) for arm in arms])
    grid[0].set_ylim(len(arms) - 0.5, -0.5)
    figure.tight_layout()
    return figure


@style()
def curve_plot(spec: Spec, tables: Tables) -> Figure:
    """Draw test measures by round: a row a policy, a column a measure, a line a norm.

    Parameters
    ----------
    spec, tables
        Of one setting. Rounds that not every seed came to are not drawn.
    """
    curves = tables.curves[~tables.curves["policy"].isin(REFERENCES)]
    most = curves.groupby(["norm", "policy"])["seeds"].transform("max")
    curves = curves[curves["seeds"] == most]
    policies = list(dict.fromkeys(curves["policy"]))
    measures = [m for m in MEASURES if curves[m].notna().any()] or ["test"]
    figure = Figure(figsize=(_WIDTH, 1.9 * len(policies) + 1.1), layout="constrained")
    grid = figure.subplots(len(policies), len(measures), sharex=True, sharey=True, squeeze=False)
    for policy, line in zip(policies, grid, strict=True):
        for measure, axes in zip(measures, line, strict=True):
            _curves_of(axes, spec, curves, policy, measure)
        line[0].set_ylabel(literal(policy))
    for measure, axes in zip(measures, grid[0], strict=True):
        axes.set_title(MEASURE_TITLES[measure], fontsize=SMALL)
    for axes in grid[-1]:
        axes.set_xlabel("round", fontsize=SMALL)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    for norm in spec.norms:
        mark = _marker(spec, norm)
        grid[0, 0].plot([], [], color=_colour(spec, norm), marker=mark, label=title(norm))
    _legend(figure, grid[0, 0], 4)
    return figure


def _curves_of(axes: Axes, spec: Spec, curves: pd.DataFrame, policy: str, measure: str) -> None:
    """Lines of a policy; fedavg's as dots behind those of the others."""
    for norm in spec.norms:
        colour = _colour(spec, norm)
        if policy != "fedavg":
            before = only(curves, norm=norm, policy="fedavg")
            axes.plot(before["round"], before[measure], ":", color=colour, linewidth=1)
        part = only(curves, norm=norm, policy=policy)
        if len(part):
            mark = _marker(spec, norm)
            x, y = part["round"], part[measure]
            axes.plot(x, y, color=colour, marker=mark, markersize=3.5, linewidth=1.3)
    plain(axes)
    axes.tick_params(labelsize=SMALL)


@style()
def partition_plot(held: pd.DataFrame) -> Figure:
    """Draw who holds what, a line a client: rows by label and, where known, GC.

    Parameters
    ----------
    held
        As ``partition.csv``; see `federated.partition.Partition.table`.
    """
    panels = 1 + ("gc_mean" in held.columns)
    height = float(np.clip(0.36 * len(held) + 1.4, 2.4, 24))
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    grid = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
    places = np.arange(len(held))
    positive = held["positives"] if "positives" in held.columns else None
    if positive is None:
        grid[0].barh(places, held["rows"], height=0.62, color=SKY)
    else:
        grid[0].barh(places, positive, height=0.62, color=ORANGE, label="label above 0")
        rest = held["rows"] - positive
        grid[0].barh(places, rest, left=positive, height=0.62, color=SKY, label="others")
    grid[0].set_xlabel("rows")
    if panels == 2:
        mean, sd = held["gc_mean"], held["gc_sd"]
        grid[1].errorbar(mean, places, xerr=sd, fmt="o", color=BLUE, elinewidth=1.4, markersize=5)
        grid[1].set_xlabel("GC fraction (mean, standard deviation)")
    grid[0].set_yticks(places, _holders(held))
    grid[0].set_ylim(len(held) - 0.5, -0.5)
    for axes in grid:
        axes.locator_params(axis="x", nbins=5)
        plain(axes, grid="x")
    _legend(figure, grid[0], 2)
    return figure


def _holders(held: pd.DataFrame) -> list[str]:
    """Names of the clients, after the setting where there are several."""
    settings = list(held.columns[: held.columns.get_loc("client")])
    return [
        "  ".join([*(f"{key} {line[key]:g}:" for key in settings), literal(_short(line["client"]))])
        for line in records_of(held)
    ]


def _short(name: str) -> str:
    """A name that leaves room for what is plotted."""
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _legend(figure: Figure, axes: Axes, columns: int) -> None:
    """Under the figure: under the axes it would lie on the next row of them."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="upper center",
            bbox_to_anchor=(0.5, 0.0),
            ncols=columns,
            frameon=False,
            fontsize=SMALL,
            handletextpad=0.4,
            columnspacing=1.2,
        )
