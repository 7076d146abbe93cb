"""How the server makes new weights of the clients' replies. Names load when first used."""

from typing import TYPE_CHECKING

from data_tools.lazy import lazy_names

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


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
