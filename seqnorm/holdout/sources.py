"""Where the windows of a task come from, by the spec; and the controls, which change them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from data_tools.genome import Genome
from seqnorm.holdout.design import Fold
from seqnorm.holdout.genome_source import GenomeSource
from seqnorm.holdout.labelled_source import LabelledSource, simulated_windows, table_windows
from seqnorm.holdout.shuffled import composition_only, permuted
from seqnorm.holdout.spec import Kind, Spec, Task
from seqnorm.holdout.windows import WindowSet


class Source(Protocol):
    """Gives the windows of folds, and counts what it drops on the way."""

    counts: dict[str, int]

    def evaluation(self, fold: Fold) -> WindowSet:
        """Validation windows, then the test windows of each chromosome in the spec's order."""

    def training(self, fold: Fold, kind: Kind, seed: int) -> WindowSet:
        """Training windows of a seed."""


@contextmanager
def open_source(spec: Spec, task: Task) -> Iterator[Source]:
    """Open the source of a task's windows."""
    with _open(spec, task) as source:
        yield source if task.control is None else _Control(source, task)


@contextmanager
def _open(spec: Spec, task: Task) -> Iterator[Source]:
    if spec.data is not None:
        with Genome(spec.data.genome) as genome:
            yield GenomeSource(spec, spec.data, genome)
    elif spec.table is not None:
        yield LabelledSource(spec, table_windows(spec, spec.table, task), spec.table.seed)
    else:
        assert spec.simulation is not None
        windows = simulated_windows(spec, spec.simulation, task)
        yield LabelledSource(spec, windows, spec.simulation.seed)


class _Control:
    """Windows that hold nothing to learn, or nothing but composition."""

    def __init__(self, source: Source, task: Task) -> None:
        self.source = source
        self.counts = source.counts
        self.change = permuted if task.control == "permuted" else composition_only

    def evaluation(self, fold: Fold) -> WindowSet:
        return self.change(self.source.evaluation(fold), 0)

    def training(self, fold: Fold, kind: Kind, seed: int) -> WindowSet:
        return self.change(self.source.training(fold, kind, seed), 1, seed)
