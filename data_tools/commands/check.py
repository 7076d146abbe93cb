"""``data-tools check``."""

import sys
from pathlib import Path

import tyro

from data_tools.commands.gc import composition

FASTA_SUFFIXES = (".fa", ".fasta", ".fna")


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
            bases = sum(int(composition(source, name)["length"]) for name in source.lengths)
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
