"""The mean over the clients: FedAvg, and FedProx, whose server does the same.

McMahan et al. (2017), arXiv:1602.05629: ``w = sum_i n_i w_i / sum_i n_i`` with n_i examples of
client i. Li et al. (2020), arXiv:1812.06127: the same, but client i minimizes
``F_i(w) + mu/2 |w - w_server|^2``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from data_tools.errors import InputError
from federated.guard import Reply
from federated.policy.manifest import State
from federated.strategies.strategy import Strategy, like

__all__ = ["FedAvg", "FedProx", "mean_by_examples"]


def mean_by_examples(replies: Sequence[Reply], names: Iterable[str]) -> State:
    """Mean of tensors over the replies, weighted by their examples.

    Parameters
    ----------
    replies : sequence of Reply
        In any order; the sums go by client, in float64, whose 53 bits hold the product of a float32
        and up to 2**29 examples exactly.
    names : iterable of str
        Which of the replies' floating-point tensors; also averaged statistics and buffers.

    Returns
    -------
    dict of str to Tensor
        In the types of the first client.

    Raises
    ------
    InputError
        If there is no reply, or they have no examples.

    Examples
    --------
    >>> a = Reply("a", 1, {"w": torch.tensor([1.0])}, {}, 30)
    >>> b = Reply("b", 1, {"w": torch.tensor([5.0])}, {}, 10)
    >>> mean_by_examples([a, b], ["w"])
    {'w': tensor([2.])}
    """
    ordered = sorted(replies, key=lambda reply: reply.client)
    total = sum(reply.examples for reply in ordered)
    if total <= 0:
        raise InputError(f"{len(ordered)} replies have {total} examples; there is no mean")
    return {
        name: weighted_sum(
            [reply.arrays[name] for reply in ordered], [reply.examples for reply in ordered]
        )
        .div_(total)
        .to(ordered[0].arrays[name].dtype)
        for name in names
    }


def weighted_sum(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Sum of tensors times weights, one after the other, in float64."""
    total = torch.zeros(values[0].shape, dtype=torch.float64)
    for value, weight in zip(values, weights, strict=True):
        total.add_(value.detach().double(), alpha=weight)
    return total


class FedAvg(Strategy):
    """Mean of the clients' weights by their examples (McMahan et al. 2017).

    Examples
    --------
    >>> a = Reply("a", 1, {"w": torch.tensor([1.0])}, {}, 30)
    >>> b = Reply("b", 1, {"w": torch.tensor([5.0])}, {}, 10)
    >>> FedAvg().aggregate(1, {"w": torch.zeros(1)}, [b, a])
    {'w': tensor([2.])}
    """

    name = "fedavg"

    def _aggregate(
        self,
        round: int,  # noqa: A002
        parameters: State,
        replies: Sequence[Reply],
    ) -> State:
        return like(mean_by_examples(replies, parameters), parameters)


class FedProx(FedAvg):
    """FedAvg whose clients are held near the server's weights (Li et al. 2020).

    Parameters
    ----------
    mu : float
        Strength of the proximal term; with 0 it is FedAvg, bit for bit.
    """

    name = "fedprox"

    def __init__(self, mu: float = 0.01) -> None:
        self.mu = float(mu)

    def terms(self) -> dict[str, float | str | bool]:
        """``{"mu": mu}``, for the term of the clients' loss."""
        return {"mu": self.mu}
