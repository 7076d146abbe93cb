"""Clients trained together: their weights stacked, one call of each operation for all of them.

A small model's step is mostly the cost of calling its operations, and a federated round takes it
once for every client and batch. Here the clients of a cell go in lock step: ``torch.func.vmap``
runs the model over a leading axis of clients, each with its own weights, buffers and batch, and
the optimizer's formulas work on the stacked weights. Batches, their order, and what a strategy
adds are those of :func:`federated.local_training.train_locally`; sums are taken in another order,
so results agree to rounding and not in their bits. (Where a gradient is rounding and nothing else,
as that of a bias before BatchNorm, AdamW makes whole steps of it; no output depends on them.)

Clients whose batches have one shape at a step take it together. One whose batches are used up, or
whose loss was not finite, stays as it is while the others go on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.utils import _pytree as pytree

from data_tools.errors import InputError
from federated.engines.cohort import Cohort, Run
from federated.local_training import LocalSettings, Trained, batches_of_round, check_local
from federated.policy.manifest import State
from federated.strategies.drift import Drift
from federated.strategies.strategy import Terms

if TYPE_CHECKING:
    from federated.tasks.task import Task

__all__ = ["AT_ONCE", "cohorts_of", "train_together", "why_not"]

AT_ONCE = 64
"""Most clients in one call: beyond some dozens only the memory grows."""


def train_together(
    model: nn.Module,
    task: Task,
    clients: Sequence[str],
    round: int,  # noqa: A002
    seed: int,
    training: LocalSettings,
    learning_rate: float,
    starts: Sequence[State],
    extras: Sequence[Mapping[str, Tensor]],
    terms: Terms,
    shared: Collection[str] | None = None,
) -> list[tuple[Trained, State]]:
    """Train a model for one round on each of several clients.

    Parameters
    ----------
    model : torch.nn.Module
        After :meth:`federated.policy.Manifest.apply_to_training`. Left in any state.
    task : Task
    clients : sequence of str
    round : int
        Counted from 1.
    seed : int
        Of the order of the rows.
    training : LocalSettings
    learning_rate : float
    starts : sequence of dict
        State of the model with which each client starts.
    extras : sequence of mapping
        The strategy's tensors for each client, as for ``train_locally``.
    terms : mapping
        Of :meth:`federated.strategies.Strategy.terms`.
    shared : collection of str, optional
        To which FedProx's term is confined.

    Returns
    -------
    list of (Trained, dict)
        For each client, in their order, what ``train_locally`` returns, and the model's state
        after it; equal to it up to rounding in the model's type.

    Raises
    ------
    InputError
        As ``train_locally``, or if the numbers of clients, starts and extras differ.

    Notes
    -----
    Ask :func:`why_not` first. Memory grows with the clients of a call: 64 at most.
    """
    check_local(training, terms, learning_rate)
    if not len(clients) == len(starts) == len(extras):
        raise InputError(
            f"there are {len(clients)} clients, {len(starts)} starts and {len(extras)} extras; "
            "give one of each for every client"
        )
    done: dict[int, tuple[Trained, State]] = {}
    for chosen in cohorts_of(task, clients):
        runs = [
            Run(
                task.examples(clients[i], "train"),
                batches_of_round(task, clients[i], round, seed, training),
                starts[i],
                _drift(model, starts[i], extras[i], terms, shared),
            )
            for i in chosen
        ]
        done |= zip(chosen, Cohort(model, task, runs, training, learning_rate).train(), strict=True)
    return [done[i] for i in range(len(clients))]


def cohorts_of(task: Task, clients: Sequence[str]) -> list[list[int]]:
    """Places of the clients that go together, those of a like number of rows.

    So few wait for one. The cohorts are a function of who the clients are and of their rows, and
    with them the bits of what comes out.
    """
    order = sorted(range(len(clients)), key=lambda i: (-task.examples(clients[i], "train"), i))
    return [order[first : first + AT_ONCE] for first in range(0, len(order), AT_ONCE)]


def why_not(
    model: nn.Module,
    task: Task,
    clients: Sequence[str],
    training: LocalSettings,
    terms: Terms,
) -> str:
    """Why clients cannot be trained together; empty if they can.

    Parameters
    ----------
    model : torch.nn.Module
        After :meth:`federated.policy.Manifest.apply_to_training`.
    task : Task
    clients : sequence of str
        Of them the first that has a batch is tried.
    training : LocalSettings
    terms : mapping
        Of :meth:`federated.strategies.Strategy.terms`. Every strategy's can be had.

    Returns
    -------
    str
        The reason in a line.

    Notes
    -----
    Two copies of the first batch are run forward and back, since nothing but a trial tells what a
    model's operations make of a stack of weights. The model's state is not changed.
    """
    for name, module in model.named_modules():
        if _draws(module):
            return (
                f"{name or 'the model'} ({type(module).__name__}) draws random numbers, of which "
                "each client has its own sequence; train with dropout 0 or one after the other"
            )
    batches = (b for c in clients if task.examples(c, "train") for b in _first(task, c, training))
    batch = next(batches, None)
    if batch is None:
        return ""
    start = {name: value.detach().clone() for name, value in model.state_dict().items()}
    drift = Drift.of(model, {}, {}, None)
    runs = [Run(0, iter(()), start, drift) for _ in range(2)]
    mode = model.training
    try:
        model.train()
        cohort = Cohort(model, task, runs, training, 1.0)
        if reason := _unfit(batch):
            return reason
        cohort.gradients(None, [batch, batch])
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return f"the model or its loss cannot be run over stacked weights: {line}"
    finally:
        model.train(mode)
    return ""


def _first(task: Task, client: str, training: LocalSettings) -> Iterator[Any]:
    for batch, _ in batches_of_round(task, client, 1, 0, training):
        yield batch
        return


def _draws(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
        return float(module.dropout) > 0
    return isinstance(module, nn.RReLU)


def _unfit(batch: Any) -> str:
    leaves = pytree.tree_leaves(batch)
    if any(isinstance(leaf, Tensor) for leaf in leaves):
        return ""
    return f"a batch is {type(batch).__name__}, not a tensor or a tuple, list or dict of tensors"


def _drift(
    model: nn.Module,
    start: State,
    extras: Mapping[str, Tensor],
    terms: Terms,
    shared: Collection[str] | None,
) -> Drift:
    model.load_state_dict(start)
    return Drift.of(model, extras, terms, shared)
