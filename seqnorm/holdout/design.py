"""What a spec asks for, written out: folds, tasks and cells."""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from seqnorm.holdout.spec import Cells, Spec, Task

__all__ = ["Cell", "Fold", "cells_of", "folds_of", "task_of"]


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
