"""Draw background windows of one kind."""

from typing import Literal, get_args

import numpy as np
import pandas as pd

from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.negatives.allowed import IntArray, allowed_starts, only_at
from data_tools.negatives.drawn import Drawn
from data_tools.negatives.flank import flank
from data_tools.negatives.matched import (
    GC_CALIPER,
    Progress,
    matched,
    near_in_dinucleotides,
    near_in_gc,
)
from data_tools.negatives.uniform import uniform
from data_tools.windows import summits

Background = Literal["random", "gc_matched", "flank", "dinucleotide_matched"]


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
    pool: pd.DataFrame | None = None,
    caliper: float = GC_CALIPER,
    progress: Progress | None = None,
) -> Drawn:
    r"""Draw windows without a known site from the regions.

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
        the caliper, the nearest in GC among 40 places a window and at least 10,000 places.
        ``"dinucleotide_matched"``: within the same caliper, the nearest in the frequencies of
        the ten strand-symmetric dinucleotides. ``"flank"``: for each positive, the ``count``
        windows nearest to it, whole widths away, left and right in turn, at most ``4 * count``
        widths off.
    count
        ``"random"``: windows in all. The others: windows a positive.
    width
        Width of a window in bases.
    forbidden
        Further intervals not to touch: peaks beyond their windows, exclusion lists.
    margin
        Bases on both sides of a window that must be free as well, as for jittered training.
    seed
        Of the draw. Each chromosome has a stream of its own, so that adding a chromosome does
        not move the others' windows, but in ``"random"``.
    pool
        Draw only windows around the summits of these peaks, such as open chromatin without the
        factor. Without one, windows may lie anywhere in the regions.
    caliper
        Largest difference in GC fraction within a matched pair. A positive without enough
        partners inside it gets none and is reported, never the nearest ones outside.
    progress : callable, optional
        Is told, while windows are matched, how many of how many positives are done.

    Raises
    ------
    InputError
        For an unknown kind, a count or width below 1, a margin or seed below 0, a caliper outside
        0 to 1, or regions without any room.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> folder = tempfile.TemporaryDirectory()
    >>> fasta = Path(folder.name) / "tiny.fa"
    >>> _ = fasta.write_text(">a\n" + "ACGGTCAT" * 20 + "\n")
    >>> positives = pd.DataFrame({"chrom": ["a"], "start": [80], "end": [88]})
    >>> regions = pd.DataFrame({"chrom": ["a"], "start": [0], "end": [160]})
    >>> genome = Genome(fasta, cache_dir=folder.name)
    >>> drawn = background_windows(genome, positives, regions, "gc_matched", count=2, width=8)
    >>> len(drawn.windows), drawn.unmatched.tolist()
    (2, [])
    >>> genome.close(); folder.cleanup()
    """
    _check_arguments(kind, count, width, margin, seed, caliper)
    tables = [positives] if forbidden is None else [positives, forbidden]
    taken = pd.concat([table[["chrom", "start", "end"]] for table in tables])
    allowed = allowed_starts(genome, taken, regions, width, margin)
    if not allowed:
        raise InputError(
            f"no room for a background window of {width} bases: everything in the regions is "
            "ambiguous, positive or excluded; use narrower windows or other regions"
        )
    if pool is not None:
        allowed = _of_pool(allowed, pool, width)
    if kind == "random":
        return uniform(allowed, count, width, np.random.default_rng([seed, 0]))
    if kind == "flank":
        return flank(positives, allowed, count, width)
    if kind == "gc_matched":
        suitable_in = near_in_gc(genome, positives, caliper)
    else:
        suitable_in = near_in_dinucleotides(genome, positives, caliper, count)
    return matched(
        positives, allowed, suitable_in, count=count, width=width, seed=seed, progress=progress
    )


def _check_arguments(
    kind: str, count: int, width: int, margin: int, seed: int, caliper: float
) -> None:
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
    if not 0 <= caliper <= 1:
        raise InputError(f"the caliper is a difference of GC fractions, 0 to 1, not {caliper}")


def _of_pool(allowed: dict[str, IntArray], pool: pd.DataFrame, width: int) -> dict[str, IntArray]:
    starts = pd.Series(summits(pool) - width // 2)
    found = {
        chrom: only_at(gaps, starts[(pool["chrom"] == chrom).to_numpy()].to_numpy(np.int64))
        for chrom, gaps in allowed.items()
    }
    found = {chrom: gaps for chrom, gaps in found.items() if len(gaps)}
    if not found:
        raise InputError(
            f"none of the {len(pool)} peaks of the pool has room for a window of {width} bases: "
            "all are positive, excluded, ambiguous or outside the regions; give another pool"
        )
    return found
