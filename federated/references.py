"""What federated training is compared with: one model of all rows, and a model of each client's.

Both train by the same code as a client does, with the same norm, learning rate, seed, patience and
as many epochs as a client has in all rounds, and are measured at the same times.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_tools.atomic import write_atomic
from federated.local_training import train_locally
from federated.patience import is_spent
from federated.tasks.task import POOLED, TEST, UNSEEN, VALIDATION

if TYPE_CHECKING:
    from federated.spec import Spec
    from federated.tasks.task import Task

__all__ = ["KINDS", "Reference", "references_of", "run_reference"]

KINDS = ("pooled", "local")
"""One model of all clients' training rows; a model for each client, of its own."""


@dataclass(frozen=True, order=True)
class Reference:
    """One reference.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    norm : str
    learning_rate : float
    seed : int
    """

    kind: str
    norm: str
    learning_rate: float
    seed: int

    @property
    def id(self) -> str:
        """Name of its file."""
        norm = self.norm.replace(":", "-")
        return f"{self.kind}_{norm}_lr{self.learning_rate!r}_seed{self.seed}"


def references_of(spec: Spec) -> list[Reference]:
    """Every reference of a spec, in its order."""
    training = spec.training
    return [
        Reference(kind, norm, rate, seed)
        for kind in KINDS
        for norm in spec.norms
        for rate in training.learning_rates
        for seed in training.seeds
    ]


def run_reference(
    spec: Spec,
    reference: Reference,
    task: Task,
    folder: Path,
    on_round: Callable[[float], None] = lambda rounds: None,
) -> list[dict[str, Any]]:
    """Train a reference, or read what it came to before.

    Parameters
    ----------
    spec : Spec
    reference : Reference
    task : Task
    folder : path
        Of the setting.
    on_round : callable
        Called after every round with those that are done, as a fraction of all models'.

    Returns
    -------
    list of dict
        Rows of ``references.csv``.
    """
    done = folder / "references" / f"{reference.id}.json"
    if done.exists():
        rows: list[dict[str, Any]] = json.loads(done.read_text())
        return rows
    rows = []
    trained = (POOLED,) if reference.kind == "pooled" else task.clients
    total, metric = spec.training.rounds, task.metrics[0]
    for number, client in enumerate(trained):
        seen = (*task.clients, UNSEEN) if client == POOLED else (client,)
        model = task.build(reference.norm, reference.seed)
        own: list[dict[str, Any]] = []
        for at in range(1, total + 1):
            train_locally(
                model,
                task,
                client,
                at,
                reference.seed,
                spec.training,
                reference.learning_rate,
                {},
                {},
            )
            own += [row | {"round": at} for row in _measured(task, model, seen)]
            on_round((number * total + at) / len(trained))
            if is_spent(spec.training.patience, own, metric):
                on_round((number + 1) * total / len(trained))
                break
        rows += own
    rows = [vars(reference) | row for row in rows]
    done.parent.mkdir(exist_ok=True)
    write_atomic(done, json.dumps(rows))
    return rows


def _measured(task: Task, model: Any, clients: tuple[str, ...]) -> list[dict[str, Any]]:
    rows = []
    for client in clients:
        for part in (TEST,) if client == UNSEEN else (VALIDATION, TEST):
            if task.examples(client, part):
                found = task.evaluate(model, client, part)
                rows.append({"client": client, "part": part, **found})
    return rows
