"""The ``data-tools`` command."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from data_tools.atomic import write_atomic
from data_tools.command_line import run
from data_tools.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from data_tools.genome import Genome

DESCRIPTION = """Genomic files in, exact labelled windows out.

Examples:
  data-tools check genome.fa.gz
  data-tools check peaks.narrowPeak --genome genome.fa.gz
  data-tools gc genome.fa.gz
  data-tools windows genome.fa.gz peaks.bed --width 1000 --background gc_matched --out windows.csv
"""

FASTA_SUFFIXES = (".fa", ".fasta", ".fna")


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
    _write(both, out)
    _note(
        f"{len(kept)} peaks, {len(drawn.windows)} background windows; dropped "
        f"{len(used) - len(positives)} peaks at a chromosome end and {len(drawn.unmatched)} "
        f"without a match; {drawn.wanted - len(drawn.windows)} background windows missing"
    )


def gc(genome: tyro.conf.Positional[Path], out: Path | None = None) -> None:
    """Length, GC fraction and ambiguous bases of every chromosome, as CSV.

    Example: data-tools gc genome.fa.gz

    Args:
        genome: FASTA file, plain or compressed with bgzip.
        out: File to write; stdout unless given.
    """
    import pandas as pd

    from data_tools.genome import Genome

    with Genome(genome) as source:
        rows = [{"chrom": name, **_composition(source, name)} for name in source.lengths]
    _write(pd.DataFrame(rows), out)


def check(file: tyro.conf.Positional[Path], genome: Path | None = None) -> None:
    """Read a FASTA, BED or narrowPeak file from end to end and say what is wrong with it.

    Example: data-tools check peaks.narrowPeak --genome genome.fa.gz

    Args:
        file: File to check; FASTA is told by its name (.fa, .fasta, .fna, also with .gz).
        genome: FASTA file against which intervals are checked.
    """
    from data_tools.genome import Genome
    from data_tools.intervals import read_intervals

    if Path(file.name.lower().removesuffix(".gz")).suffix in FASTA_SUFFIXES:
        with Genome(file) as source:
            # The cached index vouches for the layout alone, so every base is read again.
            bases = sum(int(_composition(source, name)["length"]) for name in source.lengths)
            sys.stdout.write(f"{file}: good, {len(source.lengths)} records, {bases:,} bases\n")
        return
    if genome is None:
        table = read_intervals(file)
    else:
        with Genome(genome) as source:
            table = read_intervals(file, source)
    summits = f", {int(table['summit'].notna().sum()):,} with a summit" if "summit" in table else ""
    sys.stdout.write(
        f"{file}: good, {len(table):,} intervals on {table['chrom'].nunique()} "
        f"chromosomes{summits}\n"
    )


def _composition(source: "Genome", chrom: str, span: int = 1 << 24) -> dict[str, float]:
    """Length, GC fraction and number of ambiguous bases, read a span at a time."""
    import numpy as np

    counts = np.zeros(5, dtype=np.int64)
    length = source.lengths[chrom]
    for start in range(0, length, span):
        codes = source.codes(chrom, start, min(start + span, length))
        counts += np.bincount(codes, minlength=5)
    known = int(counts[:4].sum())
    fraction = int(counts[1] + counts[2]) / known if known else float("nan")
    return {"length": length, "gc": fraction, "ambiguous": int(counts[4])}


def _write(table: "pd.DataFrame", out: Path | None) -> None:
    text = table.to_csv(index=False, float_format="%.6g")
    if out is None:
        sys.stdout.write(text)
        return
    if out.is_dir():
        raise InputError(f"{out}: cannot be written (it is a folder); give the name of a file")
    try:
        write_atomic(out, text)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error


def _note(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> None:
    """Entry point."""
    run("data-tools", DESCRIPTION, (windows, gc, check))
