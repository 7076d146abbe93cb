"""The card as one self-contained page."""

from __future__ import annotations

from matplotlib.figure import Figure

import seqnorm
from seqnorm.plot_style import embedded, svg
from seqnorm.robustness import plots
from seqnorm.robustness.card import Card
from seqnorm.robustness.words import TITLES, cautions, figures, sentences, shown
from seqnorm.runs.page import page_environment


def page(card: Card) -> str:
    """Give the card as HTML; whatever stands in it is escaped."""
    found = figures(card)
    metrics = [metric for metric in TITLES if any(key[1] == metric for key in found)]
    drawn = [
        ("False alarms against GC", plots.gc_plot(card) if len(card.deciles) else None),
        ("False alarms by chromosome", plots.chromosome_plot(card)),
        ("Ranking: the model against GC alone", plots.skill_plot(card)),
        ("Calibration", plots.calibration_plot(card)),
    ]
    return (
        page_environment("seqnorm.robustness")
        .get_template("card.html")
        .render(
            card=card,
            sentences=sentences(card),
            cautions=cautions(card),
            titles=TITLES,
            metrics=metrics,
            figures=found,
            shown=shown,
            windows=card.windows.to_dict("records"),
            deciles=card.deciles.to_dict("records"),
            pictures=[(text, _source(figure)) for text, figure in drawn if figure is not None],
            version=seqnorm.__version__,
        )
    )


def _source(figure: Figure) -> str:
    return embedded(svg(figure))
