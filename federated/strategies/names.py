"""Names of the strategies, what each does and which options it takes. No torch, no Flower."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import NamedTuple

from data_tools.errors import InputError

__all__ = [
    "DOWN",
    "FLOWER_STRATEGIES",
    "KEPT",
    "STRATEGY_HELP",
    "STRATEGY_NAMES",
    "STRATEGY_OPTIONS",
    "STRATEGY_PREFIX",
    "UP",
    "Option",
    "check_optimizer",
    "check_strategy",
]

STRATEGY_PREFIX = "strategy/"
"""Begins the names of all tensors that are a strategy's and not the model's."""

DOWN = f"{STRATEGY_PREFIX}down/"
"""Begins the names of further tensors that the server sends to clients."""

UP = f"{STRATEGY_PREFIX}up/"
"""Begins the names of further tensors that a client sends to the server."""

KEPT = f"{STRATEGY_PREFIX}kept/"
"""Begins the names of tensors that a client keeps for itself, for the next round it trains in."""


class Option(NamedTuple):
    """A number that a strategy takes.

    Attributes
    ----------
    default : float, int or None
        None: see the strategy.
    low, high : float
        Bounds, both allowed.
    whole : bool
        Only whole numbers.
    open : bool
        The bounds themselves are not allowed.
    """

    default: float | int | None
    low: float = 0.0
    high: float = math.inf
    whole: bool = False
    open: bool = False

    def fault(self, value: object) -> str:
        """What a value must be but is not; empty if it is."""
        kind = "a whole number" if self.whole else "a finite number"
        limits = f"above {self.low:g}" if self.open else f"from {self.low:g}"
        if self.high < math.inf:
            limits += f" and below {self.high:g}" if self.open else f" to {self.high:g}"
        if value is None and self.default is None:
            return ""
        right = not isinstance(value, bool) and isinstance(
            value, int if self.whole else int | float
        )
        if not right or not isinstance(value, int | float) or not math.isfinite(value):
            return f"{kind} {limits}"
        inside = self.low < value < self.high if self.open else self.low <= value <= self.high
        return "" if inside else f"{kind} {limits}"


_POSITIVE = Option(1.0, open=True)
_DECAY_1, _DECAY_2 = Option(0.9, 0.0, 0.999999), Option(0.99, 0.0, 0.999999999)
_TAU = Option(1e-3, open=True)
_MALICIOUS = Option(1, whole=True)

STRATEGY_OPTIONS: dict[str, dict[str, Option]] = {
    "fedavg": {},
    "fedprox": {"mu": Option(0.01)},
    "fedavgm": {"server_learning_rate": _POSITIVE, "server_momentum": Option(0.9, 0.0, 0.999999)},
    "fedadam": {
        "eta": Option(0.1, open=True),
        "beta_1": _DECAY_1,
        "beta_2": _DECAY_2,
        "tau": _TAU,
        "bias_correction": Option(1, 0, 1, whole=True),
    },
    "fedyogi": {
        "eta": Option(0.01, open=True),
        "beta_1": _DECAY_1,
        "beta_2": _DECAY_2,
        "tau": _TAU,
    },
    "fedadagrad": {"eta": Option(0.1, open=True), "tau": _TAU},
    "fedmedian": {},
    "fedtrimmedavg": {"beta": Option(0.2, 0.0, 0.499999)},
    "krum": {"num_malicious_nodes": _MALICIOUS},
    "multikrum": {
        "num_malicious_nodes": _MALICIOUS,
        "num_nodes_to_select": Option(3, 1, whole=True),
    },
    "scaffold": {"server_learning_rate": _POSITIVE, "clients": Option(None, 1, whole=True)},
    "fednova": {},
}
"""Options of each strategy. Those of Flower's strategies have Flower's names; with
``bias_correction = 0`` FedAdam is the paper's, without what Flower's makes of eta in round t."""

STRATEGY_HELP: dict[str, str] = {
    "fedavg": "mean of the clients' weights, by examples",
    "fedprox": "fedavg; clients are held near the server's weights by mu/2 |w - w_server|^2",
    "fedavgm": "fedavg, then a server step with momentum",
    "fedadam": "fedavg's change as the gradient of a server-side Adam",
    "fedyogi": "fedavg's change as the gradient of a server-side Yogi",
    "fedadagrad": "fedavg's change as the gradient of a server-side Adagrad",
    "fedmedian": "median of each weight over the clients",
    "fedtrimmedavg": "mean of each weight without the beta largest and smallest of the clients",
    "krum": "weights of the one client that is nearest to its neighbours",
    "multikrum": "mean of the num_nodes_to_select clients that are nearest to their neighbours",
    "scaffold": "control variates take the drift of each client out of its steps (plain SGD only)",
    "fednova": "clients' changes per step, so that who steps more weighs no more (plain SGD only)",
}
"""What each strategy does, in a line."""

STRATEGY_NAMES: tuple[str, ...] = tuple(STRATEGY_HELP)
"""Every name that `make_strategy` knows."""

FLOWER_STRATEGIES: dict[str, str] = {
    "fedavgm": "FedAvgM",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "fedadagrad": "FedAdagrad",
    "fedmedian": "FedMedian",
    "fedtrimmedavg": "FedTrimmedAvg",
    "krum": "Krum",
    "multikrum": "MultiKrum",
}
"""Strategies that are Flower's, by their names there."""

_PLAIN_SGD = ("scaffold", "fednova")


def check_strategy(
    name: str, options: Mapping[str, object] | None = None
) -> dict[str, float | int | None]:
    """Check a strategy's name and options before any work.

    Parameters
    ----------
    name : str
        One of :data:`STRATEGY_NAMES`.
    options : mapping, optional
        See :data:`STRATEGY_OPTIONS`.

    Returns
    -------
    dict
        All options of the strategy, defaults filled in.

    Raises
    ------
    InputError
        In one line: what is wrong, the valid names, and a close match if there is one.

    Examples
    --------
    >>> check_strategy("fedprox", {"mu": 1})
    {'mu': 1}
    >>> check_strategy("fedprox", {"nu": 1})
    Traceback (most recent call last):
    ...
    data_tools.errors.InputError: strategy 'fedprox' has no option 'nu'; did you mean 'mu'? \
Valid: mu
    >>> check_strategy("fedavm")
    Traceback (most recent call last):
    ...
    data_tools.errors.InputError: unknown strategy 'fedavm'; did you mean 'fedavgm'? Valid: \
fedavg, fedprox, fedavgm, fedadam, fedyogi, fedadagrad, fedmedian, fedtrimmedavg, krum, \
multikrum, scaffold, fednova
    """
    if name not in STRATEGY_OPTIONS:
        raise InputError(f"unknown strategy {name!r}; {_near(name, STRATEGY_NAMES)}")
    known = STRATEGY_OPTIONS[name]
    complete = {option: what.default for option, what in known.items()}
    for option, value in (options or {}).items():
        if option not in known:
            hint = _near(option, known) if known else "it has none"
            raise InputError(f"strategy {name!r} has no option {option!r}; {hint}")
        if fault := known[option].fault(value):
            raise InputError(f"strategy {name!r}: {option} must be {fault}, got {value!r}")
        assert value is None or isinstance(value, int | float)
        complete[option] = value
    return complete


def check_optimizer(name: str, optimizer: str, momentum: float = 0.0) -> None:
    """Check that clients can train with an optimizer under a strategy.

    Parameters
    ----------
    name : str
        Of the strategy.
    optimizer : str
        ``"sgd"`` or ``"adamw"``.
    momentum : float
        SGD's.

    Raises
    ------
    InputError
        For SCAFFOLD and FedNova with anything but plain SGD. Both read gradients off the distance
        that a client has moved, which is their sum times the learning rate under plain SGD alone.

    Examples
    --------
    >>> check_optimizer("scaffold", "sgd")
    >>> check_optimizer("fedavg", "adamw")
    """
    if name in _PLAIN_SGD and (optimizer != "sgd" or momentum != 0):
        got = f"{optimizer!r}" + (f" with momentum {momentum:g}" if optimizer == "sgd" else "")
        raise InputError(
            f"strategy {name!r} is defined for plain SGD, got {got}; set optimizer = 'sgd' and "
            "momentum = 0, or choose another strategy"
        )


def _near(name: object, known: Mapping[str, object] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Valid: {', '.join(known)}"
