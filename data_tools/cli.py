"""The ``data-tools`` command."""

from data_tools.command_line import run
from data_tools.commands.check import check
from data_tools.commands.gc import gc
from data_tools.commands.windows import windows

DESCRIPTION = """Genomic files in, exact labelled windows out.

Examples:
  data-tools check genome.fa.gz
  data-tools check peaks.narrowPeak variants.vcf.gz --genome genome.fa.gz
  data-tools gc genome.fa.gz
  data-tools windows genome.fa.gz peaks.bed --width 1000 --background gc_matched --out windows.csv
"""


def main() -> None:
    """Entry point."""
    run("data-tools", DESCRIPTION, (windows, gc, check))
