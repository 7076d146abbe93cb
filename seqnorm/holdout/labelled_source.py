"""Windows that have their labels already: those of a table of sequences, or simulated ones."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.counts import Counts
from data_tools.encode import Codes, encode
from data_tools.errors import InputError, unknown_chromosome
from data_tools.motifs import read_motif
from data_tools.negatives import match_rows
from data_tools.sequences import read_sequences
from data_tools.simulation import Task as Planting
from data_tools.simulation import World, decoy_of, simulate_chromosome, site_of
from seqnorm.holdout.design import Fold
from seqnorm.holdout.shuffled import with_shuffles
from seqnorm.holdout.spec import Kind, Simulation, Spec, Table, Task
from seqnorm.holdout.windows import VALIDATION, WindowSet, picked, stacked, window_set


class LabelledSource:
    """Shares labelled windows out over the parts of folds.

    Parameters
    ----------
    spec
        The experiment.
    windows
        All of them; what a simulation knows of them (``optimum``) comes along.
    seed
        Of the data.
    """

    def __init__(self, spec: Spec, windows: WindowSet, seed: int) -> None:
        self.spec, self.windows, self.seed = spec, windows, seed
        self.counts: dict[str, int] = {}
        split = spec.split
        there = windows.table["chrom"].astype(str).unique().tolist()
        for chrom in (*split.train, *split.validation, *split.test):
            if chrom not in there:
                raise InputError(f"windows: {unknown_chromosome(chrom, there)}")
        used = windows.table["chrom"].isin([*split.train, *split.validation, *split.test])
        self.counts["windows on other chromosomes"] = int((~used).sum())

    def evaluation(self, fold: Fold) -> WindowSet:
        """Validation windows, then the test windows of each chromosome in the spec's order."""
        parts = [self._rows(self._chooses(fold), VALIDATION)]
        chrom = self.windows.table["chrom"]
        parts += [self._rows((chrom == name).to_numpy(), "test") for name in fold.test]
        for part in parts:
            if len(set(part.table["label"])) < 2 and part is parts[0]:
                raise InputError(
                    f"the validation windows of fold {fold.name} are not of both labels; check "
                    "split.validation, split.validation_every and split.block"
                )
        return stacked(parts)

    def training(self, fold: Fold, kind: Kind, seed: int) -> WindowSet:
        """Training windows; of ``random`` negatives the same for every seed."""
        chrom = self.windows.table["chrom"]
        mine = chrom.isin(fold.train).to_numpy() & ~self._chooses(fold)
        whole = self._rows(mine, "train")
        if kind == "random":
            return whole
        count = self.spec.negatives.per_positive
        if kind == "shuffled":
            positives = picked(whole, np.flatnonzero(whole.table["label"] == 1))
            return with_shuffles(positives, count, self.seed, seed)
        kept, unmatched = match_rows(whole.table, count, seed=self.seed * 1_000_003 + seed)
        self.counts[f"fold {fold.name}: positives without a match (seed {seed})"] = len(unmatched)
        if not len(kept):
            raise InputError(
                f"no training window has its {count} negatives of equal GC (seed {seed}); lower "
                "negatives.per_positive"
            )
        return picked(whole, kept)

    def _chooses(self, fold: Fold) -> NDArray[np.bool_]:
        table, split = self.windows.table, self.spec.split
        if fold.validation:
            return table["chrom"].isin(fold.validation).to_numpy()
        aside = table["block"] % split.validation_every == split.validation_offset
        return (table["chrom"].isin(fold.train) & aside).to_numpy()

    def _rows(self, mine: NDArray[np.bool_], part: str) -> WindowSet:
        found = picked(self.windows, np.flatnonzero(mine))
        return WindowSet(found.table.assign(part=part), found.codes, found.margin)


def table_windows(spec: Spec, table: Table, task: Task) -> WindowSet:
    """Windows of a table whose label of a task is known."""
    counts = Counts()
    found = read_sequences(
        table.file, sequence=table.sequence, ambiguous="keep", duplicates="keep", counts=counts
    )
    assert task.label is not None
    names = [table.chrom, table.start, table.end, task.label, *task.where]
    for name in names:
        if name not in found:
            raise InputError(
                f"{table.file}: no column '{name}'; it has {', '.join(map(str, found))}"
            )
    for name, value in task.where.items():
        found = found[found[name].astype(str) == value]
    labels = found[task.label]
    wrong = labels[~labels.isin([0, 1, -1])]
    if len(wrong):
        raise InputError(
            f"{table.file}: column '{task.label}' holds {wrong.iloc[0]!r}; labels are 0, 1 and -1 "
            "(not known)"
        )
    found = found[labels != -1].reset_index(drop=True)
    widths = set(found["sequence"].str.len())
    if len(widths) != 1:
        said = "no row" if not widths else f"sequences of {min(widths)} to {max(widths)} bases"
        raise InputError(f"{table.file}: {said} for task '{task.name}'; all have one width")
    (width,) = widths
    start, end = (_whole(table, found, column) for column in (table.start, table.end))
    wrong_place = (start < 0) | (end - start != width)
    if wrong_place.any():
        row = int(wrong_place.to_numpy().argmax())
        raise InputError(
            f"{table.file}: a window from {start.iloc[row]} to {end.iloc[row]} cannot hold "
            f"{width} bases ({_row(found, row)}); starts count from 0, "
            "ends are not part of the window"
        )
    places = pd.DataFrame(
        {
            "part": "",
            "chrom": found[table.chrom].astype(str),
            "start": start,
            "end": end,
            "label": found[task.label].astype("int64"),
        }
    )
    codes = np.stack([encode(text) for text in found["sequence"]])
    return window_set(places, codes, 0, spec.split.block)


def _whole(table: Table, found: pd.DataFrame, column: str) -> "pd.Series[int]":
    """A column of whole numbers."""
    values = pd.to_numeric(found[column], errors="coerce")
    wrong = (values.isna() | (values % 1 != 0)).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{table.file}: column '{column}' holds '{found[column].iloc[row]}' "
            f"({_row(found, row)}); places are whole numbers of bases"
        )
    return values.astype("int64")


def _row(found: pd.DataFrame, row: int) -> str:
    """What a person finds a row by."""
    return f"the window of sequence {found['sequence'].iloc[row][:20]}…"


def simulated_windows(spec: Spec, given: Simulation, task: Task) -> WindowSet:
    """Windows of a simulated genome; ``optimum`` is the score that nothing beats.

    Labels follow GC, where they do, within each chromosome: its most GC-rich windows are the
    positives whatever its GC, as peaks are richer than what is about them on every chromosome.
    """
    return stacked(list(_chromosomes(spec, given, task)))


def _chromosomes(spec: Spec, given: Simulation, task: Task) -> Iterator[WindowSet]:
    site = site_of(read_motif(given.motif))
    decoy = decoy_of(site, np.random.default_rng(given.seed)) if given.decoys else None
    confounding = given.confounding if task.confounding is None else task.confounding
    prevalence = given.prevalence if task.prevalence is None else task.prevalence
    planting = Planting(site, prevalence, confounding, decoy, given.decoys)
    for name, gc in given.gc.items():
        bases = given.training_bases if name in spec.split.train else given.bases
        world = World(
            {name: bases},
            {name: gc},
            planting,
            spread=given.spread,
            isochore=given.isochore,
            cpg=given.cpg,
            width=given.width,
            spacing=given.spacing,
            seed=given.seed,
        )
        found = simulate_chromosome(world, name)
        yield _with_optimum(found.windows, found.codes, given.isochore)


def _with_optimum(windows: pd.DataFrame, bases: Codes, isochore: int) -> WindowSet:
    width = int(windows["end"].iloc[0] - windows["start"].iloc[0])
    codes = np.lib.stride_tricks.sliding_window_view(bases, width)[windows["start"]]
    table = windows[["chrom", "start", "end", "label"]].assign(part="", optimum=windows["score"])
    return window_set(table, codes, 0, isochore)
