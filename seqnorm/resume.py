"""Stop a training run and go on with the same bits: what its checkpoint holds, and for whom.

A checkpoint fits one run alone: that of the same settings, model and windows. Kinds of norms
share names and shapes of their weights, so those alone would not tell a mistake.
"""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqnorm.batches import LabelledWindows
from seqnorm.checkpoint import CheckpointError, load_checkpoint, save_checkpoint

State = dict[str, Tensor]


class Run(NamedTuple):
    """What a training loop changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler


def copy_state(model: nn.Module) -> State:
    """Copy of a model's parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def fingerprint(
    model: nn.Module, train: LabelledWindows, validation: LabelledWindows
) -> dict[str, str]:
    """Digests of a model's structure (not of its weights) and of the windows."""
    return {
        "model": hashlib.sha256(repr(model).encode()).hexdigest(),
        "training windows": _digest(train),
        "validation windows": _digest(validation),
    }


def _digest(windows: LabelledWindows) -> str:
    digest = hashlib.sha256(f"{tuple(windows.codes.shape)} {windows.margin}".encode())
    for tensor in (windows.codes, windows.labels):
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def store(
    folder: Path, run: Run, best: State, history: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Save a run after an epoch.

    Parameters
    ----------
    folder
        Of the checkpoint.
    run
        As it is now.
    best
        Weights of the best epoch.
    history, settings
        As JSON can hold them.
    """
    tensors = {f"model/{name}": tensor for name, tensor in run.model.state_dict().items()}
    tensors |= {f"best/{name}": tensor for name, tensor in best.items()}
    for index, slots in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{slot}": value for slot, value in slots.items()}
    scaler = run.scaler.state_dict()
    save_checkpoint(folder, tensors, {"settings": settings, "history": history, "scaler": scaler})


def restore(
    folder: Path, run: Run, settings: dict[str, Any]
) -> tuple[State, dict[str, Any]] | None:
    """Bring a run to where its checkpoint left it.

    Returns
    -------
    best, history
        As given to `store`; None where there is no checkpoint.

    Raises
    ------
    CheckpointError
        When the checkpoint is damaged or another run's; nothing is changed then.
    """
    found = load_checkpoint(folder)
    if found is None:
        return None
    tensors, state = found
    theirs = state.get("settings")
    if not isinstance(theirs, dict):
        raise CheckpointError(f"{folder}: this is no checkpoint of a training run; use another one")
    changed = [k for k in (settings | theirs) if theirs.get(k) != settings.get(k)]
    if changed:
        raise CheckpointError(
            f"{folder}: this checkpoint was written with other settings ({', '.join(changed)}); "
            "use another folder or the same settings"
        )
    parts: dict[str, State] = {"model": {}, "best": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        part, rest = name.split("/", 1)
        parts[part][rest] = tensor
    run.model.load_state_dict(parts["model"])
    slots: dict[int, State] = {}
    for name, tensor in parts["optimizer"].items():
        index, slot = name.split("/")
        slots.setdefault(int(index), {})[slot] = tensor
    run.optimizer.load_state_dict(run.optimizer.state_dict() | {"state": slots})
    run.scaler.load_state_dict(state["scaler"])
    return parts["best"], state["history"]
