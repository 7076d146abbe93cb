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
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from seqnorm.moments import Moments, wide_dtype

__all__ = [
    "Inputs",
    "Plan",
    "Statistics",
    "affine",
    "divide_by_rms",
    "shifted",
    "standardize",
    "standardize_given",
]


@dataclass(frozen=True)
class Plan:
    """How a tensor is cut: split channels give ``(N, G, C/G, L)`` or ``(N, L, G, C/G)``."""

    over: str
    layout: str
    groups: int = 1

    @property
    def channel_axis(self) -> int:
        """Axis of the channels in the three-axis tensor, of the groups in the split one."""
        return 1 if self.layout == "NCL" else 2

    @property
    def dims(self) -> tuple[int, ...]:
        """Axes of the split tensor that share moments."""
        position = 3 if self.layout == "NCL" else 1
        axes = {"N": 0, "C": self.channel_axis + 1, "L": position}
        return tuple(axes[name] for name in self.over)

    def split(self, x: Tensor) -> Tensor:
        """Give the groups an axis of their own."""
        axis = self.channel_axis
        return torch.unflatten(x, axis, (self.groups, x.shape[axis] // self.groups))

    def join(self, x: Tensor) -> Tensor:
        """Undo :meth:`split`."""
        return x.flatten(self.channel_axis, self.channel_axis + 1)

    def per_channel(self, value: Tensor) -> Tensor:
        """Make a ``(C,)`` tensor broadcast against the split tensor."""
        value = torch.unflatten(value, 0, (self.groups, value.shape[0] // self.groups))
        return value.unsqueeze(-1) if self.layout == "NCL" else value

    def per_position(self, mask: Tensor) -> Tensor:
        """Make an ``(N, L)`` mask broadcast against the split tensor."""
        return mask[:, None, None, :] if self.layout == "NCL" else mask[:, :, None, None]

    def natural(self, statistic: Tensor) -> Tensor:
        """Drop the axes that were reduced, and the axis of groups where groups mean nothing."""
        drop = self.dims if "C" in self.over else (*self.dims, self.channel_axis)
        return statistic.squeeze(drop)


class Inputs(NamedTuple):
    """What is normalized: all of one type, float32 or float64, and broadcastable to ``x``."""

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    mask: Tensor | None


class Statistics(NamedTuple):
    """What a normalization found, in the split shape with reduced axes of size one."""

    size: Tensor | int
    shift: Tensor
    delta: Tensor
    var: Tensor

    def moments(self, plan: Plan) -> Moments:
        """Add shift and delta in wide precision: neither alone is the mean."""
        wide = wide_dtype(self.shift.device)
        mean = self.shift.to(wide) + self.delta.detach().to(wide)
        if isinstance(self.size, Tensor):
            count = self.size.to(wide).expand_as(mean)
        else:
            count = torch.full_like(mean, self.size)
        m2 = self.var.detach().to(wide) * count
        return Moments(plan.natural(count), plan.natural(mean), plan.natural(m2))


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


def _hide(y: Tensor, mask: Tensor | None) -> Tensor:
    """Put exact zeros at padded positions and stop gradients that come from there."""
    return y if mask is None else torch.where(mask, y, 0)


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
    shift = _average(_hide(x.detach(), mask), dims, count)
    return _hide(x - shift, mask), shift, count


def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """``x * weight + bias`` in one pass, either of them optional."""
    if weight is None:
        return x if bias is None else x + bias
    return x * weight if bias is None else torch.addcmul(bias, x, weight)


def _scale(
    plan: Plan, inputs: Inputs, centered: Tensor, delta: Tensor | None, rstd: Tensor
) -> Tensor:
    """``(centered - delta) * rstd * weight + bias`` in as few passes as the shapes allow."""
    _, weight, bias, mask = inputs
    if plan.over == "C":
        # rstd differs by position and weight by channel: their product is as large as x.
        offset = None if delta is None else -delta * rstd
        return _hide(affine(affine(centered, rstd, offset), weight, bias), mask)
    scale = rstd if weight is None else rstd * weight
    if delta is not None:
        bias = -delta * scale if bias is None else bias - delta * scale
    return _hide(affine(centered, scale, bias), mask)


def standardize(plan: Plan, inputs: Inputs, eps: float) -> tuple[Tensor, Statistics]:
    """Subtract the mean, divide by the standard deviation, apply the affine map."""
    centered, shift, count = shifted(inputs.x, plan.dims, inputs.mask)
    delta = _average(centered, plan.dims, count)
    # delta is a rounding residue, so this difference cannot cancel; only its sign may slip.
    var = (_average(centered.square(), plan.dims, count) - delta.square()).clamp_min(0)
    y = _scale(plan, inputs, centered, delta, torch.rsqrt(var + eps))
    return y, Statistics(count, shift, delta, var)


def divide_by_rms(plan: Plan, inputs: Inputs, eps: float) -> Tensor:
    """Divide by the root mean square (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    x = _hide(inputs.x, inputs.mask)
    square = _average(x.square(), plan.dims, _count(x, plan.dims, inputs.mask))
    return _scale(plan, inputs, x, None, torch.rsqrt(square + eps))


def standardize_given(inputs: Inputs, mean: Tensor, var: Tensor, eps: float) -> Tensor:
    """Standardize with known statistics, e.g. those that training has left behind."""
    x, weight, bias, mask = inputs
    # Not folded into x * scale + offset: at a large mean that difference would cancel.
    rstd = torch.rsqrt(var + eps)
    scale = rstd if weight is None else rstd * weight
    return _hide(affine(_hide(x, mask) - mean, scale, bias), mask)
