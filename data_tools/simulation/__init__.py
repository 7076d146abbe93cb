"""Genomes whose truth is known: what was planted where, and the best score there can be."""

from data_tools.simulation.chain import Chain, fitted_chain, mutated_chain
from data_tools.simulation.optimum import optimal_score
from data_tools.simulation.planting import Planted, Site, decoy_of, plant, site_of
from data_tools.simulation.world import (
    Chromosome,
    Task,
    World,
    plant_in_genome,
    simulate_chromosome,
)

__all__ = [
    "Chain",
    "Chromosome",
    "Planted",
    "Site",
    "Task",
    "World",
    "decoy_of",
    "fitted_chain",
    "mutated_chain",
    "optimal_score",
    "plant",
    "plant_in_genome",
    "simulate_chromosome",
    "site_of",
]
