"""How the server makes new weights of the clients' replies. Names load when first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from federated.strategies.average import mean_by_examples
    from federated.strategies.make import make_strategy
    from federated.strategies.names import (
        DOWN,
        KEPT,
        STRATEGY_HELP,
        STRATEGY_NAMES,
        STRATEGY_OPTIONS,
        STRATEGY_PREFIX,
        UP,
        check_optimizer,
        check_strategy,
    )
    from federated.strategies.strategy import LEARNED_ROLES, Strategy, Terms, learned

_HOMES = {
    "DOWN": "names",
    "KEPT": "names",
    "LEARNED_ROLES": "strategy",
    "STRATEGY_HELP": "names",
    "STRATEGY_NAMES": "names",
    "STRATEGY_OPTIONS": "names",
    "STRATEGY_PREFIX": "names",
    "Strategy": "strategy",
    "Terms": "strategy",
    "UP": "names",
    "check_optimizer": "names",
    "check_strategy": "names",
    "learned": "strategy",
    "make_strategy": "make",
    "mean_by_examples": "average",
}

__all__ = [
    "DOWN",
    "KEPT",
    "LEARNED_ROLES",
    "STRATEGY_HELP",
    "STRATEGY_NAMES",
    "STRATEGY_OPTIONS",
    "STRATEGY_PREFIX",
    "UP",
    "Strategy",
    "Terms",
    "check_optimizer",
    "check_strategy",
    "learned",
    "make_strategy",
    "mean_by_examples",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'federated.strategies' has no attribute '{name}'")
    value = getattr(import_module(f"federated.strategies.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
