"""Normalization in plain torch operations: every axis, layout and mask.

A mean rounded to float32 is off by up to half a unit in the last place: at an offset of 1e5 that
is 0.004, far more than the rounding of the values' spread. So a rough mean, the *shift*, is
subtracted first. Inputs that share an offset lie on one grid of floating-point numbers, hence that
subtraction is exact, and the moments are then taken of small numbers with the corrected two-pass
formula (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", The American
Statistician 37(3), eq. 1.7). The result does not depend on the shift, so it is left out of the
graph of derivatives and all of these stay exact.

Nothing here depends on values, only on shapes: it can be compiled, exported and vmapped.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seqnorm.backends.plan import Inputs, Plan, Statistics, activate, hide

__all__ = [
    "affine",
    "divide_by_rms",
    "finish",
    "shifted",
    "standardize",
    "standardize_given",
]


def _count(x: Tensor, dims: tuple[int, ...], mask: Tensor | None) -> Tensor | int:
    """How many numbers share one mean; axes along which the mask is constant count in full."""
    if mask is None:
        return math.prod([x.shape[dim] for dim in dims])
    repeats = math.prod([x.shape[dim] // max(mask.shape[dim], 1) for dim in dims])
    return mask.sum(dims, keepdim=True) * repeats


def _average(x: Tensor, dims: tuple[int, ...], count: Tensor | int) -> Tensor:
    """Sum over count; an empty set averages to 0, not to NaN."""
    total = x.sum(dims, keepdim=True)
    return total / (count.clamp_min(1) if isinstance(count, Tensor) else max(count, 1))


def shifted(
    x: Tensor, dims: tuple[int, ...], mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | int]:
    """Subtract a rough mean over the valid positions; padded positions become 0.

    Returns
    -------
    centered, shift, count
        ``shift`` is outside the graph of derivatives.
    """
    count = _count(x, dims, mask)
    shift = _average(hide(x.detach(), mask), dims, count)
    return hide(x - shift, mask), shift, count


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """``x * weight + bias`` in one pass, either of them optional."""
    if weight is None:
        return x if bias is None else x + bias
    return x * weight if bias is None else torch.addcmul(bias, x, weight)


def _scale(
    plan: Plan, inputs: Inputs, centered: Tensor, delta: Tensor | None, rstd: Tensor
) -> Tensor:
    """``(centered - delta) * rstd * weight + bias`` in as few passes as the shapes allow."""
    weight, bias = inputs.weight, inputs.bias
    if plan.over == "C":
        # rstd differs by position and weight by channel: their product is as large as x.
        offset = None if delta is None else -delta * rstd
        return finish(plan, inputs, affine(affine(centered, rstd, offset), weight, bias))
    scale = rstd if weight is None else rstd * weight
    if delta is not None:
        bias = -delta * scale if bias is None else bias - delta * scale
    return finish(plan, inputs, affine(centered, scale, bias))


def finish(plan: Plan, inputs: Inputs, y: Tensor) -> Tensor:
    """Add the residual, apply the activation, put zeros at padded positions."""
    if inputs.residual is not None:
        y = y + hide(inputs.residual, inputs.mask)
    return hide(activate(y, plan.activation), inputs.mask)


def standardize(plan: Plan, inputs: Inputs) -> tuple[Tensor, Statistics]:
    """Subtract the mean, divide by the standard deviation, apply the affine map."""
    centered, shift, count = shifted(inputs.x, plan.dims, inputs.mask)
    delta = _average(centered, plan.dims, count)
    # delta is a rounding residue, so this difference cannot cancel; only its sign may slip.
    var = (_average(centered.square(), plan.dims, count) - delta.square()).clamp_min(0)
    y = _scale(plan, inputs, centered, delta, torch.rsqrt(var + plan.eps))
    return y, Statistics(count, shift, delta, var)


def divide_by_rms(plan: Plan, inputs: Inputs) -> Tensor:
    """Divide by the root mean square (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    x = hide(inputs.x, inputs.mask)
    square = _average(x.square(), plan.dims, _count(x, plan.dims, inputs.mask))
    return _scale(plan, inputs, x, None, torch.rsqrt(square + plan.eps))


def standardize_given(plan: Plan, inputs: Inputs, mean: Tensor, var: Tensor) -> Tensor:
    """Standardize with known statistics, e.g. those that training has left behind."""
    # Not folded into x * scale + offset: at a large mean that difference would cancel.
    rstd = torch.rsqrt(var + plan.eps)
    scale = rstd if inputs.weight is None else rstd * inputs.weight
    y = affine(hide(inputs.x, inputs.mask) - mean, scale, inputs.bias)
    return finish(plan, inputs, y)
