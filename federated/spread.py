"""How far apart the clients' local statistics lie, by which start rule ``"shrink"`` goes.

Under FedBN and SiloBN no client's running statistics reach the server. With
``participation.start = "shrink:K"`` clients send them beside what the policy moves. Of these the
server keeps the mean over the clients and the variance between them, and sends both to everyone:
a client without a past, or the unseen site, starts between that mean and what K of its own rows
say; see :func:`federated.policy.start_local`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from federated.policy import Counted, State, between_clients
from federated.policy.manifest import Expected
from federated.strategies import DOWN, UP

if TYPE_CHECKING:
    from federated.guard import Reply
    from federated.policy import Manifest

__all__ = ["expected_spread", "read_spread", "send_statistics", "spread_of"]

_VALUE = f"{UP}statistics/"
_CENTRE, _BETWEEN = f"{DOWN}centre/", f"{DOWN}between/"
_MEAN, _VARIANCE = "running_mean", "running_var"


def expected_spread(manifest: Manifest, round: int) -> dict[str, Expected]:  # noqa: A002
    """What clients send of their local statistics in a round, for the guard."""
    names = set(_local(manifest, round))
    return {
        f"{_VALUE}{entry.name}": Expected(entry.shape, entry.dtype, entry.role, None)
        for entry in manifest.entries
        if entry.name in names
    }


def send_statistics(manifest: Manifest, round: int, state: State) -> State:  # noqa: A002
    """A client's local statistics, as it sends them."""
    return {f"{_VALUE}{name}": state[name] for name in _local(manifest, round)}


def spread_of(manifest: Manifest, round: int, replies: Iterable[Reply]) -> State:  # noqa: A002
    """Mean over the clients and variance between them, as the server sends them.

    Parameters
    ----------
    manifest : Manifest
    round : int
    replies : iterable of Reply
        Those that were accepted. Clients of fewer than two rows have no spread of their own.

    Returns
    -------
    dict of str to Tensor
        Float64; empty where fewer than two clients are left.
    """
    names, layers = _local(manifest, round), _layers(manifest, round)
    used = [reply for reply in replies if reply.examples > 1]
    if len(used) < 2 or not names:
        return {}
    states = [{name: reply.arrays[f"{_VALUE}{name}"].double() for name in names} for reply in used]
    parts = [Counted(state, dict.fromkeys(layers, 1)) for state in states]
    between = between_clients(parts, [reply.examples for reply in used])
    centre = {name: torch.stack([state[name] for state in states]).mean(0) for name in names}
    found = {f"{_CENTRE}{name}": value for name, value in centre.items()}
    return found | {f"{_BETWEEN}{name}": value for name, value in between.items()}


def read_spread(received: Mapping[str, torch.Tensor]) -> tuple[State, State]:
    """Mean over the clients, and variance between them, of what the server has sent."""
    centre, between = (
        {name.removeprefix(of): t for name, t in received.items() if name.startswith(of)}
        for of in (_CENTRE, _BETWEEN)
    )
    return centre, between


def _local(manifest: Manifest, round: int) -> tuple[str, ...]:  # noqa: A002
    """Names of the running statistics that stay with the clients."""
    layers = _layers(manifest, round)
    return tuple(f"{layer}.{last}" for layer in layers for last in (_MEAN, _VARIANCE))


def _layers(manifest: Manifest, round: int) -> tuple[str, ...]:  # noqa: A002
    kept = set(manifest.kept(round))
    layers = [name.rpartition(".")[0] for name in sorted(kept) if name.endswith(f".{_MEAN}")]
    return tuple(layer for layer in layers if f"{layer}.{_VARIANCE}" in kept)
