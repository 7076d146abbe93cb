"""Normalization layers for biological sequence models, and the hold-out experiment.

Names are loaded when they are first used, so that ``seqnorm --help`` need not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqnorm.functional import normalize
    from seqnorm.kinds import NORM_KINDS
    from seqnorm.layers import (
        BatchNorm1d,
        GroupNorm,
        InstanceNorm1d,
        LayerNorm,
        NoNorm,
        RMSNorm,
        make_norm,
    )
    from seqnorm.models import CNN, Transformer, build_model
    from seqnorm.moments import Moments

__version__ = "0.1.0"

_HOMES = {
    "BatchNorm1d": "layers",
    "CNN": "models",
    "GroupNorm": "layers",
    "InstanceNorm1d": "layers",
    "LayerNorm": "layers",
    "Moments": "moments",
    "NORM_KINDS": "kinds",
    "NoNorm": "layers",
    "RMSNorm": "layers",
    "Transformer": "models",
    "build_model": "models",
    "make_norm": "layers",
    "normalize": "functional",
}

__all__ = [
    "CNN",
    "NORM_KINDS",
    "BatchNorm1d",
    "GroupNorm",
    "InstanceNorm1d",
    "LayerNorm",
    "Moments",
    "NoNorm",
    "RMSNorm",
    "Transformer",
    "build_model",
    "make_norm",
    "normalize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seqnorm' has no attribute '{name}'")
    value = getattr(import_module(f"seqnorm.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
