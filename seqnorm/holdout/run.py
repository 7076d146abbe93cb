"""Run the experiment: draw windows, tune every norm alike, train, measure, write the tables."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import fields
from itertools import product
from pathlib import Path

import pandas as pd

from data_tools.atomic import write_atomic
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.motifs import read_motif
from seqnorm.holdout import jobs
from seqnorm.holdout.baselines import baseline_names
from seqnorm.holdout.measures import Measures
from seqnorm.holdout.spec import DATA_FILES, Spec, as_toml
from seqnorm.holdout.tables import BASELINE, Tables, build_tables
from seqnorm.holdout.trial import Trained, Trial
from seqnorm.holdout.windows import WindowSet, WindowSource
from seqnorm.runs.pool import Pool
from seqnorm.runs.progress import Progress
from seqnorm.runs.record import Record, locked
from seqnorm.runs.stopping import faults_in_one_line, termination_as_interrupt

Cell = tuple[str, str, str]


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
        files = {key: name for key in DATA_FILES if (name := getattr(spec.data, key)) is not None}
        record = Record.open(folder, spec.name, as_toml(spec), files, parts="trials", resume=resume)
        record.begin(workers, spec.training.threads)
        try:
            started = time.perf_counter()
            counts, digest = _draw_windows(spec, folder, say)
            record.check_windows(digest)
            record.save("running", window_counts=counts)
            measured, tuned, chosen = _Schedule(spec, folder, workers, say).run()
            evaluation = WindowSet.load(folder / "windows" / "evaluation.npz").table
            tables = build_tables(spec, evaluation, measured, tuned, chosen)
            write_tables(tables, folder)
            seconds = round(time.perf_counter() - started, 1)
            record.content["sessions"][-1]["seconds"] = seconds
            record.save(
                "complete", trial_seconds={trained.trial.id: trained.seconds for trained in tuned}
            )
        except KeyboardInterrupt:
            record.save("interrupted")
            raise
        except BaseException:
            record.save("failed")
            raise
    return tables


def write_tables(tables: Tables, folder: Path) -> None:
    """Write each table as CSV, whole or not at all."""
    for item in fields(tables):
        table: pd.DataFrame = getattr(tables, item.name)
        # 17 digits hold a double exactly: what is read back is what was computed.
        write_atomic(folder / f"{item.name}.csv", table.to_csv(index=False, float_format="%.17g"))


def read_tables(folder: Path) -> Tables:
    """Read the tables of a finished run."""
    return Tables(**{i.name: pd.read_csv(folder / f"{i.name}.csv") for i in fields(Tables)})


def _draw_windows(
    spec: Spec, folder: Path, say: Callable[[str], None]
) -> tuple[dict[str, int], str]:
    """Draw every window of the run; the same spec draws the same ones again.

    Returns what was counted on the way, and a checksum of all windows.
    """
    if spec.data.motif is not None:
        # A baseline reads it, hours after the start: refuse what it could not read now.
        _check_motif(spec.data.motif, spec.data.width)
    (folder / "windows").mkdir(exist_ok=True)
    tables: list[pd.DataFrame] = []
    checksum = hashlib.sha256()

    def store(windows: WindowSet, name: str, **part: str) -> None:
        windows.save(folder / "windows" / f"{name}.npz")
        checksum.update(windows.codes.tobytes() + windows.table["label"].to_numpy().tobytes())
        columns = ["part", "chrom", "start", "end", "label", "gc"]
        tables.append(windows.table[columns].assign(**part))

    with Genome(spec.data.genome) as genome:
        source = WindowSource(spec, genome)
        store(source.evaluation(), "evaluation")
        for kind, seed in product(spec.negatives.kinds, spec.training.seeds):
            windows = source.training(kind, seed)
            store(windows, f"train-{kind}-s{seed}", part=f"train:{kind}:seed{seed}")
    all_windows = pd.concat(tables)
    write_atomic(folder / "windows.csv", all_windows.to_csv(index=False, float_format="%.6g"))
    say(f"drew {len(tables[0]):,} evaluation windows and {len(tables) - 1} training sets")
    return source.counts, checksum.hexdigest()


def _check_motif(path: str, width: int) -> None:
    columns = read_motif(path).counts.shape[1]
    if columns > width:
        raise InputError(
            f"{path}: a motif of {columns} bases does not fit into windows of {width}; make "
            "data.width larger"
        )


def _outcome(trained: Trained) -> str:
    return (
        f"best validation score {trained.validation_score:.4f} in epoch {trained.best_epoch + 1}, "
        f"{trained.seconds:.0f} s"
    )


class _Schedule:
    """What to train and when: tuning first, the final trials of a norm as soon as it is tuned."""

    def __init__(self, spec: Spec, folder: Path, workers: int, say: Callable[[str], None]) -> None:
        self.spec = spec
        self.folder = folder
        self.workers = workers
        self.say = say
        self.rates = sorted(spec.training.learning_rates)
        models = [model.name for model in spec.models]
        self.cells: list[Cell] = list(product(models, spec.negatives.kinds, spec.norms))
        self.tuned: dict[Trial, Trained] = {}
        self.measured: dict[Trial, Measures] = {}
        self.chosen: dict[Cell, float] = {}

    def run(self) -> tuple[dict[Trial, Measures], list[Trained], dict[Cell, float]]:
        """Run everything; the results come in the order of the spec."""
        training = self.spec.training
        tuning = [
            Trial(*cell, rate, seed)
            for cell in self.cells
            for seed in training.seeds[: training.tuning_seeds]
            for rate in self.rates
        ]
        further = len(self.cells) * (len(training.seeds) - training.tuning_seeds)
        total = (len(tuning) + further) * training.epochs
        with (
            Progress(total, training.epochs, "epochs", self.say) as progress,
            Pool(self.workers, training.threads, progress.step) as pool,
        ):
            for trial in tuning:
                pool.submit(trial, jobs.train_job, self.spec, self.folder, trial)
            for baseline in self._baselines():
                pool.submit(baseline, jobs.baseline_job, self.spec, self.folder, baseline)
            for trial, result in pool.finished():
                if isinstance(result, Trained):
                    progress.finish(trial.id, _outcome(result))
                    self.tuned[trial] = result
                    self._choose(trial.cell, pool)
                else:
                    self.measured[trial], trained = result
                    if trained is not None and trial not in self.tuned:
                        progress.finish(trial.id, _outcome(trained))
                        self.tuned[trial] = trained
        final = [Trial(*c, self.chosen[c], s) for c in self.cells for s in training.seeds]
        measured = {trial: self.measured[trial] for trial in [*final, *self._baselines()]}
        extra = [trial for trial in final if trial not in tuning]
        return measured, [self.tuned[trial] for trial in [*tuning, *extra]], self.chosen

    def _baselines(self) -> list[Trial]:
        return [
            Trial(BASELINE, kind, name, 0.0, seed)
            for kind in self.spec.negatives.kinds
            for name in baseline_names(self.spec)
            for seed in self.spec.training.seeds
        ]

    def _choose(self, cell: Cell, pool: Pool) -> None:
        """Choose the learning rate of a cell once all its tuning trials are in.

        The best mean validation score wins; of equals the smallest rate.
        """
        training = self.spec.training
        seeds = training.seeds[: training.tuning_seeds]
        trials = {rate: [Trial(*cell, rate, seed) for seed in seeds] for rate in self.rates}
        if not all(trial in self.tuned for group in trials.values() for trial in group):
            return
        means = {
            rate: sum(self.tuned[trial].validation_score for trial in group) / len(group)
            for rate, group in trials.items()
        }
        self.chosen[cell] = max(self.rates, key=lambda rate: means[rate])
        for seed in training.seeds:
            trial = Trial(*cell, self.chosen[cell], seed)
            pool.submit(trial, jobs.final_job, self.spec, self.folder, trial)
