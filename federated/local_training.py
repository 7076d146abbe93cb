"""What a client does in a round: some epochs or steps over its own rows, from the server's weights.

Plain federated averaging (McMahan et al. 2017, arXiv:1602.05629), with what strategies add to it:

- FedProx (Li et al. 2020, arXiv:1812.06127): ``mu/2 |w - w_server|^2`` in the loss, that is
  ``mu (w - w_server)`` in the gradient.
- SCAFFOLD (Karimireddy et al. 2020, arXiv:1910.06378): every step goes along ``g - c_i + c``, and
  the client's control becomes ``c_i - c + (w_server - w) / (K lr)`` after K steps (option II).

The optimizer begins anew in every round, since a client may not be asked again: Adam's moments and
SGD's momentum are of one round. The learning rate is constant. Everything random is a function of
seed, client and round.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from data_tools.errors import InputError
from federated.local_optimizer import LocalOptimizer
from federated.policy.manifest import State
from federated.strategies.drift import Drift
from federated.strategies.names import check_optimizer
from federated.strategies.strategy import Terms

if TYPE_CHECKING:
    from federated.tasks.task import Task

__all__ = [
    "LocalSettings",
    "Trained",
    "batches_of_round",
    "check_local",
    "draw_seed",
    "train_locally",
]


class LocalSettings(Protocol):
    """What local training needs of :class:`federated.spec.Training`.

    Attributes
    ----------
    local_epochs : int or None
        Of a round; None: ``local_steps`` counts.
    local_steps : int or None
        Steps of the optimizer of a round, where there are no ``local_epochs``.
    batch_size : int
    optimizer : {"adamw", "sgd"}
    weight_decay : float
        On matrices and kernels only: biases and normalization gains are exempt. AdamW's, or an L2
        term of SGD.
    momentum : float
        SGD's.
    clip : float
        Largest gradient norm.
    """

    @property
    def local_epochs(self) -> int | None: ...  # noqa: D102
    @property
    def local_steps(self) -> int | None: ...  # noqa: D102
    @property
    def batch_size(self) -> int: ...  # noqa: D102
    @property
    def optimizer(self) -> str: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def momentum(self) -> float: ...  # noqa: D102
    @property
    def clip(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Trained:
    """What came of a client's round; its weights are in the model.

    Attributes
    ----------
    examples : int
        Training rows that the client holds: its weight in the mean.
    steps : int
        Steps of the optimizer.
    loss : float
        The task's mean loss over the rows that were shown, each before its step, without what a
        strategy adds; NaN where no step was taken. The loss that was not finite, if there was one:
        training stopped there.
    sent : dict of str to Tensor
        The strategy's tensors for the server.
    kept : dict of str to Tensor
        The strategy's tensors that the client keeps, and hands in again next time.
    """

    examples: int
    steps: int
    loss: float
    sent: State = field(default_factory=dict)
    kept: State = field(default_factory=dict)

    @property
    def extras(self) -> State:
        """``kept`` and ``sent`` together."""
        return {**self.kept, **self.sent}


def train_locally(
    model: nn.Module,
    task: Task,
    client: str,
    round: int,  # noqa: A002
    seed: int,
    training: LocalSettings,
    learning_rate: float,
    extras: Mapping[str, Tensor],
    terms: Terms,
    shared: Collection[str] | None = None,
) -> Trained:
    """Train a model for one round on the rows of one client.

    Parameters
    ----------
    model : torch.nn.Module
        With the weights that the client starts with, after
        :meth:`federated.policy.Manifest.apply_to_training`: what needs no gradient is not touched.
        Trained in place, on the device on which it is.
    task : Task
    client : str
    round : int
        Counted from 1.
    seed : int
        Of order, dropout and whatever else the model draws.
    training : LocalSettings
    learning_rate : float
    extras : mapping of str to Tensor
        The strategy's tensors: those that the server has sent, and those that this client kept.
    terms : mapping
        Of :meth:`federated.strategies.Strategy.terms`.
    shared : collection of str, optional
        Names of what goes to the server and back, to which FedProx's term is confined. None: all
        that is trained.

    Returns
    -------
    Trained
        Without training rows: 0 examples, 0 steps, and the model as it was.

    Raises
    ------
    InputError
        If the strategy does not go with the optimizer, the learning rate is not positive, or a
        control variate does not fit the model.

    Notes
    -----
    A batch of one row is skipped unless ``batch_size`` is 1: BatchNorm cannot train on it, and
    norms that could shall not see more rows than others. The order changes with the epoch, so that
    no row is always left out; a client with a single row takes no step at all.

    Gradients are clipped before SCAFFOLD's correction, so that controls are means of clipped
    gradients; FedProx's term counts as part of the loss and is clipped with it.
    """
    examples = task.examples(client, "train")
    drift = Drift.of(model, extras, terms, shared)
    check_local(training, terms, learning_rate)
    if not examples:
        return Trained(0, 0, math.nan, *drift.controls(0, learning_rate))
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    optimizer = LocalOptimizer(
        [p for p in model.parameters() if p.requires_grad],
        training.optimizer,
        learning_rate=learning_rate,
        weight_decay=training.weight_decay,
        momentum=training.momentum,
    )
    total, seen, steps = 0.0, 0, 0
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # Not torch.manual_seed, which notes down a stack trace for every kind of device.
        torch.default_generator.manual_seed(draw_seed(seed, client, round))
        if device.type == "cuda":
            torch.cuda.manual_seed_all(draw_seed(seed, client, round))
        for batch, size in batches_of_round(task, client, round, seed, training):
            loss = task.loss(model, batch)
            value = loss.item()
            if not math.isfinite(value):
                # The control of a round that went wrong would spoil all rounds that follow.
                return Trained(examples, steps, value, *drift.controls(0, learning_rate))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            drift.hold()
            nn.utils.clip_grad_norm_(model.parameters(), training.clip)
            drift.correct()
            optimizer.step()
            total, seen, steps = total + value * size, seen + size, steps + 1
    loss_of_round = total / seen if seen else math.nan
    return Trained(examples, steps, loss_of_round, *drift.controls(steps, learning_rate))


def batches_of_round(
    task: Task,
    client: str,
    round: int,  # noqa: A002
    seed: int,
    training: LocalSettings,
) -> Iterator[tuple[Any, int]]:
    """Batches of a round that can be trained on, with their sizes.

    With ``local_epochs``, those of the epochs after the epochs of all rounds before, whether the
    client took part in these or not. With ``local_steps``, as many batches of the same sequence of
    epochs: a round goes on where the round before ended, in the middle of an epoch (whose first
    batches are made once more, and skipped). So rows are seen equally often over the rounds, to one
    time, but for those alone in a batch; and all is a function of seed, round and the client's
    number of rows.

    Parameters
    ----------
    task : Task
    client : str
    round : int
        Counted from 1.
    seed : int
    training : LocalSettings

    Yields
    ------
    batch : Any
        Of the task. Of one row only if ``batch_size`` is 1.
    size : int
        Its rows.
    """
    if training.local_epochs is not None:
        first = (round - 1) * training.local_epochs
        for epoch in range(first, first + training.local_epochs):
            yield from _epoch(task, client, seed, epoch, training.batch_size)
        return
    assert training.local_steps is not None
    # Steps of an epoch: the last batch may be smaller, and counts from two rows on.
    full, rest = divmod(task.examples(client, "train"), training.batch_size)
    if an_epoch := full + (rest > 1):
        epoch, skipped = divmod((round - 1) * training.local_steps, an_epoch)
        epochs = (_epoch(task, client, seed, e, training.batch_size) for e in count(epoch))
        endless = chain.from_iterable(epochs)
        yield from islice(endless, skipped, skipped + training.local_steps)


def _epoch(
    task: Task, client: str, seed: int, epoch: int, batch_size: int
) -> Iterator[tuple[Any, int]]:
    for batch in task.batches(client, "train", batch_size, (seed, epoch)):
        size = len(task.inputs(batch))
        if size > 1 or batch_size == 1:
            yield batch, size


def check_local(training: LocalSettings, terms: Terms, learning_rate: float) -> None:
    """Check that a strategy goes with the optimizer, and the learning rate.

    Raises
    ------
    InputError
        Says what is wrong.
    """
    if terms.get("scaffold") or terms.get("plain_sgd"):
        name = "scaffold" if terms.get("scaffold") else "fednova"
        check_optimizer(name, training.optimizer, training.momentum)
    if not 0 < learning_rate < math.inf:
        raise InputError(f"learning_rate must be positive and finite, got {learning_rate!r}")


def draw_seed(seed: int, client: str, round: int) -> int:  # noqa: A002
    """Seed of a client's round: neighbouring seeds, clients and rounds share nothing."""
    digest = hashlib.sha256(f"{seed}/{round}/{client}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
