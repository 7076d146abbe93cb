"""Run every cell of a spec on this machine: resumable, several cells at a time, then tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from data_tools.errors import InputError
from federated.cell import Cell, cells_of
from federated.engines import ENGINES, WITH_PROCESSES
from federated.history import History, read_history
from federated.policy import parse_policy
from federated.references import Reference, references_of, run_reference
from federated.results import write_histories, write_premises, write_references
from federated.run import run_cell
from federated.server import RunStoppedError
from federated.setting import Setting, settings_of
from federated.spec import Spec, as_json, as_toml, data_files, from_json
from federated.tasks import Task, open_task, prepare_task
from seqnorm.runs.pool import Pool, report_progress
from seqnorm.runs.progress import Progress
from seqnorm.runs.record import Record, locked
from seqnorm.runs.stopping import faults_in_one_line, termination_as_interrupt
from seqnorm.runs.time_left import Work

__all__ = ["Found", "Outcome", "simulate"]


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


Found = list[tuple[Setting, Cell, Outcome]]


def simulate(
    spec: Spec,
    folder: Path,
    *,
    study: bool = False,
    resume: bool = False,
    workers: int = 1,
    engine: str = "in-process",
    say: Callable[[str], None] = print,
) -> Found:
    """Run a spec, or go on with a run that was stopped.

    Parameters
    ----------
    spec : Spec
    folder : path
        Where everything goes.
    study : bool
        Run every setting of the spec's study, and the references; else the spec's own setting.
    resume : bool
        Go on with what the folder holds.
    workers : int
        Processes: cells at a time, or, of an engine that has processes for clients, these, and one
        cell at a time. The numbers do not depend on it.
    engine : str
        A key of `federated.engines.ENGINES`. All give the same bits but ``"vectorized"``, so that
        a run goes on with that one only if it began with it.
    say : callable
        Takes lines for the user.

    Returns
    -------
    list of (Setting, Cell, Outcome)
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
    if engine not in ENGINES:
        raise InputError(f"unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
    if study and spec.study is None:
        raise InputError("the spec has no table 'study'; add one, or run: federated simulate")
    with faults_in_one_line(folder), locked(folder), termination_as_interrupt():
        parts = "settings" if study else "cells"
        text = as_toml(spec)
        record = Record.open(folder, spec.name, text, data_files(spec), parts=parts, resume=resume)
        _check_engine(record, engine)
        record.begin(workers, spec.training.threads, ("flwr",))
        record.content["sessions"][-1]["engine"] = engine
        try:
            schedule = _Schedule(settings_of(spec, folder, study=study), folder, record)
            found = schedule.run(workers, engine, say)
            stopped = {
                str(setting.folder.relative_to(folder) / cell.id): outcome.stopped
                for setting, cell, outcome in found
                if outcome.stopped
            }
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


class _Schedule:
    """What is run, in worker processes, and what is written of it."""

    def __init__(self, settings: Sequence[Setting], folder: Path, record: Record) -> None:
        self.settings, self.folder = settings, folder
        digests = []
        self.tasks: list[Task] = []
        for setting in settings:
            (setting.folder / "data").mkdir(parents=True, exist_ok=True)
            self.tasks.append(prepare_task(setting.spec, setting.folder))
            digests.append(self.tasks[-1].digest)
        record.check_windows(" ".join(digests))
        write_premises(list(zip(settings, self.tasks, strict=True)), folder)
        self.twins = same_runs(settings[0].spec, self.tasks[0])
        alike = {cell.id: twin.id for cell, twin in self.twins.items() if cell != twin}
        record.save("running", same_runs=alike)
        self.each = settings[0].spec.training.rounds * len(self.tasks[0].clients)
        study = settings[0].spec.study
        self.references: list[tuple[Setting, Reference]] = []
        if study is not None and study.references and settings[0].keys:
            self.references = _references(settings)

    def run(self, workers: int, engine: str, say: Callable[[str], None]) -> Found:
        """Run what is left, and write the tables, those so far when it is stopped."""
        cells = list(dict.fromkeys(self.twins.values()))
        jobs = len(cells) * len(self.settings) + len(self.references)
        threads = self.settings[0].spec.training.threads
        outcomes: dict[tuple[str, str], Outcome] = {}
        rows: list[dict[str, Any]] = []
        at_once, inside = (1, workers) if engine in WITH_PROCESSES else (min(workers, jobs), 1)
        try:
            with (
                Progress(self._works(cells), at_once, "client rounds", say) as progress,
                Pool(at_once, threads, progress.step) as pool,
            ):
                for setting in self.settings:
                    for cell in cells:
                        job = (*_sent(setting), cell, engine, inside)
                        pool.submit((setting, cell), _cell_job, *job)
                for setting, reference in self.references:
                    pool.submit((setting, reference), _reference_job, *_sent(setting), reference)
                for (setting, what), came, seconds in pool.finished():
                    steps = self.each
                    if isinstance(came, Outcome):
                        steps = len(came.history.rounds) * len(self.tasks[0].clients)
                        outcomes[str(setting.folder), what.id] = came
                        said = came.stopped or f"{came.seconds:.0f} s"
                    else:
                        rows += [_reference_keys(setting) | row for row in came]
                        said = "done"
                    name = _name(setting.folder, what.id)
                    progress.finish(name, min(steps, self.each), seconds, f"{name}: {said}")
        except KeyboardInterrupt:
            # What is there can be looked at before the run goes on.
            for setting in self.settings:
                for cell in cells:
                    history = read_history(setting.folder / "cells" / cell.id)
                    outcomes[str(setting.folder), cell.id] = Outcome(history)
            self._write(outcomes, rows)
            raise
        return self._write(outcomes, rows)

    def _works(self, cells: Sequence[Cell]) -> dict[str, Work]:
        """All jobs, in the order in which they run."""
        works = {
            _name(setting.folder, cell.id): Work(self.each, cell.norm, "cell")
            for setting in self.settings
            for cell in cells
        }
        return works | {
            _name(setting.folder, reference.id): Work(self.each, reference.kind, "reference")
            for setting, reference in self.references
        }

    def _write(
        self, outcomes: Mapping[tuple[str, str], Outcome], rows: list[dict[str, Any]]
    ) -> Found:
        found = [
            (setting, cell, outcomes[str(setting.folder), twin.id])
            for setting in self.settings
            for cell, twin in self.twins.items()
        ]
        metrics = self.tasks[0].metrics
        write_histories([(s, cell, o.history) for s, cell, o in found], self.folder, metrics)
        if self.references:
            order = ("skew", "kind", "norm", "learning_rate", "seed")
            rows.sort(key=lambda row: [str(row.get(column)) for column in order])
            write_references(rows, self.folder, metrics)
        return found


def _references(settings: Sequence[Setting]) -> list[tuple[Setting, Reference]]:
    """References of each skew: who takes part in a round does not concern them."""
    first: dict[float | None, Setting] = {}
    for setting in settings:
        first.setdefault(setting.keys.get("skew"), setting)
    return [(s, reference) for s in first.values() for reference in references_of(s.spec)]


def _reference_keys(setting: Setting) -> dict[str, float]:
    return {key: value for key, value in setting.keys.items() if key == "skew"}


def _sent(setting: Setting) -> tuple[str, Path]:
    return as_json(setting.spec), setting.folder


def _name(folder: Path, job: str) -> str:
    return f"{folder.name}/{job}"


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


def _check_engine(record: Record, engine: str) -> None:
    """Refuse to go on with other sums than those with which a run began."""
    for session in record.content["sessions"]:
        before = session["engine"]
        if before != engine and "vectorized" in (before, engine):
            raise InputError(
                f"{record.folder}: was begun with the engine {before!r}, whose sums differ by "
                f"rounding from those of {engine!r}; go on with that one, or give another --out"
            )


def _cell_job(spec_json: str, folder: Path, cell: Cell, engine: str, workers: int) -> Outcome:
    """What a worker process does for a cell."""
    spec, task = _opened(spec_json, folder)
    outcome = Outcome()
    began, clients = time.perf_counter(), len(task.clients)

    def on_reply(rounds: float) -> None:
        report_progress(_name(folder, cell.id), int(rounds * clients))

    try:
        outcome.history = run_cell(
            spec, cell, task, folder, on_reply, engine=engine, workers=workers
        )
    except RunStoppedError as error:
        outcome.history, outcome.stopped = error.history, str(error)
    outcome.seconds = time.perf_counter() - began
    return outcome


def _reference_job(spec_json: str, folder: Path, reference: Reference) -> list[dict[str, Any]]:
    """What a worker process does for a reference."""
    spec, task = _opened(spec_json, folder)

    def on_round(rounds: float) -> None:
        report_progress(_name(folder, reference.id), int(rounds * len(task.clients)))

    return run_reference(spec, reference, task, folder, on_round)


@cache
def _opened(spec_json: str, folder: Path) -> tuple[Spec, Task]:
    spec = from_json(spec_json)
    return spec, open_task(spec, folder)
