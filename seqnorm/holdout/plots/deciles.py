"""False alarms by GC."""

import pandas as pd

from seqnorm.holdout.plots.plot import (
    BEHIND,
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
from seqnorm.plot_style import RULE, style


@style()
def deciles_plot(spec: Spec, tables: Tables) -> Plot:
    """False-alarm rate by GC decile of the test negatives, a panel a norm."""
    rows = {
        norm: part.sort_values("decile")
        for norm, part in by_norm(spec, tables.deciles, without="gc").items()
    }
    figure, found = panels(names(rows), 1.3)
    aim = 100 * spec.evaluation.false_alarm_rate
    for norm, axes in found.items():
        axes.axhline(aim, color=RULE, linewidth=1, linestyle=":")
        other = behind(spec, rows, norm)
        if other is not None:
            gc, rate = floats(other, "gc_median"), 100 * floats(other, "estimate")
            axes.plot(gc, rate, color=BEHIND, linewidth=1.2)
        part, own = rows[norm], colour(spec, norm)
        gc, rate = floats(part, "gc_median"), 100 * floats(part, "estimate")
        low, high = 100 * floats(part, "low"), 100 * floats(part, "high")
        axes.fill_between(gc, low, high, color=own, alpha=0.15, linewidth=0)
        axes.plot(gc, rate, color=own, marker=marker(spec, norm), markersize=3.5, linewidth=1.4)
    shown = pd.concat(rows.values())
    highest = 100 * float(shown["estimate"].max())
    # Wide intervals would press the lines flat: they may leave the panel.
    axes.set_ylim(0, min(104.0, 1.6 * max(highest, 2 * aim)))
    label(figure, "GC fraction of the window (median of the tenth)", "false-alarm rate, %")
    ends = [(norm, floats(part, "estimate")[[0, -1]]) for norm, part in rows.items()]
    return Plot(
        "false_alarms_by_gc",
        "False alarms by GC",
        figure,
        shown,
        spoken(
            ["False-alarm rate in the GC-poorest and the GC-richest tenth of the test negatives"]
            + [f"{title(norm)}: {100 * a:.1f} % and {100 * b:.1f} %" for norm, (a, b) in ends]
        ),
        "Test negatives of all test chromosomes in ten equal parts by GC, at each model's own "
        f"threshold, with intervals. Grey: {title(reference_norm(spec))}. Dotted: the rate aimed "
        "at. What reaches beyond a panel is in the data.",
    )
