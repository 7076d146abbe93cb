"""Opacus: gradients of single samples through our layers, with masks too.

Opacus (Yousefpour et al. 2021, arXiv:2109.12298) notes a layer's positional inputs and the gradient
of its output, and works out each sample's gradient from them. It does not see lengths that are
passed by keyword, so its gradients would count the padding; and it refuses BatchNorm by its exact
class or its buffers, which lets a subclass without buffers pass. Both are mended here, when Opacus
hooks itself onto a layer; nothing is imported or changed before.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["attach", "is_opacus"]


def is_opacus(hook: Callable[..., Any]) -> bool:
    """Whether a hook is Opacus's note of a layer's inputs."""
    return (getattr(hook, "__module__", None) or "").startswith("opacus.")


def attach(layer: nn.Module, mixes_samples: bool) -> None:
    """Get a layer ready for Opacus.

    Parameters
    ----------
    layer : nn.Module
        Called as ``layer(x, lengths=None, residual=None)``.
    mixes_samples : bool
        Whether a sample's output depends on other samples in training.

    Raises
    ------
    ValueError
        If it does: a gradient of one sample does not exist then.
    """
    if mixes_samples:
        raise ValueError(
            f"{type(layer).__name__} makes each sample depend on the others of its batch, so "
            "per-sample gradients do not exist; convert the model to group, layer or instance "
            "norm first, e.g. seqnorm.convert(model, to='group:8')"
        )
    samplers = sys.modules["opacus.grad_sample"].GradSampleModule.GRAD_SAMPLERS
    samplers[type(layer)] = _gradients
    layer.register_forward_pre_hook(_by_position, with_kwargs=True)


def _by_position(
    layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Pass lengths and residual by position, where Opacus looks, and never None: it fails on it."""
    names = ("x", "lengths", "residual")
    given = dict(zip(names, args, strict=False)) | kwargs
    rest = {name: value for name, value in given.items() if name not in names}
    x, lengths, residual = (given.get(name) for name in names)
    assert isinstance(x, Tensor)
    if lengths is None and residual is None:
        return (x,), rest
    if lengths is None:
        axis = getattr(layer, "layout", "NCL").index("L") if x.dim() == 3 else 0
        size = x.shape[axis] if x.dim() == 3 else 1
        lengths = torch.full((x.shape[0],), size, device=x.device)
    return (x, lengths) if residual is None else (x, lengths, residual), rest


def _gradients(
    layer: nn.Module, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Gradients ``(N, ...)`` of the layer's parameters, a sample each."""
    bare = copy.copy(layer)
    # Without the hooks, and with parameters of its own to put others in the place of.
    bare._forward_hooks, bare._forward_pre_hooks = (
        type(layer._forward_hooks)(),
        type(layer._forward_pre_hooks)(),
    )
    bare._backward_hooks = type(layer._backward_hooks)()
    bare._parameters = dict(layer._parameters)
    named = {name: p for name, p in layer.named_parameters(recurse=False) if p.requires_grad}

    def loss(parameters: dict[str, Tensor], grad: Tensor, *inputs: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(bare, parameters, tuple(t[None] for t in inputs))
        return (y * grad[None]).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, *(0 for _ in activations)))
    values = {name: p.detach() for name, p in named.items()}
    found = each(values, backprops, *activations)
    return {p: found[name] for name, p in named.items()}
