"""Figures of a report: each as an SVG and a CSV of its numbers, and inside the page as well."""

import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pandas as pd

from data_tools.atomic import write_atomic
from seqnorm.holdout.plots import Plot
from seqnorm.plot_style import embedded, svg

FOLDER = "figures"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Picture(NamedTuple):
    """A figure as the page shows it.

    Attributes
    ----------
    title, alt, caption : str
        As of the plot.
    source : str
        Data address of the SVG.
    svg, csv : str
        Addresses of its files from the page.
    """

    title: str
    alt: str
    caption: str
    source: str
    svg: str
    csv: str


class Gallery:
    """Writes figures into a run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FOLDER
        self.folder.mkdir(exist_ok=True)

    def add(self, plot: Plot, section: str) -> Picture:
        """Write the two files of a figure of a section."""
        name = file_name(f"{section}-{plot.name}")
        drawn = svg(plot.figure)
        write_atomic(self.folder / f"{name}.svg", drawn)
        write_atomic(self.folder / f"{name}.csv", as_csv(plot.data))
        address = quote(f"{FOLDER}/{name}")
        return Picture(
            plot.title,
            plot.alt,
            plot.caption,
            embedded(drawn),
            f"{address}.svg",
            f"{address}.csv",
        )


def file_name(text: str) -> str:
    """Letters, digits and few signs of a name, so that it is one file of any system.

    Examples
    --------
    >>> file_name("cnn-random-filter_group:8@head"), file_name("../x")
    ('cnn-random-filter_group_8_head', 'x')
    """
    return re.sub(r"[^A-Za-z0-9+._-]", "_", text).lstrip("._-")


def as_csv(table: pd.DataFrame) -> str:
    """Write a table with every digit; text that a spreadsheet would run begins with a quote.

    Examples
    --------
    >>> print(as_csv(pd.DataFrame({"chrom": ["chr1", "=A1"], "value": [0.5, -1]})), end="")
    chrom,value
    chr1,0.5
    '=A1,-1
    """
    words = [name for name in table if not pd.api.types.is_numeric_dtype(table[name])]
    plain = table.assign(**{str(name): table[name].map(_harmless) for name in words})
    return str(plain.to_csv(index=False, float_format="%.17g", lineterminator="\n"))


def _harmless(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
