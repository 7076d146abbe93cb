"""Which motifs of a collection the filters of a first layer are like."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.motif_matches import match_motifs
from data_tools.motifs import Motif, read_motifs

FILE = "filters.csv"
"""In a run folder."""
SHOWN = 5
"""Matches that the page names for a norm."""

_COLUMNS = ["norm", "filter", "sites", "information"]


def match_filters(
    filters: Mapping[str, Mapping[int, tuple[NDArray[np.float64], int]]], file: str | Path
) -> pd.DataFrame:
    """Look up every filter of every norm in a collection.

    Parameters
    ----------
    filters
        Of each norm, by the filter's number from 0: counts (4, K) and the subsequences they are of.
    file
        The collection, as `data_tools.read_motifs` reads it.

    Returns
    -------
    pandas.DataFrame
        A row a filter, norms in their order, the surest match of a norm first: ``filter`` from 1,
        ``sites``, ``information`` (bits), and its best match as in `data_tools.match_motifs`;
        ``p_adjusted`` is over the collection and the filters of the norm.

    Raises
    ------
    InputError
        As `data_tools.match_motifs` and `data_tools.read_motifs` do.
    """
    collection = read_motifs(file)
    tables = []
    for norm, found in filters.items():
        motifs = [Motif("", counts) for counts, _ in found.values()]
        table = match_motifs(motifs, collection).drop(columns=["query", "target"])
        table.insert(0, "information", [motif.information().sum() for motif in motifs])
        table.insert(0, "sites", [sites for _, sites in found.values()])
        table.insert(0, "filter", [number + 1 for number in found])
        table.insert(0, "norm", norm)
        tables.append(table.sort_values(["p_value", "filter"]))
    columns = [*_COLUMNS, *match_motifs([], collection).columns[2:]]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def matches_view(table: pd.DataFrame, confidence: float) -> list[dict[str, Any]]:
    """What the page shows of a norm: filters, how many have a sure match, and of which motifs.

    Parameters
    ----------
    table
        As from `match_filters`.
    confidence
        A match is sure where its adjusted p-value is below 1 minus this.
    """
    rows = []
    for norm, mine in table.groupby("norm", sort=False):
        sure = mine[mine["p_adjusted"] < 1 - confidence]
        best = sure.groupby("match", sort=False)["p_adjusted"].agg(["size", "min"])
        rows.append(
            {
                "norm": norm,
                "filters": len(mine),
                "sure": len(sure),
                "motifs": len(best),
                "best": [
                    (name, int(size), float(least))
                    for name, size, least in best.head(SHOWN).itertuples()
                ],
            }
        )
    return rows
