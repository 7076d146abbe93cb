"""One training loop, for the hold-out experiment and for federated clients.

AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101), linear warm-up and cosine decay (2017,
arXiv:1608.03983), early stopping on a validation score. Everything random is a function of the
seed and the epoch, so a run that was stopped goes on with the bits of one that was not.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.batches import LabelledWindows
from seqnorm.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

Precision = Literal["float32", "bfloat16", "float16"]
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


@dataclass
class History:
    """What happened, an entry an epoch, and which epoch's weights were kept."""

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
        For CUDA on a machine that has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device '{name}' asked for, but no CUDA device is at hand; use 'cpu'")
    return device


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

    A non-finite loss ends the epoch early and is returned as it is.
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
                logits = model(x)
            loss = F.binary_cross_entropy_with_logits(logits.float().squeeze(-1), y)
            value = loss.item()
            if not math.isfinite(value):
                return value
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            scaler.step(optimizer)
            scaler.update()
            total, seen = total + value * len(y), seen + len(y)
    return total / max(1, seen)


def autocast(device: torch.device, precision: Precision) -> Any:
    """Autocast context for a precision; none for float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, precision))


@torch.no_grad()
def predict(
    model: nn.Module,
    data: LabelledWindows,
    *,
    batch_size: int = 64,
    precision: Precision = "float32",
) -> NDArray[np.float32]:
    """Logits of the windows, in their order, in evaluation mode.

    Returns
    -------
    numpy.ndarray
        float32 of shape (N,).
    """
    device = next(model.parameters()).device
    model.eval()
    parts: list[Tensor] = []
    for x, _ in data.in_order(batch_size, device):
        with autocast(device, precision):
            parts.append(model(x).float().squeeze(-1).cpu())
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
        Stops early, with ``diverged`` set, when the loss is no longer finite.

    Raises
    ------
    CheckpointError
        When the checkpoint was written with another configuration.
    """
    device = resolve_device(config.device)
    model.to(device)
    optimizer = make_optimizer(model, config)
    scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
    history, best = History(), _copy_state(model)
    if checkpoint is not None and (found := load_checkpoint(checkpoint)) is not None:
        history, best = _restore(found, model, optimizer, scaler, config, checkpoint)
    labels = validation.labels.numpy()
    while not history.finished:
        epoch = len(history.epochs)
        loss = train_epoch(model, train, optimizer, scaler, config, epoch)
        history.diverged = not math.isfinite(loss)
        value = -math.inf
        if not history.diverged:
            logits = predict(model, validation, precision=config.precision)
            value = score(labels, logits)
            entry = {
                "train_loss": loss,
                "validation_loss": -negative_loss(labels, logits),
                "validation_score": value,
            }
            history.epochs.append(entry)
            if value > history.best_score:
                history.best_score, history.best_epoch = value, epoch
                best = _copy_state(model)
        history.finished = (
            history.diverged
            or epoch + 1 >= config.epochs
            or epoch - history.best_epoch >= config.patience
        )
        if checkpoint is not None:
            _store(checkpoint, model, optimizer, scaler, config, history, best)
        # After the checkpoint, so that a caller may stop the run from here and lose nothing.
        if on_epoch is not None and not history.diverged:
            on_epoch(epoch, history.epochs[-1])
    model.load_state_dict(best)
    return history


# --- checkpoints ---------------------------------------------------------------------------


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _store(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainingConfig,
    history: History,
    best: dict[str, Tensor],
) -> None:
    tensors = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": value for slot, value in slots.items()}
    state = {
        "config": asdict(config),
        # JSON has no infinity: no epoch kept yet is written as null.
        "history": asdict(history)
        | {"best_score": history.best_score if history.best_epoch >= 0 else None},
        "scaler": scaler.state_dict(),
    }
    save_checkpoint(folder, tensors, state)


def _restore(
    found: tuple[dict[str, Tensor], dict[str, Any]],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: TrainingConfig,
    folder: Path,
) -> tuple[History, dict[str, Tensor]]:
    tensors, state = found
    if state["config"] != asdict(config):
        changed = [k for k, v in asdict(config).items() if state["config"].get(k) != v]
        raise CheckpointError(
            f"{folder}: this checkpoint was written with other settings ({', '.join(changed)}); "
            "use another folder or the same settings"
        )
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, rest = name.split("/", 1)
        parts[part][rest] = tensor
    model.load_state_dict(parts["model"])
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        index, slot = name.split("/")
        slots.setdefault(int(index), {})[slot] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": slots})
    scaler.load_state_dict(state["scaler"])
    fields = state["history"]
    if fields["best_score"] is None:
        fields["best_score"] = -math.inf
    return History(**fields), parts["best"]
