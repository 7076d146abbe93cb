"""Which windows are fit to be learnt from: known bases, few repeats, none twice."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.counts import Counts, tell_dropped
from data_tools.encode import AMBIGUOUS
from data_tools.errors import InputError, RangeError
from data_tools.genome import Genome
from data_tools.policies import Duplicates, check_policy
from data_tools.windows import window_codes_in_parts

_UPPER = bytes(range(ord("A"), ord("Z") + 1))


def choose_windows(
    genome: Genome,
    windows: pd.DataFrame,
    *,
    max_ambiguous: float = 1.0,
    max_masked: float = 1.0,
    duplicates: Duplicates = "keep",
    counts: Counts | None = None,
) -> pd.DataFrame:
    r"""Drop windows with too many ambiguous or soft-masked bases, and duplicates.

    Parameters
    ----------
    genome : Genome
        Where the bases come from.
    windows : DataFrame
        ``chrom``, ``start``, ``end``, of equal width and inside their chromosomes.
    max_ambiguous : float
        Largest share of bases that are not A, C, G or T; windows with more are dropped.
    max_masked : float
        Largest share of lower-case letters, which is how repeats are marked; windows with more
        are dropped. A file in upper case has none.
    duplicates : {"keep", "error", "drop"}
        For windows at the place of an earlier one; ``"drop"`` keeps the first.
    counts : Counts, optional
        Learns how many were dropped and why. Without it, what is dropped is a `DroppedWarning`.

    Returns
    -------
    DataFrame
        The rows that are left, in order, numbered anew.

    Raises
    ------
    RangeError
        With ``duplicates="error"``, for the first window that stands twice.
    InputError
        For a share outside 0 to 1 or an unknown policy.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> counts = Counts()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fasta = Path(folder) / "tiny.fa"
    ...     _ = fasta.write_text(">a\nACGTNNacgt\n")
    ...     with Genome(fasta, cache_dir=folder) as genome:
    ...         table = pd.DataFrame({"chrom": "a", "start": [0, 3, 6], "end": [4, 7, 10]})
    ...         choose_windows(genome, table, max_ambiguous=0, counts=counts)["start"].tolist()
    [0, 6]
    >>> counts["windows: dropped, too many ambiguous bases"]
    1
    """
    check_policy("duplicates", duplicates, Duplicates)
    for name, share in (("max_ambiguous", max_ambiguous), ("max_masked", max_masked)):
        if not 0 <= share <= 1:
            raise InputError(f"{name} is a share of bases, 0 to 1, not {share}")
    keep = np.ones(len(windows), dtype=np.bool_)
    if duplicates != "keep":
        keep &= ~_again(windows, duplicates)
        tell_dropped(counts, "windows: dropped, duplicates", int((~keep).sum()))
    for limit, shares, what in (
        (max_ambiguous, ambiguous_share, "too many ambiguous bases"),
        (max_masked, masked_share, "too many soft-masked bases"),
    ):
        if limit < 1:
            rows = np.flatnonzero(keep)
            bad = rows[shares(genome, windows.iloc[rows]) > limit]
            keep[bad] = False
            tell_dropped(counts, f"windows: dropped, {what}", len(bad))
    return windows[keep].reset_index(drop=True)


def _again(windows: pd.DataFrame, policy: Duplicates) -> NDArray[np.bool_]:
    again = windows.duplicated(["chrom", "start", "end"]).to_numpy()
    if policy == "error" and again.any():
        row = windows.iloc[int(again.argmax())]
        raise RangeError(
            f"window {row['chrom']}:{row['start']}-{row['end']} stands twice ({int(again.sum())} "
            "such windows in all); use duplicates='drop' to keep the first of each"
        )
    return again


def ambiguous_share(genome: Genome, windows: pd.DataFrame) -> NDArray[np.float64]:
    """Share of the bases of each window that are not A, C, G or T, shape (N,)."""
    parts = [(codes == AMBIGUOUS).mean(axis=1) for codes in window_codes_in_parts(genome, windows)]
    return np.concatenate([np.empty(0), *parts])


def masked_share(genome: Genome, windows: pd.DataFrame) -> NDArray[np.float64]:
    """Share of lower-case letters of each window, shape (N,)."""
    columns = (windows[name].tolist() for name in ("chrom", "start", "end"))
    shares = [
        len(genome.fetch(chrom, start, end).encode().translate(None, _UPPER)) / (end - start)
        for chrom, start, end in zip(*columns, strict=True)
    ]
    return np.array(shares, dtype=np.float64)
