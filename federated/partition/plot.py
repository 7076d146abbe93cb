"""A picture of a partition: who has what."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from federated.partition.checks import Floats, Ints, column, numbers
from federated.partition.columns import BySite
from federated.partition.holdings import NOBODY, Partition
from seqnorm import plot_style
from seqnorm.plot_style import FONT, SMALL, literal, plain, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POSITIVE, _NEGATIVE, _INK = plot_style.ORANGE, plot_style.SKY, plot_style.BLUE
_OTHERS = (plot_style.GREEN, plot_style.PINK, plot_style.OCHRE, plot_style.GREY)
_MOST_CLASSES = 5
_BINS = 80
_CROWDED = 12
"""Columns of the heat map beyond which counts are not written into it."""


def partition_picture(split: Partition, rows: pd.DataFrame) -> "Figure":
    """Draw who has what, a line a client.

    Parameters
    ----------
    split : Partition
        Of the rows.
    rows : pandas.DataFrame
        The table that was split.

    Returns
    -------
    matplotlib.figure.Figure
        Up to three panels: rows by label; where the table has GC, its distribution (the tick is
        the median); where it has chromosomes, or sites for `BySite`, the rows of each.

    Raises
    ------
    PartitionError
        If the partition is not one of this table.

    Examples
    --------
    >>> from federated.partition import IID, partition
    >>> rows = pd.DataFrame({"label": [0, 1] * 8, "gc": np.linspace(0.3, 0.6, 16)})
    >>> len(partition_picture(partition(rows, IID(clients=2)), rows).axes)
    2
    """
    from matplotlib.figure import Figure

    split.check_table(rows)
    heat = split.scheme.column if isinstance(split.scheme, BySite) else "chrom"
    ratios = [1.3] + [1.0] * ("gc" in rows.columns) + [1.3] * (heat in rows.columns)
    with style():
        height = float(np.clip(0.42 * len(split.clients) + 2.0, 3.2, 24))
        figure = Figure(figsize=(3.4 * sum(ratios), height), layout="constrained")
        panels = figure.subplots(1, len(ratios), sharey=True, squeeze=False, width_ratios=ratios)[
            0
        ].tolist()
        _sizes(panels[0], split, rows)
        if "gc" in rows.columns:
            _gc(panels[1], split, numbers(rows, "gc", "a picture"))
        if heat in rows.columns:
            _holdings(panels[-1], split, rows, heat)
        count = len(split.clients)
        panels[0].set_yticks(range(count), [literal(name) for name in split.clients])
        panels[0].set_ylim(count - 0.5, -0.6)
        figure.suptitle(_heading(split), fontsize=FONT)
    return figure


def _heading(split: Partition) -> str:
    dial = f", {split.scheme.dial_name} = {split.dial:g}" if split.dial is not None else ""
    seed = f", seed {split.seed}" if split.seed is not None else ""
    lost = f"; {len(split.dropped):,} rows dropped" if len(split.dropped) else ""
    return f"{split.scheme.kind.replace('_', ' ')}{dial}{seed}{lost}"


def _sizes(axes: "Axes", split: Partition, rows: pd.DataFrame) -> None:
    """Rows of each client, stacked by label."""
    places = np.arange(len(split.clients))
    left = np.zeros(len(places))
    for name, colour, flag in _classes(rows):
        width = np.array([np.count_nonzero(flag[held]) for held in split.rows])
        axes.barh(places, width, left=left, height=0.62, color=colour, label=name)
        left += width
    if "label" in rows.columns:
        positive = numbers(rows, "label", "a picture") > 0
        for place, held in enumerate(split.rows):
            if len(held):
                axes.annotate(
                    f"{100 * positive[held].mean():.3g} %",
                    (left[place], place),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=SMALL,
                    color=plot_style.MUTED,
                )
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=_MOST_CLASSES,
            frameon=False,
            fontsize=SMALL,
            handlelength=1,
            handletextpad=0.4,
            columnspacing=1.2,
        )
    axes.set_xlim(0, 1.22 * max(1, left.max()))
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel("rows; % with a label above 0" if "label" in rows.columns else "rows")
    plain(axes, grid="x")


def _classes(rows: pd.DataFrame) -> list[tuple[str, str, np.ndarray]]:
    """Name, colour and rows of each class; of many classes only 0 and above 0."""
    if "label" not in rows.columns:
        return [("rows", _NEGATIVE, np.ones(len(rows), dtype=np.bool_))]
    labels = numbers(rows, "label", "a picture")
    values = np.unique(labels)
    if len(values) > _MOST_CLASSES:
        return [("above 0", _POSITIVE, labels > 0), ("others", _NEGATIVE, labels <= 0)]
    # Label 1 has its colour also where no row has label 0.
    colours = (_NEGATIVE, _POSITIVE, *_OTHERS)
    found = [
        (f"label {value:g}", colour, labels == value)
        for value, colour in zip(values, colours[int(values[0] > 0) :], strict=False)
    ]
    return found[::-1]


def _gc(axes: "Axes", split: Partition, gc: Floats) -> None:
    """Density of each client's GC, on a scale of its own, with the median."""
    low, high = float(gc.min()), float(gc.max())
    room = 0.05 * (high - low) or 0.05
    edges = np.linspace(low - room, high + room, _BINS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)
    for place, held in enumerate(split.rows):
        if not len(held):
            continue
        counts = np.histogram(gc[held], edges)[0]
        smooth = np.convolve(counts, kernel / kernel.sum(), mode="same")
        base = place + 0.31
        top = base - 0.85 * smooth / smooth.max()
        # Later clients lie over earlier ones, as ridges do.
        axes.fill_between(middle, base, top, color=_INK, alpha=0.25, linewidth=0, zorder=place + 2)
        axes.plot(middle, top, color=_INK, linewidth=1, zorder=place + 2)
        median = float(np.median(gc[held]))
        axes.plot(
            [median] * 2,
            [base, base - 0.3],
            color=plot_style.BLACK,
            linewidth=1.6,
            zorder=place + 2,
        )
    axes.set_xlabel("GC fraction (tick: median)")
    plain(axes, grid="x")


def _holdings(axes: "Axes", split: Partition, rows: pd.DataFrame, name: str) -> None:
    """Rows of each chromosome or site at each client."""
    codes, values = pd.factorize(column(rows, name, "a picture").astype(str), sort=True)
    order = _natural(list(values))
    counts = _counts(split, codes.astype(np.int64), len(values))[:, order]
    shown = np.ma.masked_equal(counts, 0)
    axes.imshow(shown, aspect="auto", cmap="Blues", vmin=0, vmax=2 * max(1, counts.max()))
    if len(values) <= _CROWDED:
        for place, label in np.ndindex(counts.shape):
            if counts[place, label]:
                axes.annotate(
                    _short(int(counts[place, label])),
                    (label, place),
                    ha="center",
                    va="center",
                    fontsize=SMALL - 2,
                )
    axes.set_xticks(range(len(values)), [literal(values[k]) for k in order], rotation=90)
    axes.set_xlabel(f"rows by {'chromosome' if name == 'chrom' else literal(name)}")
    plain(axes, grid="x")
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)


def _counts(split: Partition, codes: Ints, span: int) -> Ints:
    owner = split.owners()
    kept = owner != NOBODY
    cells = owner[kept] * span + codes[kept]
    shape = (len(split.clients), span)
    return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)


def _natural(names: list[str]) -> list[int]:
    """Order in which chr2 comes before chr10."""
    keys = [(len(name.rstrip("0123456789")), len(name), name) for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def _short(count: int) -> str:
    return f"{count / 1000:.3g}k" if count >= 1000 else str(count)
