"""Strip plots: a metric on each chromosome, a dot a seed, a panel a norm."""

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
    names,
    panels,
    spoken,
)
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import Tables, estimates, only, reference_norm
from seqnorm.holdout.titles import title
from seqnorm.plot_style import RULE, literal, style

COLUMNS = 4
_READ = "Chromosomes in the order of the spec, with the GC of their negatives."


def false_alarm_strips(spec: Spec, tables: Tables) -> Plot | None:
    """False-alarm rate of each chromosome."""
    return _strips(
        spec,
        tables,
        "false_alarm_rate",
        ("false_alarms_by_chromosome", "False alarms by chromosome", "false-alarm rate, %"),
        "Dotted: the rate aimed at.",
        scale=100,
        rule=spec.evaluation.false_alarm_rate,
    )


def auroc_strips(spec: Spec, tables: Tables) -> Plot | None:
    """AUROC of each chromosome."""
    return _strips(
        spec,
        tables,
        "auroc",
        ("auroc_by_chromosome", "AUROC by chromosome", "AUROC"),
        "Ranking, whatever the threshold. Dotted: 0.5, no ranking at all.",
        rule=0.5,
    )


def calibration_strips(spec: Spec, tables: Tables) -> Plot | None:
    """Expected calibration error of each chromosome; it has no interval."""
    return _strips(
        spec,
        tables,
        "calibration_error",
        ("calibration", "Calibration by chromosome", "expected calibration error"),
        "Mean gap between the probability given to the positive class and its frequency, over ten "
        "equal-width bins; without an interval. The probabilities fit the mixture that was "
        "trained on, not the prevalence of a test chromosome.",
    )


@style()
def _strips(
    spec: Spec,
    tables: Tables,
    metric: str,
    words: tuple[str, str, str],
    caption: str,
    *,
    scale: float = 1.0,
    rule: float | None = None,
) -> Plot | None:
    table = _table(spec, tables, metric)
    if table.empty:
        return None
    chroms = [chrom for chrom in spec.split.test if (table["chrom"] == chrom).any()]
    rows = by_norm(spec, table, without="gc" if metric == "false_alarm_rate" else "")
    figure, found = panels(names(rows), 0.19 * len(chroms) + 0.1, columns=COLUMNS, grid="x")
    for norm, axes in found.items():
        if rule is not None:
            axes.axvline(scale * rule, color=RULE, linewidth=1, linestyle=":")
        other = behind(spec, rows, norm)
        if other is not None:
            _means(axes, other, chroms, scale, BEHIND, "|", interval=False)
        part, own = rows[norm], colour(spec, norm)
        places = [chroms.index(str(chrom)) for chrom in part["chrom"]]
        axes.plot(scale * floats(part, metric), places, ".", color=own, markersize=3, alpha=0.5)
        _means(axes, part, chroms, scale, own, marker(spec, norm), interval=True)
    gc = dict(zip(tables.chromosomes["chrom"], tables.chromosomes["gc_negatives"], strict=True))
    labels = [literal(f"{chrom}  {float(gc[chrom]):.2f}") for chrom in chroms]
    axes.set_yticks(range(len(chroms)), labels)
    axes.set_ylim(len(chroms) - 0.4, -0.6)
    _limit(axes, table, metric, scale)
    axes.locator_params(axis="x", nbins=4)
    label(figure, words[2])
    shown = pd.concat(rows.values())
    with_interval = ", with its interval" if shown["low"].notna().any() else ""
    means = shown.groupby(["norm"], sort=False)["estimate"].agg(["min", "max"])
    said = [
        f"{title(str(norm))}: {scale * low:.3g} to {scale * high:.3g}"
        for norm, (low, high) in zip(means.index, means.to_numpy(), strict=True)
    ]
    return Plot(
        words[0],
        words[1],
        figure,
        shown,
        spoken([f"{words[2]}, lowest and highest of {len(chroms)} test chromosomes", *said]),
        f"A dot a seed; the mark their mean{with_interval}. Grey: the mean of "
        f"{title(reference_norm(spec))}. {_READ} {caption}",
    )


def _table(spec: Spec, tables: Tables, metric: str) -> pd.DataFrame:
    """A row a trial, with the mean over seeds of its chromosome beside it."""
    trials = only(tables.trials, chrom=list(spec.split.test))
    trials = trials[["task", "model", "negatives", "norm", "chrom", "fold", "seed", metric]]
    trials = trials[trials[metric].notna()]
    means = estimates(only(tables.summary, metric=metric), "norm", "chrom")
    plain = trials.groupby(["norm", "chrom"])[metric].mean().to_dict()
    keys = [(str(n), str(c)) for n, c in zip(trials["norm"], trials["chrom"], strict=True)]
    nan = float("nan")
    found = [means.get(key, (plain[key], nan, nan)) for key in keys]
    columns = np.array(found, dtype=np.float64).reshape(-1, 3)
    return trials.assign(estimate=columns[:, 0], low=columns[:, 1], high=columns[:, 2])


def _means(
    axes: Axes,
    part: pd.DataFrame,
    chroms: list[str],
    scale: float,
    own: str,
    mark: str,
    *,
    interval: bool,
) -> None:
    once = part.drop_duplicates("chrom")
    places = [chroms.index(str(chrom)) for chrom in once["chrom"]]
    if interval:
        ends = scale * floats(once, "low"), scale * floats(once, "high")
        axes.hlines(places, *ends, color=own, linewidth=1.1)
    size = 4 if interval else 7
    axes.plot(scale * floats(once, "estimate"), places, mark, color=own, markersize=size)


def _limit(axes: Axes, table: pd.DataFrame, metric: str, scale: float) -> None:
    """Show all figures; an interval may leave the panel where it is several times as wide."""
    values = scale * table[[metric, "estimate"]].to_numpy(dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    room = 0.35 * max(high - low, 0.02 * scale)
    if metric == "auroc":
        axes.set_xlim(max(0.0, min(low - room, 0.45)), min(1.01, high + room))
    else:
        axes.set_xlim(-0.02 * high, min(scale * 1.02, high + 2 * room))
