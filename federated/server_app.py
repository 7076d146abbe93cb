"""ServerApp: what ``flwr run`` starts, on one machine or as the server of real sites."""

from __future__ import annotations

import sys
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from data_tools.atomic import write_atomic
from data_tools.errors import InputError, MissingFileError
from federated.cell import cells_of
from federated.history import read_history
from federated.results import write_histories
from federated.run_config import read_run_config
from federated.server import Rounds
from federated.setting import Setting
from federated.site import Learner
from federated.spec import Spec, as_toml
from federated.tasks import Task, open_task, prepare_task
from seqnorm.runs.record import locked

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one cell over the nodes that the grid has.

    The rows are drawn where the run's folder has none. A run that was stopped goes on. The tables
    are of all cells that the folder holds.
    """
    spec, cell, folder = read_run_config(context.run_config, context.node_config)
    with locked(folder):
        task = _rows(spec, folder)
        learner = Learner(spec, cell, task)
        timeout = spec.training.timeout
        rounds = Rounds(learner, grid, folder / "cells" / cell.id, timeout=timeout, say=_say)
        try:
            rounds.run()
        finally:
            setting = Setting(spec, folder, {})
            held = [(c, read_history(folder / "cells" / c.id)) for c in cells_of(spec)]
            write_histories([(setting, c, h) for c, h in held], folder, task.metrics)


def _rows(spec: Spec, folder: Path) -> Task:
    """The rows of a run's folder, drawn if they are not there as yet."""
    text, path = as_toml(spec), folder / "spec.toml"
    try:
        task = open_task(spec, folder)
    except MissingFileError:
        (folder / "data").mkdir(parents=True, exist_ok=True)
        write_atomic(path, text)
        return prepare_task(spec, folder)
    if path.exists() and path.read_text() != text:
        raise InputError(
            f"{folder}: holds the rows of another spec; give another folder in the run config"
        )
    return task


def _say(line: str) -> None:
    """To the log of Flower's ServerApp, which is what ``flwr run --stream`` shows."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
