"""How much a model's answers changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Change", "answers", "compare", "evaluating"]


@dataclass(frozen=True)
class Change:
    """Difference between the answers of two models to the same inputs.

    Attributes
    ----------
    largest : float
        Largest absolute difference of a logit.
    typical : float
        Largest absolute logit of the first model, to compare with.
    flipped : int
        Decisions that differ: the sign of a single output, the largest of several.
    decisions : int
        How many were compared.
    """

    largest: float
    typical: float
    flipped: int
    decisions: int

    @property
    def share(self) -> float:
        """Share of decisions that flipped."""
        return self.flipped / max(self.decisions, 1)

    def __str__(self) -> str:
        return (
            f"largest change of a logit {self.largest:.3g} (largest logit {self.typical:.3g}), "
            f"{self.flipped} of {self.decisions} decisions flipped ({self.share:.1%})"
        )


class evaluating:  # noqa: N801
    """Evaluation mode and no graph inside the block; every module's mode as before after it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __enter__(self) -> None:
        """Remember modes."""
        self.modes = [(module, module.training) for module in self.model.modules()]
        self.grad = torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        self.model.eval()

    def __exit__(self, *_: object) -> None:
        """Restore modes, one module at a time: they need not agree."""
        torch.set_grad_enabled(self.grad)
        for module, mode in self.modes:
            module.training = mode


def answers(model: nn.Module, sample: Tensor | Sequence[Any]) -> Tensor:
    """Outputs of a model in evaluation mode.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it was.
    sample : Tensor or sequence
        The input, or the arguments of the call.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If the model does not give a tensor, or one that is not finite.
    """
    with evaluating(model):
        y = model(sample) if isinstance(sample, Tensor) else model(*sample)
    if not isinstance(y, Tensor):
        raise ValueError(f"the model gives {type(y).__name__}, a tensor of logits is needed")
    if not y.isfinite().all():
        raise ValueError("the model gives values that are not finite on sample")
    return y


def compare(before: Tensor, after: Tensor) -> Change:
    """Compare answers ``(N,)``, ``(N, 1)`` or ``(N, K, ...)``, K logits a decision."""
    if before.dim() > 1 and before.shape[1] > 1:
        flips = before.argmax(1) != after.argmax(1)
    else:
        flips = (before > 0) != (after > 0)
    gap = (before.double() - after.double()).abs()
    return Change(
        float(gap.max()) if gap.numel() else 0.0,
        float(before.double().abs().max()) if gap.numel() else 0.0,
        int(flips.sum()),
        flips.numel(),
    )
