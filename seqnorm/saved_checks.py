"""What a saved model has to keep to, looked at before anything is built."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from seqnorm.models import build_model

__all__ = ["fault_of", "unlike"]


def unlike(
    state: Mapping[str, Tensor], name: str, norm: str, options: Mapping[str, Any]
) -> str | None:
    """Say how a model of these arguments differs from weights; it is not built for that."""
    numbers = sum(tensor.numel() for tensor in state.values())
    for key, value in options.items():
        # A small file must not ask for a large model: each size has at least so many weights.
        if isinstance(value, int) and value > max(numbers, 1):
            return f"option '{key}' is {value}, all weights are {numbers} numbers"
    try:
        with torch.device("meta"):
            expected = build_model(name, norm, 0, **options).state_dict()
    except (ValueError, TypeError) as error:
        return str(error)
    if odd := sorted(expected.keys() ^ state.keys()):
        where = "not among the weights" if odd[0] in expected else "no part of the model"
        return f"'{odd[0]}' is {where}"
    for key in expected:
        given, wanted = (f"{t[key].dtype} {tuple(t[key].shape)}" for t in (state, expected))
        if given != wanted:
            return f"'{key}' is {given} where {wanted} is needed"
    return None


_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "norm": (str,),
    "seed": (int,),
    "options": (dict,),
    "sha256": (str,),
    "outputs": (list, tuple),
    "width": (int, type(None)),
    "threshold": (int, float, type(None)),
    "versions": (dict,),
    "about": (dict,),
}


def fault_of(entry: Mapping[str, Any]) -> str | None:
    """Say what is wrong with the fields of a `Saved`."""
    if set(entry) != set(_TYPES):
        odd = sorted(set(entry) ^ set(_TYPES))
        return f"'{odd[0]}' is {'unknown' if odd[0] in entry else 'missing'}"
    for key, kinds in _TYPES.items():
        value = entry[key]
        if not isinstance(value, kinds) or isinstance(value, bool):
            return f"'{key}' cannot be {value!r:.60}"
    if not 0 <= entry["seed"] < 2**63:
        return f"'seed' cannot be {entry['seed']}"
    if not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        return "'sha256' is no checksum"
    if entry["width"] is not None and entry["width"] < 1:
        return f"'width' must be at least 1, got {entry['width']}"
    if entry["threshold"] is not None and not math.isfinite(entry["threshold"]):
        return "'threshold' must be finite"
    if not entry["outputs"] or not all(isinstance(text, str) for text in entry["outputs"]):
        return "'outputs' must name the model's logits"
    if len(entry["outputs"]) != entry["options"].get("outputs", 1):
        return f"'outputs' names {len(entry['outputs'])} logits, the model has another number"
    try:
        json.dumps([entry["options"], entry["about"]], allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"options and further words must be what JSON can hold: {error}"
    return None
