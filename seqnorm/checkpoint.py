"""Checkpoints that survive a kill at any moment: safetensors plus one state file.

The tensors go first, under a name of their own; then ``state.json``, which names them and holds
their SHA-256, is put in place by one rename. That rename is the moment at which the new
checkpoint exists. Only then is the old one removed.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from data_tools.atomic import remove_unfinished, write_atomic

STATE = "state.json"


class CheckpointError(RuntimeError):
    """A checkpoint is there but cannot be trusted."""


def save_checkpoint(folder: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint; the previous one stays valid until the new one is whole.

    Parameters
    ----------
    folder
        Made if it does not exist; holds one checkpoint.
    tensors
        Flat names to tensors.
    state
        Anything JSON can hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    raw = save({name: _alone(tensor) for name, tensor in tensors.items()})
    digest = hashlib.sha256(raw).hexdigest()
    name = f"tensors-{digest[:16]}.safetensors"
    entry = json.dumps({"tensors": name, "sha256": digest, "state": state})
    try:
        write_atomic(folder / name, raw)
        write_atomic(folder / STATE, entry)
    except BaseException:
        if name not in _text(folder / STATE):
            (folder / name).unlink(missing_ok=True)
        raise
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)
    remove_unfinished(folder.iterdir())


def _alone(tensor: Tensor) -> Tensor:
    """Copy of a tensor that shares memory with no other, as safetensors asks of tied weights."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def load_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the checkpoint of a folder, or None where there is none.

    Raises
    ------
    CheckpointError
        When the state file or the tensors are damaged; names the file and the remedy.
    """
    path = folder / STATE
    if not path.exists():
        return None
    try:
        entry = json.loads(path.read_text())
        name, digest, state = entry["tensors"], entry["sha256"], entry["state"]
        raw = (folder / Path(name).name).read_bytes()
        intact = hashlib.sha256(raw).hexdigest() == digest
        if not isinstance(state, dict):
            raise TypeError(f"its state is no table but {state!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged checkpoint ({error}); remove {folder} to start this part again"
        ) from error
    if not intact:
        raise CheckpointError(
            f"{folder / name}: content differs from its checksum; remove {folder} to start "
            "this part again"
        )
    return load(raw), state
