"""The optimizer of one client's round: torch's own AdamW and SGD, called as functions.

``torch.optim.AdamW`` and ``torch.optim.SGD`` as objects import torch's compiler, two seconds in
every process, and take as long to make as many clients take to train. The bits are theirs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from data_tools.errors import InputError

__all__ = ["LocalOptimizer"]


class LocalOptimizer:
    """AdamW or SGD with the defaults of torch; what has fewer than two dimensions never decays.

    Parameters
    ----------
    parameters : sequence of Parameter
        Those to be trained.
    name : {"adamw", "sgd"}
    learning_rate : float
    weight_decay : float
        AdamW's, or an L2 term of SGD.
    momentum : float
        SGD's.

    Examples
    --------
    >>> weight = nn.Parameter(torch.tensor([2.0]))
    >>> optimizer = LocalOptimizer([weight], "sgd", learning_rate=0.5)
    >>> (weight**2).sum().backward()
    >>> optimizer.step()
    >>> weight.item()
    0.0
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        name: str,
        *,
        learning_rate: float,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        if name not in ("adamw", "sgd"):
            raise InputError(f"optimizer must be 'adamw' or 'sgd', got {name!r}")
        self.name, self.learning_rate, self.momentum = name, learning_rate, momentum
        decayed = [p for p in parameters if p.ndim > 1]
        exempt = [p for p in parameters if p.ndim <= 1]
        self.groups = [(decayed, weight_decay), (exempt, 0.0)]
        self._state: dict[nn.Parameter, tuple[Tensor, Tensor, Tensor]] = {}
        self._momenta: dict[nn.Parameter, Tensor | None] = {}

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group, _ in self.groups:
            for p in group:
                p.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take a step along the gradients; what has none stays."""
        for group, decay in self.groups:
            moved = [p for p in group if p.grad is not None]
            if not moved:
                continue
            if self.name == "adamw":
                self._adamw(moved, decay)
            else:
                self._sgd(moved, decay)

    def _adamw(self, moved: list[nn.Parameter], decay: float) -> None:
        for p in moved:
            if p not in self._state:
                self._state[p] = (torch.zeros_like(p), torch.zeros_like(p), torch.tensor(0.0))
        firsts, seconds, steps = ([self._state[p][which] for p in moved] for which in range(3))
        adamw(
            [*moved],
            [p.grad for p in moved if p.grad is not None],
            firsts,
            seconds,
            [],
            steps,
            foreach=False,
            fused=False,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=decay,
            eps=1e-8,
            maximize=False,
        )

    def _sgd(self, moved: list[nn.Parameter], decay: float) -> None:
        momenta = [self._momenta.get(p) for p in moved] if self.momentum else []
        sgd(
            [*moved],
            [p.grad for p in moved if p.grad is not None],
            momenta,
            weight_decay=decay,
            momentum=self.momentum,
            lr=self.learning_rate,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            foreach=False,
        )
        self._momenta.update(zip(moved, momenta, strict=False))
