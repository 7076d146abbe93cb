"""What each client holds, as a tidy table."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from federated.partition.checks import Ints, numbers


def client_table(
    clients: Sequence[str],
    batches: Sequence[str],
    held: Sequence[Ints],
    rows: pd.DataFrame,
    site: str | None = None,
) -> pd.DataFrame:
    """Describe what each client holds.

    Parameters
    ----------
    clients, batches : sequence of str
        Names and assay batches, length K.
    held : sequence of ndarray of int64
        Rows of each client.
    rows : pandas.DataFrame
        The table.
    site : str, optional
        A column whose values are listed as ``sites``.

    Returns
    -------
    pandas.DataFrame
        K lines: ``client``, ``batch``, ``rows``; where the table has labels ``positives`` (rows
        with a label above 0) and ``prevalence`` (their fraction); where it has GC ``gc_mean`` and
        ``gc_sd`` (population form); ``chromosomes`` and ``sites``, joined by spaces. A client
        without rows has NaN for means.

    Examples
    --------
    >>> rows = pd.DataFrame({"chrom": ["chr1", "chr2"], "label": [1, 0], "gc": [0.5, 0.4]})
    >>> table = client_table(["a"], ["a"], [np.array([0, 1])], rows)
    >>> table[["rows", "prevalence", "gc_mean", "chromosomes"]].values.tolist()
    [[2, 0.5, 0.45, 'chr1 chr2']]
    """
    table: dict[str, Any] = {
        "client": list(clients),
        "batch": list(batches),
        "rows": [len(mine) for mine in held],
    }
    if "label" in rows.columns:
        positive = numbers(rows, "label", "a summary") > 0
        table["positives"] = [int(positive[mine].sum()) for mine in held]
        table["prevalence"] = [_mean(positive[mine].astype(np.float64)) for mine in held]
    if "gc" in rows.columns:
        gc = numbers(rows, "gc", "a summary")
        table["gc_mean"] = [_mean(gc[mine]) for mine in held]
        table["gc_sd"] = [float(gc[mine].std()) if len(mine) else np.nan for mine in held]
    if "chrom" in rows.columns:
        table["chromosomes"] = _values(rows["chrom"], held)
    if site is not None:
        table["sites"] = _values(rows[site], held)
    return pd.DataFrame(table)


def _mean(values: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(values.mean()) if len(values) else np.nan


def _values(values: "pd.Series[Any]", held: Sequence[Ints]) -> list[str]:
    """Distinct values of each client, in sorted order."""
    text = values.astype(str)
    return [" ".join(sorted(set(text.iloc[mine]))) for mine in held]
