"""Logos of the motif and of the filter of each norm that is most like it."""

import pandas as pd

from data_tools.encode import BASES
from data_tools.logo import motif_logo
from data_tools.motifs import Motif
from seqnorm.holdout.filters import FilterMotif, Found
from seqnorm.holdout.plots.plot import Plot, spoken
from seqnorm.holdout.titles import title
from seqnorm.plot_style import style


@style()
def filter_logos(found: Found) -> list[Plot]:
    """The motif first, if there is one; then a filter a norm."""
    plots = [_motif(found.motif)] if found.motif is not None and found.best else []
    return plots + [_filter(norm, best) for norm, best in found.best.items()]


def _motif(motif: Motif) -> Plot:
    said = "The matrix that the filters are compared with."
    return _plot("motif", motif, motif.name, said)


def _filter(norm: str, best: FilterMotif) -> Plot:
    name = f"filter {best.number + 1}"
    said = f"{name}, of {best.sites} subsequences"
    if best.score is not None:
        sure = "above" if best.score > best.chance else "not above"
        said += f"; score {best.score:.2f}, {sure} the {best.chance:.2f} of shuffled motifs"
    said = f"{said}."
    motif = Motif(f"{title(norm)}: {name}", best.counts)
    return _plot(f"filter_{norm}", motif, title(norm), said)


def _plot(name: str, motif: Motif, heading: str, said: str) -> Plot:
    counts = pd.DataFrame(motif.counts.T, columns=list(BASES))
    counts.insert(0, "position", range(1, len(counts) + 1))
    top = "".join(BASES[row] for row in motif.counts.argmax(axis=0))
    alt = spoken([f"Logo of {motif.name}, most frequent bases {top}"])
    return Plot(name, heading, motif_logo(motif), counts, alt, said)
