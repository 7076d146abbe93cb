"""Checkpoints that survive a kill at any moment: safetensors plus one state file.

The tensors go first, under a name of their own; then ``state.json``, which names them and holds
their SHA-256, is put in place by one rename. That rename is the moment at which the new
checkpoint exists. Only then is the old one removed.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

STATE = "state.json"


class CheckpointError(RuntimeError):
    """A checkpoint is there but cannot be trusted."""


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace a file in one step: temporary file in the same folder, fsync, rename.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_atomic(target, "all or nothing")
    >>> target.read_text()
    'all or nothing'
    """
    raw = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; results are as readable as any other file of the user's.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    raw = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(raw).hexdigest()
    name = f"tensors-{digest[:16]}.safetensors"
    write_atomic(folder / name, raw)
    write_atomic(
        folder / STATE, json.dumps({"tensors": name, "sha256": digest, "state": state}, indent=1)
    )
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: damaged checkpoint ({error}); remove {folder} to start this part again"
        ) from error
    if hashlib.sha256(raw).hexdigest() != digest:
        raise CheckpointError(
            f"{folder / name}: content differs from its checksum; remove {folder} to start "
            "this part again"
        )
    return load(raw), state
