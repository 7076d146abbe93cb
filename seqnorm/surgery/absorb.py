"""An affine map by channel, taken into the weights of the layer before or after it.

After ``y = W x + b`` the map ``scale * y + offset`` gives ``(scale W) x + (scale b + offset)``.
Before it, ``W (scale * x + offset) + b`` is ``(W scale) x + (b + W offset)``, summed over the
window; that is so only where no window reaches into zeros, which the map would have left zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["into_next", "into_previous", "zeros_at_ends"]


def zeros_at_ends(conv: Any) -> bool:
    """Whether a convolution looks at zeros beyond the ends of its input."""
    if conv.padding_mode != "zeros" or conv.padding == "valid":
        return False
    if conv.padding == "same":
        return bool(conv.kernel_size[0] > 1)
    return bool(conv.padding[0] > 0)


@torch.no_grad()
def into_previous(layer: Any, scale: Tensor, offset: Tensor) -> None:
    """Let a layer compute ``scale * layer(x) + offset``, each ``(outputs,)``, float64, CPU."""
    weight = layer.weight.cpu().double()
    if isinstance(layer, nn.ConvTranspose1d):
        groups = layer.groups  # weight: (inputs, outputs / groups, size)
        by_group = weight.unflatten(0, (groups, -1)) * scale.view(groups, 1, -1, 1)
        weight = by_group.flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    _write(layer, weight, scale * _bias(layer, scale) + offset)


@torch.no_grad()
def into_next(layer: Any, scale: Tensor, offset: Tensor) -> None:
    """Let a layer compute ``layer(scale * x + offset)``, each ``(inputs,)``, float64, CPU."""
    weight = layer.weight.cpu().double()
    if isinstance(layer, nn.ConvTranspose1d):
        _write(layer, weight * scale.view(-1, 1, 1), None)
        return
    groups = getattr(layer, "groups", 1)  # weight: (outputs, inputs / groups[, size])
    by_group = weight.view(groups, len(weight) // groups, weight.shape[1], -1)
    shape = (groups, 1, -1, 1)
    constant = (by_group * offset.view(shape)).sum((2, 3)).flatten()
    scaled = (by_group * scale.view(shape)).view(weight.shape)
    _write(layer, scaled, _bias(layer, constant) + constant if bool((offset != 0).any()) else None)


def _bias(layer: Any, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if layer.bias is None else layer.bias.cpu().double()


def _write(layer: Any, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight.copy_(weight)
    if bias is None:
        return
    if layer.bias is None:
        learns = layer.weight.requires_grad
        layer.bias = nn.Parameter(bias.to(layer.weight), requires_grad=learns)
    else:
        layer.bias.copy_(bias)
