"""What a client does in a round: start, train, keep its own, send the rest. Knows no Flower."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Collection, Mapping
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from data_tools.errors import InputError
from federated.cell import Cell
from federated.local_training import Trained, train_locally
from federated.policy import (
    LocalState,
    Manifest,
    State,
    client_statistics,
    parse_policy,
    start_local,
)
from federated.spec import as_json
from federated.spread import read_spread, send_statistics
from federated.strategies import DOWN, KEPT, UP, Terms, learned
from federated.tasks.task import TEST, TRAIN, UNSEEN, VALIDATION

if TYPE_CHECKING:
    from federated.spec import Spec
    from federated.tasks.task import Task

__all__ = ["Begun", "Learner", "Site", "in_parts"]


class Learner:
    """The model of a cell, with what becomes of its tensors: one for all clients of a process.

    Parameters
    ----------
    spec : Spec
    cell : Cell
    task : Task
    """

    def __init__(self, spec: Spec, cell: Cell, task: Task) -> None:
        self.spec, self.cell, self.task = spec, cell, task
        self.model = task.build(cell.norm, cell.seed)
        self.manifest: Manifest = parse_policy(cell.policy).manifest(self.model)
        self.shrinks = spec.participation.start.startswith("shrink")
        self.initial: State = {
            name: value.detach().clone() for name, value in self.model.state_dict().items()
        }

    def fingerprint(self) -> str:
        """Digest of everything that the cell's numbers depend on, but the machine."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        parts = (as_json(self.spec), repr(self.cell), self.manifest.digest(), self.task.digest)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def state(self) -> State:
        """Copy of the model's present state."""
        return {name: value.detach().clone() for name, value in self._tensors.items()}

    @torch.no_grad()
    def load(self, state: State) -> None:
        """Give the model a whole state, in less time than ``load_state_dict`` takes."""
        for name, tensor in self._tensors.items():
            tensor.copy_(state[name])

    @cached_property
    def _tensors(self) -> State:
        """The model's own, which are never replaced by others."""
        return dict(self.model.state_dict(keep_vars=True))


class Begun(NamedTuple):
    """With what a client begins to train in a round.

    Attributes
    ----------
    state : dict of str to Tensor
        Of the whole model.
    extras : dict of str to Tensor
        The strategy's, those that were sent and the client's own.
    shared : collection of str
        To which FedProx's term is confined.
    """

    state: State
    extras: State
    shared: Collection[str]


class Site:
    """One client.

    Parameters
    ----------
    learner : Learner
        Its model is used, and left in any state.
    client : str
        A client of the task, or ``UNSEEN``.
    kept : path
        Folder of what clients keep for themselves.
    """

    def __init__(self, learner: Learner, client: str, kept: Path) -> None:
        self.learner = learner
        self.client = client
        self.local = LocalState(kept, made_of=learner.fingerprint())

    def train(
        self,
        round: int,  # noqa: A002
        received: State,
        terms: Terms,
    ) -> tuple[int, dict[str, float], State]:
        """Train for a round.

        Parameters
        ----------
        round : int
            From 1.
        received : dict of str to Tensor
            What the manifest and the strategy send down.
        terms : mapping
            What the strategy asks of clients.

        Returns
        -------
        examples : int
            Rows that were trained on.
        metrics : dict of str to float
            ``loss``, ``steps``, ``seconds``, and the counts behind merged statistics.
        arrays : dict of str to Tensor
            What the manifest and the strategy send up.
        """
        began = time.perf_counter()
        learner, start = self.learner, self.begin(round, received)
        learner.load(start.state)
        trained = train_locally(
            learner.model,
            learner.task,
            self.client,
            round,
            learner.cell.seed,
            learner.spec.training,
            learner.cell.learning_rate,
            start.extras,
            terms,
            shared=start.shared,
        )
        metrics, sent = self.finish(round, trained, start.state, learner.state())
        metrics["seconds"] = time.perf_counter() - began
        return trained.examples, metrics, sent

    def begin(self, round: int, received: State) -> Begun:  # noqa: A002
        """Put together with what the client trains; the model is made to train so, not loaded.

        Parameters
        ----------
        round : int
        received : dict of str to Tensor
            As for :meth:`train`.
        """
        manifest = self.learner.manifest
        extras, values = _part(received, DOWN)
        own, kept = _part(self.local.load(self.client, before_round=round) or {}, KEPT)
        state = self._state(round, values, kept, extras)
        manifest.apply_to_training(self.learner.model, round)
        # FedProx holds near the server's weights what the server averages, nothing else.
        return Begun(state, {**extras, **own}, learned(manifest.expected(round)))

    def finish(
        self,
        round: int,  # noqa: A002
        trained: Trained,
        before: State,
        after: State,
    ) -> tuple[dict[str, float], State]:
        """Keep what is the client's own of what training has come to; the rest is to be sent.

        Parameters
        ----------
        round : int
        trained : Trained
        before, after : dict of str to Tensor
            State of the whole model, with which it began and to which it has come.

        Returns
        -------
        metrics, arrays : dict
            As of :meth:`train`, but ``seconds``, which only the caller knows.
        """
        learner, manifest = self.learner, self.learner.manifest
        metrics = {"loss": trained.loss, "steps": float(trained.steps)}
        if manifest.with_fate("merged", round) and trained.examples:
            learner.load(after)
            counted = client_statistics(learner.model, self._batches(), inputs=learner.task.inputs)
            after = after | counted.state
            metrics |= counted.metrics()
        keep = {name: after[name] for name in manifest.kept(round)}
        keep |= _part(trained.extras, KEPT)[0]
        # A loss that is not finite leaves a model half trained, with statistics of NaN: what the
        # client had before stays. (Where no step was taken, there is nothing new to keep.)
        if keep and math.isfinite(trained.loss):
            self.local.save(self.client, round, keep)
        sent = {name: after[name] for name in manifest.sent_up(round)}
        manifest.check_moved(before, after, tuple(sent), round)
        if learner.shrinks:
            sent |= send_statistics(manifest, round, after)
        return metrics, sent | _part(trained.extras, UP)[0]

    def evaluate(
        self,
        round: int,  # noqa: A002
        received: State,
    ) -> dict[str, float]:
        """Measure the model that a round has made, with what this client has kept of its own.

        Returns
        -------
        dict of str to float
            ``part/metric`` of each part that the client holds.
        """
        learner = self.learner
        learner.load(self.begin_measuring(round, received))
        return in_parts(
            {part: learner.task.evaluate(learner.model, self.client, part) for part in self.parts}
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """Of its rows those that are measured."""
        return (TEST,) if self.client == UNSEEN else (VALIDATION, TEST)

    def begin_measuring(self, round: int, received: State) -> State:  # noqa: A002
        """Put together the state of the whole model that :meth:`evaluate` measures; to be read."""
        extras, values = _part(received, DOWN)
        _, kept = _part(self.local.load(self.client, before_round=round + 1) or {}, KEPT)
        return self._state(round, values, kept, extras, copies=False)

    def _state(
        self,
        round: int,  # noqa: A002
        values: State,
        kept: State,
        extras: State,
        *,
        copies: bool = True,
    ) -> State:
        """The whole model's, of what has come and what the client has."""
        learner, manifest = self.learner, self.learner.manifest
        names = manifest.kept(round)
        missing = [name for name in names if name not in kept]
        if missing:
            kept = {**self._start(values, missing, extras), **kept}
        kept = {name: kept[name] for name in names}
        return manifest.client_start(learner.initial, values, kept, round, copies=copies)

    def _start(self, values: State, names: list[str], extras: State) -> State:
        """What a client without a past begins with, by the rule of the spec."""
        learner = self.learner
        centre, between = read_spread(extras)
        server = {n: centre.get(n, values.get(n, learner.initial[n])) for n in names}
        server = {name: value.to(learner.initial[name]) for name, value in server.items()}
        rule, _, number = learner.spec.participation.start.partition(":")
        # Before clients have sent anything, nobody knows how far apart they are.
        if rule == "server" or (rule == "shrink" and not between):
            return start_local("server", server)
        # Statistics depend on the weights, so they are measured under those that have come.
        learner.load({**learner.initial, **values})
        batches = self._batches(int(number))
        try:
            own = client_statistics(learner.model, batches, inputs=learner.task.inputs)
        except InputError:
            return start_local("server", server)  # nothing here has running statistics
        k = sum(len(learner.task.inputs(batch)) for batch in batches)
        if rule == "shrink" and k < 2:
            return start_local("server", server)  # one row does not tell how far to trust it
        return start_local(rule, server, own=own, k=k, between=between)

    def _batches(self, rows: int | None = None) -> list[object]:
        """Batches of the client's own rows: all of them, or one of so many drawn ones."""
        learner = self.learner
        part = TEST if self.client == UNSEEN else TRAIN
        if rows is None:
            size = learner.spec.training.batch_size
            return list(learner.task.batches(self.client, part, size, None))
        # Stored rows lie by class, so the first of them would tell of labels.
        order = (learner.cell.seed, 0)
        return list(islice(learner.task.batches(self.client, part, rows, order), 1))


def in_parts(measures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Measures of each part as a client answers them.

    Examples
    --------
    >>> in_parts({"test": {"auroc": 0.75}})
    {'test/auroc': 0.75}
    """
    return {
        f"{part}/{name}": float(value)
        for part, found in measures.items()
        for name, value in found.items()
    }


def _part(tensors: State, prefix: str) -> tuple[State, State]:
    """Those of the strategy, whose names begin so, and those of the model."""
    extras = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return extras, {name: tensor for name, tensor in tensors.items() if name not in extras}
