"""A simulated genome: isochores of known GC content, windows in them, sites in some of these."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.encode import Codes, gc_fraction
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.simulation.chain import Chain, fitted_chain, mutated_chain
from data_tools.simulation.labels import label_probability, log_odds
from data_tools.simulation.optimum import optimal_score
from data_tools.simulation.planting import Site, plant
from data_tools.windows import window_codes

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Task:
    """What is to be learnt: which windows are positive, and what they hold.

    Attributes
    ----------
    site : Site
        What positive windows hold.
    prevalence : float
        Share of positive windows.
    confounding : float
        How far labels follow GC, 0 to 1; see `label_probability`.
    decoy : Site or None
        What some negative windows hold.
    decoys : float
        How large a share of them.
    """

    site: Site
    prevalence: float = 0.5
    confounding: float = 0.0
    decoy: Site | None = None
    decoys: float = 0.0


@dataclass(frozen=True)
class World:
    """All that decides a simulated genome.

    Attributes
    ----------
    lengths : dict of str to int
        Bases of each chromosome.
    gc : dict of str to float
        Mean GC fraction of each chromosome's isochores.
    task : Task
        What the windows are about.
    spread : float
        Standard deviation of the isochores' GC within a chromosome (a beta distribution).
    isochore : int
        Length of an isochore in bases; the last of a chromosome may be shorter. Each is a
        stationary chain of its own.
    cpg : float
        CpG observed over expected.
    width : int
        Bases of a window; all windows lie inside isochores.
    spacing : int
        Bases from one window's start to the next's, at least ``width``.
    seed : int
        Of everything; each chromosome has streams of its own.
    """

    lengths: dict[str, int]
    gc: dict[str, float]
    task: Task
    spread: float = 0.05
    isochore: int = 20_000
    cpg: float = 0.25
    width: int = 200
    spacing: int = 400
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.lengths or set(self.lengths) != set(self.gc):
            raise InputError("give at least one chromosome, each with a length and a GC fraction")
        if not 1 <= self.width <= self.isochore:
            raise InputError(
                f"windows of {self.width} bases do not fit isochores of {self.isochore}"
            )
        if self.spacing < self.width:
            raise InputError(
                f"windows of {self.width} bases every {self.spacing} bases overlap; space them "
                "at least a width apart"
            )
        for name, length in self.lengths.items():
            if length < self.width:
                raise InputError(f"{name}: {length} bases hold no window of {self.width}")
            gc = self.gc[name]
            if not 0 < gc < 1 or not 0 <= self.spread**2 < gc * (1 - gc):
                raise InputError(
                    f"{name}: no isochores have mean GC {gc} and standard deviation {self.spread}"
                )
        if self.seed < 0:
            raise InputError(f"the seed must be 0 or more, not {self.seed}")

    def isochore_gc(self, name: str) -> FloatArray:
        """GC fraction of each isochore of a chromosome."""
        number, mean = -(-self.lengths[name] // self.isochore), self.gc[name]
        if self.spread == 0:
            return np.full(number, mean)
        size = mean * (1 - mean) / self.spread**2 - 1
        drawn = self._generator(name, 0).beta(mean * size, (1 - mean) * size, number)
        # A beta of small parameters may round to its ends, where no chain is.
        return np.clip(drawn, 1e-6, 1 - 1e-6)

    def window_starts(self, name: str) -> NDArray[np.int64]:
        """Where the windows of a chromosome begin."""
        inside = np.arange(0, self.isochore - self.width + 1, self.spacing)
        homes = np.arange(0, self.lengths[name], self.isochore)
        starts = (homes[:, None] + inside).ravel()
        return starts[starts + self.width <= self.lengths[name]]

    def window_gc(self) -> FloatArray:
        """GC fraction of the isochore of every window of every chromosome."""
        return np.concatenate(
            [
                self.isochore_gc(name)[self.window_starts(name) // self.isochore]
                for name in self.lengths
            ]
        )

    def _generator(self, name: str, part: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode()), part])


@dataclass(frozen=True)
class Chromosome:
    """A simulated chromosome and the truth about its windows.

    Attributes
    ----------
    codes : ndarray of uint8, shape (L,)
        Its bases.
    windows : pandas.DataFrame
        See `simulate_chromosome`.
    """

    codes: Codes
    windows: pd.DataFrame


def simulate_chromosome(world: World, name: str) -> Chromosome:
    """Draw a chromosome; it depends on the world's seed, its own name and no other's bases.

    Parameters
    ----------
    world
        What decides it.
    name
        One of its chromosomes.

    Returns
    -------
    Chromosome
        The windows' columns: ``chrom``, ``start``, ``end``, ``label``; ``gc`` of the window and
        ``background_gc`` of its isochore; ``planted`` ("site", "decoy" or ""), ``planted_start``
        on the chromosome (-1 for none) and ``planted_strand``; ``log_ratio``, the optimal score
        of the bases alone; ``prior_log_odds``, what the isochore's GC says of the label; and
        ``score``, their sum, the log odds that the window is positive, which nothing beats.
        Memory: some 20 bytes a base, and 400 a window.

    Examples
    --------
    >>> site = Site(np.full((4, 6), 0.05) + 0.8 * np.eye(4)[:, [0, 1, 2, 3, 0, 1]])
    >>> world = World({"chr1": 40_000}, {"chr1": 0.4}, Task(site), isochore=5_000)
    >>> found = simulate_chromosome(world, "chr1")
    >>> found.codes.shape, len(found.windows)
    ((40000,), 104)
    """
    if name not in world.lengths:
        raise InputError(f"no chromosome {name} in this world, only {', '.join(world.lengths)}")
    content = world.isochore_gc(name)
    chains = mutated_chain(content, world.cpg)
    generator = world._generator(name, 1)
    codes = chains.sample(world.isochore, generator).ravel()[: world.lengths[name]]
    starts = world.window_starts(name)
    home = starts // world.isochore
    views = np.lib.stride_tricks.sliding_window_view(codes, world.width, writeable=True)
    chance = label_probability(
        content[home], world.window_gc(), world.task.prevalence, world.task.confounding
    )
    planted, table = _label_and_plant(views[starts], chance, chains.of(home), world.task, generator)
    views[starts] = planted
    place = pd.DataFrame({"chrom": name, "start": starts, "end": starts + world.width})
    table.insert(2, "background_gc", content[home])
    return Chromosome(codes, _placed(place, table))


def plant_in_genome(
    genome: Genome, windows: pd.DataFrame, task: Task, *, flank: int = 1000, seed: int = 0
) -> tuple[Codes, pd.DataFrame]:
    """Plant sites in real windows: semi-synthetic data, whose sites and labels are known.

    A real background is not known. Its chain is estimated from each window as it was before
    planting and ``flank`` bases on both sides, so that the score is that of a model that knows
    this estimate: something to compare with, and no ceiling. Real windows may hold sites of
    their own as well.

    Parameters
    ----------
    genome
        Where the background comes from.
    windows
        Background windows (``chrom``, ``start``, ``end``) of one width, such as those of
        `data_tools.background_windows`.
    task
        What is planted; labels follow the windows' own GC before planting.
    flank
        Bases on both sides to estimate the background from; fewer at a chromosome's end.
    seed
        Of the draw.

    Returns
    -------
    codes : ndarray of uint8, shape (N, W)
        The windows with their sites.
    table : pandas.DataFrame
        As from `simulate_chromosome`, ``background_gc`` being the estimate's.

    Raises
    ------
    InputError
        For windows of unequal width, outside the genome, or with ambiguous bases.
    """
    codes = window_codes(genome, windows)
    if not len(codes):
        raise InputError("no window to plant in: the table is empty")
    before = gc_fraction(codes)
    chance = label_probability(before, before, task.prevalence, task.confounding)
    chain = _local_chain(genome, windows, flank)
    generator = np.random.default_rng([seed, len(codes)])
    planted, table = _label_and_plant(codes, chance, chain, task, generator)
    table.insert(2, "background_gc", chain.bases[:, 1] + chain.bases[:, 2])
    return planted, _placed(windows[["chrom", "start", "end"]].reset_index(drop=True), table)


def _local_chain(genome: Genome, windows: pd.DataFrame, flank: int) -> Chain:
    parts = []
    for chrom, start, end in windows[["chrom", "start", "end"]].itertuples(index=False):
        lo, hi = max(0, start - flank), min(genome.lengths[chrom], end + flank)
        parts.append(fitted_chain(genome.codes(chrom, lo, hi)[None]))
    return Chain(
        np.concatenate([part.bases for part in parts]),
        np.concatenate([part.steps for part in parts]),
    )


def _label_and_plant(
    codes: Codes, chance: FloatArray, chain: Chain, task: Task, generator: np.random.Generator
) -> tuple[Codes, pd.DataFrame]:
    """Give windows their labels and what these ask for; score them."""
    label = generator.random(len(codes)) < chance
    sites = plant(codes, label, task.site, generator)
    decoyed = ~label & (generator.random(len(codes)) < task.decoys)
    final, start, reverse = sites.codes, sites.start, sites.reverse
    if task.decoy is not None:
        decoys = plant(final, decoyed, task.decoy, generator)
        final, start = decoys.codes, np.maximum(start, decoys.start)
        reverse = reverse | decoys.reverse
    ratio = optimal_score(final, chain, task.site, task.decoy, task.decoys)
    prior = log_odds(chance)
    table = pd.DataFrame(
        {
            "label": label.astype(np.int64),
            "gc": gc_fraction(final),
            "planted": np.where(label, "site", np.where(decoyed, "decoy", "")),
            "planted_start": start,
            "planted_strand": np.where(start < 0, "", np.where(reverse, "-", "+")),
            "log_ratio": ratio,
            "prior_log_odds": prior,
            "score": ratio + prior,
        }
    )
    return final, table


def _placed(place: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Windows with their truth; sites by their place on the chromosome."""
    inside = table["planted_start"]
    table["planted_start"] = inside.where(inside < 0, inside + place["start"])
    return pd.concat([place, table], axis=1)
