"""What worker processes do: measure a bare loop, train, finish a trial, fit a baseline."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqnorm.holdout.baselines import OPTIMUM, features, fit_baseline
from seqnorm.holdout.design import folds_of
from seqnorm.holdout.draw import edges_file, evaluation_file, training_file
from seqnorm.holdout.measures import Measures
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.speed import BareLoop, bare_loop
from seqnorm.holdout.trial import Keeper, Trained, Trial, score, train
from seqnorm.holdout.windows import WindowSet
from seqnorm.runs.pool import report_progress

_windows = cache(WindowSet.load)


@cache
def _evaluation_features(name: str, motif: str | None, file: Path) -> NDArray[np.float32]:
    return features(name, motif, _windows(file))


def _keeper(spec: Spec, folder: Path, trial: Trial) -> Keeper:
    fold = next(fold for fold in folds_of(spec) if fold.name == trial.fold)
    return Keeper(spec, fold, np.load(edges_file(folder, trial.task), allow_pickle=False))


def _windows_of(spec: Spec, folder: Path, trial: Trial) -> tuple[WindowSet, WindowSet]:
    """Training and evaluation windows of a trial."""
    return (
        _windows(training_file(spec, folder, trial.task, trial.fold, trial.negatives, trial.seed)),
        _windows(evaluation_file(folder, trial.task, trial.fold)),
    )


def bare_job(spec: Spec, folder: Path, trial: Trial) -> BareLoop:
    """Measure the bare loop of a trial's model."""
    return bare_loop(spec, trial, *_windows_of(spec, folder, trial))


def train_job(spec: Spec, folder: Path, trial: Trial) -> Trained:
    """Train a trial."""
    return train(
        spec,
        trial,
        folder / "trials" / trial.id,
        *_windows_of(spec, folder, trial),
        on_epoch=lambda epoch: report_progress(trial.id, epoch + 1),
    )


def final_job(spec: Spec, folder: Path, trial: Trial) -> tuple[Measures, Trained]:
    """Train a trial unless tuning has done so, then measure it on the test chromosomes."""
    trained = train_job(spec, folder, trial.trained)
    measures = score(
        spec,
        trial,
        folder / "trials" / trial.id,
        folder / "trials" / trial.trained.id,
        _windows(evaluation_file(folder, trial.task, trial.fold)),
        _keeper(spec, folder, trial),
    )
    return measures, trained


def baseline_job(spec: Spec, folder: Path, trial: Trial) -> tuple[Measures, None]:
    """Fit, tune and measure a baseline; ``trial.norm`` is its name."""
    done = folder / "trials" / trial.id / "measures.npz"
    if done.exists():
        return Measures.load(done), None
    file = evaluation_file(folder, trial.task, trial.fold)
    evaluation = _windows(file)
    if trial.norm == OPTIMUM:
        logits = evaluation.table["optimum"].to_numpy(dtype=np.float32)
    else:
        training = training_file(spec, folder, trial.task, trial.fold, trial.negatives, trial.seed)
        motif = spec.motif
        logits = fit_baseline(
            trial.norm,
            motif,
            _windows(training),
            evaluation,
            _evaluation_features(trial.norm, motif, file),
        ).logits
    return _keeper(spec, folder, trial).keep(done.parent, logits, evaluation), None
