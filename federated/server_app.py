"""ServerApp: what ``flwr run`` starts, on one machine or as the server of real sites."""

from __future__ import annotations

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from federated.results import write_histories
from federated.run_config import read_run_config
from federated.server import Rounds
from federated.setting import Setting
from federated.site import Learner
from federated.tasks import open_task, prepare_task
from seqnorm.runs.record import locked

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one cell over the nodes that the grid has.

    The rows are drawn where the run's folder has none. A run that was stopped goes on.
    """
    spec, cell, folder = read_run_config(context.run_config, context.node_config)
    with locked(folder):
        if not (folder / "data").is_dir():
            (folder / "data").mkdir(parents=True)
            prepare_task(spec, folder)
        task = open_task(spec, folder)
        learner = Learner(spec, cell, task)
        timeout = spec.training.timeout
        rounds = Rounds(learner, grid, folder / "cells" / cell.id, timeout=timeout)
        setting = Setting(spec, folder, {})
        write_histories([(setting, cell, rounds.run())], folder, task.metrics)
