"""What there is to know of a norm layer, whoever wrote it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.utils.parametrize import is_parametrized

from seqnorm import layers
from seqnorm.layers.base import SequenceNorm

__all__ = ["Norm", "is_norm", "read", "show", "walk"]

_NCL = (nn.BatchNorm1d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.GroupNorm)
_LAST = (nn.LayerNorm, nn.RMSNorm)
_OURS = (
    layers.BatchNorm1d,
    layers.InstanceNorm1d,
    layers.GroupNorm,
    layers.LayerNorm,
    layers.RMSNorm,
)


class Norm(NamedTuple):
    """A norm over sequences: channels, layout, numbers.

    Attributes
    ----------
    channels : int
        C.
    layout : str
        ``"NCL"`` or ``"NLC"``.
    eps : float or None
        None is the machine epsilon (RMSNorm).
    weight, bias : Tensor or None
        ``(C,)``.
    mean, var : Tensor or None
        ``(C,)``, the running statistics with which evaluation normalizes.
    """

    channels: int
    layout: str
    eps: float | None
    weight: Tensor | None
    bias: Tensor | None
    mean: Tensor | None
    var: Tensor | None

    def affine_map(self) -> tuple[Tensor, Tensor]:
        """Scale and offset ``(C,)`` of evaluation with running statistics, float64 on the CPU."""
        assert self.mean is not None
        assert self.var is not None
        assert self.eps is not None
        mean, var = self.mean.detach().cpu().double(), self.var.detach().cpu().double()
        scale = torch.rsqrt(var + self.eps)
        if self.weight is not None:
            scale = scale * self.weight.detach().cpu().double()
        offset = -mean * scale
        if self.bias is not None:
            offset = offset + self.bias.detach().cpu().double()
        return scale, offset


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalization layer of torch or of this package."""
    torchs = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
    return isinstance(module, (*torchs, SequenceNorm))


def read(module: Any) -> Norm | str:
    """Take a norm apart; a reason if it is of a kind that cannot be.

    Examples
    --------
    >>> norm = read(nn.LayerNorm(8))
    >>> norm.channels, norm.layout
    (8, 'NLC')
    >>> read(nn.BatchNorm2d(8))
    'not a norm over sequences'
    """
    if is_parametrized(module):
        return "has parametrizations; remove them first"
    if "forward" in vars(module):
        return "has a forward of its own; replace it by hand"
    if any(nn.parameter.is_lazy(value) for value in (*module.parameters(), *module.buffers())):
        return "has no shape before its first call; call the model once before"
    if isinstance(module, _OURS):
        layout = module.layout
    elif isinstance(module, SequenceNorm):
        return "has a form of its own; replace it by hand"
    elif isinstance(module, (*_NCL, *_LAST)):
        if not type(module).forward.__module__.startswith("torch."):
            return f"{type(module).__name__} has a forward of its own; replace it by hand"
        layout = "NCL" if isinstance(module, _NCL) else "NLC"
    else:
        return "not a norm over sequences"
    shape = getattr(module, "normalized_shape", (0,))
    if len(shape) != 1:
        return f"normalizes over {len(shape)} axes, with a weight for each position"
    named = (getattr(module, name, 0) for name in ("num_features", "num_channels"))
    running = _uses_running(module)
    return Norm(
        channels=next((size for size in named if size), shape[0]),
        layout=layout,
        eps=module.eps,
        weight=module.weight,
        bias=getattr(module, "bias", None),
        mean=module.running_mean if running else None,
        var=module.running_var if running else None,
    )


def _uses_running(module: Any) -> bool:
    """Whether evaluation normalizes with running statistics."""
    if getattr(module, "running_mean", None) is None:
        return False
    return isinstance(module, _BatchNorm) or module.track_running_stats


def show(module: nn.Module) -> str:
    """Name a norm in a few words.

    Examples
    --------
    >>> show(layers.LayerNorm(8, over="CL")), show(nn.GroupNorm(2, 8))
    ('LayerNorm(8, over=CL)', 'torch GroupNorm(2, 8)')
    """
    name = type(module).__name__
    ours = isinstance(module, SequenceNorm)
    sizes = [getattr(module, key, None) for key in ("num_groups", "num_channels", "num_features")]
    shape = getattr(module, "normalized_shape", ())
    words = [str(size) for size in (*sizes, *shape) if size is not None]
    words += [f"over={module.over}"] if ours and hasattr(module, "over") else []
    inside = f"({', '.join(words)})" if words else ""
    return f"{name}{inside}" if ours else f"torch {name}{inside}"


def walk(model: nn.Module) -> list[tuple[str, nn.Module, list[tuple[nn.Module, str]]]]:
    """Norms of a model, each once: name, layer, and every place ``(parent, key)`` where it hangs.

    What is in a layer of this package is part of that layer. The model itself may be a norm; it
    then hangs nowhere.
    """
    found: dict[int, tuple[str, nn.Module, list[tuple[nn.Module, str]]]] = {}
    visited: set[int] = set()

    def visit(name: str, module: nn.Module) -> None:
        if is_norm(module):
            found.setdefault(id(module), (name, module, []))
            return
        if id(module) in visited or type(module).__module__.startswith("seqnorm.layers"):
            return
        visited.add(id(module))
        for key, child in module._modules.items():
            if child is not None:
                visit(f"{name}.{key}" if name else key, child)
                if id(child) in found:
                    found[id(child)][2].append((module, key))

    visit("", model)
    return list(found.values())
