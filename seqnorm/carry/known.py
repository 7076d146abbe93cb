"""What is known of the positions of the tensors that run through a model.

A tensor is known by itself while modules hand it on, and by the size of its axis of positions
after any other operation. Two ways through a model can give one size two different lengths; such
a size is known no more, the tensors themselves still are.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Known", "Positions", "fill", "same", "two_ways", "valid"]

Lengths = Tensor | None
"""Integers ``(N,)`` on the CPU; None where every position is valid whatever the sequence."""


class Positions(NamedTuple):
    """Which axis of a tensor is that of positions, and how many of them are valid."""

    axis: int
    lengths: Lengths


class Known:
    """Lengths by tensor and by number of positions, for one pass through a model.

    Parameters
    ----------
    batch : int
        N, the number of sequences.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._sizes: dict[int, list[Lengths]] = {}
        self._tensors: dict[int, tuple[weakref.ref[Tensor], Positions]] = {}

    def note(self, x: Tensor, axis: int, lengths: Lengths) -> None:
        """Remember the lengths of a tensor, and those of its number of positions."""
        axis %= x.dim()
        self._tensors[id(x)] = (weakref.ref(x), Positions(axis, lengths))
        ways = self._sizes.setdefault(x.shape[axis], [])
        if not any(same(lengths, way) for way in ways):
            ways.append(lengths)

    def of(self, x: Tensor) -> Positions | None:
        """What is known of this very tensor."""
        reference, positions = self._tensors.get(id(x), (None, None))
        return positions if reference is not None and reference() is x else None

    def has(self, size: int) -> bool:
        """Whether some tensor had this number of positions."""
        return size in self._sizes

    def padded(self, size: int) -> bool:
        """Whether some tensor of this number of positions holds padding."""
        return any(way is not None for way in self._sizes.get(size, []))

    def find(self, x: Tensor, axis: int, where: str, batch_axis: int = 0) -> Lengths:
        """Lengths of a tensor whose axis of positions is known.

        Raises
        ------
        ValueError
            If they are not known, or if the size alone does not tell; names the module and what
            to do.
        """
        axis %= x.dim()
        noted = self.of(x)
        if noted is not None and noted.axis == axis:
            return noted.lengths
        size, ways = x.shape[axis], self._sizes.get(x.shape[axis], [])
        if not self._sizes:
            raise ValueError(
                f"{where} is called by itself; inside the block call the model that "
                "carry_lengths was given, or give it this module"
            )
        if not ways:
            known = ", ".join(map(str, sorted(self._sizes)))
            raise ValueError(
                f"{where}: its input of shape {tuple(x.shape)} has {size} positions, and lengths "
                f"are known for {known} only; something before it changed the number of "
                "positions outside a module that carry_lengths follows. Use a module (such as "
                "nn.MaxPool1d) for it, tell the rule by rules={type or name: function}, or give "
                "the module that does it a `lengths` argument"
            )
        if len(ways) > 1:
            raise ValueError(
                f"{where}: its input of shape {tuple(x.shape)} has {size} positions, "
                + two_ways(ways[0], ways[1])
            )
        if x.shape[batch_axis] != self.batch and ways[0] is not None:
            raise ValueError(
                f"{where}: its input of shape {tuple(x.shape)} should have the "
                f"{self.batch} sequences of lengths on axis {batch_axis}; if its axes mean "
                "something else, leave it alone by rules={name: None}"
            )
        return ways[0]


def valid(x: Tensor, axis: int, lengths: Tensor, batch_axis: int = 0) -> Tensor:
    """Mask that broadcasts against ``x``, True at valid positions."""
    positions = torch.arange(x.shape[axis], device=x.device)
    shape = [1] * x.dim()
    shape[axis] = -1
    at = positions.view(shape)
    shape[axis], shape[batch_axis] = 1, -1
    return at < lengths.to(x.device).view(shape)


def fill(
    x: Tensor, axis: int, lengths: Lengths, value: float | None, batch_axis: int = 0
) -> Tensor:
    """Overwrite padded positions with a value, or with the last valid one (None).

    Gradients of padded positions are 0.
    """
    if lengths is None:
        return x
    mask = valid(x, axis, lengths, batch_axis)
    if value is not None:
        return torch.where(mask, x, value)
    index = (lengths.to(x.device) - 1).clamp_min(0)
    shape = [1] * x.dim()
    shape[batch_axis] = -1
    size = [1 if d == axis else s for d, s in enumerate(x.shape)]
    last = torch.where(mask, x, 0).gather(axis, index.view(shape).expand(size))
    return torch.where(mask, x, last)


def same(a: Lengths, b: Lengths) -> bool:
    """Whether two lengths are equal."""
    return a is b or (a is not None and b is not None and torch.equal(a, b))


def two_ways(a: Lengths, b: Lengths) -> str:
    """Message of a number of positions that two ways lead to."""
    return (
        f"reached in two ways that leave different lengths ({_show(a)} and {_show(b)}); crop the "
        "sequences to lengths for which the ways agree (multiples of all strides), or give the "
        "module around it a `lengths` argument"
    )


def _show(lengths: Lengths) -> str:
    return "all" if lengths is None else str(lengths[:4].tolist())
