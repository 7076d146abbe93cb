"""Jacobians of a module, summed up by index of output and input along each axis."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seqnorm.carry import carry_lengths

__all__ = ["PROBES", "Influence", "Leak"]

AXES = {"N": "sample", "L": "position", "C": "channel"}
LARGEST = 2048  # outputs for which every row of the Jacobian is taken
PROBES = 64  # rows of an axis that are looked at otherwise


@dataclass(frozen=True)
class Leak:
    """Influence along one axis.

    Attributes
    ----------
    mode : str
        ``"train"`` or ``"eval"``.
    axis : str
        ``"sample"``, ``"position"``, ``"channel"``, or ``"padding"``: padded inputs.
    reaches_others : bool
        Whether an output depends on inputs of another index; where output and input do not have
        as many, on inputs of more than one.
    others : int
        On how many others at most.
    of : int
        How many others there are.
    distance : int or None
        Positions, as many in the output as in the input: how far the farthest of them is.
    span : int or None
        Positions: from the first to the last that one output depends on, the receptive field.
    strongest : float
        Largest absolute derivative by an input of another index.
    """

    mode: str
    axis: str
    reaches_others: bool
    others: int
    of: int
    distance: int | None
    span: int | None
    strongest: float


class Influence:
    """Largest absolute derivatives, by index of output and input along each axis."""

    def __init__(self, letters: str, shape: Sequence[int], pad: Tensor | None) -> None:
        self.letters = letters
        self.shape = shape
        self.pad = pad
        self.padding = 0.0
        self.exact = True
        self.own: dict[str, bool] = {}  # whether output and input count alike along an axis
        self.strength: dict[str, Tensor] = {}

    def add(self, model: nn.Module, point: Tensor, lengths: Tensor | None, layout: str) -> None:
        """Take the Jacobian at one more point."""
        x = point.clone().requires_grad_()
        y = _call(model, x, lengths, layout)
        if not isinstance(y, Tensor) or not y.dim() or y.shape[0] != x.shape[0]:
            got = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"the output must be a tensor with the {x.shape[0]} samples on its first axis, "
                f"got {got}"
            )
        alike = self.letters if y.dim() == x.dim() else "N"
        for letter in self.letters:
            axis = self.letters.index(letter)
            size = y.shape[axis] if letter in alike else 1
            self.own[letter] = letter in alike and size == x.shape[axis]
            self.strength.setdefault(letter, x.new_zeros(size, x.shape[axis]))
        if not y.requires_grad:
            return
        if y.numel() <= LARGEST:
            for place in range(y.numel()):
                probe = torch.zeros_like(y).flatten()
                probe[place] = 1
                index = torch.unravel_index(torch.tensor(place), y.shape)
                gradient = self._pull(x, y, probe.view(y.shape))
                for letter in self.letters:
                    at = int(index[self.letters.index(letter)]) if letter in alike else 0
                    self._note(letter, at, gradient)
            return
        self.exact = False
        for letter in self.letters:
            axis = self.letters.index(letter)
            size = y.shape[axis] if letter in alike else 1
            for at in sorted({round(i) for i in torch.linspace(0, size - 1, PROBES).tolist()}):
                probe = torch.randn_like(y)
                if letter in alike:
                    chosen = torch.arange(size, device=y.device) == at
                    probe = probe * chosen.view([-1 if a == axis else 1 for a in range(y.dim())])
                self._note(letter, at, self._pull(x, y, probe / probe.abs().sum()))

    def _pull(self, x: Tensor, y: Tensor, probe: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(y, x, probe, retain_graph=True, materialize_grads=True)
        size = gradient.abs()
        if not size.isfinite().all():
            # Neither an influence nor none: with NaN in it no comparison would find any.
            raise ValueError(
                "derivatives at x are not finite; give an x without NaN, at which the model can "
                "be differentiated (a constant one has no standard deviation)"
            )
        if self.pad is not None:
            self.padding = max(self.padding, float(torch.where(self.pad, size, 0).max()))
        return size

    def _note(self, letter: str, at: int, size: Tensor) -> None:
        axis = self.letters.index(letter)
        seen = size.amax([a for a in range(size.dim()) if a != axis])
        self.strength[letter][at] = torch.maximum(self.strength[letter][at], seen)

    def rows(self, mode: str, width: int) -> list[Leak]:
        """Sum up."""
        largest = max(float(s.max()) if s.numel() else 0.0 for s in self.strength.values())
        # What is smaller is rounding, e.g. of a convolution by Fourier transform.
        least = largest * (1e-12 if width == 8 else 1e-5)
        order = [letter for letter in AXES if letter in self.letters]
        rows = [self._row(mode, letter, least) for letter in order]
        if self.pad is not None:
            reached = self.padding > 0
            count = int(self.pad.sum())
            rows.append(
                Leak(mode, "padding", reached, int(reached) * count, count, None, None,
                     self.padding)
            )  # fmt: skip
        return rows

    def _row(self, mode: str, letter: str, least: float) -> Leak:
        strength = self.strength[letter]
        touched = strength > least
        others = strength.clone()
        distance = None
        if self.own[letter]:
            others.fill_diagonal_(0)
            count = (others > least).sum(1)
        else:
            count = (touched.sum(1) - 1).clamp_min(0)
        if letter == "L" and self.own[letter]:
            places = torch.arange(len(strength), device=strength.device)
            gaps = (places[:, None] - places).abs()
            distance = int(torch.where(touched, gaps, 0).max())
        most = int(count.max()) if len(count) else 0
        return Leak(
            mode, AXES[letter], most > 0, most, max(strength.shape[1] - 1, 0), distance,
            _span(touched) if letter == "L" else None,
            float(others.max()) if most else 0.0,
        )  # fmt: skip


def _span(touched: Tensor) -> int:
    places = torch.arange(touched.shape[1], device=touched.device)
    last = torch.where(touched, places, -1).amax(1)
    first = torch.where(touched, places, touched.shape[1]).amin(1)
    return int((last - first + 1).clamp_min(0).max())


def _call(model: nn.Module, x: Tensor, lengths: Tensor | None, layout: str) -> Any:
    with torch.enable_grad():
        if lengths is None:
            return model(x)
        if "lengths" in inspect.signature(model.forward).parameters:
            return model(x, lengths=lengths)
        with carry_lengths(model, lengths, layout=layout):
            return model(x)
