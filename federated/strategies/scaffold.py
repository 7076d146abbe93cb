"""SCAFFOLD: control variates take the drift of each client out of its local steps.

Karimireddy et al. (2020), SCAFFOLD: stochastic controlled averaging for federated learning, ICML,
arXiv:1910.06378, algorithm 1. The server's half, of the clients S of a round and N in all::

    x <- x + rate / |S| sum_{i in S} (y_i - x)
    c <- c + 1 / N sum_{i in S} (c_i+ - c_i)

The clients' half is in :mod:`federated.local_training`, with option II for their controls. As in
the paper every client counts the same, however many examples it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from data_tools.errors import InputError
from federated.guard import Reply
from federated.policy.manifest import Expected, State
from federated.strategies.average import weighted_sum
from federated.strategies.names import DOWN, UP
from federated.strategies.strategy import Strategy, like

__all__ = ["Scaffold"]

_SUM, _SEEN = "sum/", "seen"


class Scaffold(Strategy):
    """SCAFFOLD's server.

    Parameters
    ----------
    server_learning_rate : float
        The paper's global step size.
    clients : int, optional
        N, how many clients there are in all. None: those that have replied so far, so that the
        server's control is the mean of the controls that exist; the same as soon as everybody has
        taken part.

    Notes
    -----
    The server adds up changes of controls. A client whose reply is lost or refused has a control
    of which the server does not know: its own next correction is right, and the server's control
    stays off by that change over N. A client sends twice as much as under FedAvg.
    """

    name = "scaffold"

    def __init__(self, server_learning_rate: float = 1.0, clients: int | None = None) -> None:
        self.rate = float(server_learning_rate)
        self.clients = clients
        self._sums: State = {}
        self._seen: set[str] = set()

    def terms(self) -> dict[str, float | str | bool]:
        """``{"scaffold": True}``: clients correct their steps."""
        return {"scaffold": True}

    def sent_down(self, parameters: State) -> State:
        """The server's control of each weight, in the weight's type; zeros at first."""
        count = max(1, self.clients or len(self._seen))
        return {
            f"{DOWN}{name}": (self._sums[name] / count).to(value.dtype)
            if name in self._sums
            else torch.zeros_like(value)
            for name, value in parameters.items()
        }

    def _further(self, wanted: Mapping[str, Expected]) -> dict[str, Expected]:
        return {
            f"{UP}{name}": Expected(want.shape, want.dtype, "parameter", None)
            for name, want in wanted.items()
        }

    def _aggregate(
        self,
        round: int,  # noqa: A002
        parameters: State,
        replies: Sequence[Reply],
    ) -> State:
        seen = self._seen | {reply.client for reply in replies}
        if self.clients is not None and len(seen) > self.clients:
            raise InputError(
                f"round {round}: {len(seen)} clients have replied so far, strategy 'scaffold' was "
                f"told of {self.clients}; set its option clients to the number of all"
            )
        ones = [1.0] * len(replies)
        new, sums = {}, dict(self._sums)
        for name, value in parameters.items():
            for reply in replies:
                change = reply.arrays.get(f"{UP}{name}")
                if change is None or change.shape != value.shape:
                    raise InputError(
                        f"round {round}, client {reply.client}: the change of its control of "
                        f"{name} is missing or of another shape"
                    )
            old = value.detach().double()
            mean = weighted_sum([reply.arrays[name] for reply in replies], ones) / len(replies)
            new[name] = old + self.rate * (mean - old)
            change = weighted_sum([reply.arrays[f"{UP}{name}"] for reply in replies], ones)
            sums[name] = self._sums.get(name, torch.zeros_like(change)) + change
        # Only now, so that a reply that is at fault leaves everything as it was.
        self._seen, self._sums = seen, sums
        return like(new, parameters)

    def state(self) -> State:
        """Sums of the controls as float64, and the names of who has replied as bytes."""
        named = "\n".join(sorted(self._seen)).encode()
        sums = {f"{_SUM}{name}": value.clone() for name, value in self._sums.items()}
        return {_SEEN: torch.tensor(list(named), dtype=torch.uint8), **sums}

    def load(self, state: State) -> None:
        """Go on from a checkpoint of :meth:`state`."""
        for name, value in state.items():
            if name != _SEEN and not name.startswith(_SUM):
                super().load({name: value})
        named = bytes(state.get(_SEEN, torch.zeros(0)).tolist()).decode()
        self._seen = set(named.split("\n")) - {""}
        self._sums = {
            name.removeprefix(_SUM): value.double().clone()
            for name, value in state.items()
            if name.startswith(_SUM)
        }
