"""Clients in lock step: their weights stacked, one call of each operation for all of them.

``torch.func.vmap`` runs the model over a leading axis of clients, each with its own weights,
buffers and batch, and the optimizer's formulas work on the stacked weights. Clients whose batches
have one shape at a step take it together. One whose batches are used up, or whose loss was not
finite, stays as it is while the others go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from data_tools.errors import InputError
from federated.engines.stacks import alike, for_stacks, joined
from federated.local_training import LocalSettings, Trained
from federated.policy.manifest import State
from federated.strategies.drift import Drift

if TYPE_CHECKING:
    from federated.tasks.task import Task

__all__ = ["Cohort", "Run"]

_BETA_1, _BETA_2, _EPS = 0.9, 0.999, 1e-8
"""AdamW's, torch's defaults."""

_Group = tuple[list[int], list[Any], int]
"""Places of the clients of a call, their batches, and the rows of each batch."""


@dataclass
class Run:
    """One client on its way through the round.

    Attributes
    ----------
    examples : int
    batches : iterator of (batch, size)
    start : dict of str to Tensor
    drift : Drift
    total, seen, steps : float, int, int
        Of the loss, over the rows that were shown.
    failed : float, optional
        The loss that was not finite.
    """

    examples: int
    batches: Iterator[tuple[Any, int]]
    start: State
    drift: Drift
    total: float = 0.0
    seen: int = 0
    steps: int = 0
    failed: float | None = None

    def draw(self) -> tuple[Any, int] | None:
        """The next batch, if there is one to be trained on."""
        if self.failed is not None or not self.examples:
            return None
        return next(self.batches, None)

    def result(self, learning_rate: float) -> Trained:
        """What the client sends; its weights have to be in the model."""
        if self.failed is not None:
            controls = self.drift.controls(0, learning_rate)
            return Trained(self.examples, self.steps, self.failed, *controls)
        loss = self.total / self.seen if self.seen else math.nan
        return Trained(
            self.examples, self.steps, loss, *self.drift.controls(self.steps, learning_rate)
        )


class _Loss(nn.Module):
    """The task's loss as a module, so that the model's weights can be given to it."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, batch: Any) -> Tensor:
        return self.task.loss(self.model, batch)


class Cohort:
    """Clients in lock step; every tensor of the model, stacked over them."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        runs: Sequence[Run],
        training: LocalSettings,
        learning_rate: float,
    ) -> None:
        self.model, self.runs = model, runs
        self.training, self.rate = training, learning_rate
        self.loss = _Loss(model, task)
        named = dict(model.named_parameters())
        self.learned = {name for name, p in named.items() if p.requires_grad}
        self.weights = {name: _stacked(runs, name, p) for name, p in named.items()}
        self.buffers = {name: _stacked(runs, name, b) for name, b in model.named_buffers()}
        self.first = {name: torch.zeros_like(self.weights[name]) for name in self.learned}
        self.second = {name: torch.zeros_like(value) for name, value in self.first.items()}
        if training.optimizer != "adamw":
            self.second = {}
        some = runs[0].drift
        if any(set(run.drift.corrected) != set(some.corrected) for run in runs):
            raise InputError("the server's controls are of other weights for some clients")
        self.held = {n: torch.stack([run.drift.start[n] for run in runs]) for n in some.held}
        self.turn = {
            n: torch.stack([run.drift.server[n] - run.drift.own[n] for run in runs])
            for n in some.corrected
        }

    def train(self) -> list[tuple[Trained, State]]:
        """Take all steps of the round."""
        self.model.train()
        step = 0
        while groups := self._groups():
            step += 1
            for places, batches, size in groups:
                self._step(places, batches, size, step)
        return [self._finish(place, run) for place, run in enumerate(self.runs)]

    def gradients(
        self, rows: Tensor | None, batches: Sequence[Any]
    ) -> tuple[Tensor, State, dict[str, Tensor | None]]:
        """Losses of some clients, their weights, and the gradient of each by its own weights."""
        weights = {
            name: _taken(value, rows).detach().requires_grad_(name in self.learned)
            for name, value in self.weights.items()
        }
        buffers = {name: _taken(value, rows) for name, value in self.buffers.items()}
        batch, axes = joined(batches)

        def loss(own: State, its: State, rows_of: Any) -> Tensor:
            given = {f"model.{name}": value for name, value in (own | its).items()}
            found: Tensor = functional_call(self.loss, given, (rows_of,))
            return found

        with for_stacks():
            losses = vmap(loss, in_dims=(0, 0, axes))(weights, buffers, batch)
            wanted = [weights[name] for name in weights if name in self.learned]
            found = torch.autograd.grad(losses.sum(), wanted, allow_unused=True)
        if rows is not None:
            for name, value in buffers.items():
                self.buffers[name][rows] = value
        names = [name for name in weights if name in self.learned]
        return losses.detach(), weights, dict(zip(names, found, strict=True))

    def _groups(self) -> list[_Group]:
        """Clients that have a batch left, those with batches of one shape together."""
        drawn = {place: run.draw() for place, run in enumerate(self.runs)}
        left = {place: found for place, found in drawn.items() if found is not None}
        return [
            (places, [left[place][0] for place in places], left[places[0]][1])
            for places in alike({place: batch for place, (batch, _) in left.items()})
        ]

    def _step(self, places: list[int], batches: list[Any], size: int, step: int) -> None:
        everybody = len(places) == len(self.runs)
        rows = None if everybody else torch.tensor(places, device=self._device)
        losses, weights, gradients = self.gradients(rows, batches)
        values = losses.tolist()
        fine = [at for at, value in enumerate(values) if math.isfinite(value)]
        for place, value in zip(places, values, strict=True):
            run = self.runs[place]
            if not math.isfinite(value):
                run.failed = value
                continue
            run.total, run.seen, run.steps = run.total + value * size, run.seen + size, step
        if not fine:
            return
        if len(fine) < len(places):
            kept = torch.tensor(fine, device=self._device)
            rows = torch.tensor([places[at] for at in fine], device=self._device)
            weights = {name: value[kept] for name, value in weights.items()}
            gradients = {n: None if g is None else g[kept] for n, g in gradients.items()}
        self._update(rows, weights, gradients, step)

    @property
    def _device(self) -> torch.device:
        return next(iter(self.weights.values())).device

    @torch.no_grad()
    def _update(
        self, rows: Tensor | None, weights: State, gradients: dict[str, Tensor | None], step: int
    ) -> None:
        """Clip, correct and step, in the order of ``train_locally``."""
        for name, start in self.held.items():
            term = (weights[name] - _taken(start, rows)) * self._mu
            known = gradients[name]
            gradients[name] = term if known is None else known + term
        clipped = _clipped(
            {n: g for n, g in gradients.items() if g is not None}, self.training.clip
        )
        for name, turn in self.turn.items():
            known = clipped.get(name)
            clipped[name] = _taken(turn, rows) + (0.0 if known is None else known)
        formula = self._adamw if self.training.optimizer == "adamw" else self._sgd
        for name, gradient in clipped.items():
            formula(name, rows, weights[name], gradient, step)
            _put(self.weights[name], rows, weights[name])

    @property
    def _mu(self) -> float:
        return self.runs[0].drift.mu

    def _decay(self, p: Tensor) -> float:
        """Of matrices and kernels only; the first axis is the clients'."""
        return self.training.weight_decay if p.dim() > 2 else 0.0

    def _adamw(self, name: str, rows: Tensor | None, p: Tensor, g: Tensor, step: int) -> None:
        """Loshchilov & Hutter 2019, arXiv:1711.05101, as torch computes it."""
        m, v = _taken(self.first[name], rows), _taken(self.second[name], rows)
        p.mul_(1 - self.rate * self._decay(p))
        m.lerp_(g, 1 - _BETA_1)
        v.mul_(_BETA_2).addcmul_(g, g, value=1 - _BETA_2)
        root = v.sqrt().div_(math.sqrt(1 - _BETA_2**step)).add_(_EPS)
        p.addcdiv_(m, root, value=-self.rate / (1 - _BETA_1**step))
        _put(self.first[name], rows, m)
        _put(self.second[name], rows, v)

    def _sgd(self, name: str, rows: Tensor | None, p: Tensor, g: Tensor, step: int) -> None:
        """Gradient descent with an L2 term and momentum, as torch computes it."""
        g = g.add(p, alpha=self._decay(p))
        if self.training.momentum:
            g = _taken(self.first[name], rows).mul_(self.training.momentum).add_(g)
            _put(self.first[name], rows, g)
        p.add_(g, alpha=-self.rate)

    @torch.no_grad()
    def _finish(self, place: int, run: Run) -> tuple[Trained, State]:
        for name, p in (*self.model.named_parameters(), *self.model.named_buffers()):
            p.copy_((self.weights if name in self.weights else self.buffers)[name][place])
        state = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return run.result(self.rate), state


def _clipped(gradients: State, clip: float) -> State:
    """Scale each client's gradients down to a norm of at most ``clip``, as torch does it."""
    if not gradients:
        return {}
    norms = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients.values()]
    norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    scale = (clip / (norm + 1e-6)).clamp(max=1.0)
    return {n: g * scale.view(-1, *(1,) * (g.dim() - 1)).to(g.dtype) for n, g in gradients.items()}


def _stacked(runs: Sequence[Run], name: str, value: Tensor) -> Tensor:
    """A tensor of the model for each client; one that no state holds is everybody's."""
    with torch.no_grad():
        return torch.stack([run.start.get(name, value).to(value) for run in runs])


def _taken(stack: Tensor, rows: Tensor | None) -> Tensor:
    """Some clients' part: the stack itself for all of them, a copy otherwise."""
    return stack if rows is None else stack[rows]


def _put(stack: Tensor, rows: Tensor | None, value: Tensor) -> None:
    if rows is not None:
        stack[rows] = value.detach()
