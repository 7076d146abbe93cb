"""Run the experiment: draw windows, tune every norm alike, train, measure, write the tables."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd

from data_tools.atomic import write_atomic
from data_tools.errors import InputError
from seqnorm.holdout.build import build_tables
from seqnorm.holdout.draw import draw_windows, evaluation_tables
from seqnorm.holdout.load import as_toml
from seqnorm.holdout.schedule import Schedule
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.speed import throughput_line
from seqnorm.holdout.tables import NAMES, Tables
from seqnorm.holdout.trial import batch_size_of, precision_of
from seqnorm.runs.record import Record, locked
from seqnorm.runs.stopping import faults_in_one_line, termination_as_interrupt
from seqnorm.runs.workplace import Workplace, open_workplace


def run(
    spec: Spec,
    folder: Path,
    *,
    resume: bool = False,
    workers: int | None = 1,
    ray: str | None = None,
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
        Trials at a time; None: as many as there are cores. The tables do not depend on it.
    ray
        Address of a Ray cluster whose cores are used instead of this machine's, or ``"local"``.
        All its nodes have to see the folder and the files of the spec under the same paths, and
        to have the same versions installed.
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
        checkpoint, a worker that was killed, or a cluster that cannot be used.
    KeyboardInterrupt
        When stopped; the folder can be resumed.
    """
    if workers is not None and workers < 1:
        raise InputError(f"the number of workers must be at least 1, not {workers}")
    folder = folder.absolute()
    threads, device = spec.training.threads, spec.training.device
    with (
        faults_in_one_line(folder),
        locked(folder),
        open_workplace(workers, threads, device, folder, ray) as place,
        # After Ray, which would end the process.
        termination_as_interrupt(),
    ):
        # A run stays on the kind of device on which it began, and keeps the precision and the
        # batch size that were chosen for it: others give other bits.
        training = replace(spec.training, device=place.device)
        precision, batch_size = precision_of(training), batch_size_of(training)
        spec = replace(spec, training=replace(training, precision=precision, batch_size=batch_size))
        text = as_toml(spec)
        record = Record.open(folder, spec.name, text, spec.files, parts="trials", resume=resume)
        record.begin(place.workers, threads, place.libraries)
        record.content["sessions"][-1] |= place.described
        try:
            return _work(spec, folder, record, place, say)
        except KeyboardInterrupt:
            record.save("interrupted")
            raise
        except BaseException:
            record.save("failed")
            raise


def _work(
    spec: Spec, folder: Path, record: Record, place: Workplace, say: Callable[[str], None]
) -> Tables:
    counts, digest = draw_windows(spec, folder, say)
    record.check_windows(digest)
    record.save("running", window_counts=counts)
    results = Schedule(spec, folder, place.workers, place.pool, say).run()
    tables = build_tables(spec, evaluation_tables(spec, folder), results)
    write_tables(tables, folder)
    session = record.content["sessions"][-1]
    session["job_seconds"] = {name: round(value, 1) for name, value in results.seconds.items()}
    if cells := results.throughput.of_cells():
        session["throughput"] = cells
        say(throughput_line(cells))
    rates = record.content.get("trial_windows_per_second", {}) | results.throughput.of_trials()
    record.save(
        "complete",
        trial_seconds={trained.trial.id: trained.seconds for trained in results.tuned},
        trial_windows_per_second=rates,
    )
    return tables


def write_tables(tables: Tables, folder: Path) -> None:
    """Write each table as CSV, whole or not at all."""
    for item in fields(tables):
        table: pd.DataFrame = getattr(tables, item.name)
        # 17 digits hold a double exactly: what is read back is what was computed.
        write_atomic(folder / f"{item.name}.csv", table.to_csv(index=False, float_format="%.17g"))


def read_tables(folder: Path) -> Tables:
    """Read the tables of a finished run.

    Names stay text, a task that is called 1 or NA too.
    """
    return Tables(
        **{
            item.name: pd.read_csv(
                folder / f"{item.name}.csv", dtype=NAMES, keep_default_na=False, na_values=[""]
            )
            for item in fields(Tables)
        }
    )
