"""One trial: train a model, score the evaluation windows, measure. A pure function of its inputs.

A trial's folder holds ``model.safetensors``, ``model.json`` (`seqnorm.load_model` reads them) and
``trained.json`` once it is trained, and ``scores.npy`` and ``measures.npz`` once it is scored; each
file appears whole or not at all.
"""

import io
import json
import math
import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load
from sklearn.metrics import average_precision_score

from data_tools.atomic import write_atomic
from seqnorm.holdout.design import Cell, Fold
from seqnorm.holdout.measures import Measures, measure
from seqnorm.holdout.scores import adapted_scores, scores_of, select, tensors_of
from seqnorm.holdout.spec import Model, Spec, Training
from seqnorm.holdout.windows import VALIDATION, WindowSet
from seqnorm.kinds import parse_choice
from seqnorm.models import ReverseComplementAverage, build_model
from seqnorm.runs.naming import in_name, safe_name
from seqnorm.saved import save_model
from seqnorm.training import (
    Precision,
    TrainingConfig,
    batch_size_for,
    fit,
    precision_for,
    resolve_device,
)

OnEpoch = Callable[[int], None]


BASELINE = "baseline"
"""In place of a model's name, of what is no network."""

AGAIN = 1_000_000
"""Added to the seed of what is trained ``again``; the windows stay those of the seed."""
FOLDS = 1_000_000
"""Numbers that the names of folds are mapped to; those of one study hardly ever to the same."""


@dataclass(frozen=True, order=True)
class Trial:
    """What distinguishes one trained model from another."""

    model: str
    negatives: str
    norm: str
    learning_rate: float
    seed: int
    task: str = "main"
    fold: str = "all"

    @property
    def id(self) -> str:
        """Name of its folder."""
        norm = self.norm.replace(":", "")
        rate = in_name(self.learning_rate)
        where = [self.task] * (self.task != "main") + [safe_name(self.fold)] * (self.fold != "all")
        return "-".join([*where, self.model, self.negatives, norm, f"lr{rate}", f"s{self.seed}"])

    @property
    def cell(self) -> Cell:
        """Task, model, negatives and norm: what is tuned and compared."""
        return Cell(self.task, self.model, self.negatives, self.norm)

    @property
    def is_baseline(self) -> bool:
        """Whether ``norm`` names a baseline."""
        return self.model == BASELINE

    @property
    def trained(self) -> "Trial":
        """The trial that trains it: adapting takes what another has trained."""
        return replace(self, norm=parse_choice(self.norm).trained)

    @property
    def random_seed(self) -> int:
        """Seed of the weights and of the order of the windows.

        Each fold has its own: else what a start brings would be common to all chromosomes, and
        no spread between them would show it.
        """
        fold = 0 if self.fold == "all" else 1 + zlib.crc32(self.fold.encode()) % FOLDS
        again = parse_choice(self.norm).variant == "again"
        return self.seed + AGAIN * (again + 2 * fold)


@dataclass(frozen=True)
class Trained:
    """Outcome of training; the validation score chooses the learning rate."""

    trial: Trial
    validation_score: float
    best_epoch: int
    diverged: bool
    curve: list[dict[str, float]]
    seconds: float
    windows: int
    """Training windows of an epoch."""


def validation_score(labels: NDArray[Any], logits: NDArray[Any]) -> float:
    """Average precision: chooses epochs, learning rates and the baselines' penalty alike."""
    if not np.isfinite(logits).all():
        return -math.inf
    return float(average_precision_score(labels, logits))


def config_of(spec: Spec, trial: Trial) -> TrainingConfig:
    """Training settings of a trial."""
    given = spec.training
    return TrainingConfig(
        learning_rate=trial.learning_rate,
        epochs=given.epochs,
        batch_size=batch_size_of(given),
        weight_decay=given.weight_decay,
        warmup=given.warmup,
        patience=given.patience,
        precision=precision_of(given),
        device=given.device,
        seed=trial.random_seed,
    )


def precision_of(training: Training) -> Precision:
    """Precision of a spec's training: as it says, or as its device has it."""
    if training.precision == "auto":
        return precision_for(resolve_device(training.device))
    return training.precision


def batch_size_of(training: Training) -> int:
    """Batch size of a spec's training: as it says, or as suits its device."""
    if training.batch_size == "auto":
        return batch_size_for(resolve_device(training.device))
    return training.batch_size


def options_of(models: tuple[Model, ...], name: str) -> dict[str, Any]:
    """Constructor options of a model of the spec."""
    return next(model.options for model in models if model.name == name)


def train(
    spec: Spec,
    trial: Trial,
    folder: Path,
    training: WindowSet,
    evaluation: WindowSet,
    on_epoch: OnEpoch,
) -> Trained:
    """Train, or go on from the last checkpoint, or read what an earlier run has trained."""
    done = folder / "trained.json"
    checkpoint = folder / "checkpoint"
    if done.exists():
        # The earlier run may have been killed before it removed it.
        shutil.rmtree(checkpoint, ignore_errors=True)
        return read_trained(done)
    started = time.perf_counter()
    model = model_of(spec, trial)
    folder.mkdir(parents=True, exist_ok=True)
    history = fit(
        model,
        tensors_of(training),
        tensors_of(select(evaluation, VALIDATION)),
        config_of(spec, trial),
        score=validation_score,
        checkpoint=checkpoint,
        on_epoch=lambda epoch, entry: on_epoch(epoch),
    )
    save_model(
        folder,
        model,
        name=trial.model,
        norm=trial.norm,
        options=options_of(spec.models, trial.model),
        seed=trial.random_seed,
        width=training.codes.shape[1] - 2 * training.margin,
        trial=trial.id,
    )
    trained = Trained(
        trial,
        history.best_score,
        history.best_epoch,
        history.diverged,
        history.epochs,
        round(time.perf_counter() - started, 3),
        len(training.table),
    )
    # A diverged first epoch leaves a score of minus infinity, which JSON does not know.
    entry = asdict(trained) | {
        "validation_score": history.best_score if history.best_epoch >= 0 else None
    }
    write_atomic(done, json.dumps(entry, indent=1))
    shutil.rmtree(checkpoint, ignore_errors=True)
    return trained


def read_trained(path: Path) -> Trained:
    """Read a ``trained.json``."""
    entry = json.loads(path.read_text())
    entry["trial"] = Trial(**entry["trial"])
    if entry["validation_score"] is None:
        entry["validation_score"] = -math.inf
    return Trained(**entry)


def model_of(spec: Spec, trial: Trial) -> ReverseComplementAverage:
    """The model of a trial before training."""
    options = options_of(spec.models, trial.model)
    return build_model(trial.model, trial.norm, trial.random_seed, **options)


def score(
    spec: Spec,
    trial: Trial,
    folder: Path,
    weights: Path,
    evaluation: WindowSet,
    keeper: "Keeper",
) -> Measures:
    """Score the evaluation windows with a trained trial, and measure.

    Parameters
    ----------
    spec, trial
    folder
        Of the trial.
    weights
        Folder of the trial that trained them.
    evaluation
        Windows of the trial's fold.
    keeper
        Measures and writes.
    """
    done = folder / "measures.npz"
    if done.exists():
        return Measures.load(done)
    model = model_of(spec, trial)
    model.load_state_dict(load((weights / "model.safetensors").read_bytes()))
    model.to(resolve_device(spec.training.device))
    scorer = adapted_scores if parse_choice(trial.norm).variant == "adapted" else scores_of
    logits, features = scorer(model, evaluation, precision_of(spec.training))
    return keeper.keep(folder, logits, evaluation, features)


@dataclass(frozen=True)
class Keeper:
    """Measures the scores of a fold's evaluation windows and writes both, the measures last."""

    spec: Spec
    fold: Fold
    edges: NDArray[np.float64]

    def keep(
        self,
        folder: Path,
        logits: NDArray[np.float32],
        evaluation: WindowSet,
        features: NDArray[np.float32] | None = None,
    ) -> Measures:
        """Write ``scores.npy``, then ``measures.npz``."""
        folder.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        np.save(stream, logits)
        write_atomic(folder / "scores.npy", stream.getvalue())
        wide = None if features is None else features.astype(np.float64)
        scores = logits.astype(np.float64)
        measures = measure(self.spec, self.fold, evaluation.table, scores, self.edges, wide)
        measures.save(folder / "measures.npz")
        return measures
