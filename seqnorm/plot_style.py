"""How every plot of this project looks: colours, sizes, grid, legend. No torch.

matplotlib is loaded when something is drawn, not when this module is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLACK",
    "BLUE",
    "COLOURS",
    "FONT",
    "GREEN",
    "GREY",
    "GRID",
    "MARKERS",
    "MUTED",
    "OCHRE",
    "ORANGE",
    "PINK",
    "RULE",
    "SKY",
    "SMALL",
    "embedded",
    "legend_below",
    "literal",
    "plain",
    "style",
    "svg",
]

# Okabe & Ito's palette, told apart by colour-blind readers too; the yellow is too pale for lines.
BLACK, BLUE, SKY, GREEN, ORANGE, PINK, OCHRE, GREY = COLOURS = (
    "#000000",
    "#0072b2",
    "#56b4e9",
    "#009e73",
    "#d55e00",
    "#cc79a7",
    "#8c6d1f",
    "#777777",
)
MARKERS = "osD^vPX*"
"""As many as there are colours; in the last place of both is what is not compared itself."""

FONT = 11.5
"""Size of text in points: large enough to be read where a phone shrinks the plot to its width."""
SMALL = 10.5
"""Size of legends and the like, in points."""

GRID = "#dddddd"
RULE = "#999999"
"""Colour of lines that stand for a value, such as 0 or an aim."""
MUTED = "#666666"
"""Colour of remarks inside a plot."""


@contextmanager
def style() -> Iterator[None]:
    """Draw in the project's style; a ``with`` block or, as ``@style()``, a decorator.

    Examples
    --------
    >>> import matplotlib as mpl
    >>> with style():
    ...     print(mpl.rcParams["font.size"])
    11.5
    """
    import matplotlib as mpl

    with mpl.rc_context({"font.size": FONT, "svg.hashsalt": "seqnorm"}):
        yield


def svg(figure: Figure) -> str:
    """Figure as SVG text, the same bytes for the same figure.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> "</svg>" in svg(Figure(figsize=(1, 1)))
    True
    """
    stream = io.StringIO()
    with style():
        figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    return stream.getvalue()


def embedded(drawn: str) -> str:
    """Address of an SVG that holds it whole. As an image it can run no script and load nothing.

    Its text stays text, unlike in base64: the page is smaller, and much more so compressed.

    Examples
    --------
    >>> embedded('<svg width="9"/>')
    'data:image/svg+xml,%3Csvg width=%229%22/%3E'
    """
    return "data:image/svg+xml," + quote(drawn, safe=" /;=,.()-+*!?@")


def plain(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    """Leave the grid lines of one axis and the frame that is needed to read it.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
    grid : {"x", "y"}
        The axis of the values. Where that is ``"x"``, the other one holds names and has no line.
    """
    axes.spines[["top", "right"]].set_visible(False)
    if grid == "x":
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(labelsize=SMALL)
    axes.grid(axis=grid, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def legend_below(axes: Axes, columns: int) -> None:
    """Put the legend, if there is anything to explain, under the axes."""
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=columns,
        frameon=False,
        fontsize=SMALL,
        handletextpad=0.4,
        columnspacing=1.2,
    )


def literal(text: str) -> str:
    r"""A name as it is: matplotlib would set what stands between dollars as a formula.

    Examples
    --------
    >>> print(literal("site $1$"))
    site \$1\$
    """
    return text.replace("$", r"\$")
