"""Windows of equal width: around summits, inside regions, and as base codes."""

from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.counts import Counts
from data_tools.encode import AMBIGUOUS, gc_fraction
from data_tools.errors import InputError, RangeError
from data_tools.genome import Genome
from data_tools.policies import check_policy
from data_tools.splits import check_chromosomes

Edge = Literal["error", "drop", "pad"]
Outside = Literal["error", "pad"]

_BYTES = 1 << 28
"""Most bases to hold at a time where a whole table is read."""


def summits(peaks: pd.DataFrame) -> NDArray[np.int64]:
    """Point of each peak around which a window is laid.

    The summit where the table has one, else the middle of the interval (rounded down).

    Examples
    --------
    >>> summits(pd.DataFrame({"chrom": ["a"], "start": [10], "end": [20]}))
    array([15])
    """
    middle = ((peaks["start"] + peaks["end"]) // 2).to_numpy(dtype=np.int64)
    if "summit" not in peaks:
        return middle
    missing = peaks["summit"].isna().to_numpy()
    given = peaks["summit"].fillna(0).to_numpy(dtype=np.int64)
    return np.where(missing, middle, given)


def summit_windows(
    peaks: pd.DataFrame,
    lengths: Mapping[str, int],
    width: int,
    *,
    on_edge: Edge = "error",
    counts: Counts | None = None,
) -> pd.DataFrame:
    """Lay a window of equal width around the summit of each peak.

    Parameters
    ----------
    peaks
        Table with ``chrom``, ``start``, ``end`` and, where there is one, ``summit``.
    lengths
        Length of every chromosome in bases.
    width
        Width of a window in bases. The summit stands at offset ``width // 2``.
    on_edge : {"error", "drop", "pad"}
        What to do with a window that would leave its chromosome. ``"pad"`` keeps it, so that
        starts may be negative and ends past the chromosome's: `window_codes` with
        ``outside="pad"`` gives ambiguous bases there.
    counts : Counts, optional
        Learns how many were dropped or padded. Without it, what is dropped is told by the number
        of rows alone.

    Returns
    -------
    pandas.DataFrame
        ``chrom``, ``start``, ``end``, in the order of the peaks.

    Raises
    ------
    RangeError
        With ``on_edge="error"``, for the first window that leaves its chromosome.
    InputError
        For an unknown chromosome, a width below 1 or an unknown ``on_edge``.

    Examples
    --------
    >>> peaks = pd.DataFrame({"chrom": ["a"], "start": [10], "end": [20], "summit": [12]})
    >>> summit_windows(peaks, {"a": 100}, 6).to_numpy().tolist()
    [['a', 9, 15]]
    """
    if width < 1:
        raise InputError(f"a window must be at least 1 base wide, not {width}")
    check_policy("on_edge", on_edge, Edge)
    check_chromosomes(list(dict.fromkeys(peaks["chrom"])), lengths)
    start = summits(peaks) - width // 2
    table = pd.DataFrame({"chrom": peaks["chrom"].to_numpy(), "start": start, "end": start + width})
    limit = table["chrom"].map(dict(lengths)).to_numpy(dtype=np.int64)
    outside = (start < 0) | (start + width > limit)
    if outside.any() and on_edge == "error":
        first = table.loc[int(np.flatnonzero(outside)[0])]
        raise RangeError(
            f"window {first['chrom']}:{first['start']}-{first['end']} leaves its chromosome of "
            f"{lengths[str(first['chrom'])]} bases ({int(outside.sum())} such windows in all); "
            "use narrower windows or on_edge='drop'"
        )
    if counts is not None:
        done = "padded" if on_edge == "pad" else "dropped"
        counts.note(f"windows: {done}, past the end of the chromosome", int(outside.sum()))
    return table if on_edge == "pad" else table.loc[~outside].reset_index(drop=True)


def inside(windows: pd.DataFrame, regions: pd.DataFrame, margin: int = 0) -> NDArray[np.bool_]:
    """Which windows, widened by ``margin`` bases on both sides, lie wholly in one region.

    Examples
    --------
    >>> windows = pd.DataFrame({"chrom": "a", "start": [0, 8], "end": [4, 12]})
    >>> regions = pd.DataFrame({"chrom": "a", "start": [0], "end": [10]})
    >>> inside(windows, regions)
    array([ True, False])
    """
    result = np.zeros(len(windows), dtype=np.bool_)
    by_chrom = {str(chrom): part.sort_values("start") for chrom, part in regions.groupby("chrom")}
    low = windows["start"].to_numpy() - margin
    high = windows["end"].to_numpy() + margin
    for chrom, rows in windows.groupby("chrom").indices.items():
        if (home := by_chrom.get(str(chrom))) is None:
            continue
        at = np.searchsorted(home["start"].to_numpy(), low[rows], side="right") - 1
        # Of the regions that start in time, one holds the window iff the farthest-reaching does.
        reach = np.maximum.accumulate(home["end"].to_numpy())
        result[rows] = (at >= 0) & (high[rows] <= reach[np.maximum(at, 0)])
    return result


def window_codes(
    genome: Genome, windows: pd.DataFrame, margin: int = 0, *, outside: Outside = "error"
) -> NDArray[np.uint8]:
    r"""Base codes of the windows, widened by ``margin`` bases on both sides.

    One byte a base: hold these in memory and expand each batch with `data_tools.one_hot`.

    Parameters
    ----------
    genome
        Where the bases come from.
    windows
        ``chrom``, ``start``, ``end``, of equal width.
    margin
        Further bases on both sides.
    outside : {"error", "pad"}
        What to do with positions that the chromosome does not have: ``"pad"`` gives 4 there.

    Returns
    -------
    numpy.ndarray
        Shape (N, width + 2 * margin), in the order of the table.

    Raises
    ------
    RangeError
        With ``outside="error"``, for the first window that leaves its chromosome.
    InputError
        For windows of unequal width.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fasta = Path(folder) / "tiny.fa"
    ...     _ = fasta.write_text(">a\nACGT\n")
    ...     with Genome(fasta, cache_dir=folder) as genome:
    ...         windows = pd.DataFrame({"chrom": ["a"], "start": [-1], "end": [3]})
    ...         window_codes(genome, windows, outside="pad").tolist()
    [[4, 0, 1, 2]]
    """
    check_policy("outside", outside, Outside)
    size = equal_width(windows) + 2 * margin
    if len(windows) == 0:
        return np.empty((0, size), dtype=np.uint8)
    starts = windows["start"].to_numpy(dtype=np.int64) - margin
    chroms = windows["chrom"].to_numpy()
    if outside == "error":
        return genome.windows(chroms, starts, size)
    return _padded(genome, chroms, starts, size)


def equal_width(windows: pd.DataFrame) -> int:
    """Width of the windows, 0 where there is none; `InputError` if they differ in width."""
    width = (windows["end"] - windows["start"]).to_numpy()
    odd = np.flatnonzero(width != width[:1])
    if len(odd):
        raise InputError(
            f"windows must be of equal width: row 0 has {width[0]} bases, row {odd[0]} has "
            f"{width[odd[0]]}"
        )
    return int(width[0]) if len(width) else 0


def _padded(
    genome: Genome, chroms: NDArray[np.object_], starts: NDArray[np.int64], size: int
) -> NDArray[np.uint8]:
    check_chromosomes(list(dict.fromkeys(chroms)), genome.lengths)
    limits = np.array([genome.lengths[chrom] for chrom in chroms], dtype=np.int64)
    whole = (starts >= 0) & (starts + size <= limits)
    codes = np.full((len(starts), size), AMBIGUOUS, dtype=np.uint8)
    if whole.any():
        codes[whole] = genome.windows(chroms[whole], starts[whole], size)
    for row in np.flatnonzero(~whole).tolist():
        first, last = max(0, int(starts[row])), min(int(limits[row]), int(starts[row]) + size)
        if first < last:
            place = first - int(starts[row])
            codes[row, place : place + last - first] = genome.codes(chroms[row], first, last)
    return codes


def window_codes_in_parts(
    genome: Genome, windows: pd.DataFrame, *, rows: int = 20_000
) -> Iterator[NDArray[np.uint8]]:
    """Base codes of the windows, ``rows`` at a time, fewer where they are wide."""
    widest = int((windows["end"] - windows["start"]).max()) if len(windows) else 1
    step = max(1, min(rows, _BYTES // max(1, widest)))
    for first in range(0, len(windows), step):
        yield window_codes(genome, windows.iloc[first : first + step])


def window_gc(genome: Genome, windows: pd.DataFrame, *, rows: int = 20_000) -> NDArray[np.float64]:
    """GC fraction of each window over its unambiguous bases; NaN where it has none.

    Reads ``rows`` windows at a time, fewer where they are wide, so that memory stays bounded.
    """
    parts = [gc_fraction(codes) for codes in window_codes_in_parts(genome, windows, rows=rows)]
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
