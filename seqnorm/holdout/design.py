"""What a spec asks for, written out: folds, tasks and cells."""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from seqnorm.holdout.spec import Cells, Claim, Spec, Task

__all__ = ["Cell", "Fold", "cells_of", "claims_of", "folds_of", "task_of"]


@dataclass(frozen=True)
class Fold:
    """Who trains, who chooses and who tests at one time.

    Attributes
    ----------
    name : str
        ``"all"`` of a fixed split, else the chromosome that is left out.
    train, validation, test : tuple of str
        Chromosomes. Without validation chromosomes, blocks of the training ones choose.
    """

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


class Cell(NamedTuple):
    """What is tuned and compared."""

    task: str
    model: str
    negatives: str
    norm: str


def folds_of(spec: Spec) -> list[Fold]:
    """Folds of the design; every test chromosome is tested in one of them.

    Examples
    --------
    >>> from seqnorm.holdout.spec import Split
    >>> from types import SimpleNamespace
    >>> split = Split(("a", "b"), ("a",), ("c",), design="leave_one_out")
    >>> [(fold.name, fold.train) for fold in folds_of(SimpleNamespace(split=split))]
    [('a', ('c', 'b')), ('b', ('c', 'a'))]
    """
    split = spec.split
    if split.design == "fixed":
        return [Fold("all", split.train, split.validation, split.test)]
    return [
        Fold(left, (*split.train, *(c for c in split.test if c != left)), split.validation, (left,))
        for left in split.test
    ]


def cells_of(spec: Spec) -> list[Cell]:
    """Cells in the order of the spec, each once."""
    tasks, models = [task.name for task in spec.tasks], [model.name for model in spec.models]
    found = [Cell(*cell) for cell in product(tasks, models, spec.negatives.kinds, spec.norms)]
    return [
        cell for cell in found if not spec.cells or any(_names(rule, cell) for rule in spec.cells)
    ]


def _names(rule: Cells, cell: Cell) -> bool:
    named = (rule.tasks, rule.models, rule.negatives, rule.norms)
    return all(not names or own in names for names, own in zip(named, cell, strict=True))


def task_of(spec: Spec, name: str) -> Task:
    """The task of a name."""
    return next(task for task in spec.tasks if task.name == name)


H1 = Claim(
    name="H1",
    text=(
        "LayerNorm lowers the false-alarm rate on GC-richer chromosomes against BatchNorm by at "
        "least 2 points at equal AUROC."
    ),
    norm="layer",
    reference="batch",
    metric="false_alarm_rate",
    direction="lower",
    smallest_effect=0.02,
    margin=0.01,
    guard_metric="auroc",
    guard_margin=0.01,
)
"""What is asked of every experiment that compares the two and states nothing itself."""


def claims_of(spec: Spec) -> list[tuple[Claim, Cell]]:
    """What is claimed, each with the cell of the norm that it is claimed of."""
    cells = cells_of(spec)
    claims = spec.hypotheses
    if not claims and {"layer", "batch"} <= set(spec.norms):
        claims = (H1,)
    found = []
    for claim in claims:
        alike = [
            cell
            for cell in cells
            if cell.norm == claim.norm
            and claim.task in (None, cell.task)
            and claim.model in (None, cell.model)
            and claim.negatives in (None, cell.negatives)
            and cell._replace(norm=claim.reference) in cells
        ]
        # Unless it says more, a claim is of the first task, model and kind of negatives.
        if alike:
            found.append((claim, alike[0]))
    return found
