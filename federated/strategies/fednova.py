"""FedNova: clients' changes per step, so that a client that takes more steps weighs no more.

Wang et al. (2020), Tackling the objective inconsistency problem in heterogeneous federated
optimization, NeurIPS, arXiv:2007.07481. With shares ``p_i`` of the examples and ``tau_i`` steps of
client i, under plain SGD, where the norm ``|a_i|_1`` is ``tau_i``::

    w <- w + (sum_i p_i tau_i) sum_i p_i (w_i - w) / tau_i

FedAvg with unequal steps goes to the optimum of another objective, in which clients weigh
``p_i tau_i``. With equal steps the two are one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from data_tools.errors import InputError
from federated.guard import Reply
from federated.policy.manifest import State
from federated.strategies.average import weighted_sum
from federated.strategies.strategy import Strategy, like

__all__ = ["FedNova"]

_MOST_STEPS = 10**9


class FedNova(Strategy):
    """Normalized averaging.

    Notes
    -----
    What a step of AdamW or of momentum is worth depends on the steps before it, and the paper has
    no ``a_i`` for Adam: clients refuse to train with anything but plain SGD. A client that took no
    step (``steps`` is 0) has not moved and weighs nothing; the shares are of the others.
    """

    name = "fednova"

    def terms(self) -> dict[str, float | str | bool]:
        """``{"plain_sgd": True}``: clients refuse another optimizer."""
        return {"plain_sgd": True}

    def fault(self, reply: Reply) -> str:
        """Why a reply cannot be used: besides its loss, its number of steps."""
        steps = reply.metrics.get("steps", math.nan)
        if not 0 <= steps <= _MOST_STEPS or steps != int(steps):
            return f"it took {steps:g} steps; a whole number up to {_MOST_STEPS} can be"
        return super().fault(reply)

    def _aggregate(
        self,
        round: int,  # noqa: A002
        parameters: State,
        replies: Sequence[Reply],
    ) -> State:
        for reply in replies:
            if why := self.fault(reply):
                raise InputError(f"round {round}, client {reply.client}: {why}")
        moved = [reply for reply in replies if reply.metrics["steps"] > 0]
        if not moved:
            return {name: value.clone() for name, value in parameters.items()}
        total = sum(reply.examples for reply in moved)
        shares = [reply.examples / total for reply in moved]
        steps = [reply.metrics["steps"] for reply in moved]
        whole = sum(p * tau for p, tau in zip(shares, steps, strict=True))
        each = [whole * p / tau for p, tau in zip(shares, steps, strict=True)]
        new = {}
        for name, value in parameters.items():
            old = value.detach().double()
            changes = [reply.arrays[name].detach().double() - old for reply in moved]
            new[name] = old + weighted_sum(changes, each)
        return like(new, parameters)
