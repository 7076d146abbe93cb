"""Modules that mix positions in a way that padding would get into the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.pooling import (
    _AdaptiveAvgPoolNd,
    _AdaptiveMaxPoolNd,
    _AvgPoolNd,
    _LPPoolNd,
    _MaxPoolNd,
    _MaxUnpoolNd,
)

from seqnorm.carry.known import Known

__all__ = ["position_axes", "refusal"]

_CONVERT = "call seqnorm.convert(model, to='same') first: its twin takes lengths"
_POOL = "pool them first, e.g. by nn.AdaptiveAvgPool1d(1)"
_NEVER: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    (
        (_ConvNd, _MaxPoolNd, _AvgPoolNd, _LPPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd),
        "lengths are followed through one-dimensional modules only",
    ),
    (
        (nn.RNNBase,),
        "a recurrent layer runs on into the padding; give the module around it a `lengths` "
        "argument and pack the sequences there (nn.utils.rnn.pack_padded_sequence)",
    ),
    ((nn.EmbeddingBag,), "it averages over padding; use nn.Embedding and pool what it gives"),
    (
        (_MaxUnpoolNd, nn.Fold, nn.Unfold, nn.PixelShuffle, nn.PixelUnshuffle),
        "its positions cannot be followed; give the module around it a `lengths` argument",
    ),
    (
        (nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d),
        "it continues each sequence beyond its end; use nn.ConstantPad1d",
    ),
)


def position_axes(x: Tensor, known: Known, features_last: bool = False) -> set[int]:
    """Axes of ``x`` that may be those of padded positions.

    Parameters
    ----------
    x : Tensor
        The batch is axis 0.
    known : Known
        What is known of tensors and sizes.
    features_last : bool
        The last axis is that of features if another axis can be that of positions.
    """
    noted = known.of(x)
    if noted is not None:
        return set() if noted.lengths is None else {noted.axis}
    axes = {axis for axis in range(1, x.dim()) if known.padded(x.shape[axis])}
    last = x.dim() - 1
    others = [a for a in range(last) if a or x.shape[0] != known.batch]  # also (L, N, C)
    if features_last and any(known.has(x.shape[axis]) for axis in others):
        axes.discard(last)
    return axes


def refusal(module: nn.Module, x: Tensor, known: Known) -> str | None:
    """Say why a module may not see a padded tensor; None if it may.

    What treats each position alone may: activations, dropout, ``nn.Linear`` and
    ``nn.LayerNorm`` over the last of (N, L, C), BatchNorm with running statistics.
    """
    for kinds, reason in _NEVER:
        if isinstance(module, kinds):
            return reason
    if isinstance(module, (_BatchNorm, _InstanceNorm, nn.GroupNorm)):
        return _norm(module, x, known)
    for axes, features_last, reason in _mixed(module, x):
        if axes & position_axes(x, known, features_last):
            return reason
    return None


def _mixed(module: Any, x: Tensor) -> Iterator[tuple[set[int], bool, str]]:
    """Axes that a module works along, whether its last is that of features, why that is bad."""
    dims = x.dim()
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        first = dims - len(module.normalized_shape)
        yield set(range(first, dims)), True, f"it normalizes over padded positions; {_CONVERT}"
    elif isinstance(module, nn.Linear) and dims > 2:
        yield {dims - 1}, True, f"it mixes padded positions; {_POOL}"
    elif isinstance(module, (nn.Softmax, nn.LogSoftmax, nn.Softmin)) and module.dim is not None:
        yield {module.dim % dims}, False, "it normalizes over padded positions; mask them before"
    elif isinstance(module, nn.GLU):
        reason = "it makes positions the gates of others; set dim to the axis of channels"
        yield {module.dim % dims}, False, reason
    elif isinstance(module, nn.Flatten):
        merged = set(range(module.start_dim % dims, module.end_dim % dims + 1))
        if len(merged) > 1:
            yield merged, False, f"it turns padded positions into features; {_POOL}"


def _norm(module: Any, x: Tensor, known: Known) -> str | None:
    running = getattr(module, "running_mean", None) is not None
    if running and not module.training:
        return None  # one affine map for every position
    if x.dim() > 2 and position_axes(x, known):
        return f"padded positions would get into its statistics; {_CONVERT}"
    return None
