"""What a draw of background windows gives."""

from dataclasses import dataclass

import pandas as pd

from data_tools.negatives.allowed import IntArray


@dataclass(frozen=True)
class Drawn:
    """Background windows and what it took to draw them.

    Attributes
    ----------
    windows : pandas.DataFrame
        ``chrom``, ``start``, ``end``, sorted by region.
    wanted : int
        Number asked for; fewer are returned where no further window fits.
    unmatched : numpy.ndarray
        Rows of ``positives`` (positions, not labels) for which fewer partners were found than
        asked for, and which therefore got none: a part of them would have to be dropped with
        the positive. ``random`` has none.
    """

    windows: pd.DataFrame
    wanted: int
    unmatched: IntArray


def window_table(rows: list[tuple[str, int]], width: int) -> pd.DataFrame:
    """Give the windows at these places, sorted."""
    table = pd.DataFrame(sorted(rows), columns=["chrom", "start"]).astype({"start": "int64"})
    return table.assign(end=table["start"] + width)
