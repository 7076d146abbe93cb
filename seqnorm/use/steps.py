"""What the commands share: their options, intervals in, counted scores through, files out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from data_tools.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from data_tools.counts import Counts
    from data_tools.genome import Genome
    from seqnorm.use.scorer import Scorer

__all__ = ["CommonOptions", "counted_scores", "intervals_of", "tell", "write_scores"]


@dataclass(frozen=True)
class Options:
    """What all three commands take."""

    genome: Path
    """FASTA (plain or compressed with bgzip) or 2bit file."""
    width: int | None = None
    """Bases of a window; those that the model was trained on unless given."""
    output: str | None = None
    """Which of the model's outputs, by name, where there are several."""
    ambiguous: Literal["skip", "score"] = "skip"
    """Windows with N, or past the end of a chromosome: no score, or a score with N as zeros."""
    batch: int = 256
    """Windows at a time; memory grows with it, scores do not depend on it beyond rounding."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def load(self, model: Path) -> Scorer:
        """A model, ready to score."""
        from seqnorm.use.scorer import Scorer

        return Scorer.load(
            model, width=self.width, batch=self.batch, output=self.output, device=self.device
        )


CommonOptions = Annotated[Options, tyro.conf.arg(name="")]


def intervals_of(
    bed: Path,
    genome: Genome,
    chroms: tuple[str, ...],
    chrom_style: Literal["exact", "match"],
    counts: Counts,
) -> pd.DataFrame:
    """Intervals of a file, on the chromosomes that are asked for."""
    from data_tools.intervals import read_intervals

    table = read_intervals(bed, genome, score="number", chrom_style=chrom_style, counts=counts)
    wanted = table[table["chrom"].isin(chroms)] if chroms else table
    counts.note(f"{bed}: left out, on other chromosomes", len(table) - len(wanted))
    if wanted.empty:
        raise InputError(f"{bed}: no interval on {', '.join(chroms) or 'any chromosome'}")
    return wanted.reset_index(drop=True)


def counted_scores(
    parts: Iterator[pd.DataFrame], counts: Counts, column: str = "score"
) -> Iterator[pd.DataFrame]:
    """Pass tables on and count those rows that have a score; none at all is an error."""
    scored = 0
    for part in parts:
        known = int(part[column].notna().sum())
        scored += known
        counts.note("scored", known)
        counts.note("without a score, with N or past the end of a chromosome", len(part) - known)
        yield part
    if not scored:
        raise InputError(
            "there is nothing to score: every window holds an N or leaves its chromosome, or no "
            "chromosome is as wide as a window; nothing was written"
        )


def write_scores(parts: Iterator[pd.DataFrame], kind: str, genome: Genome, out: Path) -> None:
    """Write tables in the format that `check_out` told."""
    from data_tools.commands.output import write_text
    from seqnorm.use.files import bedgraph, track_rows, tsv, write_bigwig

    if kind == "tsv":
        write_text(tsv(parts), out)
    elif kind == "bedgraph":
        write_text(bedgraph(track_rows(parts)), out)
    else:
        write_bigwig(track_rows(parts), genome.lengths, out)


def tell(counts: Counts) -> None:
    """Say on stderr what was read, scored and left out."""
    for what, number in counts.items():
        if number:
            sys.stderr.write(f"{what}: {number:,}\n")
