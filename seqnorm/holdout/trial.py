"""One trial: train a model, score the evaluation windows, measure. A pure function of its inputs.

A trial's folder holds ``model.safetensors`` and ``trained.json`` once it is trained, and
``scores.npy`` and ``measures.npz`` once it is scored; each file appears whole or not at all.
"""

import io
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from sklearn.metrics import average_precision_score

from data_tools.atomic import write_atomic
from seqnorm.batches import LabelledWindows
from seqnorm.holdout.measures import Measures, measure
from seqnorm.holdout.spec import Model, Spec
from seqnorm.holdout.windows import VALIDATION, WindowSet
from seqnorm.models import build_model
from seqnorm.runs.naming import in_name
from seqnorm.training import TrainingConfig, fit, predict, resolve_device

OnEpoch = Callable[[int], None]


@dataclass(frozen=True, order=True)
class Trial:
    """What distinguishes one trained model from another."""

    model: str
    negatives: str
    norm: str
    learning_rate: float
    seed: int

    @property
    def id(self) -> str:
        """Name of its folder."""
        norm = self.norm.replace(":", "")
        rate = in_name(self.learning_rate)
        return f"{self.model}-{self.negatives}-{norm}-lr{rate}-s{self.seed}"

    @property
    def cell(self) -> tuple[str, str, str]:
        """Model, negatives and norm: what is tuned and compared."""
        return (self.model, self.negatives, self.norm)


@dataclass(frozen=True)
class Trained:
    """Outcome of training; the validation score chooses the learning rate."""

    trial: Trial
    validation_score: float
    best_epoch: int
    diverged: bool
    curve: list[dict[str, float]]
    seconds: float


def tensors_of(windows: WindowSet) -> LabelledWindows:
    """Window set as the tensors that `seqnorm.training` takes."""
    labels = windows.table["label"].to_numpy(dtype=np.float32)
    return LabelledWindows(
        torch.from_numpy(windows.codes), torch.from_numpy(labels), windows.margin
    )


def select(windows: WindowSet, part: str) -> WindowSet:
    """Windows of one part."""
    rows = np.flatnonzero((windows.table["part"] == part).to_numpy())
    return WindowSet(
        windows.table.iloc[rows].reset_index(drop=True), windows.codes[rows], windows.margin
    )


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
        batch_size=given.batch_size,
        weight_decay=given.weight_decay,
        warmup=given.warmup,
        patience=given.patience,
        precision=given.precision,
        device=given.device,
        seed=trial.seed,
    )


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
    if done.exists():
        return read_trained(done)
    started = time.perf_counter()
    model = build_model(trial.model, trial.norm, trial.seed, **options_of(spec.models, trial.model))
    folder.mkdir(parents=True, exist_ok=True)
    history = fit(
        model,
        tensors_of(training),
        tensors_of(select(evaluation, VALIDATION)),
        config_of(spec, trial),
        score=validation_score,
        checkpoint=folder / "checkpoint",
        on_epoch=lambda epoch, entry: on_epoch(epoch),
    )
    write_atomic(
        folder / "model.safetensors",
        save({k: v.cpu().contiguous() for k, v in model.state_dict().items()}),
    )
    trained = Trained(
        trial,
        history.best_score,
        history.best_epoch,
        history.diverged,
        history.epochs,
        round(time.perf_counter() - started, 3),
    )
    # A diverged first epoch leaves a score of minus infinity, which JSON does not know.
    entry = asdict(trained) | {
        "validation_score": history.best_score if history.best_epoch >= 0 else None
    }
    write_atomic(done, json.dumps(entry, indent=1))
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return trained


def read_trained(path: Path) -> Trained:
    """Read a ``trained.json``."""
    entry = json.loads(path.read_text())
    entry["trial"] = Trial(**entry["trial"])
    if entry["validation_score"] is None:
        entry["validation_score"] = -math.inf
    return Trained(**entry)


def score(spec: Spec, trial: Trial, folder: Path, evaluation: WindowSet) -> Measures:
    """Score the evaluation windows with a trained trial, and measure."""
    done = folder / "measures.npz"
    if done.exists():
        return Measures.load(done)
    model = build_model(trial.model, trial.norm, trial.seed, **options_of(spec.models, trial.model))
    model.load_state_dict(load((folder / "model.safetensors").read_bytes()))
    model.to(resolve_device(spec.training.device))
    logits = predict(model, tensors_of(evaluation), precision=spec.training.precision)
    return keep(spec, folder, logits, evaluation)


def keep(spec: Spec, folder: Path, logits: NDArray[np.float32], evaluation: WindowSet) -> Measures:
    """Measure the scores and write both, the measures last."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    np.save(stream, logits)
    write_atomic(folder / "scores.npy", stream.getvalue())
    measures = measure(spec, evaluation.table, logits.astype(np.float64))
    measures.save(folder / "measures.npz")
    return measures
