"""Normalization layers for biological sequence models, and the hold-out experiment.

Names are loaded when they are first used, so that ``seqnorm --help`` need not load torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seqnorm.attribution import deep_lift_rules
    from seqnorm.backends.choice import backend
    from seqnorm.carry import carry_lengths
    from seqnorm.composition import BackgroundNorm, background_moments, background_zscore
    from seqnorm.functional import normalize
    from seqnorm.kinds import NORM_KINDS
    from seqnorm.layers import (
        AdaIN,
        BatchNorm1d,
        BatchRenorm1d,
        DomainBatchNorm1d,
        DynamicTanh,
        FiLM,
        FilterResponseNorm1d,
        GhostBatchNorm1d,
        GroupNorm,
        InstanceNorm1d,
        LayerNorm,
        NoNorm,
        QKNorm,
        RMSNorm,
        SyncBatchNorm,
        WSConv1d,
        convert_sync_batchnorm,
        make_norm,
    )
    from seqnorm.leaks import leak_report
    from seqnorm.models import CNN, ResidualCNN, Transformer, build_model
    from seqnorm.moments import Moments
    from seqnorm.robustness import audit
    from seqnorm.saved import load_model, save_model
    from seqnorm.surgery import (
        convert,
        fold,
        freeze,
        from_keras,
        merge_batchnorm,
        recalibrate,
        to_keras,
        unfreeze,
    )

__version__ = "0.2.0"

_HOMES = {
    "AdaIN": "layers",
    "BackgroundNorm": "composition",
    "BatchNorm1d": "layers",
    "BatchRenorm1d": "layers",
    "CNN": "models",
    "DomainBatchNorm1d": "layers",
    "DynamicTanh": "layers",
    "FiLM": "layers",
    "FilterResponseNorm1d": "layers",
    "GhostBatchNorm1d": "layers",
    "GroupNorm": "layers",
    "InstanceNorm1d": "layers",
    "LayerNorm": "layers",
    "Moments": "moments",
    "NORM_KINDS": "kinds",
    "NoNorm": "layers",
    "QKNorm": "layers",
    "RMSNorm": "layers",
    "ResidualCNN": "models",
    "SyncBatchNorm": "layers",
    "Transformer": "models",
    "WSConv1d": "layers",
    "audit": "robustness",
    "backend": "backends.choice",
    "background_moments": "composition",
    "background_zscore": "composition",
    "build_model": "models",
    "carry_lengths": "carry",
    "convert": "surgery",
    "convert_sync_batchnorm": "layers",
    "deep_lift_rules": "attribution",
    "fold": "surgery",
    "freeze": "surgery",
    "from_keras": "surgery",
    "leak_report": "leaks",
    "load_model": "saved",
    "make_norm": "layers",
    "merge_batchnorm": "surgery",
    "normalize": "functional",
    "recalibrate": "surgery",
    "save_model": "saved",
    "to_keras": "surgery",
    "unfreeze": "surgery",
}

__all__ = [
    "CNN",
    "NORM_KINDS",
    "AdaIN",
    "BackgroundNorm",
    "BatchNorm1d",
    "BatchRenorm1d",
    "DomainBatchNorm1d",
    "DynamicTanh",
    "FiLM",
    "FilterResponseNorm1d",
    "GhostBatchNorm1d",
    "GroupNorm",
    "InstanceNorm1d",
    "LayerNorm",
    "Moments",
    "NoNorm",
    "QKNorm",
    "RMSNorm",
    "ResidualCNN",
    "SyncBatchNorm",
    "Transformer",
    "WSConv1d",
    "audit",
    "backend",
    "background_moments",
    "background_zscore",
    "build_model",
    "carry_lengths",
    "convert",
    "convert_sync_batchnorm",
    "deep_lift_rules",
    "fold",
    "freeze",
    "from_keras",
    "leak_report",
    "load_model",
    "make_norm",
    "merge_batchnorm",
    "normalize",
    "recalibrate",
    "save_model",
    "to_keras",
    "unfreeze",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'seqnorm' has no attribute '{name}'")
    value = getattr(import_module(f"seqnorm.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
