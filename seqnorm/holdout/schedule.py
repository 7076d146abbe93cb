"""What to train and when: every norm tuned alike, and measured as soon as it is tuned."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seqnorm.holdout import jobs
from seqnorm.holdout.baselines import baseline_names
from seqnorm.holdout.design import Cell, cells_of, folds_of
from seqnorm.holdout.measures import Measures
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.trial import BASELINE, Trained, Trial
from seqnorm.runs.pool import Pool
from seqnorm.runs.progress import Progress


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
    """

    measured: Mapping[Trial, Measures]
    tuned: Sequence[Trained]
    chosen: Mapping[tuple[Cell, str], float]

    def rate(self, trial: Trial) -> float:
        """Learning rate that was chosen for a trial's cell and fold."""
        return self.chosen[trial.trained.cell, trial.fold]


class Schedule:
    """Tuning first, the final trials of a cell in a fold as soon as it is tuned there.

    The rate is chosen in each fold by itself, on that fold's validation windows: what another
    fold trains on may be what this one tests on.
    """

    def __init__(self, spec: Spec, folder: Path, workers: int, say: Callable[[str], None]) -> None:
        self.spec = spec
        self.folder = folder
        self.workers = workers
        self.say = say
        self.rates = sorted(spec.training.learning_rates)
        # One trial, whose rate and seed are filled in, for each cell and fold.
        self.wanted = [
            Trial(cell.model, cell.negatives, cell.norm, 0.0, 0, cell.task, fold.name)
            for cell in cells_of(spec)
            for fold in folds_of(spec)
        ]
        self.trained = list(dict.fromkeys(trial.trained for trial in self.wanted))
        self.tuned: dict[Trial, Trained] = {}
        self.measured: dict[Trial, Measures] = {}
        self.chosen: dict[tuple[Cell, str], float] = {}

    def run(self) -> Results:
        """Run everything; the results come in the order of the spec."""
        training = self.spec.training
        tuning = [
            replace(trial, learning_rate=rate, seed=seed)
            for trial in self.trained
            for seed in training.seeds[: training.tuning_seeds]
            for rate in self.rates
        ]
        further = len(self.trained) * (len(training.seeds) - training.tuning_seeds)
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
                    self._note(trial, result, progress)
                    self._choose(trial, pool)
                else:
                    self.measured[trial], trained = result
                    if trained is not None and trained.trial not in self.tuned:
                        self._note(trained.trial, trained, progress)
        final = [final for wanted in self.wanted for final in self._final(wanted)]
        measured = {trial: self.measured[trial] for trial in [*final, *self._baselines()]}
        extra = [trial for wanted in self.trained for trial in self._final(wanted)]
        every = dict.fromkeys([*tuning, *extra])
        return Results(measured, [self.tuned[trial] for trial in every], self.chosen)

    def _note(self, trial: Trial, trained: Trained, progress: Progress) -> None:
        progress.finish(trial.id, _outcome(trained))
        self.tuned[trial] = trained

    def _final(self, wanted: Trial) -> list[Trial]:
        rate = self.chosen[wanted.trained.cell, wanted.fold]
        return [replace(wanted, learning_rate=rate, seed=s) for s in self.spec.training.seeds]

    def _baselines(self) -> list[Trial]:
        places = dict.fromkeys((t.task, t.negatives, t.fold) for t in self.wanted)
        return [
            Trial(BASELINE, negatives, name, 0.0, seed, task, fold)
            for name in baseline_names(self.spec)
            for task, negatives, fold in places
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
        for wanted in self.wanted:
            if wanted.trained == blank:
                for final in self._final(wanted):
                    pool.submit(final, jobs.final_job, self.spec, self.folder, final)


def _outcome(trained: Trained) -> str:
    return (
        f"best validation score {trained.validation_score:.4f} in epoch {trained.best_epoch + 1}, "
        f"{trained.seconds:.0f} s"
    )
