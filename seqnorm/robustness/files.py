"""The files that a card is written to."""

from __future__ import annotations

import json
from pathlib import Path

from data_tools.atomic import write_atomic
from data_tools.errors import InputError
from seqnorm.robustness.card import Card

STEM = "gc_card"


def write_card(card: Card, folder: str | Path) -> list[Path]:
    """Write a card as a page, as JSON and as a few lines for a README.

    Parameters
    ----------
    card : Card
        What `seqnorm.audit` gave.
    folder : path
        Made if it does not exist; gets ``gc_card.html``, ``gc_card.json``, ``gc_card.md``.

    Returns
    -------
    list of Path
        The three files.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    # Here, because matplotlib and jinja2 are needed for nothing else in a card.
    from seqnorm.robustness.page import page
    from seqnorm.robustness.words import markdown

    target = Path(folder)
    files = {
        "html": page(card),
        "json": json.dumps(card.to_dict(), indent=2, allow_nan=False) + "\n",
        "md": markdown(card),
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        for suffix, text in files.items():
            write_atomic(target / f"{STEM}.{suffix}", text)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error
    return [target / f"{STEM}.{suffix}" for suffix in files]
