"""What is asked of a backend: which numbers share moments, and what follows the affine map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from seqnorm.moments import Moments, wide_dtype

__all__ = [
    "ACTIVATIONS",
    "Inputs",
    "Plan",
    "Statistics",
    "activate",
    "compute_dtype",
    "hide",
    "outside",
]

ACTIVATIONS = ("relu", "gelu")


@dataclass(frozen=True)
class Plan:
    """How a tensor is cut: split channels give ``(N, G, C/G, L)`` or ``(N, L, G, C/G)``."""

    over: str
    layout: str
    groups: int = 1
    center: bool = True
    eps: float = 1e-5
    activation: str | None = None

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

    def sets(self, x: Tensor) -> tuple[int, ...]:
        """Shape of the statistics of an ``(N, C, L)`` or ``(N, L, C)`` tensor."""
        n, channels, length = x.shape[0], x.shape[self.channel_axis], x.shape[3 - self.channel_axis]
        if self.over == "C":
            last = (self.groups, length)
            return (n, *(last if self.layout == "NCL" else last[::-1]))
        return {"L": (n, channels), "NL": (channels,), "CL": (n, self.groups)}[self.over]

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
    """What is normalized, all of one type, float32 or float64, and broadcastable to ``x``."""

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    mask: Tensor | None
    residual: Tensor | None = None


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


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type of the arithmetic: float64 for float64, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def outside(lengths: Tensor, length: int) -> str:
    """What to say of lengths that are not all in 0..length."""
    row = int(((lengths < 0) | (lengths > length)).nonzero()[0])
    return (
        f"lengths[{row}] = {int(lengths[row])} is outside 0..{length}, the positions that "
        "the input has; were lengths taken before pooling or cropping?"
    )


def hide(y: Tensor, mask: Tensor | None) -> Tensor:
    """Put exact zeros at padded positions and stop gradients that come from there."""
    return y if mask is None else torch.where(mask, y, 0)


def activate(y: Tensor, activation: str | None) -> Tensor:
    """ReLU, or GELU in its exact form (by erf), or nothing."""
    if activation is None:
        return y
    return F.relu(y) if activation == "relu" else F.gelu(y)
