"""Background windows: random, GC-matched, flanking. None touches a positive or what is excluded.

The starts at which a window may lie are worked out exactly, as intervals, before any is drawn:
there is no trial and error that could give up or let one slip through.
"""

import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.encode import AMBIGUOUS
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.windows import window_gc

Background = Literal["random", "gc_matched", "flank"]
IntArray = NDArray[np.int64]

GC_CALIPER = 0.02
"""Largest difference in GC fraction within a matched pair."""

_CANDIDATES = 40
"""Places looked at for each GC-matched window, unless there are fewer."""

_LEAST_CANDIDATES = 10_000
"""Places looked at in a chromosome, also where few windows are asked for."""

_SPAN = 1 << 24
"""Bases read at a time."""


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
        the positive. Only ``gc_matched`` and ``flank`` have any.
    """

    windows: pd.DataFrame
    wanted: int
    unmatched: IntArray


def background_windows(
    genome: Genome,
    positives: pd.DataFrame,
    regions: pd.DataFrame,
    kind: Background = "random",
    *,
    count: int,
    width: int,
    forbidden: pd.DataFrame | None = None,
    margin: int = 0,
    seed: int = 0,
) -> Drawn:
    """Draw windows without a known site from the regions.

    A drawn window, widened by ``margin``, lies wholly in one region, holds no ambiguous base,
    and overlaps neither a positive nor a forbidden interval; no two drawn windows overlap.

    Parameters
    ----------
    genome
        Where the bases come from.
    positives
        Positive windows (``chrom``, ``start``, ``end``).
    regions
        Where windows may lie; see `data_tools.splits`.
    kind
        ``"random"``: uniform over all allowed starts of all regions. ``"gc_matched"``: for each
        positive, ``count`` windows of the same chromosome whose GC fraction differs by at most
        0.02, the nearest in GC among 40 places a window and at least 10,000 places.
        ``"flank"``: for each positive, the ``count`` windows nearest to it, whole widths away,
        left and right in turn, at most ``4 * count`` widths off.
    count
        ``"random"``: windows in all. ``"gc_matched"`` and ``"flank"``: windows a positive.
    width
        Width of a window in bases.
    forbidden
        Further intervals not to touch: peaks beyond their windows, exclusion lists.
    margin
        Bases on both sides of a window that must be free as well, as for jittered training.
    seed
        Of the draw. Each chromosome has a stream of its own, so that adding a chromosome does
        not move the others' windows in ``"gc_matched"`` and ``"flank"``.

    Raises
    ------
    InputError
        For an unknown kind, a count or width below 1, a margin or seed below 0, or regions
        without any room.
    """
    _check_arguments(kind, count, width, margin, seed)
    tables = [positives] if forbidden is None else [positives, forbidden]
    taken = pd.concat([table[["chrom", "start", "end"]] for table in tables])
    allowed = _allowed_starts(genome, taken, regions, width, margin)
    if not allowed:
        raise InputError(
            f"no room for a background window of {width} bases: everything in the regions is "
            "ambiguous, positive or excluded; use narrower windows or other regions"
        )
    if kind == "random":
        return _random(allowed, count, width, np.random.default_rng([seed, 0]))
    if kind == "gc_matched":
        return _gc_matched(genome, positives, allowed, count, width, seed)
    return _flank(positives, allowed, count, width)


def _check_arguments(kind: str, count: int, width: int, margin: int, seed: int) -> None:
    if kind not in get_args(Background):
        raise InputError(
            f"background '{kind}' does not exist; choose one of {', '.join(get_args(Background))}"
        )
    if count < 1:
        raise InputError(f"the number of background windows must be at least 1, not {count}")
    if width < 1:
        raise InputError(f"a window must be at least 1 base wide, not {width}")
    for name, value in (("margin", margin), ("seed", seed)):
        if value < 0:
            raise InputError(f"the {name} must be 0 or more, not {value}")


# --- where a window may start --------------------------------------------------------------


def _allowed_starts(
    genome: Genome, taken: pd.DataFrame, regions: pd.DataFrame, width: int, margin: int
) -> dict[str, IntArray]:
    """Half-open intervals of allowed starts of each chromosome, as arrays of shape (M, 2)."""
    allowed: dict[str, IntArray] = {}
    for name, part in regions.groupby("chrom", sort=False):
        chrom = str(name)
        blocked = taken.loc[taken["chrom"] == chrom, ["start", "end"]].to_numpy(dtype=np.int64)
        pieces = []
        for low, high in part[["start", "end"]].to_numpy(dtype=np.int64):
            walls = np.vstack([blocked, _ambiguous(genome, chrom, int(low), int(high))])
            # A window [s, s + width) widened by the margin touches [a, b) iff
            # a - width - margin < s < b + margin.
            walls = walls + np.array([1 - width - margin, margin])
            pieces.append(_gaps(walls, int(low) + margin, int(high) - width - margin + 1))
        # Regions may come in any order or overlap; a start that two of them allow counts once.
        found = _without(np.vstack(pieces), np.empty((0, 2), dtype=np.int64))
        if len(found):
            allowed[chrom] = found
    return allowed


def _ambiguous(genome: Genome, chrom: str, low: int, high: int) -> IntArray:
    """Half-open runs of ambiguous bases in [low, high), cut where a span of reading ends."""
    runs = [
        start + _runs(genome.codes(chrom, start, min(start + _SPAN, high)) == AMBIGUOUS)
        for start in range(low, max(high, low + 1), _SPAN)
    ]
    return np.vstack(runs)


def _runs(flag: NDArray[np.bool_]) -> IntArray:
    """Half-open runs of True, shape (M, 2)."""
    edges = np.flatnonzero(np.diff(flag.astype(np.int8), prepend=0, append=0))
    return edges.reshape(-1, 2).astype(np.int64)


def _gaps(walls: IntArray, low: int, high: int) -> IntArray:
    """What the half-open walls leave of [low, high), shape (M, 2)."""
    if high <= low:
        return np.empty((0, 2), dtype=np.int64)
    walls = walls[np.argsort(walls[:, 0], kind="stable")]
    reach = np.maximum.accumulate(np.concatenate([[low], walls[:, 1]]))
    until = np.minimum(np.concatenate([walls[:, 0], [high]]), high)
    gaps = np.column_stack([reach, until])
    return gaps[gaps[:, 0] < gaps[:, 1]]


def _without(gaps: IntArray, walls: IntArray) -> IntArray:
    """What the half-open walls leave of the gaps, sorted and merged."""
    end = int(gaps[:, 1].max(initial=0))
    return _gaps(np.vstack([_gaps(gaps, 0, end), walls]), 0, end)


def _draw_starts(gaps: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Starts drawn uniformly, with replacement, from half-open intervals."""
    sizes = gaps[:, 1] - gaps[:, 0]
    ends = np.cumsum(sizes)
    ticket = rng.integers(0, int(ends[-1]), size=count)
    piece = np.searchsorted(ends, ticket, side="right")
    starts: IntArray = gaps[piece, 0] + ticket - (ends[piece] - sizes[piece])
    return starts


class _Occupied:
    """Windows taken so far: says in constant time whether another of equal width fits."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.bins: dict[tuple[str, int], int] = {}

    def take(self, chrom: str, start: int) -> bool:
        # Two windows that do not overlap never share a bin as wide as a window.
        home = start // self.width
        for near in (home - 1, home, home + 1):
            other = self.bins.get((chrom, near))
            if other is not None and abs(other - start) < self.width:
                return False
        self.bins[chrom, home] = start
        return True

    def release(self, chrom: str, starts: list[int]) -> None:
        for start in starts:
            del self.bins[chrom, start // self.width]


# --- the three kinds -----------------------------------------------------------------------


def _table(rows: list[tuple[str, int]], width: int) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["chrom", "start"]).astype({"start": "int64"})
    return table.assign(end=table["start"] + width)


def _random(
    allowed: dict[str, IntArray], count: int, width: int, rng: np.random.Generator
) -> Drawn:
    occupied = _Occupied(width)
    rows: list[tuple[str, int]] = []
    # Each round takes a window at least, and the next looks only at what is left.
    while allowed and len(rows) < count:
        for chrom, start in _tickets(allowed, 3 * (count - len(rows)), rng):
            if len(rows) < count and occupied.take(chrom, start):
                rows.append((chrom, start))
        if len(rows) < count:
            allowed = _left_over(allowed, rows, width)
    return Drawn(_table(sorted(rows), width), count, np.empty(0, dtype=np.int64))


def _tickets(
    allowed: dict[str, IntArray], count: int, rng: np.random.Generator
) -> list[tuple[str, int]]:
    """Places drawn uniformly from all chromosomes, with replacement, no more than there are."""
    chroms = list(allowed)
    room = np.array([(gaps[:, 1] - gaps[:, 0]).sum() for gaps in allowed.values()])
    count = min(count, int(room.sum()))
    pick = rng.choice(len(chroms), size=count, p=room / room.sum())
    starts = np.empty(count, dtype=np.int64)
    for number, chrom in enumerate(chroms):
        mine = pick == number
        starts[mine] = _draw_starts(allowed[chrom], int(mine.sum()), rng)
    return [(chroms[i], start) for i, start in zip(pick.tolist(), starts.tolist(), strict=True)]


def _left_over(
    allowed: dict[str, IntArray], rows: list[tuple[str, int]], width: int
) -> dict[str, IntArray]:
    """Allowed starts whose window overlaps none of the windows taken so far."""
    left: dict[str, IntArray] = {}
    for chrom, gaps in allowed.items():
        taken = np.array([start for name, start in rows if name == chrom], dtype=np.int64)
        found = _without(gaps, np.column_stack([taken - width + 1, taken + width]))
        if len(found):
            left[chrom] = found
    return left


def _gc_matched(
    genome: Genome,
    positives: pd.DataFrame,
    allowed: dict[str, IntArray],
    count: int,
    width: int,
    seed: int,
) -> Drawn:
    occupied = _Occupied(width)
    rows: list[tuple[str, int]] = []
    short: list[int] = []
    positive_gc = window_gc(genome, positives)
    for name, index in positives.reset_index(drop=True).groupby("chrom", sort=False).groups.items():
        chrom = str(name)
        members = np.asarray(index, dtype=np.int64)
        if chrom not in allowed:
            short.extend(members.tolist())
            continue
        rng = np.random.default_rng([seed, 1, zlib.crc32(chrom.encode())])
        looked_at = max(_CANDIDATES * count * len(members), _LEAST_CANDIDATES)
        places = _candidates(allowed[chrom], looked_at, rng)
        pool = pd.DataFrame({"chrom": chrom, "start": places, "end": places + width})
        # Of equal GC in the order of the draw: in that of the start, all would crowd at one end.
        pool = pool.assign(gc=window_gc(genome, pool)).sort_values("gc", kind="stable")
        gc, starts = pool["gc"].to_numpy(), pool["start"].to_numpy()
        free = np.ones(len(pool), dtype=np.bool_)
        for member in rng.permutation(members).tolist():
            found = _nearest(gc, starts, free, positive_gc[member], count, occupied, chrom)
            rows.extend((chrom, start) for start in found)
            if len(found) < count:
                short.append(member)
    return Drawn(
        _table(sorted(rows), width), count * len(positives), np.array(sorted(short), dtype=np.int64)
    )


def _candidates(gaps: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Places in random order: every one where there are few, else a draw."""
    if (gaps[:, 1] - gaps[:, 0]).sum() > count:
        return _draw_starts(gaps, count, rng)
    return rng.permutation(np.concatenate([np.arange(low, high) for low, high in gaps]))


def _nearest(
    gc: NDArray[np.float64],
    starts: IntArray,
    free: NDArray[np.bool_],
    target: float,
    count: int,
    occupied: _Occupied,
    chrom: str,
) -> list[int]:
    """Take ``count`` free candidates within the caliper, nearest in GC first, or none."""
    tolerance = GC_CALIPER + 1e-9
    low, high = np.searchsorted(gc, [target - tolerance, target + tolerance])
    near = low + np.flatnonzero(free[low:high])
    near = near[np.argsort(np.abs(gc[near] - target), kind="stable")]
    found: list[int] = []
    for candidate in near.tolist():
        if len(found) == count:
            break
        # Taken or blocked for good: what overlaps a taken window never fits again.
        free[candidate] = False
        if occupied.take(chrom, int(starts[candidate])):
            found.append(int(starts[candidate]))
    if len(found) < count:
        free[near] = True
        occupied.release(chrom, found)
        return []
    return found


def _flank(positives: pd.DataFrame, allowed: dict[str, IntArray], count: int, width: int) -> Drawn:
    occupied = _Occupied(width)
    rows: list[tuple[str, int]] = []
    short: list[int] = []
    for member, (chrom, start) in enumerate(
        zip(positives["chrom"], positives["start"].tolist(), strict=True)
    ):
        gaps = allowed.get(chrom, np.empty((0, 2), dtype=np.int64))
        found: list[int] = []
        for step in range(1, 4 * count + 1):
            for candidate in (start - step * width, start + step * width):
                room = len(found) < count and _holds(gaps, candidate)
                if room and occupied.take(chrom, candidate):
                    found.append(candidate)
        if len(found) < count:
            occupied.release(chrom, found)
            short.append(member)
        else:
            rows.extend((chrom, place) for place in found)
    return Drawn(
        _table(sorted(rows), width), count * len(positives), np.array(short, dtype=np.int64)
    )


def _holds(gaps: IntArray, start: int) -> bool:
    at = int(np.searchsorted(gaps[:, 0], start, side="right")) - 1
    return at >= 0 and start < gaps[at, 1]
