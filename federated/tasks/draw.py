"""From the spec to labelled windows, who holds each, and to which part of its rows it belongs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.encode import gc_fraction
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.intervals import read_intervals
from data_tools.negatives import background_windows
from data_tools.splits import check_chromosomes, whole_chromosomes
from data_tools.windows import inside, summit_windows, window_codes
from federated.partition import Partition, linked_groups, partition
from federated.tasks.assays import assays_of, with_missed_peaks
from federated.tasks.task import TEST, TRAIN, VALIDATION

if TYPE_CHECKING:
    from federated.spec import Data, Spec

__all__ = ["Drawn", "draw_windows", "parts_of"]

_SEED_STEP = 1_000_003  # seeds of neighbouring draws stay apart


@dataclass(frozen=True)
class Drawn:
    """Windows of all clients, and of the site that never trains.

    Attributes
    ----------
    rows : pandas.DataFrame
        ``chrom``, ``start``, ``end``, ``label``, ``gc``, ``client`` and ``part`` of each window,
        first those of the clients, then those of the unseen site, whose ``client`` is empty.
    codes : ndarray of uint8, shape (N, width + 2 * jitter)
    split : Partition
        Of the clients' windows.
    missing : int
        Negatives that were asked for but found no room.
    assays : pandas.DataFrame, optional
        See `federated.tasks.assays.with_missed_peaks`.
    """

    rows: pd.DataFrame
    codes: NDArray[np.uint8]
    split: Partition
    missing: int
    assays: pd.DataFrame | None = None


def draw_windows(spec: Spec) -> Drawn:
    """Draw the windows of a spec; the same spec draws the same ones again.

    Raises
    ------
    InputError
        For files that cannot be read or do not fit each other, no peak with room for a window, a
        partition that cannot be, or, with ``data.both_classes``, a part of one class.
    """
    data = spec.data
    assert data is not None  # a spec of windows has this table
    with Genome(data.genome) as genome:
        seen, lost = _labelled(genome, data, data.chromosomes)
        codes = window_codes(genome, seen, data.jitter)
        seen = seen.assign(gc=_gc(codes, data.jitter))
        split = partition(seen, spec.partition.build(), codes)
        seen = seen.assign(client=split.assignment().astype(object))
        seen["part"] = parts_of(seen, codes, data.validation, data.test, data.seed)
        assays = None
        if spec.assay is not None:
            # After the parts, so that they are the same whatever the assays.
            shifts = assays_of(spec.assay, split)
            seen, assays = with_missed_peaks(seen, shifts, spec.assay.seed)
        rows, every = seen, codes
        if data.unseen:
            apart, lost_apart = _labelled(genome, data, data.unseen)
            lost += lost_apart
            more = window_codes(genome, apart, data.jitter)
            # The same sequence may lie on two chromosomes: what clients hold is not unseen.
            both = pd.concat([seen, apart], ignore_index=True)
            group = linked_groups(both, np.concatenate([codes, more]))
            new = ~np.isin(group[len(seen) :], group[: len(seen)])
            apart, more = apart[new].reset_index(drop=True), more[new]
            if apart.empty:
                raise InputError("data.unseen: its windows are all among those of the clients")
            apart = apart.assign(gc=_gc(more, data.jitter), client="", part=TEST)
            rows, every = pd.concat([seen, apart], ignore_index=True), np.concatenate([codes, more])
    if data.both_classes:
        _check_classes(rows)
    return Drawn(rows, every, split, lost, assays)


def _gc(codes: NDArray[np.uint8], margin: int) -> NDArray[np.float64]:
    centre: NDArray[np.float64] = gc_fraction(codes[:, margin : codes.shape[1] - margin])
    return centre


def _labelled(genome: Genome, data: Data, chromosomes: tuple[str, ...]) -> tuple[pd.DataFrame, int]:
    """Peaks' windows and random ones of some chromosomes, and how many found no room."""
    check_chromosomes([*chromosomes], genome.lengths)
    regions = whole_chromosomes(chromosomes, genome.lengths)
    peaks = read_intervals(data.peaks, genome)
    here = peaks[peaks["chrom"].isin(chromosomes)].reset_index(drop=True)
    positives = summit_windows(here, genome.lengths, data.width, on_edge="drop")
    positives = positives[inside(positives, regions, data.jitter)].reset_index(drop=True)
    if positives.empty:
        raise InputError(
            f"{data.peaks}: no peak with room for a window of {data.width} bases lies on "
            f"{', '.join(chromosomes)}; check data.width and the chromosomes"
        )
    forbidden = [here[["chrom", "start", "end"]], positives]
    if data.exclude is not None:
        forbidden.append(read_intervals(data.exclude, genome)[["chrom", "start", "end"]])
    tables, lost = [positives.assign(label=1)], 0
    for chrom, count in positives["chrom"].value_counts(sort=False).items():
        # Each chromosome has a seed of its own: taking one out leaves the others as they were.
        drawn = background_windows(
            genome,
            positives,
            regions[regions["chrom"] == chrom],
            "random",
            count=data.negatives_per_positive * int(count),
            width=data.width,
            forbidden=pd.concat(forbidden),
            margin=data.jitter,
            seed=data.seed * _SEED_STEP + zlib.crc32(str(chrom).encode()),
        )
        tables.append(drawn.windows.assign(label=0))
        lost += drawn.wanted - len(drawn.windows)
    return pd.concat(tables, ignore_index=True), lost


def parts_of(
    rows: pd.DataFrame, codes: NDArray[np.uint8], validation: float, test: float, seed: int
) -> NDArray[np.str_]:
    """Part every client's windows into train, validation and test, each class by itself.

    Parameters
    ----------
    rows : pandas.DataFrame
        ``chrom``, ``start``, ``end``, ``label``, ``client``; a row without client goes to no part.
    codes : ndarray of uint8
        As for `federated.partition.linked_groups`: linked windows go to one part, so that no model
        is tested on bases that it has learnt from.
    validation, test : float
        Fractions of the groups of linked windows, of each client and class; half a group is
        rounded up in turn.
    seed : int
        The part of a group depends on it and on the groups of its client and class.

    Returns
    -------
    ndarray of str, shape (N,)
        Empty for a row of no client.
    """
    table = pd.DataFrame(
        {
            "group": linked_groups(rows, codes),
            "client": rows["client"].to_numpy(),
            "label": rows["label"].to_numpy(),
        }
    )
    held = table.dropna(subset=["client"])
    groups = held.groupby("group", sort=True).agg({"client": "first", "label": "max"})
    part_of = pd.Series(TRAIN, index=groups.index, dtype=object)
    # A group that holds a positive counts as one.
    positive = groups["label"] > 0
    for (client, label), mine in groups.groupby([groups["client"], positive], sort=True):
        draw = np.random.default_rng([seed, zlib.crc32(str(client).encode()), bool(label)])
        order = mine.index.to_numpy()[draw.permutation(len(mine))]
        tested = round(test * len(order))
        chosen = round((test + validation) * len(order))
        part_of[order[:tested]] = TEST
        part_of[order[tested:chosen]] = VALIDATION
    found = np.full(len(rows), "", dtype="<U10")
    found[held.index] = part_of.loc[held["group"]].to_numpy()
    return found


def _check_classes(rows: pd.DataFrame) -> None:
    held = rows[rows["part"] != ""]
    for (name, part), mine in held.groupby(["client", "part"], sort=True):
        if mine["label"].nunique() < 2:
            who = f"client {name!s}" if name else "the unseen site"
            raise InputError(
                f"{who}: all {len(mine)} windows of its {part} part are of class "
                f"{mine['label'].iloc[0]}; take a milder partition, fewer clients or more "
                "chromosomes, or set data.both_classes = false"
            )
    for client, mine in held[held["client"] != ""].groupby("client"):
        for part in (TRAIN, VALIDATION, TEST):
            if not (mine["part"] == part).any():
                raise InputError(
                    f"client {client}: its {len(mine)} windows leave none for its {part} part; "
                    "take fewer clients, or set data.both_classes = false"
                )
