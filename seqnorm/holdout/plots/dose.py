"""False alarms against GC shift: the dose-response curve of each norm."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from seqnorm.holdout.plots.plot import (
    BEHIND,
    Plot,
    behind,
    by_norm,
    colour,
    floats,
    label,
    marker,
    number,
    panels,
    spoken,
)
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import Estimate, Tables, estimates, only, reference_norm
from seqnorm.holdout.titles import title
from seqnorm.holdout.windows import VALIDATION
from seqnorm.plot_style import RULE, style


@style()
def dose_plot(spec: Spec, tables: Tables) -> Plot | None:
    """False-alarm rate of each test chromosome by its GC shift, with the slope, a panel a norm."""
    slopes = only(tables.slopes, kind="slope")
    if slopes.empty:
        return None
    shown = _doses(spec, tables)
    found = {norm: slope for (norm,), slope in estimates(slopes, "norm").items()}
    rows = by_norm(spec, shown, without="gc")
    titles = {n: f"{title(n)}\nslope {number(found[n].estimate, '.2f')}" for n in rows}
    figure, every = panels(titles, 1.3)
    for norm, axes in every.items():
        axes.axhline(100 * spec.evaluation.false_alarm_rate, color=RULE, linewidth=1, linestyle=":")
        other = behind(spec, rows, norm)
        if other is not None:
            _points(axes, other, found[reference_norm(spec)], color=BEHIND, marker=".")
        own = {"color": colour(spec, norm), "marker": marker(spec, norm)}
        _points(axes, rows[norm], found[norm], interval=True, **own)
    shown = pd.concat(rows.values())
    highest = 100 * float(shown["estimate"].max())
    axes.set_ylim(0, min(104.0, 1.6 * max(highest, 200 * spec.evaluation.false_alarm_rate)))
    label(
        figure,
        "GC of a chromosome's negatives less that of validation, points",
        "false-alarm rate, %",
    )
    return Plot(
        "dose_response",
        "Dose and response: false alarms against GC shift",
        figure,
        shown,
        spoken(
            ["Points of false alarms for one point of GC, by norm"]
            + [f"{title(norm)}: {number(found[norm].estimate, '.2f')}" for norm in rows]
        ),
        "A point a test chromosome, with its interval; the line has the slope of the table: points "
        f"of false alarms for one point of GC. Grey: {title(reference_norm(spec))}.",
    )


def _doses(spec: Spec, tables: Tables) -> pd.DataFrame:
    gc = dict(zip(tables.chromosomes["chrom"], tables.chromosomes["gc_negatives"], strict=True))
    rows = only(tables.summary, metric="false_alarm_rate", chrom=list(spec.split.test))
    dose = rows["chrom"].map(gc).to_numpy(dtype=np.float64)
    table = rows.assign(gc_negatives=dose, gc_shift=dose - gc[VALIDATION])
    return table.sort_values("gc_shift", kind="stable")


def _points(
    axes: Axes, rows: pd.DataFrame, slope: Estimate, *, interval: bool = False, **look: Any
) -> None:
    """Points, and a line of the slope through their middle."""
    dose, rate = 100 * floats(rows, "gc_shift"), 100 * floats(rows, "estimate")
    if interval:
        ends = (100 * floats(rows, "low"), 100 * floats(rows, "high"))
        axes.vlines(dose, *ends, color=look["color"], linewidth=1, alpha=0.6)
    axes.plot(dose, rate, linestyle="none", markersize=4, **look)
    across = np.array([dose.min(), dose.max()])
    line = rate.mean() + slope.estimate * (across - dose.mean())
    axes.plot(across, line, color=look["color"], linewidth=1.3)
