"""What can happen to a tensor of a model that is trained by several clients. No torch.

==========  ============  ===========  ===========  ==============================================
fate        client to     server to    kept by      meaning
            server        client       the client
==========  ============  ===========  ===========  ==============================================
averaged    yes           yes          no           The server takes the mean over the clients of
                                                    the round, weighted by their examples.
merged      yes, with     yes          no           Exact moments of the client's data; the server
            counts                                  merges them by the law of total variance.
local       no            no           yes          Never leaves the client, who goes on with it in
                                                    the next round in which it takes part.
frozen      no            see below    no           Keeps its value everywhere. Not trained; a
                                                    frozen statistic normalizes in training too.
left out    no            no           no           Every round begins with the value of the model
                                                    as it was built; what a round makes of it is
                                                    forgotten.
==========  ============  ===========  ===========  ==============================================

A tensor that is frozen from the first round on has the value of the model as it was built, which
every party builds for itself: it is never sent. One that is frozen later has the server's value of
that moment; the server sends it with every round, so that a client who joins late has it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_tools.errors import InputError

__all__ = ["FATES", "NORM_ROLES", "PLAIN", "ROLE_FATES", "Fate", "NormRole", "Phase", "Role"]

NormRole = Literal["gamma", "beta", "mean", "variance", "counter"]
"""What a tensor of a norm layer is: scale, offset, running mean, running variance, number of
batches behind them."""

Role = Literal["gamma", "beta", "mean", "variance", "counter", "parameter", "buffer"]
"""The same for any tensor: ``"parameter"`` and ``"buffer"`` belong to no norm."""

Fate = Literal["averaged", "merged", "local", "frozen", "left out"]
"""See the table of this module."""

NORM_ROLES: tuple[NormRole, ...] = ("gamma", "beta", "mean", "variance", "counter")

FATES: tuple[Fate, ...] = ("averaged", "merged", "local", "frozen", "left out")

ROLE_FATES: dict[str, tuple[Fate, ...]] = {
    "gamma": ("averaged", "local", "frozen"),
    "beta": ("averaged", "local", "frozen"),
    "mean": FATES,
    "variance": FATES,
    # The mean of counters is no count.
    "counter": ("local", "frozen", "left out"),
    "buffer": ("averaged", "local", "left out"),
}
"""Which fates make sense for which role."""


@dataclass(frozen=True)
class Phase:
    """Fates from one round on.

    Parameters
    ----------
    start : int
        The first round of the phase; rounds are counted from 1.
    gamma, beta, mean, variance, counter : str
        Fate of each role.
    """

    start: int = 1
    gamma: Fate = "averaged"
    beta: Fate = "averaged"
    mean: Fate = "averaged"
    variance: Fate = "averaged"
    counter: Fate = "left out"

    def __post_init__(self) -> None:
        for role in NORM_ROLES:
            fate, valid = getattr(self, role), ROLE_FATES[role]
            if fate not in valid:
                raise InputError(f"{role} cannot be {fate!r}; it can be {', '.join(valid)}")
        if self.mean != self.variance:
            raise InputError(
                f"mean is {self.mean!r} and variance {self.variance!r}; statistics of one layer "
                "need one fate, since a variance belongs to its mean"
            )

    def of(self, role: NormRole) -> Fate:
        """Fate of a role."""
        fate: Fate = getattr(self, role)
        return fate


PLAIN = Phase()
"""What `fedavg` does, and every policy with layers that it does not concern."""
