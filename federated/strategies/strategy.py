"""What every strategy has: how the server makes new weights of the clients' replies.

A strategy sees what is learned (weights, scale and offset of norms) and nothing else. Statistics
are no weights: an optimizer's step may make a variance negative, and the median of variances is
none. What becomes of them is the policy's matter (:mod:`federated.policy`), on another path.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from data_tools.errors import InputError
from federated.guard import Reply
from federated.policy.manifest import Expected, State
from federated.strategies.names import UP

__all__ = ["LEARNED_ROLES", "Strategy", "Terms", "learned"]

Terms = Mapping[str, float | str | bool]
"""Numbers and switches that clients need to train as a strategy asks."""

LEARNED_ROLES = ("parameter", "gamma", "beta")
"""Roles of the tensors that a strategy aggregates."""


def learned(expected: Mapping[str, Expected]) -> tuple[str, ...]:
    """Names of the tensors that a strategy aggregates, of those that clients send.

    Examples
    --------
    >>> import torch
    >>> roles = {"w": "parameter", "g": "gamma", "m": "mean", "b": "buffer"}
    >>> learned({n: Expected((2,), torch.float32, role, None) for n, role in roles.items()})
    ('w', 'g')
    """
    return tuple(name for name, want in expected.items() if want.role in LEARNED_ROLES)


class Strategy(ABC):
    """Aggregation of one round after the other; see :func:`make_strategy`.

    The bits of what it gives depend neither on the order of the replies nor on whether it was
    saved and loaded between two rounds.

    Attributes
    ----------
    name : str
        One of :data:`federated.strategies.STRATEGY_NAMES`.
    """

    name: str = ""
    _others: frozenset[str] = frozenset()

    def terms(self) -> dict[str, float | str | bool]:
        """What clients need to know, sent with every round."""
        return {}

    def sent_down(self, parameters: State) -> State:
        """Further tensors for clients, names beginning with :data:`~federated.strategies.DOWN`.

        Parameters
        ----------
        parameters : dict of str to Tensor
            The server's values of what this strategy aggregates.
        """
        return {}

    def expected(self, expected: Mapping[str, Expected]) -> dict[str, Expected]:
        """Further tensors that clients send, names beginning with `UP`, for the guard.

        Parameters
        ----------
        expected : mapping of str to Expected
            All that clients send under the policy (:meth:`federated.policy.Manifest.expected`).
            From it the strategy learns, too, which names it must never be given.
        """
        names = learned(expected)
        self._others |= expected.keys() - set(names)
        return self._further({name: expected[name] for name in names})

    def fault(self, reply: Reply) -> str:
        """Why a reply that the guard has let pass cannot be used; empty if it can.

        A client whose loss was not finite has stopped in the middle of its round.
        """
        steps = reply.metrics.get("steps", 1)
        for name in ("loss", "train_loss"):
            # Of a client that could take no step there is no loss.
            if steps and not math.isfinite(reply.metrics.get(name, 0.0)):
                return f"its {name} is {reply.metrics[name]}"
        return ""

    def aggregate(
        self,
        round: int,  # noqa: A002
        parameters: State,
        replies: Sequence[Reply],
    ) -> State:
        """Make the server's new values of one round's replies.

        Parameters
        ----------
        round : int
            Counted from 1.
        parameters : dict of str to Tensor
            The server's values before the round: weights, scales and offsets, never statistics.
        replies : sequence of Reply
            Those that the guard has accepted, in any order, with exactly the names of
            ``parameters`` and of :meth:`expected`.

        Returns
        -------
        dict of str to Tensor
            The names, shapes and types of ``parameters``; sums are taken in float64.

        Raises
        ------
        InputError
            If there are no replies, a client replies twice, a tensor is missing or too much, or
            one is no weight.
        """
        if not replies:
            raise InputError(f"round {round}: there are no replies to aggregate")
        ordered = sorted(replies, key=lambda reply: reply.client)
        for one, two in pairwise(ordered):
            if one.client == two.client:
                raise InputError(f"round {round}: client {one.client} has replied twice")
        for name, value in parameters.items():
            if name in self._others or not value.is_floating_point():
                raise InputError(
                    f"round {round}: {name} is no weight but a statistic, a counter or a buffer; "
                    f"strategy {self.name!r} must not be given it"
                )
        for reply in ordered:
            _check_names(round, reply, parameters)
        return self._aggregate(round, parameters, ordered) if parameters else {}

    def state(self) -> State:
        """What the next round depends on, for a checkpoint; bits are kept."""
        return {}

    def load(self, state: State) -> None:
        """Go on from a checkpoint of :meth:`state`.

        Raises
        ------
        InputError
            If the state is of another strategy; names the tensor.
        """
        for name in state:
            raise InputError(f"strategy {self.name!r} has no state {name!r}; it is of another one")

    def _further(self, wanted: Mapping[str, Expected]) -> dict[str, Expected]:
        return {}

    @abstractmethod
    def _aggregate(
        self,
        round: int,  # noqa: A002
        parameters: State,
        replies: Sequence[Reply],
    ) -> State:
        """Aggregate replies that are checked and sorted by client."""


def like(new: Mapping[str, Tensor], parameters: State) -> State:
    """Give new values the types of the old ones, in their order."""
    return {name: new[name].to(value.dtype) for name, value in parameters.items()}


def _check_names(round: int, reply: Reply, parameters: State) -> None:  # noqa: A002
    where = f"round {round}, client {reply.client}"
    for name, value in parameters.items():
        if name not in reply.arrays:
            raise InputError(f"{where}: {name} is missing from its reply")
        if reply.arrays[name].shape != value.shape:
            raise InputError(
                f"{where}: {name} has shape {tuple(reply.arrays[name].shape)}, the server's has "
                f"{tuple(value.shape)}"
            )
    for name in reply.arrays:
        if name not in parameters and not name.startswith(UP):
            raise InputError(f"{where}: {name} is in its reply, but is not aggregated here")
