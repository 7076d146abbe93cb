"""Cross-validation inside the training rows: all folds of a method are trained together.

Training and aggregation are those of `federated`, without messages between server and clients.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from torch import nn

from federated.engines.together import train_together
from federated.guard import Reply
from federated.policy import State
from federated.spec import Spec
from federated.strategies import make_strategy
from federated.tasks.table import Held, Rows, TableTask

__all__ = ["FOLDS", "fold_scores", "score", "with_fold"]

FOLDS = 5


def with_fold(held: Held, fold: int) -> Held:
    """Training rows alone, one fifth of each client's as validation, by outcome.

    Every five folds are one repeat, with another order of the rows.
    """
    repeat, fold = divmod(fold, FOLDS)
    train = np.flatnonzero(held.part == "train")
    part = np.full(len(train), "train", dtype="<U10")
    for client in np.unique(held.client):
        mine = np.flatnonzero(held.client[train] == client)
        mine = np.random.default_rng(repeat).permutation(mine)
        mine = mine[np.argsort(held.target[train][mine, -1], kind="stable")]
        part[mine[fold::FOLDS]] = "validation"
    return Held(held.features, held.inputs[train], held.target[train], held.client[train], part)


def fold_scores(
    spec: Spec, held: Held, etas: Sequence[float | None], folds: int, one_place: bool
) -> list[list[float]]:
    """Scores of a spec's first learning rate on held-out rows, those of all clients at once.

    Parameters
    ----------
    spec : Spec
    held : Held
    etas : sequence of float or None
        The strategy's ``eta``.
    folds : int
        A fold is also the seed of its model.
    one_place : bool
        Whether all rows are one client's.

    Returns
    -------
    list of list of float
        For each eta, the score of every fold after the last round.
    """
    each = [with_fold(held, fold) for fold in range(folds)]
    if one_place:
        each = [replace(rows, client=np.full(len(rows.client), "all")) for rows in each]
    task = TableTask(
        Held(
            held.features,
            np.concatenate([rows.inputs for rows in each]),
            np.concatenate([rows.target for rows in each]),
            np.concatenate(
                [[_name(f, client) for client in rows.client] for f, rows in enumerate(each)]
            ),
            np.concatenate([rows.part for rows in each]),
        )
    )
    sites, runs = np.unique(each[0].client).tolist(), list(product(etas, range(folds)))
    model = task.build("none", 0)
    weights: list[State] = [task.build("none", fold).state_dict() for _, fold in runs]
    strategies = [
        make_strategy(
            spec.strategy.name, spec.strategy.options | ({} if eta is None else {"eta": eta})
        )
        for eta, _ in runs
    ]
    asked = [(run, _name(fold, site)) for run, (_, fold) in enumerate(runs) for site in sites]
    kept: dict[tuple[int, str], State] = {}
    for number in range(1, spec.training.rounds + 1):
        found = train_together(
            model,
            task,
            [client for _, client in asked],
            number,
            0,
            spec.training,
            spec.training.learning_rates[0],
            [weights[run] for run, _ in asked],
            [strategies[r].sent_down(weights[r]) | kept.get((r, c), {}) for r, c in asked],
            strategies[0].terms(),
        )
        replies: list[list[Reply]] = [[] for _ in runs]
        for (run, client), (trained, state) in zip(asked, found, strict=True):
            kept[run, client] = trained.kept
            metrics = {"steps": float(trained.steps)}
            replies[run].append(
                Reply(client, number, state | trained.sent, metrics, trained.examples)
            )
        weights = [
            strategy.aggregate(number, state, mine)
            for strategy, state, mine in zip(strategies, weights, replies, strict=True)
        ]
    scores = []
    for (_, fold), state in zip(runs, weights, strict=True):
        model.load_state_dict(state)
        scores.append(score(task, model, each[fold], "validation", sites))
    return [scores[first : first + folds] for first in range(0, len(scores), folds)]


def score(
    task: TableTask, model: nn.Module, held: Held, part: str, clients: Sequence[str]
) -> float:
    """The task's first metric of a part of some clients' rows, all at once."""
    mine = np.isin(held.client, clients) & (held.part == part)
    rows = Rows(torch.from_numpy(held.inputs[mine]), torch.from_numpy(held.target[mine]))
    return task.evaluate_rows(model, rows)[task.metrics[0]]


def _name(fold: int, site: str) -> str:
    return f"{fold:02d}/{site}"
