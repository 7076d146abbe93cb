"""``data-tools windows``."""

from pathlib import Path
from typing import Literal

import tyro

from data_tools.commands.output import note, write
from data_tools.errors import InputError


def windows(
    genome: tyro.conf.Positional[Path],
    peaks: tyro.conf.Positional[Path],
    width: int = 1000,
    background: Literal["random", "gc_matched", "flank"] = "random",
    per_positive: int = 1,
    exclude: Path | None = None,
    chroms: tuple[str, ...] = (),
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Lay windows around the peaks' summits and draw background windows; write one CSV table.

    Example: data-tools windows genome.fa.gz peaks.narrowPeak --width 1000 --out windows.csv

    Columns: chrom, start, end (0-based, half-open), label (1 peak, 0 background), gc. Counts of
    what was dropped go to stderr.

    Args:
        genome: FASTA file, plain or compressed with bgzip.
        peaks: BED or narrowPeak file.
        width: Width of a window in bases.
        background: random, gc_matched (same chromosome, GC within 0.02) or flank.
        per_positive: Background windows a peak.
        exclude: BED file of what no background window may touch.
        chroms: Chromosomes to use; all those with a peak unless given.
        seed: Of the background.
        out: File to write; stdout unless given.
    """
    import pandas as pd

    from data_tools.genome import Genome
    from data_tools.intervals import read_intervals
    from data_tools.negatives import background_windows
    from data_tools.splits import whole_chromosomes
    from data_tools.windows import summit_windows, window_gc

    with Genome(genome) as source:
        table = read_intervals(peaks, source)
        names = list(chroms) or list(dict.fromkeys(table["chrom"]))
        regions = whole_chromosomes(names, source.lengths)
        used = table[table["chrom"].isin(names)]
        positives = summit_windows(used, source.lengths, width, on_edge="drop")
        if positives.empty:
            remedy = "choose other chromosomes" if used.empty else f"choose less than {width}"
            room = "" if used.empty else " with room for a window"
            raise InputError(f"{peaks}: no peak{room} on {', '.join(names)}; {remedy}")
        forbidden = [used] if exclude is None else [used, read_intervals(exclude, source)]
        drawn = background_windows(
            source,
            positives,
            regions,
            background,
            count=per_positive * (len(positives) if background == "random" else 1),
            width=width,
            forbidden=pd.concat(forbidden),
            seed=seed,
        )
        kept = positives.drop(index=positives.index[drawn.unmatched])
        both = pd.concat([kept.assign(label=1), drawn.windows.assign(label=0)])
        both = both.assign(gc=window_gc(source, both))
    write(both, out)
    note(
        f"{len(kept)} peaks, {len(drawn.windows)} background windows; dropped "
        f"{len(used) - len(positives)} peaks at a chromosome end and {len(drawn.unmatched)} "
        f"without a match; {drawn.wanted - len(drawn.windows)} background windows missing"
    )
