"""``data-tools windows``."""

import json
from pathlib import Path
from typing import Literal

import tyro

from data_tools.commands.output import note, write, write_text
from data_tools.commands.progress import counted
from data_tools.errors import InputError


def windows(
    genome: tyro.conf.Positional[Path],
    peaks: tyro.conf.Positional[Path],
    width: int = 1000,
    background: Literal["random", "gc_matched", "flank", "dinucleotide_matched"] = "random",
    per_positive: int = 1,
    exclude: Path | None = None,
    score: Literal["integer", "number"] = "integer",
    chroms: tuple[str, ...] = (),
    chrom_style: Literal["exact", "match"] = "exact",
    on_edge: Literal["error", "drop"] = "drop",
    out_of_range: Literal["error", "drop"] = "error",
    unknown_chrom: Literal["error", "drop"] = "error",
    summit_missing: Literal["keep", "error", "drop"] = "keep",
    summit_outside: Literal["error", "drop", "missing"] = "error",
    duplicates: Literal["keep", "error", "drop"] = "keep",
    max_ambiguous: float = 1.0,
    max_masked: float = 1.0,
    seed: int = 0,
    out: Path | None = None,
    summary: Path | None = None,
) -> None:
    """Lay windows around the peaks' summits and draw background windows; write one CSV table.

    Example: data-tools windows genome.fa.gz peaks.narrowPeak --width 1000 --out windows.csv

    Columns: chrom, start, end (0-based, half-open), label (1 peak, 0 background), gc. Counts of
    what was dropped go to stderr, and to --summary.

    Args:
        genome: FASTA (plain or compressed with bgzip) or 2bit file.
        peaks: BED, narrowPeak or broadPeak file.
        width: Width of a window in bases.
        background: random, gc_matched (same chromosome, GC within 0.02), dinucleotide_matched (as
            well, and the nearest in dinucleotides) or flank.
        per_positive: Background windows a peak.
        exclude: BED file of what no background window may touch.
        score: What column 5 of these files holds: an integer from 0 to 1000, or any number.
        chroms: Chromosomes to use; all those with a peak unless given.
        chrom_style: match reads 1 as chr1, or the reverse, where that is what the genome has.
        on_edge: For windows that would leave their chromosome.
        out_of_range: For peaks past the end of their chromosome.
        unknown_chrom: For peaks on a chromosome that the genome lacks.
        summit_missing: For narrowPeak rows without a summit; keep takes the middle.
        summit_outside: For summits outside their peak; missing takes the middle.
        duplicates: For peaks, and windows, at the place of an earlier one.
        max_ambiguous: Largest share of bases of a peak's window that are not A, C, G or T.
        max_masked: Largest share of soft-masked (lower-case) bases of a peak's window.
        seed: Of the background.
        out: File to write; stdout unless given.
        summary: JSON file to write: counts of what was read, kept and dropped.
    """
    import pandas as pd

    from data_tools.counts import Counts
    from data_tools.genome import Genome
    from data_tools.intervals import read_intervals
    from data_tools.negatives import background_windows
    from data_tools.splits import whole_chromosomes
    from data_tools.window_choice import choose_windows
    from data_tools.windows import summit_windows, window_gc

    counts = Counts()
    with Genome(genome) as source:
        table = read_intervals(
            peaks,
            source,
            score=score,
            chrom_style=chrom_style,
            unknown_chrom=unknown_chrom,
            out_of_range=out_of_range,
            duplicates=duplicates,
            summit_missing=summit_missing,
            summit_outside=summit_outside,
            counts=counts,
        )
        names = list(chroms) or list(dict.fromkeys(table["chrom"]))
        regions = whole_chromosomes(names, source.lengths)
        used = table[table["chrom"].isin(names)]
        counts.note(f"{peaks}: left out, on other chromosomes", len(table) - len(used))
        laid = summit_windows(used, source.lengths, width, on_edge=on_edge, counts=counts)
        positives = choose_windows(
            source,
            laid,
            max_ambiguous=max_ambiguous,
            max_masked=max_masked,
            duplicates=duplicates,
            counts=counts,
        )
        if positives.empty:
            remedy = "choose other chromosomes" if used.empty else f"choose less than {width}"
            room = "" if used.empty else " with room for a window"
            if len(laid):
                remedy, room = "allow more of them", " without too many ambiguous or masked bases"
            raise InputError(f"{peaks}: no peak{room} on {', '.join(names)}; {remedy}")
        forbidden = [used]
        if exclude is not None:
            forbidden.append(
                read_intervals(exclude, source, score=score, chrom_style=chrom_style, counts=counts)
            )
        with counted("matching") as progress:
            drawn = background_windows(
                source,
                positives,
                regions,
                background,
                count=per_positive * (len(positives) if background == "random" else 1),
                width=width,
                forbidden=pd.concat(forbidden),
                seed=seed,
                progress=progress,
            )
        kept = positives.drop(index=positives.index[drawn.unmatched])
        both = pd.concat([kept.assign(label=1), drawn.windows.assign(label=0)])
        both = both.assign(gc=window_gc(source, both))
    counts.note("peaks: dropped, without a match", len(drawn.unmatched))
    counts.note("peaks: kept", len(kept))
    counts.note("background windows: kept", len(drawn.windows))
    counts.note("background windows: missing", drawn.wanted - len(drawn.windows))
    write(both, out)
    if summary is not None:
        write_text([json.dumps(counts, indent=2), "\n"], summary)
    note(
        f"{len(kept)} peaks, {len(drawn.windows)} background windows; "
        f"{drawn.wanted - len(drawn.windows)} background windows missing"
    )
    for what, number in counts.items():
        if number and "dropped" in what:
            note(f"{what}: {number:,}")
