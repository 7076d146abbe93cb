"""Run every cell of a spec on this machine: resumable, several cells at a time, then tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from data_tools.errors import InputError
from federated.cell import Cell, cells_of
from federated.history import History, read_history
from federated.policy import parse_policy
from federated.run import run_cell, write_manifests, write_tables
from federated.server import RunStoppedError
from federated.spec import Spec, as_json, as_toml, data_files, from_json
from federated.tasks import Task, open_task, prepare_task
from seqnorm.runs.pool import Pool, report_progress
from seqnorm.runs.progress import Progress
from seqnorm.runs.record import Record, locked
from seqnorm.runs.stopping import faults_in_one_line, termination_as_interrupt

__all__ = ["Outcome", "simulate"]


@dataclass
class Outcome:
    """What came of a cell.

    Attributes
    ----------
    history : History
    stopped : str
        Why it ended before its last round; empty if it did not.
    seconds : float
        Of this session.
    """

    history: History = field(default_factory=History)
    stopped: str = ""
    seconds: float = 0.0


def simulate(
    spec: Spec,
    folder: Path,
    *,
    resume: bool = False,
    workers: int = 1,
    say: Callable[[str], None] = print,
) -> dict[Cell, Outcome]:
    """Run a spec, or go on with a run that was stopped.

    Parameters
    ----------
    spec : Spec
    folder : path
        Where everything goes.
    resume : bool
        Go on with what the folder holds.
    workers : int
        Cells at a time. The numbers do not depend on it.
    say : callable
        Takes lines for the user.

    Returns
    -------
    dict of Cell to Outcome
        In the spec's order; also written as tables to the folder.

    Raises
    ------
    InputError
        For a folder in use or not writable, a changed spec, data that do not fit, a damaged
        checkpoint, a worker that was killed, or when every cell stopped for want of replies.
    KeyboardInterrupt
        When stopped; the folder can be resumed.
    """
    if workers < 1:
        raise InputError(f"the number of workers must be at least 1, not {workers}")
    with faults_in_one_line(folder), locked(folder), termination_as_interrupt():
        record = Record.open(
            folder, spec.name, as_toml(spec), data_files(spec), parts="cells", resume=resume
        )
        record.begin(workers, spec.training.threads, ("flwr",))
        try:
            (folder / "data").mkdir(exist_ok=True)
            task = prepare_task(spec, folder)
            record.check_windows(task.digest)
            write_manifests(spec, task, folder)
            twins = same_runs(spec, task)
            record.save("running", same_runs={c.id: t.id for c, t in twins.items() if c != t})
            began = time.perf_counter()
            found = _run_cells(spec, folder, task, twins, workers, say)
            write_tables(spec, [(cell, o.history) for cell, o in found.items()], folder, task)
            record.content["sessions"][-1]["seconds"] = round(time.perf_counter() - began, 1)
            stopped = {cell.id: o.stopped for cell, o in found.items() if o.stopped}
            record.save("complete" if not stopped else "stopped", stopped=stopped)
        except KeyboardInterrupt:
            record.save("interrupted")
            raise
        except BaseException:
            record.save("failed")
            raise
    if len(stopped) == len(found):
        name, reason = next(iter(stopped.items()))
        raise InputError(f"{folder}: no cell could be run to its end; {name}: {reason}")
    return found


def same_runs(spec: Spec, task: Task) -> dict[Cell, Cell]:
    """The cell that is run for each cell: policies that treat a model alike make one run.

    FedBN, for example, is FedAvg for a model without BatchNorm.
    """
    first: dict[object, str] = {}
    stands_for: dict[tuple[str, str], str] = {}
    for norm in spec.norms:
        model = task.build(norm, 0)
        for policy in spec.policies:
            manifest = parse_policy(policy).manifest(model)
            fates = tuple(
                (
                    manifest.sent_up(number),
                    manifest.sent_down(number),
                    manifest.kept(number),
                    manifest.frozen(number),
                    manifest.with_fate("merged", number),
                )
                for number in range(1, spec.training.rounds + 1)
            )
            key = (norm, fates)
            stands_for[norm, policy] = first.setdefault(key, policy)
    return {
        cell: Cell(cell.norm, stands_for[cell.norm, cell.policy], cell.learning_rate, cell.seed)
        for cell in cells_of(spec)
    }


def _run_cells(
    spec: Spec,
    folder: Path,
    task: Task,
    twins: Mapping[Cell, Cell],
    workers: int,
    say: Callable[[str], None],
) -> dict[Cell, Outcome]:
    cells = list(dict.fromkeys(twins.values()))
    each = spec.training.rounds * len(task.clients)
    outcomes: dict[Cell, Outcome] = {}
    try:
        with (
            Progress(each * len(cells), each, "client rounds", say) as progress,
            Pool(min(workers, len(cells)), spec.training.threads, progress.step) as pool,
        ):
            for cell in cells:
                pool.submit(cell, _cell_job, as_json(spec), cell, folder)
            for cell, outcome in pool.finished():
                outcomes[cell] = outcome
                progress.finish(cell.id, outcome.stopped or f"{outcome.seconds:.0f} s")
    except KeyboardInterrupt:
        # What is there can be looked at before the run goes on.
        so_far = [(c, read_history(folder / "cells" / twin.id)) for c, twin in twins.items()]
        write_tables(spec, so_far, folder, task)
        raise
    return {cell: outcomes[twin] for cell, twin in twins.items()}


def _cell_job(spec_json: str, cell: Cell, folder: Path) -> Outcome:
    """What a worker process does."""
    spec, task = _opened(spec_json, folder)
    outcome = Outcome()
    began, clients = time.perf_counter(), len(task.clients)

    def on_reply(rounds: float) -> None:
        report_progress(cell.id, int(rounds * clients))

    try:
        outcome.history = run_cell(spec, cell, task, folder, on_reply)
    except RunStoppedError as error:
        outcome.history, outcome.stopped = error.history, str(error)
    outcome.seconds = time.perf_counter() - began
    return outcome


@cache
def _opened(spec_json: str, folder: Path) -> tuple[Spec, Task]:
    spec = from_json(spec_json)
    return spec, open_task(spec, folder)
