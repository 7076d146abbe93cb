"""``data-tools gc``."""

from pathlib import Path

import tyro

from data_tools.commands.output import write


def gc(genome: tyro.conf.Positional[Path], out: Path | None = None) -> None:
    """Length, GC fraction and ambiguous bases of every chromosome, as CSV.

    Example: data-tools gc genome.fa.gz

    Args:
        genome: FASTA (plain or compressed with bgzip) or 2bit file.
        out: File to write; stdout unless given.
    """
    import pandas as pd

    from data_tools.composition import composition
    from data_tools.genome import Genome

    with Genome(genome) as source:
        rows = [{"chrom": name, **composition(source, name)} for name in source.lengths]
    write(pd.DataFrame(rows), out)
