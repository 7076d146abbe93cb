"""Sequence logos: letters as high as the information that they carry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from data_tools.encode import BASES
from data_tools.motifs import Motif

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    for place in range(width):
        bottom = 0.0
        for base in np.argsort(heights[:, place], kind="stable"):
            _letter(axes, int(base), place, bottom, float(heights[base, place]))
            bottom += float(heights[base, place])
    axes.set_xlim(0.5, width + 0.5)
    axes.set_ylim(0, 2)
    axes.set_xticks(range(1, width + 1, 1 if width <= 20 else 5))
    axes.set_ylabel("bits")
    axes.set_title(motif.name.replace("$", r"\$"), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    figure.set_layout_engine("tight")
    return figure


def _letter(axes: Axes, base: int, place: int, bottom: float, height: float) -> None:
    """Draw one letter to fill the box of a position from `bottom` on."""
    from matplotlib.patches import PathPatch
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D

    if height < 1e-3:
        return
    outline = TextPath((0, 0), BASES[base], size=1)
    box = outline.get_extents()
    fit = Affine2D().translate(-box.x0, -box.y0).scale((1 - _GAP) / box.width, height / box.height)
    fit.translate(place + 0.5 + _GAP / 2, bottom)
    patch = PathPatch(fit.transform_path(outline), facecolor=COLOURS[base], linewidth=0)
    axes.add_patch(patch)
