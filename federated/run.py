"""Run every cell of a spec, and write what happened as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from flwr.app import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from data_tools.atomic import write_atomic
from federated.cell import KEYS, Cell, cells_of
from federated.client_app import app as client_app
from federated.engines import run_on
from federated.history import History
from federated.messages import TRAIN as ASKED
from federated.policy import parse_policy
from federated.run_config import run_config
from federated.server import Rounds
from federated.site import Learner
from federated.spec import Spec
from federated.tasks.task import TRAIN, Task

__all__ = ["run_cell", "write_manifests", "write_tables"]

ROUNDS = ("train_loss", "sampled", "accepted", "refused", "bytes_up", "bytes_down", "seconds")


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
        Called after every client with the rounds that are done, a part of a round counting.
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
        return rounds[0].run()

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


def write_tables(
    spec: Spec, histories: Iterable[tuple[Cell, History]], folder: Path, task: Task
) -> None:
    """Write ``clients.csv``, ``rounds.csv`` and ``events.csv``, each whole or not at all.

    Parameters
    ----------
    spec : Spec
    histories : iterable of (Cell, History)
        In any order: the tables are in the spec's.
    folder : path
        Of the run.
    task : Task
    """
    key = [*KEYS, "round"]
    columns = {
        "clients": [*key, "client", "part", "examples", "loss", *task.metrics],
        "rounds": [*key, *ROUNDS],
        "events": [*key, "client", "event", "reason"],
    }
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in columns}
    order = {cell: i for i, cell in enumerate(cells_of(spec))}
    for cell, history in sorted(histories, key=lambda pair: order[pair[0]]):
        common = asdict(cell) | {"strategy": spec.strategy.name}
        for name in columns:
            rows[name] += [common | row for row in getattr(history, name)]
    for name, names in columns.items():
        _write(folder / f"{name}.csv", pd.DataFrame(rows[name], columns=names))


def write_manifests(spec: Spec, task: Task, folder: Path) -> None:
    """Write ``manifests.csv``, which tensor goes where, and ``partition.csv``, who has what."""
    tables = []
    for norm in spec.norms:
        model = task.build(norm, 0)
        for policy in spec.policies:
            table = parse_policy(policy).manifest(model).table()
            table = table.drop(columns="policy", errors="ignore")
            table.insert(0, "policy", policy)
            table.insert(0, "norm", norm)
            tables.append(table)
    _write(folder / "manifests.csv", pd.concat(tables, ignore_index=True))
    _write(folder / "partition.csv", task.holdings(folder))


def _write(path: Path, table: pd.DataFrame) -> None:
    # 17 digits hold a double exactly: what is read back is what was computed.
    write_atomic(path, table.to_csv(index=False, float_format="%.17g", na_rep="nan"))
