"""What every plot of the report has: a figure, its numbers, its words; and panels, a norm each."""

import textwrap
from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import only, reference_norm
from seqnorm.holdout.titles import title
from seqnorm.plot_style import COLOURS, MARKERS, SMALL, literal, plain

WIDTH = 7.2
"""Of a figure, in inches."""
BEHIND = "#b5b5b5"
"""Colour of the reference where it stands behind another norm."""
_OWN = 7
"""Colours and markers before the last, which is for what is no norm."""


class Plot(NamedTuple):
    """A figure of the report.

    Attributes
    ----------
    name : str
        Of its files.
    title : str
        Heading.
    figure : matplotlib.figure.Figure
        What is seen.
    data : pandas.DataFrame
        What is drawn, as numbers.
    alt : str
        The same in words, for who does not see it.
    caption : str
        How to read it.
    """

    name: str
    title: str
    figure: Figure
    data: pd.DataFrame
    alt: str
    caption: str


def colour(spec: Spec, norm: str) -> str:
    """Colour of a norm, the same in every plot; grey for what is no norm."""
    return COLOURS[spec.norms.index(norm) % _OWN] if norm in spec.norms else COLOURS[_OWN]


def marker(spec: Spec, norm: str) -> str:
    """Marker of a norm, the same in every plot; norms of one colour have different ones."""
    if norm not in spec.norms:
        return MARKERS[_OWN]
    place = spec.norms.index(norm)
    return MARKERS[(place + place // _OWN) % _OWN]


def by_norm(spec: Spec, table: pd.DataFrame, *, without: str = "") -> dict[str, pd.DataFrame]:
    """Rows of each norm in the order of the spec, then of each baseline."""
    there = [str(norm) for norm in dict.fromkeys(table["norm"])]
    ordered = [norm for norm in spec.norms if norm in there]
    ordered += [norm for norm in there if norm not in ordered and norm != without]
    return {norm: only(table, norm=norm) for norm in ordered}


def behind(spec: Spec, rows: dict[str, pd.DataFrame], norm: str) -> pd.DataFrame | None:
    """Rows of the reference, to be drawn behind those of another norm."""
    reference = reference_norm(spec)
    return rows.get(reference) if norm != reference else None


def floats(table: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as an array."""
    return table[column].to_numpy(dtype=np.float64)


def panels(
    titles: dict[str, str], height: float, *, columns: int = 3, grid: Literal["x", "y"] = "y"
) -> tuple[Figure, dict[str, Axes]]:
    """One panel a title, of a height in inches, with the same axes all over.

    The room between panels is computed: matplotlib's layout engines take longer than the drawing.
    """
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    said = [_wrapped(text, 68 // columns) for text in titles.values()]
    gap = 0.3 + 0.165 * max(text.count("\n") for text in said) + 0.18 * (len(said) % columns > 0)
    tall = rows * (height + gap) + 0.5
    figure = Figure(figsize=(WIDTH, tall))
    every = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    figure.subplots_adjust(
        0.65 / WIDTH, 0.5 / tall, 0.99, 1 - gap / tall, wspace=0.08, hspace=gap / height
    )
    for place, axes in enumerate(every):
        if place >= len(said):
            axes.set_visible(False)
            continue
        axes.set_title(literal(said[place]), fontsize=SMALL, loc="left")
        plain(axes, grid=grid)
        axes.tick_params(labelsize=SMALL - 1.5)
        # Where the last row is not full, the row above ends some columns.
        axes.tick_params(labelbottom=place + columns >= len(said))
    return figure, dict(zip(titles, every, strict=False))


def names(norms: Iterable[str]) -> dict[str, str]:
    """Titles of panels."""
    return {norm: title(norm) for norm in norms}


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in text.split("\n"))


def label(figure: Figure, across: str, up: str = "") -> None:
    """Name the axes that all panels share."""
    tall = figure.get_figheight()
    figure.supxlabel(across, fontsize=SMALL, y=0.02 / tall, va="bottom")
    if up:
        figure.supylabel(up, fontsize=SMALL, x=0.01)


def spoken(parts: list[str]) -> str:
    """Sentences of an alternative text in a row."""
    return " ".join(f"{part}." for part in parts)


def number(value: float, form: str) -> str:
    """A number with a true minus sign, unless it rounds to nothing.

    Examples
    --------
    >>> number(-0.126, ".2f"), number(-0.001, ".2f")
    ('−0.13', '0.00')
    """
    text = f"{value:{form}}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
