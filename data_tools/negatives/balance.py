"""How well GC content alone tells positives from negatives; matching has to bring it to chance."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def balance(positives: pd.DataFrame, negatives: pd.DataFrame) -> pd.DataFrame:
    """Compare the GC of positives and negatives, in each chromosome and over all.

    Parameters
    ----------
    positives, negatives : DataFrame
        With ``chrom`` and ``gc`` (fraction); windows without a GC fraction are left out.

    Returns
    -------
    DataFrame
        A row a chromosome, in order of appearance among the positives and then the negatives,
        and one called ``all``: ``chrom``, ``positives``, ``negatives`` (how many),
        ``gc_auroc`` (the probability that a positive has more GC than a negative, ties half;
        0.5 is balance), ``gc_ks`` (the two-sample Kolmogorov-Smirnov distance; 0 is balance)
        and ``gc_difference`` (of the means). NaN where one side is empty. A balance over all says
        little: chromosomes that are off in opposite ways cancel out.

    Examples
    --------
    >>> positives = pd.DataFrame({"chrom": ["a", "a"], "gc": [0.5, 0.7]})
    >>> negatives = pd.DataFrame({"chrom": ["a", "a"], "gc": [0.4, 0.5]})
    >>> balance(positives, negatives).round(3).to_dict("records")[0]
    {'chrom': 'a', 'positives': 2, 'negatives': 2, 'gc_auroc': 0.875, 'gc_ks': 0.5, \
'gc_difference': 0.15}
    """
    names = list(dict.fromkeys([*positives["chrom"], *negatives["chrom"]]))
    rows = [
        {"chrom": name, **_row(_gc(positives, name), _gc(negatives, name))}
        for name in [*names, None]
    ]
    return pd.DataFrame(rows).fillna({"chrom": "all"})


def _gc(windows: pd.DataFrame, chrom: str | None) -> Floats:
    mine = windows if chrom is None else windows[windows["chrom"] == chrom]
    return mine["gc"].dropna().to_numpy(np.float64)


def _row(positive: Floats, negative: Floats) -> dict[str, float]:
    counts = {"positives": len(positive), "negatives": len(negative)}
    if not len(positive) or not len(negative):
        return counts | dict.fromkeys(("gc_auroc", "gc_ks", "gc_difference"), float("nan"))
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left")
    up_to = np.searchsorted(ordered, positive, "right")
    every = np.concatenate([positive, negative])
    at = [
        np.searchsorted(np.sort(part), every, "right") / len(part) for part in (positive, negative)
    ]
    return counts | {
        "gc_auroc": float((below + up_to).mean() / 2 / len(negative)),
        "gc_ks": float(np.abs(at[0] - at[1]).max()),
        "gc_difference": float(positive.mean() - negative.mean()),
    }
