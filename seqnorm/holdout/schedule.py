"""What to train and when: every norm tuned alike, then trained with the other seeds."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from seqnorm.holdout import jobs
from seqnorm.holdout.baselines import baseline_names
from seqnorm.holdout.design import Cell, cells_of, folds_of
from seqnorm.holdout.measures import Measures
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.speed import BareLoop, Throughput
from seqnorm.holdout.trial import BASELINE, Trained, Trial
from seqnorm.runs.pool import OnProgress, Pool
from seqnorm.runs.progress import Progress
from seqnorm.runs.time_left import Work

OpenPool = Callable[[OnProgress], AbstractContextManager[Pool]]
"""Begins the workers, which tell the callable how far they are."""


@dataclass(frozen=True)
class Results:
    """What came out of a run.

    Attributes
    ----------
    measured : mapping of Trial to Measures
        Of every final trial, then of the baselines, in the order of the spec.
    tuned : sequence of Trained
        Every trained network, those with a learning rate that was not chosen included.
    chosen : mapping
        Learning rate of each trained cell in each fold.
    throughput : Throughput
        Of what this session has trained.
    seconds : mapping of str to float
        What this session's jobs took, all workers together: training, scoring, baselines, bare
        loops.
    """

    measured: Mapping[Trial, Measures]
    tuned: Sequence[Trained]
    chosen: Mapping[tuple[Cell, str], float]
    throughput: Throughput = field(default_factory=Throughput)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def rate(self, trial: Trial) -> float:
        """Learning rate that was chosen for a trial's cell and fold."""
        return self.chosen[trial.trained.cell, trial.fold]


class Schedule:
    """Tuning first, then the final trials, then what takes seconds, so that no worker idles long.

    The rate is chosen in each fold by itself, on that fold's validation windows: what another
    fold trains on may be what this one tests on.
    """

    def __init__(
        self,
        spec: Spec,
        folder: Path,
        workers: int,
        open_pool: OpenPool,
        say: Callable[[str], None],
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.workers = workers
        self.open_pool = open_pool
        self.say = say
        self.rates = sorted(spec.training.learning_rates)
        # One trial, whose rate and seed are filled in, for each cell and fold.
        self.wanted = [
            Trial(cell.model, cell.negatives, cell.norm, 0.0, 0, cell.task, fold.name)
            for cell in cells_of(spec)
            for fold in folds_of(spec)
        ]
        self.trained = list(dict.fromkeys(trial.trained for trial in self.wanted))
        # Of those that share trained weights, the one that trains them; the others come after it.
        self.leaders = {
            trial: min((w for w in self.wanted if w.trained == trial), key=lambda w: w != trial)
            for trial in self.trained
        }
        self.tuned: dict[Trial, Trained] = {}
        self.measured: dict[Trial, Measures] = {}
        self.chosen: dict[tuple[Cell, str], float] = {}
        # Short jobs for the end: while the last network trains, the other workers do these.
        self.short: list[tuple[Trial, Callable[..., Any]]] = []
        self.throughput = Throughput()
        self.seconds = dict.fromkeys(("training", "scoring", "baselines", "bare loops"), 0.0)
        # What an earlier session has trained, and what it has measured.
        self.kept = tuple(
            {file.parent.name for file in (folder / "trials").glob(f"*/{name}")}
            for name in ("trained.json", "measures.npz")
        )

    def run(self) -> Results:
        """Run everything; the results come in the order of the spec."""
        tuning = self._tuning()
        with (
            Progress(self._works(tuning), self.workers, "epochs", self.say) as progress,
            self.open_pool(self._on_progress(progress)) as pool,
        ):
            self._submit(tuning, pool)
            for trial, result, seconds in pool.finished():
                if isinstance(result, BareLoop):
                    self.throughput.bare[trial] = result
                    self.seconds["bare loops"] += seconds
                    progress.hint(trial.cell, result.epoch)
                elif isinstance(result, Trained):
                    self._note(trial, trial.id, result, seconds, progress)
                    self.seconds["training"] += seconds
                    self._choose(trial, pool)
                else:
                    measures, trained = result
                    self._measured(trial, measures, trained, seconds, progress)
                    self._follow(trial, pool)
        final = [final for wanted in self.wanted for final in self._final(wanted)]
        measured = {trial: self.measured[trial] for trial in [*final, *self._baselines()]}
        extra = [trial for wanted in self.trained for trial in self._final(wanted)]
        every = dict.fromkeys([*tuning, *extra])
        trained = [self.tuned[trial] for trial in every]
        return Results(measured, trained, self.chosen, self.throughput, self.seconds)

    def _tuning(self) -> list[Trial]:
        training = self.spec.training
        return [
            replace(trial, learning_rate=rate, seed=seed)
            for trial in self.trained
            for seed in training.seeds[: training.tuning_seeds]
            for rate in self.rates
        ]

    def _works(self, tuning: Sequence[Trial]) -> dict[str, Work]:
        """All jobs but the bare loops, which are nothing beside them."""
        training = self.spec.training
        works = {trial.id: Work(training.epochs, trial.cell, "tuning") for trial in tuning}
        for wanted in self.wanted:
            leads = self.leaders[wanted.trained] == wanted
            for index, seed in enumerate(training.seeds):
                trains = leads and index >= training.tuning_seeds
                works[_final_name(replace(wanted, seed=seed))] = Work(
                    training.epochs if trains else 0,
                    wanted.trained.cell,
                    "final" if wanted.trained == wanted else "adapted",
                )
        return works | {trial.id: Work(0, None, trial.norm) for trial in self._baselines()}

    def _submit(self, tuning: Sequence[Trial], pool: Pool) -> None:
        """Queue what does not depend on what comes out: a little of each kind first.

        What is known of all kinds of jobs early tells how long the rest will take.
        """
        first: dict[Cell, Trial] = {}
        for trial in tuning:
            if trial.id not in self.kept[0]:
                first.setdefault(trial.cell, trial)
        for trial in first.values():
            self._measure_bare(trial, pool)
        baselines = self._baselines()
        early = list({baseline.norm: baseline for baseline in reversed(baselines)}.values())
        for baseline in early:
            pool.submit(baseline, jobs.baseline_job, self.spec, self.folder, baseline)
        for trial in tuning:
            self._measure_bare(trial, pool)
            pool.submit(trial, jobs.train_job, self.spec, self.folder, trial)
        self.short = [(other, jobs.baseline_job) for other in baselines if other not in early]

    def _measure_bare(self, trial: Trial, pool: Pool) -> None:
        """Queue the bare loop of what is trained next, unless an earlier session has trained it."""
        if trial.id not in self.kept[0]:
            pool.submit(trial, jobs.bare_job, self.spec, self.folder, trial)

    def _on_progress(self, progress: Progress) -> OnProgress:
        """Steps are told by the names of what is trained, also within final trials."""
        tuning = {trial.id for trial in self._tuning()}
        names: dict[str, str] = {}

        def step(name: str, done: int, seconds: float) -> None:
            if name not in tuning and name not in names:
                names.update(
                    (final.trained.id, _final_name(final))
                    for trained, leader in self.leaders.items()
                    if (trained.cell, trained.fold) in self.chosen
                    for final in self._final(leader)
                )
            progress.step(name if name in tuning else names[name], done, seconds)

        return step

    def _note(
        self, trial: Trial, name: str, trained: Trained, seconds: float, progress: Progress
    ) -> None:
        self.tuned[trial] = trained
        told = f"{trial.id}: {_outcome(trained)}"
        kept = trial.id in self.kept[0]
        seen, spent = progress.finish(name, len(trained.curve), seconds, told, kept)
        self.throughput.note(trial, seen * trained.windows, spent)

    def _measured(
        self,
        trial: Trial,
        measures: Measures,
        trained: Trained | None,
        seconds: float,
        progress: Progress,
    ) -> None:
        self.measured[trial] = measures
        if trained is not None and trained.trial not in self.tuned:
            self._note(trained.trial, _final_name(trial), trained, seconds, progress)
            # Of one that was taken up again it tells what its training took in all.
            kept = trained.trial.id in self.kept[0]
            of_training = 0.0 if kept else min(trained.seconds, seconds)
            self.seconds["training"] += of_training
            self.seconds["scoring"] += seconds - of_training
        else:
            self.seconds["baselines" if trial.is_baseline else "scoring"] += seconds
            name = trial.id if trained is None else _final_name(trial)
            progress.finish(name, 0, seconds, kept=trial.id in self.kept[1])

    def _final(self, wanted: Trial) -> list[Trial]:
        rate = self.chosen[wanted.trained.cell, wanted.fold]
        return [replace(wanted, learning_rate=rate, seed=s) for s in self.spec.training.seeds]

    def _baselines(self) -> list[Trial]:
        places = dict.fromkeys((t.task, t.negatives, t.fold) for t in self.wanted)
        return [
            Trial(BASELINE, negatives, name, 0.0, seed, task, fold)
            for task, negatives, fold in places
            for name in baseline_names(self.spec, task)
            for seed in self.spec.training.seeds
        ]

    def _choose(self, trial: Trial, pool: Pool) -> None:
        """Choose the learning rate of a cell in a fold once all its tuning trials are in.

        The best mean validation score wins; of equals the smallest rate.
        """
        seeds = self.spec.training.seeds[: self.spec.training.tuning_seeds]
        groups = {
            rate: [replace(trial, learning_rate=rate, seed=seed) for seed in seeds]
            for rate in self.rates
        }
        if not all(other in self.tuned for group in groups.values() for other in group):
            return
        means = {
            rate: sum(self.tuned[other].validation_score for other in group) / len(group)
            for rate, group in groups.items()
        }
        self.chosen[trial.cell, trial.fold] = max(self.rates, key=lambda rate: means[rate])
        blank = replace(trial, learning_rate=0.0, seed=0)
        for final in self._final(self.leaders[blank]):
            if final.trained in self.tuned:
                self.short.append((final, jobs.final_job))
            else:
                self._measure_bare(final.trained, pool)
                pool.submit(final, jobs.final_job, self.spec, self.folder, final)
        if len(self.chosen) == len(self.trained):
            for last, job in self.short:
                pool.submit(last, job, self.spec, self.folder, last)

    def _follow(self, trial: Trial, pool: Pool) -> None:
        """Queue the trials that take what this one has trained, now that it is there."""
        blank = replace(trial, learning_rate=0.0, seed=0)
        for wanted in self.wanted:
            if self.leaders[wanted.trained] == blank != wanted:
                final = replace(trial, norm=wanted.norm)
                pool.submit(final, jobs.final_job, self.spec, self.folder, final)


def _final_name(final: Trial) -> str:
    """Name of a final trial that is known before its rate is chosen."""
    return "final " + replace(final, learning_rate=0.0).id


def _outcome(trained: Trained) -> str:
    return (
        f"best validation score {trained.validation_score:.4f} in epoch {trained.best_epoch + 1}, "
        f"{trained.seconds:.0f} s"
    )
