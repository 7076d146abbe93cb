"""The rounds of a cell, over any of Flower's grids: sample, send, guard, aggregate, measure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Message
from flwr.serverapp import Grid

from data_tools.errors import InputError
from federated.aggregate import aggregate
from federated.guard import Guard, Refusal, Reply, check_measures
from federated.history import History, load_round, save_round
from federated.messages import EVALUATE, HELLO, TRAIN, bytes_in, read_reply, write_order
from federated.patience import is_spent
from federated.policy import State
from federated.site import Learner, Site
from federated.spread import expected_spread, spread_of
from federated.strategies import UP, Strategy, learned, make_strategy
from federated.tasks.task import TEST, UNSEEN, VALIDATION

__all__ = ["Rounds", "RunStoppedError"]

Row = dict[str, Any]

_AWAY = "away by participation.dropout"
_HELLO_SECONDS = 300.0


class RunStoppedError(InputError):
    """A round has too few usable replies; names the reasons.

    Attributes
    ----------
    history : History
        What happened until then.
    """

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


class Rounds:
    """One cell, round by round.

    Parameters
    ----------
    learner : Learner
        Of the server: the model as it was built, and the manifest.
    grid : flwr.serverapp.Grid
    folder : path
        Of the cell: its checkpoint is kept here, and taken up where there is one.
    timeout : float
        Seconds after which a client that has not answered is left out of its round.
    say : callable
        Takes lines for whoever looks on.
    """

    def __init__(
        self,
        learner: Learner,
        grid: Grid,
        folder: Path,
        *,
        timeout: float = 3600.0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.learner, self.grid, self.timeout, self.say = learner, grid, timeout, say
        self.folder = folder
        spec = learner.spec
        self.strategy: Strategy = make_strategy(spec.strategy.name, spec.strategy.options)
        self.state: State = dict(learner.initial)
        self.spread: State = {}
        self.history = History()
        self.nodes: dict[str, int] = {}
        self.spare: set[int] = set()  # a simulation may have more nodes than there are clients

    def run(self, on_round: Callable[[History], None] = lambda _: None) -> History:
        """Run the rounds that are left.

        Raises
        ------
        RunStoppedError
            When a round has fewer usable replies than ``participation.minimum``.
        CheckpointError
            When the checkpoint is damaged, or of another spec.
        """
        # The unseen site is measured here, with the bits of as many threads as a client has.
        torch.set_num_threads(self.learner.spec.training.threads)
        self._take_up()
        if self.history.finished:
            return self.history
        self._call_the_roll()
        total = self.learner.spec.training.rounds
        while not self.history.finished:
            number = len(self.history.rounds) + 1
            self._round(number)
            self.history.finished = number >= total or is_spent(
                self.learner.spec.training.patience,
                self.history.clients,
                self.learner.task.metrics[0],
            )
            self._save()
            on_round(self.history)
        return self.history

    # --- one round ----------------------------------------------------------------------------

    def _round(self, number: int) -> None:
        began = time.perf_counter()
        self._welcome(number)
        manifest, strategy = self.learner.manifest, self.strategy
        down = {name: self.state[name] for name in manifest.sent_down(number)}
        learnt = learned(manifest.expected(number))
        down |= strategy.sent_down({name: self.state[name] for name in learnt}) | self.spread
        chosen, absent = self._sample(number)
        content = write_order(number, down, strategy.terms())
        bytes_down = bytes_in(content) * len(chosen)
        replies, up = self._ask(number, TRAIN, chosen, content)
        accepted = self._guard(number, down, replies, absent)
        if accepted:
            after = self.state | aggregate(manifest, strategy, number, self.state, accepted)
            sent = {name for r in accepted for name in r.arrays if not name.startswith(UP)}
            manifest.check_moved(self.state, after, tuple(sent), number, side="server")
            self.state = after
            if self.learner.shrinks:
                self.spread = spread_of(manifest, number, accepted) or self.spread
        self.history.rounds.append(
            {
                "round": number,
                "train_loss": _mean(
                    [(r.metrics.get("loss", math.nan), r.examples) for r in accepted]
                ),
                "sampled": len(chosen),
                "accepted": len(accepted),
                "refused": self.history.count(number, "refused"),
                "bytes_up": up,
                "bytes_down": bytes_down,
            }
        )
        self._evaluate(number)
        self.history.rounds[-1]["seconds"] = time.perf_counter() - began

    def _sample(self, number: int) -> tuple[list[str], dict[str, str]]:
        """Who trains in a round, and who was chosen but is away, and why.

        Who is chosen is a function of seed and round.
        """
        rules, seed = self.learner.spec.participation, self.learner.cell.seed
        names = self.learner.task.clients
        size = max(1, round(rules.fraction * len(names)))
        draw = np.random.default_rng([seed, number])
        chosen = sorted(draw.choice(names, size, replace=False).tolist())
        away = {name: _AWAY for name in chosen if draw.random() < rules.dropout}
        away |= {name: "its node has not come" for name in chosen if name not in self.nodes}
        return [name for name in chosen if name not in away], away

    def _ask(
        self, number: int, kind: str, names: Iterable[str], content: Any
    ) -> tuple[list[Reply], int]:
        """Send one order to some clients and read what comes back; faults become events."""
        who = {self.nodes[name]: name for name in names}
        messages = [
            Message(content, dst_node_id=node, message_type=kind, group_id=str(number))
            for node in who
        ]
        replies, received = [], 0
        answered = set()
        for message in self.grid.send_and_receive(messages, timeout=self.timeout):
            client = who.get(message.metadata.src_node_id)
            if client is None:
                continue
            answered.add(client)
            if message.has_error():
                self.history.note(
                    number, client, "error", message.error.reason or "no reason given"
                )
                continue
            received += bytes_in(message.content)
            try:
                replies.append(read_reply(message.content, client))
            except InputError as error:
                self.history.note(number, client, "refused", str(error))
        for client in sorted(set(who.values()) - answered):
            self.history.note(number, client, "absent", f"no answer within {self.timeout:g} s")
        return sorted(replies, key=lambda reply: reply.client), received

    def _guard(
        self, number: int, down: State, replies: list[Reply], absent: Mapping[str, str]
    ) -> list[Reply]:
        for client, why in absent.items():
            self.history.note(number, client, "absent", why)
        minimum = self.learner.spec.participation.minimum
        expected = self.learner.manifest.expected(number)
        expected = expected | self.strategy.expected(expected)
        if self.learner.shrinks:
            expected |= expected_spread(self.learner.manifest, number)
        guard = Guard(expected, number, reference=down, minimum=0)
        accepted, refused = guard.check([reply for reply in replies if not _idle(reply)])
        # Of a reply that came twice one is refused and one stays, so this is by reply, not by name.
        faults = {r.client: self.strategy.fault(r) or self._steps_fault(r) for r in accepted}
        refused += [Refusal(client, fault) for client, fault in faults.items() if fault]
        accepted = [reply for reply in accepted if not faults[reply.client]]
        for refusal in refused:
            self.history.note(number, refusal.client, "refused", refusal.reason)
        if len(accepted) < minimum:
            self._failed(number, len(accepted))
            accepted = []
        return accepted

    def _steps_fault(self, reply: Reply) -> str:
        """Why a number of steps cannot be: FedNova weighs with it."""
        training, steps = self.learner.spec.training, reply.metrics.get("steps", math.nan)
        batches = math.ceil(reply.examples / training.batch_size)
        most = training.local_steps or (training.local_epochs or 1) * batches
        if 0 <= steps <= most and steps == int(steps):
            return ""
        return f"it took {steps:g} steps; a whole number up to {most} can be"

    def _failed(self, number: int, accepted: int) -> None:
        """Leave the weights as they are, or stop when that has happened too often."""
        rules = self.learner.spec.participation
        in_a_row = 1
        for row in reversed(self.history.rounds):
            if row["accepted"] >= rules.minimum:
                break
            in_a_row += 1
        if in_a_row <= rules.failed_rounds:
            return
        events = [e for e in self.history.events if e["round"] == number]
        reasons = "; ".join(f"client {e['client']}: {e['event']}, {e['reason']}" for e in events)
        raise RunStoppedError(
            f"round {number}: {accepted} usable replies, participation.minimum asks for "
            f"{rules.minimum} ({reasons or 'no client has training rows'})",
            self.history,
        )

    def _evaluate(self, number: int) -> None:
        down = {name: self.state[name] for name in self.learner.manifest.sent_down(number)}
        down |= self.spread
        content = write_order(number, down, {})
        replies, _ = self._ask(number, EVALUATE, sorted(self.nodes), content)
        wanted = self.learner.task.metrics
        replies, refused = check_measures(replies, number, (VALIDATION, TEST), wanted)
        for refusal in refused:
            self.history.note(number, refusal.client, "refused", refusal.reason)
        measured = {reply.client: reply.metrics for reply in replies}
        if self.learner.task.examples(UNSEEN, TEST):
            site = Site(self.learner, UNSEEN, self.folder / "clients")
            measured[UNSEEN] = site.evaluate(number, down)
        for client, metrics in measured.items():
            for part in dict.fromkeys(name.partition("/")[0] for name in metrics):
                values = {
                    name.partition("/")[2]: value
                    for name, value in metrics.items()
                    if name.startswith(f"{part}/")
                }
                row = {"round": number, "client": client, "part": part}
                self.history.clients.append(row | values)

    # --- who is there -------------------------------------------------------------------------

    def _call_the_roll(self) -> None:
        """Wait for the clients, and go on without those that do not come in time.

        Asked for by name, since the numbers of nodes differ from run to run.
        """
        wanted = self.learner.task.clients
        deadline = time.monotonic() + self.timeout
        told = False
        while True:
            self._welcome()
            if len(self.nodes) == len(wanted):
                return
            if not told:
                self.say(f"{len(self.nodes)} of {len(wanted)} clients have come; waiting")
                told = True
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        missing = [name for name in wanted if name not in self.nodes]
        if len(self.nodes) < self.learner.spec.participation.minimum:
            raise InputError(
                f"{len(self.nodes)} of {len(wanted)} clients have come; {', '.join(missing)} "
                f"{'has' if len(missing) == 1 else 'have'} not; see to them, or lower "
                "participation.minimum"
            )

    def _welcome(self, number: int | None = None) -> None:
        """Forget nodes that have gone, and learn the names of those that are new.

        A site that starts again may have a new number. What is wrong with a node is an event of
        the round, since one node must not end the run of all; before the first it is an error.
        """
        present = set(self.grid.get_node_ids())
        self.nodes = {name: node for name, node in self.nodes.items() if node in present}
        if len(self.nodes) == len(self.learner.task.clients):
            return
        new = sorted(present.difference(self.nodes.values(), self.spare))
        content = write_order(0, {}, {})
        asked = [Message(content, dst_node_id=n, message_type=HELLO) for n in new]
        # A client opens its rows for this, which takes longer than a small round.
        patience = max(self.timeout, _HELLO_SECONDS)
        for message in self.grid.send_and_receive(asked, timeout=patience) if asked else ():
            try:
                name = self._name_of(message)
            except InputError as error:
                if number is None:
                    raise
                self.history.note(number, "", "refused", str(error))
                continue
            if name:
                self.nodes[name] = message.metadata.src_node_id
            else:
                self.spare.add(message.metadata.src_node_id)

    def _name_of(self, message: Message) -> str:
        """Name of the client that answers the roll; empty for a node that is none."""
        if message.has_error():
            raise InputError(f"a client cannot start: {message.error.reason}")
        try:
            name = str(message.content.config_records["config"]["client"])
        except KeyError as error:
            raise InputError(f"a node does not tell its client's name: no {error}") from error
        if name in self.nodes:
            raise InputError(f"two nodes say that they are client {name!r}; give each its own")
        if name and name not in self.learner.task.clients:
            raise InputError(f"a node says that it is client {name!r}, which the run has not")
        return name

    # --- stopping and going on ----------------------------------------------------------------

    def _save(self) -> None:
        tensors = {f"model/{name}": value for name, value in self.state.items()}
        tensors |= {f"server/{name}": value for name, value in self.strategy.state().items()}
        tensors |= {f"spread/{name}": value for name, value in self.spread.items()}
        save_round(self.folder, tensors, self.history, self.learner.fingerprint())

    def _take_up(self) -> None:
        found = load_round(self.folder, self.learner.fingerprint())
        if found is not None:
            tensors, self.history = found
            self.state = _named(tensors, "model/")
            self.strategy.load(_named(tensors, "server/"))
            self.spread = _named(tensors, "spread/")


def _idle(reply: Reply) -> bool:
    """Whether a client had nothing to train on: no fault, but nothing to aggregate."""
    return reply.examples == 0 and reply.metrics.get("steps") == 0


def _named(tensors: Mapping[str, Any], prefix: str) -> State:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _mean(pairs: Iterable[tuple[float, float]]) -> float:
    kept = [(value, weight) for value, weight in pairs if not math.isnan(value)]
    total = sum(weight for _, weight in kept)
    return sum(value * weight for value, weight in kept) / total if total else math.nan
