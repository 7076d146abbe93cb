"""Clients in this process that train and measure together: many clients of a small model.

What is asked and answered, and what clients keep on disk, is as in `InProcessGrid`; training and
measuring alone differ (:mod:`federated.engines.together`, :mod:`federated.engines.measured`).

Results equal those of the other engines within float noise, not bit for bit. Measured over 8 rounds
of three clients with a small CNN: weights are apart by 4e-8 of the largest with SGD, and by 1e-5
with AdamW. AdamW with BatchNorm is the exception, here as between one thread and two (apart by 0.1
there, by 0.12 here): the gradient of a bias before BatchNorm is rounding alone, AdamW makes whole
steps of it, and the averaged running means follow late.

Clients go in cohorts that seed and round decide, so that the same spec gives the same bits again,
also when a run was stopped and has gone on.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from flwr.app import Message, UserConfig
from flwr.clientapp import ClientApp

from data_tools.errors import InputError
from federated import client_app
from federated.engines.in_process import InProcessGrid, OnReply, error_reply
from federated.engines.measured import measure_together
from federated.engines.together import cohorts_of, train_together, why_not
from federated.faults import crashes, is_late
from federated.local_training import Trained
from federated.messages import EVALUATE, TRAIN, answer, read_order
from federated.policy import State
from federated.site import Begun, Site, in_parts
from federated.strategies import Terms

if TYPE_CHECKING:
    from federated.spec import Participation

__all__ = ["VectorizedGrid"]

_Pair = tuple[Message, Site]


class VectorizedGrid(InProcessGrid):
    """Flower's grid over clients of `federated.client_app`, which train together.

    Where they cannot, they go one after the other, and a warning says once why.

    Parameters
    ----------
    app, nodes, run_config, on_reply
        As for `InProcessGrid`.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: Sequence[UserConfig],
        run_config: UserConfig,
        on_reply: OnReply = lambda kind, done, of: None,
    ) -> None:
        super().__init__(app, nodes, run_config, on_reply)
        self._reasons: dict[int, str] = {}
        self._said: set[str] = set()

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
    ) -> Iterable[Message]:
        """Have the clients do what the messages ask, together if that is to train or measure."""
        orders = list(messages)
        kinds = {order.metadata.message_type for order in orders}
        if kinds in ({TRAIN}, {EVALUATE}):
            reason = self._why_not(orders)
            if not reason:
                return self._together(orders, self._train if TRAIN in kinds else self._measure)
            self._say(reason)
        return super().send_and_receive(orders, timeout=timeout)

    def _why_not(self, orders: Sequence[Message]) -> str:
        """Why these orders cannot be followed together; tried once for each phase of a policy."""
        if self._app is not client_app.app:
            return "the app is not that of federated.client_app"
        if any(order.content is not orders[0].content for order in orders):
            return "the clients are asked for different things"
        try:
            round_, _, terms = read_order(orders[0])
            learner = self._site(orders[0]).learner
            phase = learner.manifest.policy.phase_number(round_)
            if phase not in self._reasons:
                learner.manifest.apply_to_training(learner.model, round_)
                self._reasons[phase] = why_not(
                    learner.model, learner.task, learner.task.clients, learner.spec.training, terms
                )
        except InputError as error:
            return str(error)
        return self._reasons[phase]

    def _say(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            warnings.warn(f"clients go one after the other: {reason}", stacklevel=3)

    def _site(self, order: Message) -> Site:
        return client_app.site_of(self._contexts[order.metadata.dst_node_id])

    def _together(
        self, orders: Sequence[Message], follow: Callable[[Sequence[_Pair]], Iterable[Message]]
    ) -> list[Message]:
        """Replies to all orders, cohort by cohort."""
        sites = [self._site(order) for order in orders]
        replies: dict[int, Message] = {}
        for places in cohorts_of(sites[0].learner.task, [site.client for site in sites]):
            pairs = [(orders[place], sites[place]) for place in places]
            for place, reply in zip(places, follow(pairs), strict=True):
                replies[place] = reply
                self._on_reply(orders[0].metadata.message_type, len(replies), len(orders))
        return [replies[place] for place in range(len(orders))]

    def _one_by_one(self, pairs: Sequence[_Pair], error: Exception) -> Iterable[Message]:
        """One client's fault must not be everybody's: alone each has its own answer."""
        self._say(f"{type(error).__name__}: {error}")
        for order, _ in pairs:
            yield self.call(order)

    def _measure(self, pairs: Sequence[_Pair]) -> Iterable[Message]:
        """Replies of clients that are measured together, in their order."""
        round_, received, _ = read_order(pairs[0][0])
        try:
            states = [site.begin_measuring(round_, received) for _, site in pairs]
            found = _measured([site for _, site in pairs], states)
        except Exception as error:
            yield from self._one_by_one(pairs, error)
            return
        for (order, site), measures in zip(pairs, found, strict=True):
            yield Message(answer(site.client, round_, 0, measures), reply_to=order)

    def _train(self, pairs: Sequence[_Pair]) -> Iterable[Message]:
        """Replies of clients that train together, in their order."""
        began = time.perf_counter()
        round_, received, terms = read_order(pairs[0][0])
        starts = [_begin(order, site, round_, received) for order, site in pairs]
        ready = {
            site: start
            for (_, site), start in zip(pairs, starts, strict=True)
            if isinstance(start, Begun)
        }
        try:
            results = _trained(ready, round_, terms)
        except Exception as error:
            yield from self._one_by_one(pairs, error)
            return
        share = (time.perf_counter() - began) / len(pairs)
        for (order, site), start in zip(pairs, starts, strict=True):
            if isinstance(start, Message):
                yield start
            else:
                trained, after = results[site]
                yield _finish(order, site, round_, trained, start.state, after, share)


def _begin(order: Message, site: Site, round: int, received: State) -> Begun | Message:  # noqa: A002
    """With what a client begins; or the error that it answers."""
    try:
        crashes(*_fate(site, round))
        return site.begin(round, received)
    except Exception as error:
        return error_reply(order, error)


def _trained(
    ready: Mapping[Site, Begun],
    round: int,  # noqa: A002
    terms: Terms,
) -> dict[Site, tuple[Trained, State]]:
    if not ready:
        return {}
    learner, starts = next(iter(ready)).learner, list(ready.values())
    results = train_together(
        learner.model,
        learner.task,
        [site.client for site in ready],
        round,
        learner.cell.seed,
        learner.spec.training,
        learner.cell.learning_rate,
        [start.state for start in starts],
        [start.extras for start in starts],
        terms,
        starts[0].shared,
    )
    return dict(zip(ready, results, strict=True))


def _measured(sites: Sequence[Site], states: Sequence[State]) -> list[dict[str, float]]:
    """What each client answers; clients of one run measure the same parts."""
    learner, clients = sites[0].learner, [site.client for site in sites]
    found = {
        part: measure_together(learner.model, learner.task, clients, part, states)
        for part in sites[0].parts
    }
    return [
        in_parts({part: measures[place] for part, measures in found.items()})
        for place in range(len(sites))
    ]


def _finish(
    order: Message,
    site: Site,
    round: int,  # noqa: A002
    trained: Trained,
    before: State,
    after: State,
    share: float,
) -> Message:
    """What a client answers after training; as long as its share of the cohort's time."""
    began = time.perf_counter()
    try:
        metrics, arrays = site.finish(round, trained, before, after)
        is_late(*_fate(site, round))
        metrics["seconds"] = share + time.perf_counter() - began
        content = answer(site.client, round, trained.examples, metrics, arrays)
        return Message(content, reply_to=order)
    except Exception as error:
        return error_reply(order, error)


def _fate(site: Site, round: int) -> tuple[Participation, int, str, int]:  # noqa: A002
    """By what `federated.faults` decides."""
    return site.learner.spec.participation, site.learner.cell.seed, site.client, round
