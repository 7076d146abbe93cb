"""Compare what really moved in a round with what the manifest says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from data_tools.errors import InputError

if TYPE_CHECKING:
    from federated.policy.manifest import Manifest

__all__ = ["ManifestError", "check_moved"]


class ManifestError(InputError):
    """A tensor went where the manifest does not send it."""


def check_moved(
    manifest: Manifest,
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    sent: Iterable[str],
    round: int,  # noqa: A002
    *,
    side: Literal["client", "server"] = "client",
) -> None:
    """Compare one round, as a client or the server saw it, with the manifest.

    Parameters
    ----------
    manifest : Manifest
    before, after : mapping
        The whole ``state_dict`` before and after. Client: of its model when training starts and
        when it ends. Server: of the global model before and after the aggregation.
    sent : iterable of str
        Names of the tensors that really went from client to server.
    round : int
        Counted from 1.
    side : {"client", "server"}
        At a client only what is frozen must keep its bits. At the server everything must that no
        client sends.

    Raises
    ------
    ManifestError
        Names the tensor: one that was sent, or not sent, or changed its value, shape or type
        though the manifest says otherwise.
    """
    if side not in ("client", "server"):
        raise InputError(f"side must be 'client' or 'server', got {side!r}")
    said, really = set(manifest.sent_up(round)), set(sent)
    where = f"policy {manifest.policy.name}, round {round}, {side}"
    phase = manifest.policy.phase_number(round)
    fates = {entry.name: entry.fates[phase] for entry in manifest.entries}
    for name in sorted(really - said):
        raise ManifestError(f"{where}: {name} was sent, but is {fates.get(name, 'unknown')}")
    for name in sorted(said - really):
        raise ManifestError(f"{where}: {name} was not sent, but is {fates[name]}")
    for which, state in (("before", before), ("after", after)):
        for name in sorted(set(state) ^ set(fates)):
            fault = "is in no manifest" if name in state else "is missing"
            raise ManifestError(f"{where}: {name} {fault} ({which})")
    for entry in manifest.entries:
        old, new = before[entry.name], after[entry.name]
        for value in (old, new):
            if tuple(value.shape) != entry.shape or value.dtype != entry.dtype:
                raise ManifestError(
                    f"{where}: {entry.name} is {value.dtype} {tuple(value.shape)}, in the manifest "
                    f"{entry.dtype} {entry.shape}"
                )
        fixed = not entry.sent_up(phase) if side == "server" else fates[entry.name] == "frozen"
        if fixed and not _same_bits(old, new):
            raise ManifestError(f"{where}: {entry.name} changed, but is {fates[entry.name]}")


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """NaN equals itself here: a value that nobody touched has not moved."""
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())
