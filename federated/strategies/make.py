"""Strategies by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from federated.strategies.names import FLOWER_STRATEGIES, check_strategy
from federated.strategies.strategy import Strategy

__all__ = ["make_strategy"]

_HOMES = {
    "fedavg": ("average", "FedAvg"),
    "fedprox": ("average", "FedProx"),
    "scaffold": ("scaffold", "Scaffold"),
    "fednova": ("fednova", "FedNova"),
}


def make_strategy(name: str, options: Mapping[str, object] | None = None) -> Strategy:
    """Make a strategy.

    Parameters
    ----------
    name : str
        One of :data:`federated.strategies.STRATEGY_NAMES`.
    options : mapping, optional
        See :data:`federated.strategies.STRATEGY_OPTIONS`.

    Returns
    -------
    Strategy
        At the start of its first round.

    Raises
    ------
    InputError
        For an unknown name or option, or a value that cannot be.

    Examples
    --------
    >>> make_strategy("fedprox", {"mu": 0.1}).terms()
    {'mu': 0.1}
    """
    complete = check_strategy(name, options)
    if name in FLOWER_STRATEGIES:
        # Here, so that nobody waits for Flower who does not use it.
        from federated.strategies.flower import FlowerStrategy

        return FlowerStrategy(name, complete)
    module, kind = _HOMES[name]
    made: Strategy = getattr(import_module(f"federated.strategies.{module}"), kind)(**complete)
    return made
