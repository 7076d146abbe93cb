"""``data-tools gc``."""

from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data_tools.commands.output import write

if TYPE_CHECKING:
    from data_tools.genome import Genome


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
        rows = [{"chrom": name, **composition(source, name)} for name in source.lengths]
    write(pd.DataFrame(rows), out)


def composition(source: "Genome", chrom: str, span: int = 1 << 24) -> dict[str, float]:
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
