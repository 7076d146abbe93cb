"""``data-tools check``."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import tyro

from data_tools.commands.output import note
from data_tools.commands.progress import counted
from data_tools.errors import InputError


def check(
    files: tyro.conf.Positional[tuple[Path, ...]],
    genome: Path | None = None,
    score: Literal["integer", "number"] = "integer",
    limit: int = 20,
    max_inflated: int | None = None,
) -> None:
    """Read files from end to end and say all that is wrong with them, with line numbers.

    Example: data-tools check peaks.narrowPeak variants.vcf.gz --genome genome.fa.gz

    Knows FASTA, 2bit, BED, narrowPeak, broadPeak, bedGraph, bigWig, VCF, GenBank and tables of
    sequences (TSV, CSV, parquet), told by content and name. A line on stdout for each good file,
    and on stderr for each fault. Exit code: 0 if all files are good, 2 if any is not.

    Args:
        files: Files to check.
        genome: FASTA or 2bit file against which intervals, variants and signal are checked.
        score: What column 5 of BED files holds: an integer from 0 to 1000, or any number.
        limit: Most faults of a file to tell one by one.
        max_inflated: To how many bytes a compressed file may inflate; 16 MiB or 200 times its
            size unless given.
    """
    from data_tools.checking import check_file
    from data_tools.genome import Genome

    if not files:
        raise InputError("no file to check; give at least one")
    bad = 0
    with ExitStack() as stack:
        against = None if genome is None else stack.enter_context(Genome(genome))
        progress = stack.enter_context(counted("checking"))
        for done, file in enumerate(files, start=1):
            verdict = check_file(file, against, score=score, limit=limit, max_inflated=max_inflated)
            for fault in verdict.faults:
                note(f"data-tools: error: {fault}")
            if verdict.further:
                note(f"data-tools: error: {verdict.path}: {verdict.further:,} further faults")
            if verdict.good:
                sys.stdout.write(f"{verdict.path}: good, {verdict.summary}\n")
            bad += not verdict.good
            if progress is not None:
                progress(done, len(files))
    if bad:
        raise SystemExit(2)
