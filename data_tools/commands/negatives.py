"""``data-tools negatives``."""

from pathlib import Path
from typing import Literal

import tyro

from data_tools.commands.output import note, write
from data_tools.commands.progress import counted
from data_tools.errors import InputError


def negatives(
    genome: tyro.conf.Positional[Path],
    positives: tyro.conf.Positional[Path],
    kind: Literal["random", "gc_matched", "flank", "dinucleotide_matched"] = "gc_matched",
    per_positive: int = 1,
    pool: Path | None = None,
    exclude: Path | None = None,
    score: Literal["integer", "number"] = "integer",
    caliper: float = 0.02,
    seed: int = 0,
    out: Path | None = None,
    report: Path | None = None,
) -> None:
    """Draw negatives for a table of positive windows; write both as one CSV table.

    Example: data-tools negatives genome.fa.gz windows.csv --out labelled.csv
    Example: data-tools negatives genome.fa.gz windows.csv --pool open_chromatin.bed

    Positives are the windows with label 1, or all where the table has no label; they must be of
    equal width. Positives without enough partners are left out and counted. How well GC alone
    tells the two apart in each chromosome goes to --report, and its worst to stderr.

    Args:
        genome: FASTA (plain or compressed with bgzip) or 2bit file.
        positives: CSV or TSV of windows (chrom, start, end), as data-tools windows writes it.
        kind: gc_matched and dinucleotide_matched stay within the chromosome and the caliper.
        per_positive: Negatives a positive.
        pool: BED or narrowPeak file; draw only around these peaks, such as open chromatin.
        exclude: BED file of what no negative may touch, such as all known peaks.
        score: What column 5 of these files holds: an integer from 0 to 1000, or any number.
        caliper: Largest difference in GC fraction within a matched pair.
        seed: Of the draw.
        out: File to write; stdout unless given.
        report: CSV to write: how many, AUROC of GC alone and Kolmogorov-Smirnov distance by
            chromosome.
    """
    import pandas as pd

    from data_tools.genome import Genome
    from data_tools.intervals import read_intervals
    from data_tools.negatives import background_windows, balance
    from data_tools.splits import whole_chromosomes
    from data_tools.window_table import read_windows
    from data_tools.windows import window_gc

    table = read_windows(positives)
    if "label" in table:
        table = table[table["label"] == 1].reset_index(drop=True)
    if table.empty:
        raise InputError(f"{positives}: holds no positive (label 1): give a table that has some")
    widths = (table["end"] - table["start"]).unique()
    if len(widths) > 1:
        raise InputError(f"{positives}: windows of {len(widths)} widths: give them one width")
    with Genome(genome) as source:
        with counted("matching") as progress:
            drawn = background_windows(
                source,
                table,
                whole_chromosomes(list(dict.fromkeys(table["chrom"])), source.lengths),
                kind,
                count=per_positive * (len(table) if kind == "random" else 1),
                width=int(widths[0]),
                forbidden=None if exclude is None else read_intervals(exclude, source, score=score),
                seed=seed,
                pool=None if pool is None else read_intervals(pool, source, score=score),
                caliper=caliper,
                progress=progress,
            )
        kept = table.drop(index=table.index[drawn.unmatched])[["chrom", "start", "end"]]
        both = pd.concat([kept.assign(label=1), drawn.windows.assign(label=0)])
        both = both.assign(gc=window_gc(source, both))
    compared = balance(both[both["label"] == 1], both[both["label"] == 0])
    write(both, out)
    if report is not None:
        write(compared, report)
    note(
        f"{len(kept)} positives, {len(drawn.windows)} negatives; dropped {len(drawn.unmatched)} "
        f"positives without a match; {drawn.wanted - len(drawn.windows)} negatives missing"
    )
    told = compared.dropna(subset="gc_auroc")
    if len(told):
        worst = told.iloc[int((told["gc_auroc"] - 0.5).abs().to_numpy().argmax())]
        note(f"GC alone: AUROC {worst['gc_auroc']:.3f} at its furthest from .5, {worst['chrom']}")
