"""Normalization by torch's fused kernels, fed with shifted values.

The kernels keep the mean in float32 and fold it into the offset of ``x * scale + offset``, which
loses the digits of an input with a large mean. Subtracting the shift of
:func:`seqnorm.backends.reference.shifted` beforehand cures that, and costs nothing in the backward
pass, where a subtraction of a constant passes gradients on untouched.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seqnorm.backends.plan import Inputs, Plan, Statistics
from seqnorm.backends.reference import affine, finish, shifted

__all__ = ["batch_statistics", "covers", "standardize"]


def covers(plan: Plan) -> bool:
    """Whether a fused kernel takes these axes in this layout.

    Channels-last BatchNorm has one too, but its sums depend on the number of threads.
    """
    return (plan.over == "C") == (plan.layout == "NLC")


def standardize(plan: Plan, inputs: Inputs) -> Tensor:
    """Standardize a tensor without padding and with at least one element."""
    return finish(plan, inputs, _standardize(plan, inputs))


def _standardize(plan: Plan, inputs: Inputs) -> Tensor:
    x, weight, bias, eps = inputs.x, inputs.weight, inputs.bias, plan.eps
    centered, _, _ = shifted(x, plan.dims)
    if plan.over == "C":
        # The kernel's own weight gradient depends on the number of threads; a sum does not.
        return affine(F.layer_norm(centered, centered.shape[-1:], eps=eps), weight, bias)
    if plan.over == "NL":
        return _batch_norm(plan, inputs, centered, None, None)
    joined = plan.join(centered)
    groups = plan.groups if plan.over == "CL" else joined.shape[1]
    return torch.group_norm(joined, groups, _flat(weight), _flat(bias), eps).view(x.shape)


def batch_statistics(plan: Plan, inputs: Inputs) -> tuple[Tensor, Statistics]:
    """:func:`standardize` over ``"NL"`` that also tells the statistics it used."""
    centered, shift, n = shifted(inputs.x, plan.dims)
    delta, var = torch.zeros_like(shift).flatten(), torch.zeros_like(shift).flatten()
    y = finish(plan, inputs, _batch_norm(plan, inputs, centered, delta, var))
    # The kernel reports the unbiased variance, which a single value does not have.
    biased = var * ((n - 1) / n) if n > 1 else torch.zeros_like(var)
    return y, Statistics(n, shift, delta.view(shift.shape), biased.view(shift.shape))


def _flat(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.flatten()


def _batch_norm(
    plan: Plan,
    inputs: Inputs,
    centered: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
) -> Tensor:
    x, weight, bias = inputs.x, inputs.weight, inputs.bias
    joined = plan.join(centered)
    # Momentum 1 writes this batch's own statistics into mean and var.
    rules = (True, 1.0, plan.eps, torch.backends.cudnn.enabled)
    return torch.batch_norm(joined, _flat(weight), _flat(bias), mean, var, *rules).view(x.shape)
