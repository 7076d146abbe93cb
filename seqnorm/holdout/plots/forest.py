"""Forest plot: each norm against the reference, with plain and adjusted intervals."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqnorm.holdout.plots.plot import WIDTH, Plot, colour, marker, number, spoken
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import PRIMARY, PRIMARY_METRIC, Tables, only, reference_norm
from seqnorm.holdout.titles import title
from seqnorm.holdout.words import paired
from seqnorm.plot_style import GRID, RULE, SMALL, plain, style

PANELS = (
    (PRIMARY_METRIC, "false-alarm rate,\npoints", 100.0),
    ("recall", "recall,\npoints", 100.0),
    ("auroc", "AUROC", 1.0),
)


@style()
def forest_plot(spec: Spec, tables: Tables) -> Plot | None:
    """Difference to the reference on the primary chromosomes, a panel a metric."""
    metrics = [metric for metric, _, _ in PANELS]
    rows = only(tables.differences, chrom=PRIMARY, metric=metrics)
    norms = [norm for norm in spec.norms if (rows["norm"] == norm).any()]
    if not norms:
        return None
    drawn = [panel for panel in PANELS if (rows["metric"] == panel[0]).any()]
    figure = Figure(figsize=(0.85 * WIDTH, 0.36 * len(norms) + 0.9))
    every = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    figure.subplots_adjust(wspace=0.25)
    for axes, (metric, label, scale) in zip(every, drawn, strict=True):
        part = only(rows, metric=metric)
        reach = _reach(part, spec.evaluation.margin, scale)
        if metric == PRIMARY_METRIC:
            margin = scale * spec.evaluation.margin
            axes.axvspan(-margin, margin, color=GRID, alpha=0.7, linewidth=0)
        for row in part.to_dict("records"):
            norm = str(row["norm"])
            line = {str(key): scale * float(row[key]) for key in _ENDS}
            _line(axes, line, norms.index(norm), reach, colour(spec, norm), marker(spec, norm))
        axes.axvline(0, color=RULE, linewidth=1)
        axes.set_xlim(-reach, reach)
        axes.set_xlabel(label, fontsize=SMALL)
        plain(axes, grid="x")
        axes.locator_params(axis="x", nbins=4)
        axes.tick_params(axis="x", labelsize=SMALL - 1.5)
        axes.tick_params(axis="y", pad=9)
    every[0].set_yticks(range(len(norms)), [title(norm) for norm in norms], fontsize=SMALL)
    every[0].set_ylim(len(norms) - 0.5, -0.5)
    first = only(rows, metric=PRIMARY_METRIC)
    primary = {
        str(norm): float(x) for norm, x in zip(first["norm"], first["estimate"], strict=True)
    }
    reference = title(reference_norm(spec))
    return Plot(
        "differences",
        f"Difference to {reference} on the primary chromosomes",
        figure,
        rows,
        spoken(
            [f"False-alarm rate less that of {reference}, points"]
            + [f"{title(n)}: {number(100 * primary[n], '.1f')}" for n in norms if n in primary]
        ),
        f"{paired(spec).capitalize()}. Thick: the interval of one norm alone; thin: adjusted for "
        "all that are compared. Shaded: the margin within which two norms count as equivalent. An "
        "arrow: the interval goes on. A lower rate that comes with a lower recall is a stricter "
        "threshold, not a better model.",
    )


_ENDS = ("estimate", "low", "high", "low_adjusted", "high_adjusted")


def _reach(part: pd.DataFrame, margin: float, scale: float) -> float:
    """How far a panel goes to either side: as far as the plain intervals and what can be."""
    ends = part[["low", "high", "estimate"]].to_numpy(dtype=np.float64)
    widest = float(np.abs(ends[np.isfinite(ends)]).max(initial=0.0))
    return scale * min(1.0, max(1.15 * widest, 1.5 * margin))


def _line(
    axes: Axes, line: dict[str, float], place: int, reach: float, own: str, mark: str
) -> None:
    """One norm: intervals and estimate; what goes beyond the panel ends in an arrow."""
    for low, high, width in (("low_adjusted", "high_adjusted", 1.0), ("low", "high", 2.8)):
        if np.isnan(line[low]):
            continue
        ends = np.clip([line[low], line[high]], -reach, reach)
        axes.plot(ends, [place, place], color=own, linewidth=width, solid_capstyle="butt")
    for end, sign, arrow in (("low_adjusted", -1, "<"), ("high_adjusted", 1, ">")):
        if sign * line[end] > reach:
            axes.plot(sign * reach, place, arrow, color=own, markersize=5, clip_on=False)
    axes.plot(line["estimate"], place, mark, color=own, markersize=6)
