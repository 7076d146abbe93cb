"""Genomic data in, exact labelled windows out. No torch.

What needs pandas or Biopython is loaded when it is first used, so that ``data-tools --help``
need not load them.
"""

from typing import TYPE_CHECKING

# At once, and not when first used: `encode` is a module and a function in it, and whoever loads
# the module later would make `data_tools.encode` the module.
from data_tools.encode import decode, encode, gc_fraction, one_hot, reverse_complement
from data_tools.errors import InputError
from data_tools.lazy import lazy_names

if TYPE_CHECKING:
    from data_tools.checking import check_file
    from data_tools.counts import Counts
    from data_tools.genome import Genome
    from data_tools.intervals import read_intervals
    from data_tools.motifs import Motif, best_match, read_motif
    from data_tools.negatives import background_windows
    from data_tools.sequences import read_sequences
    from data_tools.signal import open_signal
    from data_tools.splits import block_split, chromosome_folds, whole_chromosomes
    from data_tools.variants import read_variants
    from data_tools.windows import summit_windows, window_codes, window_gc

_HOMES = {
    "Counts": "counts",
    "Genome": "genome",
    "Motif": "motifs",
    "background_windows": "negatives",
    "best_match": "motifs",
    "block_split": "splits",
    "check_file": "checking",
    "chromosome_folds": "splits",
    "open_signal": "signal",
    "read_intervals": "intervals",
    "read_motif": "motifs",
    "read_sequences": "sequences",
    "read_variants": "variants",
    "summit_windows": "windows",
    "whole_chromosomes": "splits",
    "window_codes": "windows",
    "window_gc": "windows",
}

__all__ = [
    "Counts",
    "Genome",
    "InputError",
    "Motif",
    "background_windows",
    "best_match",
    "block_split",
    "check_file",
    "chromosome_folds",
    "decode",
    "encode",
    "gc_fraction",
    "one_hot",
    "open_signal",
    "read_intervals",
    "read_motif",
    "read_sequences",
    "read_variants",
    "reverse_complement",
    "summit_windows",
    "whole_chromosomes",
    "window_codes",
    "window_gc",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
