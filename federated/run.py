"""Run one cell of a spec on an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.app import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from federated.cell import Cell
from federated.client_app import app as client_app
from federated.engines import run_on
from federated.history import History
from federated.messages import TRAIN as ASKED
from federated.run_config import run_config
from federated.server import Rounds
from federated.site import Learner
from federated.spec import Spec
from federated.tasks.task import TRAIN, Task

__all__ = ["run_cell"]


def run_cell(
    spec: Spec,
    cell: Cell,
    task: Task,
    folder: Path,
    on_reply: Callable[[float], None] = lambda rounds: None,
    *,
    engine: str = "in-process",
    workers: int = 1,
    app: ClientApp = client_app,
    timeout: float | None = None,
) -> History:
    """Run one cell, or go on with it.

    Parameters
    ----------
    spec : Spec
    cell : Cell
    task : Task
    folder : path
        Of the run.
    on_reply : callable
        Called after every client (on Ray after every round) with the rounds that are done, a part
        of a round counting.
    engine : str
        A key of `federated.engines.ENGINES`.
    workers : int
        Processes for clients, of engines that have any.
    app : ClientApp
    timeout : float, optional
        Seconds that a client may take; the spec's unless given.

    Raises
    ------
    RunStoppedError
        When a round has too few usable replies.
    """
    nodes: list[UserConfig] = [{"partition-id": i} for i in range(len(task.clients))]
    learner = Learner(spec, cell, task)
    rounds: list[Rounds] = []

    def body(grid: Grid) -> History:
        seconds = spec.training.timeout if timeout is None else timeout
        rounds.append(Rounds(learner, grid, folder / "cells" / cell.id, timeout=seconds))
        # Ray tells of no single client, so of each round.
        return rounds[0].run(lambda history: on_reply(len(history.rounds)))

    def replied(kind: str, done: int, of: int) -> None:
        behind = len(rounds[0].history.rounds)
        on_reply(behind + done / of if kind == ASKED else behind)

    return run_on(
        engine,
        app,
        nodes,
        run_config(spec, cell, folder),
        body,
        workers=workers,
        sizes=[task.examples(client, TRAIN) for client in task.clients],
        on_reply=replied,
    )
