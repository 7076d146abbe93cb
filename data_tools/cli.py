"""The ``data-tools`` command."""

from data_tools.command_line import run
from data_tools.commands.check import check
from data_tools.commands.combat import combat
from data_tools.commands.gc import gc
from data_tools.commands.negatives import negatives
from data_tools.commands.shuffle import shuffle
from data_tools.commands.simulate import simulate
from data_tools.commands.split import split
from data_tools.commands.windows import windows

DESCRIPTION = """Genomic files in, exact labelled windows out.

Examples:
  data-tools check genome.fa.gz
  data-tools check peaks.narrowPeak variants.vcf.gz --genome genome.fa.gz
  data-tools gc genome.fa.gz
  data-tools windows genome.fa.gz peaks.bed --width 1000 --background gc_matched --out windows.csv
  data-tools negatives genome.fa.gz windows.csv --pool open_chromatin.bed --out labelled.csv
  data-tools split genome.fa.gz --windows labelled.csv --out folds
  data-tools shuffle peaks.fa --k 2 --count 5 --out shuffled.fa
  data-tools combat genes.csv samples.csv --batch batch --keep sex --out clean.csv
  data-tools simulate MA0139.jaspar --out world --gc 0.38 0.5 --confounding 0.5
"""


def main() -> None:
    """Entry point."""
    commands = (check, gc, windows, negatives, split, shuffle, simulate, combat)
    run("data-tools", DESCRIPTION, commands)
