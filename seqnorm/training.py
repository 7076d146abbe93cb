"""One training loop, for the hold-out experiment and for federated clients.

AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), linear warm-up and cosine decay (2017,
arXiv:1608.03983), early stopping on a validation score. Everything random is a function of the
seed and the epoch, so a run that was stopped goes on with the bits of one that was not.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.batches import LabelledWindows
from seqnorm.resume import Run, copy_state, fingerprint, restore, store

Precision = Literal["float32", "bfloat16", "float16"]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Score = Callable[[NDArray[np.float32], NDArray[np.float32]], float]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes
    ----------
    learning_rate : float
        Peak of the schedule.
    epochs : int
        Length of the schedule.
    batch_size : int
        Windows a step.
    weight_decay : float
        AdamW's, on matrices and kernels only: biases and normalization gains are exempt.
    warmup : float
        Fraction of all steps over which the learning rate rises linearly from 0.
    patience : int
        Epochs without a better validation score after which training stops.
    clip : float
        Largest gradient norm.
    precision : {"float32", "bfloat16", "float16"}
        Type of the forward pass under autocast; weights and moments stay float32.
    device : str
        ``"auto"`` takes CUDA where there is one.
    seed : int
        Of order, jitter, strand and dropout.

    Raises
    ------
    ValueError
        For a value that cannot be; names it.
    """

    learning_rate: float = 3e-3
    epochs: int = 12
    batch_size: int = 64
    weight_decay: float = 1e-2
    warmup: float = 0.1
    patience: int = 5
    clip: float = 5.0
    precision: Precision = "float32"
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        count = "a whole number of at least 1"
        for name, right, rule in (
            ("learning_rate", 0 < self.learning_rate < math.inf, "positive and finite"),
            ("epochs", _whole(self.epochs) and self.epochs >= 1, count),
            ("batch_size", _whole(self.batch_size) and self.batch_size >= 1, count),
            ("weight_decay", 0 <= self.weight_decay < math.inf, "0 or more, and finite"),
            ("warmup", 0 <= self.warmup <= 1, "a fraction of the steps, between 0 and 1"),
            ("patience", _whole(self.patience) and self.patience >= 1, count),
            ("clip", self.clip > 0, "positive; inf clips nothing"),
            ("precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            # Times a million, and an epoch added, it still has to fit into 64 bits.
            ("seed", _whole(self.seed) and 0 <= self.seed < 2**43, "a whole number below 2**43"),
        ):
            if not right:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)!r}")


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass
class History:
    """What happened, an entry an epoch, and which epoch's weights were kept.

    ``best_epoch`` is -1, and the weights are those from before training, where no epoch had a
    score above minus infinity.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = -1
    best_score: float = -math.inf
    diverged: bool = False
    finished: bool = False


def resolve_device(name: str) -> torch.device:
    """Turn ``"auto"`` or a device name into a device that exists.

    Raises
    ------
    ValueError
        For a name that is no device, or a CUDA device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"'{name}' is no device; use 'auto', 'cpu' or 'cuda'") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device '{name}' asked for, but this machine has {torch.cuda.device_count()} CUDA "
            "devices; use 'auto' or 'cpu'"
        )
    return device


def precision_for(device: torch.device) -> Precision:
    """Precision for a device: bfloat16 on a GPU that computes with it, float32 elsewhere.

    GPUs of compute capability 8.0 and later do (CUDA C++ Programming Guide, arithmetic
    instructions).

    Examples
    --------
    >>> precision_for(torch.device("cpu"))
    'float32'
    """
    # A cluster may have GPUs that this machine lacks: nothing is known of them here.
    if device.type != "cuda" or not torch.cuda.is_available():
        return "float32"
    return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"


def batch_size_for(device: torch.device) -> int:
    """Windows at a time that suit a device: 64 on a processor, 256 on a GPU.

    On a processor larger batches train at most 1.4 times as fast (``benchmarks/holdout_scale.md``)
    and leave fewer steps to learn in, and small ones stay in its caches when they are scored. That
    of a GPU is reasoned, not measured. BatchNorm's statistics are those of a batch: what is trained
    to be compared across devices wants a size of its own choice.

    Examples
    --------
    >>> batch_size_for(torch.device("cpu"))
    64
    """
    return 256 if device.type == "cuda" else 64


def learning_rate_at(step: int, total: int, config: TrainingConfig) -> float:
    """Linear warm-up to the peak, then a cosine to zero.

    Examples
    --------
    >>> config = TrainingConfig(learning_rate=1.0, warmup=0.1)
    >>> [round(learning_rate_at(step, 100, config), 2) for step in (0, 9, 55, 100)]
    [0.1, 1.0, 0.5, 0.0]
    """
    warm = max(1, round(config.warmup * total))
    if step < warm:
        return config.learning_rate * (step + 1) / warm
    progress = (step - warm) / max(1, total - warm)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW that decays weights of two or more dimensions only."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )


def train_epoch(
    model: nn.Module,
    data: LabelledWindows,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainingConfig,
    epoch: int,
) -> float:
    """Train for one epoch of the schedule and return the mean loss.

    The mean is over the windows that were shown. A non-finite loss ends the epoch early and is
    returned as it is.
    """
    device = next(model.parameters()).device
    steps = math.ceil(len(data) / config.batch_size)
    model.train()
    total, seen = 0.0, 0
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Dropout masks, too, depend on the seed and the epoch alone.
        torch.manual_seed(config.seed * 1_000_003 + epoch)
        batches = data.shuffled(config.batch_size, config.seed, epoch, device)
        for number, (x, y) in enumerate(batches):
            rate = learning_rate_at(epoch * steps + number, config.epochs * steps, config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with autocast(device, config.precision):
                logits = _one_each(model(x), len(x))
            loss = F.binary_cross_entropy_with_logits(logits, y)
            value = loss.item()
            if not math.isfinite(value):
                return value
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(scaler.scale(loss))
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            scaler.step(optimizer)
            scaler.update()
            total, seen = total + value * len(y), seen + len(y)
    return total / max(1, seen)


def _one_each(logits: Tensor, windows: int) -> Tensor:
    """Logits (N,) or (N, 1) as float32 (N,)."""
    if logits.shape not in ((windows,), (windows, 1)):
        raise ValueError(
            f"the model gave {tuple(logits.shape)} for {windows} windows; training needs one logit "
            "a window, shape (N,) or (N, 1)"
        )
    return logits.float().reshape(windows)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Autocast context for a precision; none for float32.

    Raises
    ------
    ValueError
        For an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


@torch.no_grad()
def predict(
    model: nn.Module,
    data: LabelledWindows,
    *,
    batch_size: int | None = None,
    precision: Precision = "float32",
) -> NDArray[np.float32]:
    """Logits of the windows, in their order, in evaluation mode.

    Parameters
    ----------
    model, data
    batch_size : int, optional
        Windows at a time; as suits the model's device unless given (`batch_size_for`).
    precision : {"float32", "bfloat16", "float16"}
        Of the forward pass, under autocast.

    Returns
    -------
    numpy.ndarray
        float32 of shape (N,).
    """
    device = next(model.parameters()).device
    model.eval()
    parts: list[Tensor] = []
    for x, _ in data.in_order(batch_size or batch_size_for(device), device):
        with autocast(device, precision):
            parts.append(_one_each(model(x), len(x)).cpu())
    return torch.cat(parts).numpy() if parts else np.empty(0, dtype=np.float32)


def negative_loss(labels: NDArray[np.float32], logits: NDArray[np.float32]) -> float:
    """Minus the mean binary cross-entropy: the default validation score."""
    loss = F.binary_cross_entropy_with_logits(torch.from_numpy(logits), torch.from_numpy(labels))
    return -loss.item()


def fit(
    model: nn.Module,
    train: LabelledWindows,
    validation: LabelledWindows,
    config: TrainingConfig,
    *,
    score: Score = negative_loss,
    checkpoint: Path | None = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
) -> History:
    """Train, and leave the model with the weights of its best validation epoch.

    Parameters
    ----------
    model
        Maps one-hot (N, 4, L) to logits (N,) or (N, 1).
    train, validation
        Windows; training ones may have a margin for jitter.
    config
        How to train.
    score
        ``score(labels, logits)``; higher is better. Chooses the epoch and stops training.
    checkpoint
        Folder to save to after every epoch and to resume from when it holds something.
    on_epoch
        Called with the epoch's number (from 0) and its entry in the history.

    Returns
    -------
    History
        Stops early, with ``diverged`` set, when the loss or a validation logit is not finite.

    Raises
    ------
    CheckpointError
        When the checkpoint is damaged, or of other settings, another model or other windows.
    ValueError
        When there is no window to train or to validate on, the model does not give one logit a
        window, or the score is not a number.
    """
    for name, windows in (("training", train), ("validation", validation)):
        if len(windows) == 0:
            raise ValueError(f"there are no {name} windows; give at least one")
    device = resolve_device(config.device)
    model.to(device)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
    run = Run(model, make_optimizer(model, config), scaler)
    history, best = History(), copy_state(model)
    settings: dict[str, Any] = {}
    if checkpoint is not None:
        settings = asdict(config) | fingerprint(model, train, validation)
        if (found := restore(checkpoint, run, settings)) is not None:
            best, history = found[0], _read_history(found[1])
    while not history.finished:
        epoch = len(history.epochs)
        loss = train_epoch(model, train, run.optimizer, scaler, config, epoch)
        entry = _validate(model, validation, config, score, loss)
        history.diverged = entry is None
        if entry is not None:
            history.epochs.append(entry)
            if entry["validation_score"] > history.best_score:
                history.best_score, history.best_epoch = entry["validation_score"], epoch
                best = copy_state(model)
        history.finished = (
            history.diverged
            or epoch + 1 >= config.epochs
            or epoch - history.best_epoch >= config.patience
        )
        if checkpoint is not None:
            store(checkpoint, run, best, _as_json(history), settings)
        # After the checkpoint, so that a caller may stop the run from here and lose nothing.
        if on_epoch is not None and entry is not None:
            on_epoch(epoch, entry)
    model.load_state_dict(best)
    model.eval()
    return history


def _validate(
    model: nn.Module, windows: LabelledWindows, config: TrainingConfig, score: Score, loss: float
) -> dict[str, float] | None:
    """Entry of an epoch in the history; None when the run has diverged."""
    if not math.isfinite(loss):
        return None
    logits = predict(model, windows, precision=config.precision)
    if not np.isfinite(logits).all():
        return None
    labels = windows.labels.cpu().numpy()
    value = float(score(labels, logits))
    if math.isnan(value):
        raise ValueError(
            "the validation score is not a number; do the validation windows hold both classes?"
        )
    return {
        "train_loss": loss,
        "validation_loss": -negative_loss(labels, logits),
        "validation_score": value,
    }


def _as_json(history: History) -> dict[str, Any]:
    # JSON has no infinity: no epoch kept yet is written as null.
    kept = history.best_epoch >= 0
    return asdict(history) | {"best_score": history.best_score if kept else None}


def _read_history(fields: dict[str, Any]) -> History:
    score = fields["best_score"]
    return History(**fields | {"best_score": -math.inf if score is None else score})
