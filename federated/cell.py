"""Cell: one federated run of a spec, by what tells it from the others."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from seqnorm.runs.naming import in_name

if TYPE_CHECKING:
    from flwr.app import UserConfig

    from federated.spec import Spec

__all__ = ["KEYS", "Cell", "cells_of"]

KEYS = ("norm", "policy", "strategy", "learning_rate", "seed")
"""Columns that tell one cell from another in every table of results."""


@dataclass(frozen=True, order=True)
class Cell:
    """One run.

    Attributes
    ----------
    norm : str
        Kind of norm; see `seqnorm.make_norm`.
    policy : str
        See `federated.policy.parse_policy`.
    learning_rate : float
        Of the clients.
    seed : int
        Of the initial weights, the sampling of clients and the order of batches.

    Examples
    --------
    >>> Cell("group:8", "fedbn", 0.01, 0).id
    'group-8_fedbn_lr0.01_seed0'
    """

    norm: str
    policy: str
    learning_rate: float
    seed: int

    @property
    def id(self) -> str:
        """Name of the cell's folder."""
        rate = in_name(self.learning_rate)
        text = f"{self.norm}_{self.policy}_lr{rate}_seed{self.seed}"
        return re.sub(r"[^A-Za-z0-9._-]", "-", text)

    def as_config(self) -> UserConfig:
        """The cell as part of a Flower run's configuration."""
        return {
            "norm": self.norm,
            "policy": self.policy,
            "learning-rate": self.learning_rate,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: UserConfig) -> Cell:
        """Read what :meth:`as_config` wrote.

        Raises
        ------
        ValueError
            If the learning rate is no number, or the seed no whole one.
        """
        if int(config["seed"]) != float(config["seed"]):
            raise ValueError(f"{config['seed']!r} is no whole number")
        return cls(
            str(config["norm"]),
            str(config["policy"]),
            float(config["learning-rate"]),
            int(config["seed"]),
        )


def cells_of(spec: Spec) -> list[Cell]:
    """Every cell of a spec: norms x policies x learning rates x seeds, in the spec's order."""
    training = spec.training
    return [
        Cell(*values)
        for values in product(spec.norms, spec.policies, training.learning_rates, training.seeds)
    ]
