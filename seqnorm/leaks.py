"""Which samples, positions and channels of the input can influence which of the output.

BatchNorm in training lets every sample of a batch influence every other, InstanceNorm every
position the others of its channel, a convolution its window: all that can be read off the
Jacobian. It is taken here with random points around the given one, in float64, on a copy.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from seqnorm.functional import valid_positions
from seqnorm.influence import PROBES, Influence, Leak
from seqnorm.text_table import text_table

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Leak", "LeakReport", "leak_report"]


@dataclass(frozen=True)
class LeakReport:
    """What :func:`leak_report` found; ``print`` it.

    Attributes
    ----------
    rows : tuple of Leak
        One for each mode and axis.
    points : int
        At how many points the Jacobian was taken.
    exact : bool
        Whether every output was looked at by itself.
    """

    rows: tuple[Leak, ...]
    points: int
    exact: bool

    def row(self, mode: str, axis: str) -> Leak:
        """The row of a mode and an axis.

        Raises
        ------
        KeyError
            If there is none.
        """
        for row in self.rows:
            if (row.mode, row.axis) == (mode, axis):
                return row
        raise KeyError(f"no row for mode {mode!r} and axis {axis!r}")

    def to_frame(self) -> pd.DataFrame:
        """The rows as a table of pandas."""
        import pandas as pd

        return pd.DataFrame([asdict(row) for row in self.rows])

    def __str__(self) -> str:
        table = text_table(
            ("mode", "axis", "reaches others", "others", "of", "distance", "span", "strongest"),
            [tuple(asdict(row).values()) for row in self.rows],
        )
        how = "every output" if self.exact else f"sums of outputs, at most {PROBES} along an axis"
        return (
            f"{table}\nJacobian of {how} at {self.points} points. 'no' means a derivative of 0 "
            "at all of them, not a proof."
        )


def leak_report(
    model: nn.Module,
    x: Tensor,
    lengths: Tensor | None = None,
    *,
    layout: str = "NCL",
    modes: Sequence[str] = ("train", "eval"),
    points: int = 3,
    seed: int = 0,
) -> LeakReport:
    """Find which samples, positions and channels can influence which, from Jacobians.

    Parameters
    ----------
    model : torch.nn.Module
        A layer or a model whose output has the samples on its first axis. Nothing of it is
        changed: a copy is looked at.
    x : Tensor
        Input, floating point, ``(N, C, L)``, ``(N, L, C)`` by layout, or ``(N, C)``; at least two
        samples, or nothing can be said of them.
    lengths : Tensor, optional
        Integers ``(N,)`` or booleans ``(N, L)``. They are passed to a model that takes them, else
        carried through it (:func:`seqnorm.carry_lengths`).
    layout : {"NCL", "NLC"}
        Order of the axes of ``x``; an output of three axes has the same.
    modes : sequence of {"train", "eval"}
        Modes to look at.
    points : int
        The Jacobian is taken at ``x`` and at ``points - 1`` random points of the mean and
        standard deviation of ``x``: a ReLU that is off at one may be on at another.
    seed : int
        Of the random points, of dropout and of the probes.

    Returns
    -------
    LeakReport
        A row for each mode and axis; ``"padding"`` too if there are lengths.

    Raises
    ------
    ValueError
        For another shape or type of ``x``, an unknown mode, an output that is no tensor with the
        samples on its first axis, or derivatives that are not finite.

    Notes
    -----
    Up to 2048 outputs the Jacobian is taken whole. For more, vector-Jacobian products are: for
    each sample, and up to 64 positions and channels, of a random sum of its outputs with weights
    whose sizes sum to 1. Which inputs that depends on is right but for a coincidence of measure 0;
    ``strongest`` is then a lower bound. Influence without a derivative, through integers or
    ``detach``, is not seen.

    Examples
    --------
    >>> from seqnorm.layers import BatchNorm1d
    >>> report = leak_report(BatchNorm1d(4), torch.randn(3, 4, 5))
    >>> report.row("train", "sample").others, report.row("eval", "sample").others
    (2, 0)
    """
    if not x.is_floating_point() or x.dim() not in (2, 3):
        raise ValueError(
            f"x must be floating point with two or three axes, got {x.dtype} of shape "
            f"{tuple(x.shape)}; for tokens, look at the model behind the embedding"
        )
    if layout not in ("NCL", "NLC"):
        raise ValueError(f"layout must be 'NCL' or 'NLC', got {layout!r}")
    if points < 1 or not modes or set(modes) - {"train", "eval"}:
        raise ValueError(
            f"points must be at least 1 and modes among 'train' and 'eval', got {points} and "
            f"{list(modes)}"
        )
    letters = layout if x.dim() == 3 else "NC"
    pad = None
    if lengths is not None and x.dim() == 3:
        length = x.shape[letters.index("L")]
        valid = valid_positions(lengths, x.shape[0], length, x.device)
        pad = None if valid is None else ~valid.unsqueeze(letters.index("C"))
    rows, exact = [], True
    with torch.inference_mode(False), _seeded(x.device, seed):
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        inputs = [x.detach().to(wide, copy=True)]
        mean, std = inputs[0].nanmean(), _spread(inputs[0])
        inputs += [torch.randn_like(inputs[0]) * std + mean for _ in range(points - 1)]
        for mode in modes:
            twin = copy.deepcopy(model).to(wide).train(mode == "train")
            found = Influence(letters, x.shape, pad)
            for point in inputs:
                found.add(twin, point, lengths, layout)
            exact = exact and found.exact
            rows += found.rows(mode, inputs[0].element_size())
    return LeakReport(tuple(rows), points, exact)


def _spread(x: Tensor) -> Tensor:
    deviation = (x - x.nanmean()).square().nanmean().sqrt()
    return torch.where(deviation > 0, deviation, 1)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Random numbers that depend on the seed alone, and are forgotten afterwards."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
