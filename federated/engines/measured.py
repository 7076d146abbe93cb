"""Clients measured together: one call of the model for the rows of many of them.

After a round every client measures the server's weights on its own rows, which for a small model
is mostly the cost of calling it. Here ``torch.func.vmap`` runs it over an axis of clients; tensors
that all of them have in common are not copied, and what a client keeps of its own is stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from federated.engines.stacks import alike, for_stacks, joined
from federated.policy.manifest import State

if TYPE_CHECKING:
    from federated.tasks.task import Task

__all__ = ["measure_together"]

ROWS_AT_ONCE = 1024
"""Most rows in one call: beyond, only the memory grows."""


def measure_together(
    model: nn.Module, task: Task, clients: Sequence[str], part: str, states: Sequence[State]
) -> list[dict[str, float]]:
    """Measure a model on a part of each of several clients.

    Parameters
    ----------
    model : torch.nn.Module
        Left in evaluation mode, its state as it was.
    task : Task
    clients : sequence of str
    part : str
    states : sequence of dict
        Of the whole model, each client's.

    Returns
    -------
    list of dict of str to float
        For each client what ``task.evaluate`` returns, equal up to rounding.
    """
    model.eval()
    scores: list[list[Tensor]] = [[] for _ in clients]
    left = {
        place: task.batches(client, part, task.measured_at_once, None)
        for place, client in enumerate(clients)
    }
    while left:
        drawn = {place: next(batches, None) for place, batches in left.items()}
        left = {place: batches for place, batches in left.items() if drawn[place] is not None}
        for places in _fitting({place: task.inputs(drawn[place]) for place in left}):
            inputs = [task.inputs(drawn[place]) for place in places]
            found = _scores(model, [states[place] for place in places], inputs)
            for place, its in zip(places, found, strict=True):
                scores[place].append(its)
    return [
        task.measures(client, part, torch.cat(its) if its else torch.empty(0))
        for client, its in zip(clients, scores, strict=True)
    ]


def _fitting(inputs: dict[int, Tensor]) -> list[list[int]]:
    """Places of the clients that go together: inputs of one form, and no more rows than fit."""
    found = []
    for places in alike(inputs):
        size = max(1, ROWS_AT_ONCE // max(1, len(inputs[places[0]])))
        found += [places[first : first + size] for first in range(0, len(places), size)]
    return found


@torch.no_grad()
def _scores(model: nn.Module, states: Sequence[State], inputs: Sequence[Tensor]) -> Tensor:
    """Scores of each client's rows by its own model, (clients, rows) or (clients, rows, 1)."""
    first = states[0]
    common = {n: v for n, v in first.items() if all(state[n] is v for state in states)}
    own = {n: torch.stack([state[n] for state in states]) for n in first if n not in common}
    batch, axis = joined(inputs)

    def score(its: State, rows: Tensor) -> Tensor:
        found: Tensor = functional_call(model, common | its, (rows,))
        return found

    with for_stacks():
        found: Tensor = vmap(score, in_dims=(0 if own else None, axis))(own, batch)
    return found
