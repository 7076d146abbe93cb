"""Models on disk: weights as safetensors, and a JSON beside them that says how to build them.

Nothing in either file is executed, and nothing is built before names, shapes and types agree with
the weights that are there. ``model.json`` holds the SHA-256 of the weights and is put in place by
one rename: that is the moment at which a new model takes the place of an old one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

import seqnorm
from data_tools.atomic import write_atomic
from data_tools.errors import InputError, MissingFileError
from seqnorm.models import ReverseComplementAverage, build_model
from seqnorm.saved_checks import fault_of, unlike

__all__ = ["Saved", "load_model", "read_saved", "save_model"]

JSON, WEIGHTS = "model.json", "model.safetensors"
_FORMAT, _VERSION = "seqnorm model", 1


@dataclass(frozen=True)
class Saved:
    """What ``model.json`` says.

    Attributes
    ----------
    name, norm, seed, options
        Arguments of `seqnorm.build_model`.
    sha256 : str
        Of the file of weights.
    outputs : tuple of str
        What each of the model's logits is.
    width : int or None
        Bases of the windows that it was trained on.
    threshold : float or None
        Logit from which on a window is called, where that is known.
    versions : dict
        Of the libraries that wrote it.
    about : dict
        Whatever else its maker had to say.
    """

    name: str
    norm: str
    seed: int
    options: dict[str, Any]
    sha256: str
    outputs: tuple[str, ...] = ("logit",)
    width: int | None = None
    threshold: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)


def save_model(
    folder: str | Path,
    model: nn.Module,
    *,
    name: str,
    norm: str,
    options: Mapping[str, Any],
    seed: int,
    outputs: Sequence[str] = (),
    width: int | None = None,
    threshold: float | None = None,
    **about: Any,
) -> None:
    """Write a model of `seqnorm.build_model`, in place of what the folder may hold.

    Parameters
    ----------
    folder : path
        Made if it does not exist; gets ``model.safetensors`` and ``model.json``.
    model : nn.Module
        On whatever device.
    name, norm, options, seed
        What it was built with.
    outputs : sequence of str
        What each logit is; ``logit``, or ``logit_1`` and so on, unless given.
    width : int, optional
        Bases of the windows that it was trained on.
    threshold : float, optional
        Logit from which on a window is called.
    **about
        Anything else worth keeping that JSON can hold.

    Raises
    ------
    ValueError
        If these arguments do not build such a model, or JSON cannot hold them.

    Examples
    --------
    >>> import tempfile
    >>> model = build_model("cnn", "layer", seed=1, channels=8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_model(folder, model, name="cnn", norm="layer", options={"channels": 8}, seed=1)
    ...     again = load_model(folder)
    >>> bool((again.model.head.weight == model.model.head.weight).all())
    True
    """
    state = {key: _alone(value) for key, value in model.state_dict().items()}
    if (fault := unlike(state, name, norm, options)) is not None:
        raise ValueError(f"these arguments do not build the model that is to be saved: {fault}")
    count = int(options.get("outputs", 1))
    named = tuple(outputs) or tuple(
        f"logit_{n + 1}" if count > 1 else "logit" for n in range(count)
    )
    if len(set(named)) != count or not all(isinstance(text, str) and text for text in named):
        raise ValueError(f"the model has {count} outputs: name each of them once, got {named}")
    raw = save(state)
    versions = {"seqnorm": seqnorm.__version__, "torch": metadata.version("torch")}
    sha256 = hashlib.sha256(raw).hexdigest()
    saved = Saved(name, norm, seed, dict(options), sha256, named, width, threshold, versions, about)
    if (fault := fault_of(asdict(saved))) is not None:
        raise ValueError(fault)
    entry = {"format": _FORMAT, "format_version": _VERSION} | asdict(saved)
    text = json.dumps(entry, indent=1, allow_nan=False) + "\n"
    _put(Path(folder), raw, text, sha256)


def read_saved(path: str | Path) -> Saved:
    """Read what is known of a saved model, without its weights.

    Parameters
    ----------
    path : path
        Its folder, or one of the two files in it.

    Raises
    ------
    InputError
        In one line, for a file that is missing, damaged, foreign or of a newer version.
    """
    file = _folder(path) / JSON
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(
            f"{file}: no such file; give the folder of a model, as save_model or a trial of "
            "seqnorm holdout writes it"
        ) from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: damaged ({error}); save the model again") from None
    if not isinstance(entry, dict) or entry.pop("format", None) != _FORMAT:
        raise InputError(f"{file}: is not of a model that seqnorm has saved")
    version = entry.pop("format_version", None)
    if not isinstance(version, int) or version > _VERSION:
        raise InputError(
            f"{file}: was written by a newer version of seqnorm (format {version!r}, this one "
            f"reads {_VERSION}); update seqnorm"
        )
    if (fault := fault_of(entry)) is not None:
        raise InputError(f"{file}: damaged ({fault}); save the model again")
    return Saved(**entry | {"outputs": tuple(entry["outputs"])})


def load_model(path: str | Path, device: str | torch.device = "cpu") -> ReverseComplementAverage:
    """Build a saved model and give it its weights.

    Parameters
    ----------
    path : path
        Its folder, such as ``runs/x/trials/y``, or one of the two files in it.
    device : str or torch.device

    Returns
    -------
    ReverseComplementAverage
        In evaluation mode: one-hot (N, 4, L) to logits (N, outputs), averaged over both strands.

    Raises
    ------
    InputError
        In one line, for a file that is missing, damaged, foreign or of a newer version.
    """
    folder, saved = _folder(path), read_saved(path)
    file = next((file for file in _places(folder, saved.sha256) if file.exists()), folder / WEIGHTS)
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read ({error.strerror}); it belongs to {JSON}"
        ) from None
    if hashlib.sha256(raw).hexdigest() != saved.sha256:
        raise InputError(
            f"{file}: damaged, or not the weights that {JSON} beside it describes; "
            "copy both files again, or save the model again"
        )
    try:
        state = load(raw)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{file}: no safetensors ({error}); save the model again") from None
    if (fault := unlike(state, saved.name, saved.norm, saved.options)) is not None:
        raise InputError(f"{folder / JSON}: does not describe the weights beside it: {fault}")
    model = build_model(saved.name, saved.norm, saved.seed, **saved.options)
    model.load_state_dict(state)
    return model.to(device).eval()


def _folder(path: str | Path) -> Path:
    given = Path(path)
    return given.parent if given.name in (JSON, WEIGHTS) else given


def _places(folder: Path, sha256: str) -> tuple[Path, Path]:
    """Where weights lie while they take the place of others, and where once they have."""
    return folder / f"model-{sha256[:16]}.safetensors", folder / WEIGHTS


def _put(folder: Path, raw: bytes, text: str, sha256: str) -> None:
    """Write both files so that at any moment the old model or the new one is whole."""
    new, final = _places(folder, sha256)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(new, raw)
    write_atomic(folder / JSON, text)
    new.replace(final)
    for old in folder.glob("model-" + "[0-9a-f]" * 16 + ".safetensors"):
        old.unlink(missing_ok=True)


def _alone(tensor: Tensor) -> Tensor:
    """Copy that shares memory with no other, as safetensors asks of tied weights."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
