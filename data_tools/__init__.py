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
    from data_tools.combat import Combat, confounding, fit_combat, log_cpm
    from data_tools.genome import Genome
    from data_tools.intervals import read_intervals
    from data_tools.motifs import Motif, best_match, read_motif
    from data_tools.negatives import background_windows
    from data_tools.shuffle import kmer_shuffle
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
    from data_tools.windows import summit_windows, window_codes, window_gc

_HOMES = {
    "Combat": "combat",
    "Genome": "genome",
    "Motif": "motifs",
    "Site": "simulation",
    "Task": "simulation",
    "World": "simulation",
    "background_windows": "negatives",
    "best_match": "motifs",
    "block_split": "splits",
    "chromosome_folds": "splits",
    "confounding": "combat",
    "fit_combat": "combat",
    "kmer_shuffle": "shuffle",
    "log_cpm": "combat",
    "optimal_score": "simulation",
    "plant_in_genome": "simulation",
    "read_intervals": "intervals",
    "read_motif": "motifs",
    "simulate_chromosome": "simulation",
    "site_of": "simulation",
    "summit_windows": "windows",
    "whole_chromosomes": "splits",
    "window_codes": "windows",
    "window_gc": "windows",
}

__all__ = [
    "Combat",
    "Genome",
    "InputError",
    "Motif",
    "Site",
    "Task",
    "World",
    "background_windows",
    "best_match",
    "block_split",
    "chromosome_folds",
    "confounding",
    "decode",
    "encode",
    "fit_combat",
    "gc_fraction",
    "kmer_shuffle",
    "log_cpm",
    "one_hot",
    "optimal_score",
    "plant_in_genome",
    "read_intervals",
    "read_motif",
    "reverse_complement",
    "simulate_chromosome",
    "site_of",
    "summit_windows",
    "whole_chromosomes",
    "window_codes",
    "window_gc",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
