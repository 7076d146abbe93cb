"""Sequence logos: letters as high as the information that they carry."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_tools.encode import BASES
from data_tools.errors import InputError
from data_tools.motifs import Motif

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.textpath import TextPath

#: Colours of A, C, G, T that colour-blind readers tell apart too (Okabe & Ito).
COLOURS = ("#009e73", "#0072b2", "#e69f00", "#d55e00")
_GAP = 0.04


def motif_logo(motif: Motif, *, pseudocount: float = 0.8) -> Figure:
    """Draw the information-content logo of a motif.

    Parameters
    ----------
    motif : Motif
        Its counts give the letters' shares, `Motif.information` the height of a column.
    pseudocount : float
        As in `Motif.log_odds`.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with its ``savefig``.

    References
    ----------
    Schneider & Stephens (1990), Sequence logos. Nucleic Acids Research 18, 6097-6100.

    Examples
    --------
    >>> figure = motif_logo(Motif("x", np.array([[8.0], [0], [0], [1]])))
    >>> [float(bits) for bits in figure.axes[0].get_ylim()]
    [0.0, 2.0]
    """
    from matplotlib.figure import Figure

    frequency = motif.counts + pseudocount
    heights = frequency / frequency.sum(0) * motif.information(pseudocount)
    width = heights.shape[1]
    figure = Figure(figsize=(max(2.5, 0.32 * width + 0.8), 2.0))
    axes = figure.add_subplot()
    _stacks(axes, heights, first=1, least=1e-3)
    axes.set_ylim(0, 2)
    axes.set_xticks(range(1, width + 1, 1 if width <= 20 else 5))
    axes.set_ylabel("bits")
    axes.set_title(motif.name.replace("$", r"\$"), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.set_layout_engine("tight")
    return figure


def height_logo(heights: NDArray[np.floating[Any]], *, first: int = 1, title: str = "") -> Figure:
    """Draw letters of stated heights, such as what each base contributes to a score.

    Parameters
    ----------
    heights : ndarray, shape (4, L)
        By base A, C, G, T. Letters above 0 are stacked upwards, those below it downwards, the
        largest on the outside.
    first : int
        Number of the first position.
    title : str

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    InputError
        For another shape, or heights that are not finite.

    Examples
    --------
    >>> figure = height_logo(np.array([[0.5, 0], [0, -1], [0.25, 0], [0, 0]]), first=101)
    >>> len(figure.axes[0].patches), [float(x) for x in figure.axes[0].get_xlim()]
    (3, [100.5, 102.5])
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    wide = np.asarray(heights, dtype=np.float64)
    if wide.ndim != 2 or wide.shape[0] != 4 or not wide.shape[1] or not np.isfinite(wide).all():
        raise InputError(f"heights are finite numbers of shape (4, L), got shape {wide.shape}")
    up, down = (np.clip(side, 0, None) for side in (wide, -wide))
    top = max(float(up.sum(0).max()), float(down.sum(0).max())) or 1.0
    figure = Figure(figsize=(max(2.5, 0.12 * wide.shape[1] + 0.8), 2.0))
    axes = figure.add_subplot()
    _stacks(axes, up, first, least=1e-3 * top)
    _stacks(axes, -down, first, least=1e-3 * top)
    margin = 0.05 * top
    axes.set_ylim(-float(down.sum(0).max()) - margin, float(up.sum(0).max()) + margin)
    axes.axhline(0, color="#333333", linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.ticklabel_format(axis="x", useOffset=False, style="plain")
    axes.set_title(title.replace("$", r"\$"), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.set_layout_engine("tight")
    return figure


def _stacks(axes: Axes, heights: NDArray[np.float64], first: int, least: float) -> None:
    """Stack the letters of each position away from 0, the smallest next to it."""
    for place in range(heights.shape[1]):
        bottom = 0.0
        for base in np.argsort(np.abs(heights[:, place]), kind="stable"):
            height = float(heights[base, place])
            if abs(height) >= least:
                low = min(bottom, bottom + height)
                _letter(axes, int(base), first + place - 0.5, low, abs(height))
            bottom += height
    axes.set_xlim(first - 0.5, first + heights.shape[1] - 0.5)


def _letter(axes: Axes, base: int, left: float, bottom: float, height: float) -> None:
    """Draw one letter to fill a box, one position wide, from `left` and `bottom` on."""
    from matplotlib.patches import PathPatch
    from matplotlib.transforms import Affine2D

    outline = _outline(base)
    box = outline.get_extents()
    fit = Affine2D().translate(-box.x0, -box.y0).scale((1 - _GAP) / box.width, height / box.height)
    fit.translate(left + _GAP / 2, bottom)
    patch = PathPatch(fit.transform_path(outline), facecolor=COLOURS[base], linewidth=0)
    axes.add_patch(patch)


@cache
def _outline(base: int) -> TextPath:
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), BASES[base], size=1)
