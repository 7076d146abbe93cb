"""Fold BatchNorm with running statistics into the convolution or linear layer next to it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

from seqnorm.layers import NoNorm
from seqnorm.layers.base import SequenceNorm
from seqnorm.surgery.absorb import into_next, into_previous, zeros_at_ends
from seqnorm.surgery.change import Change, answers, compare
from seqnorm.surgery.neighbours import Neighbour, by_order, by_sample
from seqnorm.surgery.norms import Norm, read, show, walk
from seqnorm.text_table import text_table

__all__ = ["Folded", "Folding", "fold"]


@dataclass(frozen=True)
class Folded:
    """One norm of a model.

    Attributes
    ----------
    name, norm : str
        Where it is and what it is.
    into : str
        The layer that it was folded into; empty if it was not.
    reason : str
        Why it was not folded.
    """

    name: str
    norm: str
    into: str
    reason: str


@dataclass(frozen=True)
class Folding:
    """What :func:`fold` did.

    Attributes
    ----------
    layers : tuple of Folded
        Every norm of the model.
    change : Change or None
        On the sample, if there was one; rounding is all that should be left of it.
    """

    layers: tuple[Folded, ...]
    change: Change | None

    @property
    def folded(self) -> int:
        """How many norms were folded."""
        return sum(bool(layer.into) for layer in self.layers)

    def __str__(self) -> str:
        rows = [
            (f.name or "(model)", f.norm, f.into or "not folded", f.reason) for f in self.layers
        ]
        lines = [text_table(("layer", "norm", "into", "reason"), rows)]
        lines.append(f"{self.folded} of {len(self.layers)} norms folded")
        return "\n".join([*lines, *([str(self.change)] if self.change else [])])


def fold(
    model: nn.Module,
    sample: Tensor | Sequence[Any] | None = None,
    *,
    strict: bool = False,
    inplace: bool = False,
) -> tuple[nn.Module, Folding]:
    """Fold every BatchNorm that can be into the layer before it, or else after it.

    The weights are computed in float64. A folded norm of torch becomes ``nn.Identity``; one of
    this package :class:`seqnorm.NoNorm`, which still zeroes padding, adds the residual and applies
    the activation.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode, or at least its BatchNorms (or frozen).
    sample : Tensor or sequence
        Example input, or the arguments of a call. The order of layers is then seen as it is; the
        forward must not depend on values. Without it only ``nn.Sequential`` is looked into, each
        taken to be called as a whole, and a BatchNorm next to ``nn.Linear`` to see ``(N, C)``.
    strict : bool
        Raise if a norm cannot be folded.
    inplace : bool
        Change the model itself instead of a copy.

    Returns
    -------
    model : torch.nn.Module
    report : Folding
        Every norm, the layer it went into or why not, and the largest error on ``sample``.

    Raises
    ------
    ValueError
        With ``strict``, if a norm cannot be folded: all reasons, and nothing is changed.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU()).eval()
    >>> folded, report = fold(model)
    >>> print(report)
    layer  norm                  into  reason
    1      torch BatchNorm1d(8)  0
    1 of 1 norms folded
    >>> x = torch.randn(2, 4, 20)
    >>> torch.allclose(folded(x), model(x), atol=1e-6)
    True
    """
    before = None if sample is None else answers(model, sample)
    target = model if inplace else copy.deepcopy(model)
    near = by_order(target) if sample is None else by_sample(target, sample)
    names = {module: name for name, module in target.named_modules()}
    uses = _Uses(target)
    plan: list[tuple[Any, list[tuple[nn.Module, str]], Any, bool]] = []
    rows = []
    for name, norm, places in walk(target):
        layer, after, reason = _choose(norm, near.get(norm), uses, sampled=sample is not None)
        rows.append(Folded(name, show(norm), names[layer] if layer is not None else "", reason))
        if layer is not None:
            plan.append((norm, places, layer, after))
    if strict and any(row.reason for row in rows):
        reasons = "; ".join(f"{row.name}: {row.reason}" for row in rows if row.reason)
        raise ValueError(f"not all norms can be folded: {reasons}")
    for norm, places, layer, after in plan:
        numbers = read(norm)
        assert isinstance(numbers, Norm)
        (into_next if after else into_previous)(layer, *numbers.affine_map())
        rest: nn.Module = nn.Identity()
        if isinstance(norm, SequenceNorm):
            rest = NoNorm(layout=norm.layout, activation=norm.activation)
        for parent, key in places:
            parent._modules[key] = rest.train(norm.training)
    change = None if before is None or sample is None else compare(before, answers(target, sample))
    return target, Folding(tuple(rows), change)


class _Uses:
    """How often modules hang in a model, and weights in modules."""

    def __init__(self, model: nn.Module) -> None:
        modules = list(model.modules())
        children = (child for module in modules for child in module._modules.values())
        weights = (value for module in modules for value in module._parameters.values())
        self.places = Counter(id(child) for child in children if child is not None)
        self.owners = Counter(_memory(value) for value in weights if value is not None)

    def trouble(self, module: nn.Module) -> str:
        """Why the numbers of a layer cannot be changed; empty if they can."""
        name = type(module).__name__
        if is_parametrized(module) or not isinstance(
            module._parameters.get("weight"), nn.Parameter
        ):
            return f"the weight of {name} is computed (parametrization); remove that first"
        own = "forward" in vars(module)
        if own or not type(module).forward.__module__.startswith("torch."):
            return f"{name} has a forward of its own"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"{name} has hooks"
        if self.places[id(module)] > 1:
            return f"{name} hangs in {self.places[id(module)]} places"
        if any(self.owners[_memory(value)] > 1 for value in module.parameters()):
            return f"the weight of {name} is shared with another layer"
        return ""


def _memory(value: Tensor) -> tuple[str, int]:
    """Where a weight lies: two parameters can be one memory."""
    address = 0 if is_lazy(value) or not value.numel() else value.data_ptr()
    return ("memory", address) if address else ("object", id(value))


def _choose(
    norm: Any, near: tuple[Neighbour, Neighbour] | None, uses: _Uses, sampled: bool
) -> tuple[nn.Module | None, bool, str]:
    """The layer to fold into and whether it comes after the norm; or the reason why none."""
    numbers = read(norm)
    if isinstance(numbers, str):
        return None, False, numbers
    if numbers.mean is None:
        running = isinstance(norm, _BatchNorm)
        what = "has no running statistics" if running else "takes its statistics from the input"
        return None, False, what
    if norm.training and not getattr(norm, "frozen", False):
        return None, False, "is in training mode; call model.eval() first"
    if norm._forward_hooks or norm._forward_pre_hooks:
        return None, False, "has hooks"
    if near is None:
        missing = (
            "is not called on the sample"
            if sampled
            else ("is not in nn.Sequential; pass sample= to see what stands next to it")
        )
        return None, False, missing
    reasons = []
    for after, neighbour in enumerate(near):
        reason = neighbour.reason
        if neighbour.layer is not None:
            reason = uses.trouble(neighbour.layer) or _trouble(
                norm, numbers, neighbour, bool(after)
            )
            if not reason and not sampled and uses.places[id(norm)] > 1:
                # Once in nn.Sequential, where it belongs to its neighbour; elsewhere who knows.
                reason = f"hangs in {uses.places[id(norm)]} places; pass sample= to see its calls"
            if not reason:
                return neighbour.layer, bool(after), ""
        reasons.append(reason)
    return None, False, "; ".join(reasons)


def _trouble(norm: Any, numbers: Norm, near: Neighbour, after: bool) -> str:
    """Why a norm cannot be folded into this layer."""
    layer: Any = near.layer
    name = type(layer).__name__
    if isinstance(layer, nn.Linear):
        channels = layer.in_features if after else layer.out_features
        matching = near.dims in (None, 2) or (near.dims == 3 and numbers.layout == "NLC")
    else:
        channels = layer.in_channels if after else layer.out_channels
        matching = near.dims in (None, 3) and numbers.layout == "NCL"
    if channels != numbers.channels or not matching:
        return f"its channels are not those of {name}"
    if not after:
        return ""
    if getattr(norm, "activation", None):
        return f"it applies {norm.activation!r} before {name}"
    _, offset = numbers.affine_map()
    if bool((offset != 0).any()):
        if isinstance(layer, nn.ConvTranspose1d):
            return f"{name} after it has fewer summands at the ends, and its shift is not 0"
        if not isinstance(layer, nn.Linear) and zeros_at_ends(layer):
            return f"{name} after it pads with zeros, and its shift is not 0"
    return ""
