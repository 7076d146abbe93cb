"""Run the experiment: draw windows, tune every norm alike, train, measure, write the tables."""

import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pandas as pd

from data_tools.atomic import write_atomic
from data_tools.errors import InputError
from seqnorm.holdout.build import build_tables
from seqnorm.holdout.draw import draw_windows, evaluation_tables
from seqnorm.holdout.load import as_toml
from seqnorm.holdout.schedule import Schedule
from seqnorm.holdout.spec import FILES, Spec
from seqnorm.holdout.tables import Tables
from seqnorm.runs.record import Record, locked
from seqnorm.runs.stopping import faults_in_one_line, termination_as_interrupt


def run(
    spec: Spec,
    folder: Path,
    *,
    resume: bool = False,
    workers: int = 1,
    say: Callable[[str], None] = print,
) -> Tables:
    """Run an experiment, or go on with one that was stopped.

    Parameters
    ----------
    spec
        The experiment.
    folder
        Where everything goes.
    resume
        Go on with what the folder holds.
    workers
        Trials at a time. The tables do not depend on it.
    say
        Takes lines for the user.

    Returns
    -------
    Tables
        As written to the folder.

    Raises
    ------
    InputError
        For a folder in use or not writable, a changed spec, data that do not fit, a damaged
        checkpoint, or a worker that was killed.
    KeyboardInterrupt
        When stopped; the folder can be resumed.
    """
    if workers < 1:
        raise InputError(f"the number of workers must be at least 1, not {workers}")
    with faults_in_one_line(folder), locked(folder), termination_as_interrupt():
        named = {key.removeprefix("data."): _file(spec, key) for key in FILES}
        files = {key: name for key, name in named.items() if name is not None}
        record = Record.open(folder, spec.name, as_toml(spec), files, parts="trials", resume=resume)
        record.begin(workers, spec.training.threads)
        try:
            started = time.perf_counter()
            counts, digest = draw_windows(spec, folder, say)
            record.check_windows(digest)
            record.save("running", window_counts=counts)
            results = Schedule(spec, folder, workers, say).run()
            tables = build_tables(spec, evaluation_tables(spec, folder), results)
            write_tables(tables, folder)
            seconds = round(time.perf_counter() - started, 1)
            record.content["sessions"][-1]["seconds"] = seconds
            record.save(
                "complete",
                trial_seconds={trained.trial.id: trained.seconds for trained in results.tuned},
            )
        except KeyboardInterrupt:
            record.save("interrupted")
            raise
        except BaseException:
            record.save("failed")
            raise
    return tables


def _file(spec: Spec, key: str) -> str | None:
    table, name = key.split(".")
    found: str | None = getattr(getattr(spec, table), name, None)
    return found


def write_tables(tables: Tables, folder: Path) -> None:
    """Write each table as CSV, whole or not at all."""
    for item in fields(tables):
        table: pd.DataFrame = getattr(tables, item.name)
        # 17 digits hold a double exactly: what is read back is what was computed.
        write_atomic(folder / f"{item.name}.csv", table.to_csv(index=False, float_format="%.17g"))


def read_tables(folder: Path) -> Tables:
    """Read the tables of a finished run."""
    return Tables(**{i.name: pd.read_csv(folder / f"{i.name}.csv") for i in fields(Tables)})
