"""Whether tensors that clients send are sound, and of a size that can be.

Tensors are looked at in pieces, so that little is allocated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from federated.policy.manifest import Expected

__all__ = ["Limits", "norm", "out_of_range", "tensor_fault"]

_PIECE = 1 << 18
_STATISTICS = ("mean", "variance", "counter")


@dataclass(frozen=True)
class Limits:
    """What a guard lets pass.

    Attributes
    ----------
    examples : int
        The most examples that a client can have.
    values : int
        The most values per channel behind merged statistics; at most 2**53, up to which a float
        counts exactly.
    change : float
        Absolute: the root mean square of a weight tensor's change is at most this many times that
        of the server's tensor, or times 1 if that is smaller. Also for a single reply and in the
        first round.
    change_over_median : float
        Relative: the norm of the change of all weights together is at most this many times the
        median of the round, of the smaller half where clients are even (so that of two the larger
        is compared with the smaller).
    always : float
        A change up to this share of the norm of all weights, each counted as at least 1, is never
        too large for the median: clients that hardly moved would make others look wild.
    statistics_over_median : float
        The root mean square of a mean or variance is at most this many times the largest of the
        round's median, the server's, and 1: sites may differ in scale by much more than in
        weights, and of a single reply nothing can be said.
    """

    examples: int = 10**9
    values: int = 2**53
    change: float = 100.0
    change_over_median: float = 10.0
    always: float = 0.1
    statistics_over_median: float = 1e4


def norm(value: Tensor, other: Tensor | None = None) -> float:
    """Euclidean norm of a tensor, or of its difference from another, in float64.

    Parameters
    ----------
    value : Tensor
        Any shape.
    other : Tensor, optional
        Of the same shape.

    Examples
    --------
    >>> norm(torch.tensor([[3.0, 4.0]])), norm(torch.ones(4), torch.zeros(4))
    (5.0, 2.0)
    """
    if other is None:
        parts = (piece.double() for piece in _pieces(value))
    else:
        pairs = zip(_pieces(value), _pieces(other), strict=True)
        parts = (piece.double() - against.double() for piece, against in pairs)
    return math.hypot(0.0, *(float(torch.linalg.vector_norm(part)) for part in parts))


def tensor_fault(name: str, value: object, want: Expected) -> str:
    """Why a tensor is not what was expected; empty if it is.

    Examples
    --------
    >>> from federated.policy.manifest import Expected
    >>> want = Expected((2,), torch.float32, "variance", None)
    >>> tensor_fault("v", torch.tensor([1.0, -1.0]), want)
    'v is negative, which no variance is'
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return f"{name} is no plain tensor on the CPU but {type(value).__name__}"
    if value.dtype != want.dtype:
        return f"{name} is of {value.dtype}, not {want.dtype}"
    if tuple(value.shape) != want.shape:
        return f"{name} has shape {tuple(value.shape)[:8]}, not {want.shape}"
    for piece in _pieces(value):
        if not piece.isfinite().all():
            return f"{name} holds NaN or infinity"
        if want.role in ("variance", "counter") and bool((piece < 0).any()):
            return f"{name} is negative, which no {want.role} is"
    return ""


def out_of_range(
    replies: Mapping[str, Mapping[str, Tensor]],
    expected: Mapping[str, Expected],
    before: Mapping[str, Tensor],
    limits: Limits,
) -> dict[str, str]:
    """Clients whose weights or statistics are too large, and why.

    Parameters
    ----------
    replies : mapping
        Sound tensors of each client.
    expected : mapping
        What tensors there are.
    before : mapping
        The server's values, from which clients went off; what is missing counts as zeros.
    limits : Limits

    Returns
    -------
    dict of str to str
        Client to reason.
    """
    sizes = {name: norm(before[name]) if name in before else 0.0 for name in expected}
    wild = _wild_weights(replies, expected, before, sizes, limits)
    rest = {client: arrays for client, arrays in replies.items() if client not in wild}
    return wild | _wild_statistics(rest, expected, sizes, limits)


def _wild_weights(
    replies: Mapping[str, Mapping[str, Tensor]],
    expected: Mapping[str, Expected],
    before: Mapping[str, Tensor],
    sizes: Mapping[str, float],
    limits: Limits,
) -> dict[str, str]:
    found: dict[str, str] = {}
    roots = {name: _root(want) for name, want in expected.items() if want.role not in _STATISTICS}
    changes = {}
    for client, arrays in replies.items():
        each = {name: norm(arrays[name], before.get(name)) for name in roots}
        changes[client] = math.hypot(0.0, *each.values())
        for name, change in each.items():
            allowed = limits.change * max(sizes[name] / roots[name], 1.0)
            if not change / roots[name] <= allowed:
                found[client] = (
                    f"{name} changed by {change / roots[name]:.3g} (root mean square), "
                    f"{allowed:.3g} is the limit"
                )
                break
    # Those that are out by the absolute limit do not move the median.
    usual = _lower_median([change for client, change in changes.items() if client not in found])
    whole = math.hypot(0.0, *(max(sizes[name], root) for name, root in roots.items()))
    allowed = max(limits.change_over_median * usual, limits.always * whole)
    for client, change in changes.items():
        if not change <= allowed:
            found.setdefault(
                client,
                f"its update has norm {change:.3g}, the median of the round is {usual:.3g} and "
                f"the limit {allowed:.3g}",
            )
    return found


def _wild_statistics(
    replies: Mapping[str, Mapping[str, Tensor]],
    expected: Mapping[str, Expected],
    sizes: Mapping[str, float],
    limits: Limits,
) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, want in expected.items():
        if want.role not in _STATISTICS:
            continue
        root = _root(want)
        each = {client: norm(arrays[name]) / root for client, arrays in replies.items()}
        usual = max(_lower_median(list(each.values())), sizes[name] / root, 1.0)
        allowed = limits.statistics_over_median * usual
        for client, size in each.items():
            if not size <= allowed:
                found.setdefault(
                    client, f"{name} is {size:.3g} (root mean square), {allowed:.3g} is the limit"
                )
    return found


def _root(want: Expected) -> float:
    """Norm of a tensor of ones."""
    return math.sqrt(max(1, math.prod(want.shape)))


def _lower_median(values: list[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2] if values else 0.0


def _pieces(value: Tensor) -> Iterator[Tensor]:
    flat = value.detach().contiguous().view(-1)
    # Most tensors are small, and to cut one takes longer than to look at it.
    yield from (flat,) if len(flat) <= _PIECE else torch.split(flat, _PIECE)
