"""What worker processes do: train, finish a trial, fit a baseline."""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seqnorm.holdout.baselines import features, fit_baseline
from seqnorm.holdout.measures import Measures
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.trial import Trained, Trial, keep, score, train
from seqnorm.holdout.windows import WindowSet
from seqnorm.runs.pool import report_progress


@cache
def _windows(path: Path) -> WindowSet:
    return WindowSet.load(path)


def _evaluation(folder: Path) -> WindowSet:
    return _windows(folder / "windows" / "evaluation.npz")


def _training(folder: Path, trial: Trial) -> WindowSet:
    return _windows(folder / "windows" / f"train-{trial.negatives}-s{trial.seed}.npz")


@cache
def _evaluation_features(name: str, motif: str | None, folder: Path) -> NDArray[np.float32]:
    return features(name, motif, _evaluation(folder))


def train_job(spec: Spec, folder: Path, trial: Trial) -> Trained:
    """Train a trial."""
    return train(
        spec,
        trial,
        folder / "trials" / trial.id,
        _training(folder, trial),
        _evaluation(folder),
        on_epoch=lambda epoch: report_progress(trial.id, epoch + 1),
    )


def final_job(spec: Spec, folder: Path, trial: Trial) -> tuple[Measures, Trained]:
    """Train a trial unless tuning has done so, then measure it on the test chromosomes."""
    trained = train_job(spec, folder, trial)
    measures = score(spec, trial, folder / "trials" / trial.id, _evaluation(folder))
    return measures, trained


def baseline_job(spec: Spec, folder: Path, trial: Trial) -> tuple[Measures, None]:
    """Fit, tune and measure a baseline; ``trial.norm`` is its name."""
    done = folder / "trials" / trial.id / "measures.npz"
    if done.exists():
        return Measures.load(done), None
    evaluation = _evaluation(folder)
    fitted = fit_baseline(
        trial.norm,
        spec.data.motif,
        _training(folder, trial),
        evaluation,
        _evaluation_features(trial.norm, spec.data.motif, folder),
    )
    return keep(spec, folder / "trials" / trial.id, fitted.logits, evaluation), None
