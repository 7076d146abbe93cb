"""Flower's own strategies, called so that they see weights alone and begin where they ended.

A strategy of Flower lives as long as a run and keeps its momenta to itself. Here a new one is made
for every round, given the momenta of the round before, and asked for the new ones: what a
checkpoint must hold is then all that there is. Everything goes in as float64 and sorted by client,
since Flower adds up in the type and the order of what it gets.

What the formulas are, of a mean over the clients that moved by ``d`` from the server's ``w``:

- FedAvgM (Hsu et al. 2019, arXiv:1909.06335): ``m = momentum m + d``, ``w += rate m``.
- FedAdam, FedYogi, FedAdagrad (Reddi et al. 2021, arXiv:2003.00295): ``m = b1 m + (1 - b1) d``,
  ``w += eta m / (sqrt(v) + tau)`` with ``v = b2 v + (1 - b2) d^2`` (Adam),
  ``v -= (1 - b2) d^2 sign(v - d^2)`` (Yogi), ``v += d^2`` and ``b1 = 0`` (Adagrad). Flower begins
  with ``v = 0``, the paper with ``tau^2`` or more; and Flower's FedAdam takes, unlike the paper's,
  ``eta sqrt(1 - b2^(t+1)) / (1 - b1^(t+1))`` for eta in round t; with ``bias_correction = 0`` that
  is taken back.
- Median and trimmed mean of each weight (Yin et al. 2018, arXiv:1803.01498): without examples, and
  the trimmed mean cuts ``floor(beta n)`` of n clients on either side.
- Krum and Multi-Krum (Blanchard et al. 2017, arXiv:1703.02757): the clients with the least sum of
  squared distances to their ``n - f - 2`` nearest. Their guarantee asks for ``n >= 2 f + 3``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_tools.errors import InputError
from federated.flower import muted, reply_message
from federated.guard import Reply
from federated.policy.manifest import State
from federated.strategies.names import FLOWER_STRATEGIES
from federated.strategies.strategy import Strategy, like

# After the switches of federated.flower.
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict  # isort: skip
from flwr.serverapp import Grid  # isort: skip
from flwr.serverapp import strategy as flower_strategies  # isort: skip

__all__ = ["FlowerStrategy"]

_MOMENTA = {
    "fedavgm": ("momentum_vector",),
    "fedadam": ("m_t", "v_t"),
    "fedyogi": ("m_t", "v_t"),
    "fedadagrad": ("m_t", "v_t"),
}
"""What Flower's server optimizers carry from round to round, under their names there."""

_WEIGHT = "num-examples"

Float64s = NDArray[np.float64]


class _NoGrid(Grid):
    """There is nobody to be asked."""

    def get_node_ids(self) -> Iterable[int]:
        """No node."""
        return ()

    def _none(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("strategies are given their replies")

    set_run = create_message = push_messages = pull_messages = send_and_receive = _none
    run = property(_none)


class FlowerStrategy(Strategy):
    """One of Flower's strategies.

    Parameters
    ----------
    name : str
        A key of :data:`federated.strategies.names.FLOWER_STRATEGIES`.
    options : mapping
        Of its constructor, complete.

    Examples
    --------
    >>> from federated.strategies import make_strategy
    >>> values = {"a": 1.0, "b": 2.0, "c": 900.0}
    >>> replies = [Reply(n, 1, {"w": torch.tensor([v])}, {}, 9) for n, v in values.items()]
    >>> make_strategy("fedmedian").aggregate(1, {"w": torch.zeros(1)}, replies)
    {'w': tensor([2.])}
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = dict(options)
        self._corrected = bool(self._options.pop("bias_correction", 1))
        self._momenta: dict[str, dict[str, Float64s]] = {key: {} for key in _MOMENTA.get(name, ())}
        # A value that Flower does not take should be found before the first round.
        self._make()

    def _make(self, round: int = 1) -> Any:  # noqa: A002
        kind = getattr(flower_strategies, FLOWER_STRATEGIES[self.name])
        options = dict(self._options)
        if not self._corrected:
            # Flower multiplies eta by the inverse of this, and cannot be told not to.
            first, second = (1 - options[f"beta_{i}"] ** (round + 1) for i in (1, 2))
            options["eta"] *= first / second**0.5
        with muted():
            try:
                # No node is sampled by Flower: who is asked is decided elsewhere, by seed.
                return kind(fraction_train=0.0, weighted_by_key=_WEIGHT, **options)
            except ValueError as error:
                raise InputError(f"strategy {self.name!r}: {error}") from error

    def _aggregate(
        self,
        round: int,  # noqa: A002
        parameters: State,
        replies: Sequence[Reply],
    ) -> State:
        flower = self._make(round)
        names = tuple(parameters)
        messages = [
            reply_message(
                RecordDict(
                    {
                        "arrays": _record(reply.arrays, names),
                        "metrics": MetricRecord({_WEIGHT: reply.examples}),
                    }
                ),
                number,
            )
            for number, reply in enumerate(replies, 1)
        ]
        with muted():
            list(
                flower.configure_train(round, _record(parameters, names), ConfigRecord(), _NoGrid())
            )
            self._hand_over(flower, parameters)
            found, _ = flower.aggregate_train(round, messages)
        if found is None or set(found) != set(names):
            raise InputError(f"round {round}: strategy {self.name!r} of Flower gave no new weights")
        self._take_back(flower, names)
        new = {name: torch.from_numpy(np.array(found[name].numpy())) for name in names}
        return like(new, parameters)

    def _hand_over(self, flower: Any, parameters: State) -> None:
        """Give Flower the momenta; of a weight that is new, zeros."""
        for key, momenta in self._momenta.items():
            if not momenta:
                continue
            given = {
                name: momenta.get(name, np.zeros(tuple(value.shape)))
                for name, value in parameters.items()
            }
            setattr(flower, key, list(given.values()) if key == "momentum_vector" else given)

    def _take_back(self, flower: Any, names: tuple[str, ...]) -> None:
        for key in self._momenta:
            held = getattr(flower, key)
            if isinstance(held, list):
                held = dict(zip(names, held, strict=True))
            # Flower has None here while its server optimizer has nothing to do.
            self._momenta[key] = {n: np.array(v, dtype=np.float64) for n, v in (held or {}).items()}

    def state(self) -> State:
        """Momenta as float64, named ``momentum/weight``."""
        return {
            f"{key}/{name}": torch.from_numpy(value.copy())
            for key, momenta in self._momenta.items()
            for name, value in momenta.items()
        }

    def load(self, state: State) -> None:
        """Go on from a checkpoint of :meth:`state`."""
        momenta: dict[str, dict[str, Float64s]] = {key: {} for key in self._momenta}
        for full, value in state.items():
            key, _, name = full.partition("/")
            if key not in momenta:
                super().load({full: value})
            momenta[key][name] = np.array(value.double().numpy())
        self._momenta = momenta


def _record(arrays: Mapping[str, Tensor], names: tuple[str, ...]) -> ArrayRecord:
    return ArrayRecord({name: Array(arrays[name].detach().double().numpy()) for name in names})
