"""Faults of clients that a spec asks for: who crashes in a round, and who is too late.

Nobody waits and nothing is really broken: what is tried is what a run makes of it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from federated.spec import Participation

__all__ = ["SimulatedFaultError", "crashes", "is_late"]


class SimulatedFaultError(RuntimeError):
    """A client fails because the spec says so."""


def crashes(rules: Participation, seed: int, client: str, round: int) -> None:  # noqa: A002
    """Fail in the middle of a round, with probability ``rules.crashes``.

    Raises
    ------
    SimulatedFaultError
    """
    if _draws(rules.crashes, 0, seed, client, round):
        raise SimulatedFaultError("crashed by participation.crashes")


def is_late(rules: Participation, seed: int, client: str, round: int) -> None:  # noqa: A002
    """Be done too late for the reply to count, with probability ``rules.stragglers``.

    Raises
    ------
    SimulatedFaultError
    """
    if _draws(rules.stragglers, 1, seed, client, round):
        raise SimulatedFaultError("too late by participation.stragglers")


def _draws(probability: float, kind: int, seed: int, client: str, round: int) -> bool:  # noqa: A002
    if not probability:
        return False  # almost always: a generator costs more than a message
    draw = np.random.default_rng([seed, round, zlib.crc32(client.encode()), kind])
    return bool(draw.random() < probability)
