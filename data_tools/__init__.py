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
    from data_tools.combat import Combat, confounding, fit_combat, log_cpm
    from data_tools.counts import Counts
    from data_tools.duplicates import near_duplicates
    from data_tools.folds import Fold, gc_stress_fold, k_folds, read_fold, write_fold
    from data_tools.genome import Genome
    from data_tools.intervals import read_intervals
    from data_tools.logo import height_logo, motif_logo
    from data_tools.motif_matches import match_motifs
    from data_tools.motif_scan import best_match, scan
    from data_tools.motifs import Motif, read_motif, read_motifs
    from data_tools.negatives import background_windows
    from data_tools.negatives.balance import balance
    from data_tools.sequences import read_sequences
    from data_tools.shuffle import kmer_shuffle
    from data_tools.signal import open_signal
    from data_tools.simulation import (
        Site,
        Task,
        World,
        optimal_score,
        plant_in_genome,
        simulate_chromosome,
        site_of,
    )
    from data_tools.splits import block_split, chromosome_folds, whole_chromosomes
    from data_tools.variants import read_variants
    from data_tools.window_store import WindowStore, write_window_store
    from data_tools.window_table import read_windows
    from data_tools.windows import summit_windows, window_codes, window_gc

_HOMES = {
    "Combat": "combat",
    "Counts": "counts",
    "Fold": "folds",
    "Genome": "genome",
    "Motif": "motifs",
    "Site": "simulation",
    "Task": "simulation",
    "WindowStore": "window_store",
    "World": "simulation",
    "background_windows": "negatives",
    "balance": "negatives",
    "best_match": "motif_scan",
    "block_split": "splits",
    "check_file": "checking",
    "chromosome_folds": "splits",
    "confounding": "combat",
    "fit_combat": "combat",
    "gc_stress_fold": "folds",
    "height_logo": "logo",
    "k_folds": "folds",
    "kmer_shuffle": "shuffle",
    "log_cpm": "combat",
    "match_motifs": "motif_matches",
    "motif_logo": "logo",
    "near_duplicates": "duplicates",
    "open_signal": "signal",
    "optimal_score": "simulation",
    "plant_in_genome": "simulation",
    "read_fold": "folds",
    "read_intervals": "intervals",
    "read_motif": "motifs",
    "read_motifs": "motifs",
    "read_sequences": "sequences",
    "read_variants": "variants",
    "read_windows": "window_table",
    "scan": "motif_scan",
    "simulate_chromosome": "simulation",
    "site_of": "simulation",
    "summit_windows": "windows",
    "whole_chromosomes": "splits",
    "window_codes": "windows",
    "window_gc": "windows",
    "write_fold": "folds",
    "write_window_store": "window_store",
}

__all__ = [
    "Combat",
    "Counts",
    "Fold",
    "Genome",
    "InputError",
    "Motif",
    "Site",
    "Task",
    "WindowStore",
    "World",
    "background_windows",
    "balance",
    "best_match",
    "block_split",
    "check_file",
    "chromosome_folds",
    "confounding",
    "decode",
    "encode",
    "fit_combat",
    "gc_fraction",
    "gc_stress_fold",
    "height_logo",
    "k_folds",
    "kmer_shuffle",
    "log_cpm",
    "match_motifs",
    "motif_logo",
    "near_duplicates",
    "one_hot",
    "open_signal",
    "optimal_score",
    "plant_in_genome",
    "read_fold",
    "read_intervals",
    "read_motif",
    "read_motifs",
    "read_sequences",
    "read_variants",
    "read_windows",
    "reverse_complement",
    "scan",
    "simulate_chromosome",
    "site_of",
    "summit_windows",
    "whole_chromosomes",
    "window_codes",
    "window_gc",
    "write_fold",
    "write_window_store",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
