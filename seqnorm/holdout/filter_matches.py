"""Which motifs of a collection the filters of a first layer are like."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.motif_matches import SHUFFLES, match_motifs
from data_tools.motifs import Motif, read_motifs

FILE = "filters.csv"
"""In a run folder."""
SHOWN = 5
"""Matches that the page names for a norm."""


def match_filters(
    filters: Mapping[str, Mapping[int, tuple[NDArray[np.float64], int]]], file: str | Path
) -> pd.DataFrame:
    """Look up filters in a collection.

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
        ``p_adjusted`` is over the collection and the filters of the norm. Filters with a column
        that holds no known base are left out.

    Raises
    ------
    InputError
        As `data_tools.match_motifs` and `data_tools.read_motifs` do.
    """
    collection = read_motifs(file)
    tables = [_looked_up("", {}, collection)]  # Columns and their types, where there is no filter.
    for norm, found in filters.items():
        whole = {n: given for n, given in found.items() if given[0].sum(0).all()}
        tables.append(_looked_up(norm, whole, collection).sort_values(["p_value", "filter"]))
    return pd.concat(tables, ignore_index=True)


def _looked_up(
    norm: str, filters: Mapping[int, tuple[NDArray[np.float64], int]], collection: list[Motif]
) -> pd.DataFrame:
    motifs = [Motif(f"filter {n + 1} of {norm}", counts) for n, (counts, _) in filters.items()]
    own = pd.DataFrame(
        {
            "norm": pd.Series([norm] * len(motifs), dtype=str),
            "filter": pd.Series([number + 1 for number in filters], dtype=np.int64),
            "sites": pd.Series([sites for _, sites in filters.values()], dtype=np.int64),
            "information": pd.Series([m.information().sum() for m in motifs], dtype=float),
        }
    )
    found = match_motifs(motifs, collection).drop(columns=["query", "target"])
    return pd.concat([own, found], axis=1)


def matches_view(table: pd.DataFrame, confidence: float) -> list[dict[str, Any]]:
    """What the page shows of a norm: filters, how many have a sure match, and of which motifs.

    Parameters
    ----------
    table
        As from `match_filters`.
    confidence
        A match is sure where its adjusted p-value is below 1 minus this, and none of the shuffles
        of the filter's columns matches any motif as well.
    """
    rows = []
    for norm, mine in table.groupby("norm", sort=False):
        none_as_good = mine["p_shuffled"] <= 1 / (1 + SHUFFLES)
        sure = mine[(mine["p_adjusted"] < 1 - confidence) & none_as_good]
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
