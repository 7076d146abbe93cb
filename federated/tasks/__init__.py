"""What clients learn: rows, a model, a loss and its measures, behind one protocol."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from federated.tasks.task import Task

if TYPE_CHECKING:
    from federated.spec import Spec

__all__ = ["Task", "open_task", "prepare_task"]


def prepare_task(spec: Spec, folder: Path) -> Task:
    """Make the rows of a spec and save them in the run's folder, under ``data``."""
    task: Task = _kind(spec).prepare(spec, folder)
    return task


def open_task(spec: Spec, folder: Path) -> Task:
    """Open what :func:`prepare_task` has saved."""
    task: Task = _kind(spec).load(spec, folder)
    return task


def _kind(spec: Spec) -> Any:
    if getattr(spec, "table", None) is not None:
        return import_module("federated.tasks.table").TableTask
    return import_module("federated.tasks.windows").WindowTask
