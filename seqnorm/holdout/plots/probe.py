"""How well GC can be read from what the head of each model sees."""

import numpy as np
from matplotlib.figure import Figure

from seqnorm.holdout.plots.plot import WIDTH, Plot, by_norm, colour, floats, marker, number, spoken
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import Tables, only
from seqnorm.holdout.titles import title
from seqnorm.plot_style import SMALL, plain, style

LOWEST = -0.5
"""Where the axis ends: a probe that is worse than that has failed, however badly."""


@style()
def probe_plot(spec: Spec, tables: Tables) -> Plot | None:
    """R squared of GC as a linear probe reads it, a dot a trial and test chromosome."""
    trials = only(tables.trials, chrom=list(spec.split.test))
    trials = trials[trials["gc_probe"].notna()]
    if trials.empty:
        return None
    rows = by_norm(spec, trials)
    figure = Figure(figsize=(0.75 * WIDTH, 0.3 * len(rows) + 0.7))
    axes = figure.add_subplot()
    means = {norm: float(part["gc_probe"].mean()) for norm, part in rows.items()}
    for place, (norm, part) in enumerate(rows.items()):
        values = np.maximum(floats(part, "gc_probe"), LOWEST)
        own = colour(spec, norm)
        axes.plot(values, np.full(len(values), place), ".", markersize=4, alpha=0.5, color=own)
        mean = max(means[norm], LOWEST)
        axes.plot(mean, place, marker(spec, norm), markersize=7, color=own)
    axes.set_yticks(range(len(rows)), [title(norm) for norm in rows], fontsize=SMALL)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    left = LOWEST if float(trials["gc_probe"].min()) < 0 else 0.0
    axes.set_xlim(left - 0.04, 1.03)
    axes.set_xlabel("R² of GC, read by a linear probe", fontsize=SMALL)
    plain(axes, grid="x")
    below = int((trials["gc_probe"] < LOWEST).sum())
    kept = ["task", "model", "negatives", "norm", "chrom", "fold", "seed", "gc_probe"]
    return Plot(
        "gc_probe",
        "GC that a linear probe reads from the features",
        figure,
        trials[kept],
        spoken(
            ["Mean R squared of GC as read by a linear probe"]
            + [f"{title(norm)}: {number(mean, '.2f')}" for norm, mean in means.items()]
        ),
        "From what the linear head sees of the negatives of a test chromosome; fitted on every "
        "other block, read on the rest. 1: the features tell GC exactly; 0: not at all. A dot a "
        "seed and test chromosome, the mark their mean; without intervals."
        + (f" {below} dots lie at {number(LOWEST, 'g')} or below, on the edge." if below else ""),
    )
