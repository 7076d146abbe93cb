"""Manifest: of every tensor of a model, what becomes of it under a policy, and who sends it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from data_tools.errors import InputError
from federated.policy.fates import PLAIN, Fate, Role
from federated.policy.modes import apply_to_training
from federated.policy.moved import check_moved
from federated.policy.roles import NormTensor, norm_tensors
from federated.policy.shown import frame, show
from seqnorm import freeze

if TYPE_CHECKING:
    import pandas as pd

    from federated.policy.norm_policy import NormPolicy

__all__ = ["Entry", "Expected", "Manifest", "State"]

State = dict[str, Tensor]
"""A model's ``state_dict()``, or a part of it, on the CPU."""


class Expected(NamedTuple):
    """What a tensor that a client sends must look like.

    Attributes
    ----------
    shape : tuple of int
    dtype : torch.dtype
    role : str
        See :data:`federated.policy.fates.Role`.
    layer : str or None
        Of statistics that are merged, the path of their layer, for which a count is sent.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    role: Role
    layer: str | None


@dataclass(frozen=True)
class Entry:
    """One tensor of a ``state_dict``.

    Attributes
    ----------
    name : str
        In the ``state_dict``.
    module : str
        Path of the norm layer that holds it; of other tensors, of whatever holds them.
    layer : str
        The type of the norm layer; empty for what belongs to no norm.
    role : str
        See :data:`federated.policy.fates.Role`.
    shape : tuple of int
    dtype : torch.dtype
    fates : tuple of str
        One for each phase of the policy.
    """

    name: str
    module: str
    layer: str
    role: Role
    shape: tuple[int, ...]
    dtype: torch.dtype
    fates: tuple[Fate, ...]

    def sent_up(self, phase: int) -> bool:
        """Whether clients send it to the server."""
        return self.fates[phase] in ("averaged", "merged")

    def sent_down(self, phase: int) -> bool:
        """Whether the server sends it: what clients send, and what was frozen on the way."""
        late = self.fates[phase] == "frozen" and set(self.fates[:phase]) - {"frozen"}
        return self.sent_up(phase) or bool(late)


@dataclass(frozen=True)
class Manifest:
    """What becomes of each tensor of a model; ``print`` it. Rounds are counted from 1.

    Attributes
    ----------
    policy : NormPolicy
    entries : tuple of Entry
        In the order of the ``state_dict``.

    Examples
    --------
    >>> from federated.policy import parse_policy
    >>> model = nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8))
    >>> manifest = parse_policy("fedbn").manifest(model)
    >>> manifest.sent_up(1)
    ('0.weight', '0.bias')
    >>> manifest.kept(1)
    ('1.weight', '1.bias', '1.running_mean', '1.running_var', '1.num_batches_tracked')
    """

    policy: NormPolicy
    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, policy: NormPolicy, model: nn.Module) -> Manifest:
        """Make the manifest of a model; see :meth:`NormPolicy.manifest`."""
        norms = norm_tensors(model)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        entries = []
        for name, value in model.state_dict(keep_vars=True).items():
            if not isinstance(value, Tensor):
                raise InputError(f"{name}: only tensors can be sent, got {type(value).__name__}")
            norm = norms.get(name)
            role: Role = "parameter" if name in parameters else "buffer"
            if norm is not None:
                role = norm.role
            fates = _fates(policy, role, norm)
            if role == "buffer" and "averaged" in fates and not value.is_floating_point():
                raise InputError(f"{name}: a buffer of {value.dtype} cannot be averaged")
            module, layer = (norm.module, norm.type) if norm else (name.rpartition(".")[0], "")
            entries.append(Entry(name, module, layer, role, (*value.shape,), value.dtype, fates))
        manifest = cls(policy, tuple(entries))
        _check_layers(manifest, model)
        _check_shared(manifest, model)
        return manifest

    def with_fate(self, fate: Fate, round: int) -> tuple[str, ...]:  # noqa: A002
        """Names of the tensors that meet a fate in a round."""
        phase = self.policy.phase_number(round)
        return tuple(entry.name for entry in self.entries if entry.fates[phase] == fate)

    def sent_up(self, round: int) -> tuple[str, ...]:  # noqa: A002
        """Names of what a client sends in a round, in the order of the ``state_dict``."""
        phase = self.policy.phase_number(round)
        return tuple(entry.name for entry in self.entries if entry.sent_up(phase))

    def sent_down(self, round: int) -> tuple[str, ...]:  # noqa: A002
        """Names of what the server sends at the start of a round."""
        phase = self.policy.phase_number(round)
        return tuple(entry.name for entry in self.entries if entry.sent_down(phase))

    def kept(self, round: int) -> tuple[str, ...]:  # noqa: A002
        """Names of what a client keeps for itself."""
        return self.with_fate("local", round)

    def frozen(self, round: int) -> tuple[str, ...]:  # noqa: A002
        """Names of what nobody changes."""
        return self.with_fate("frozen", round)

    def expected(self, round: int) -> dict[str, Expected]:  # noqa: A002
        """What the tensors that a client sends in a round must look like, by name."""
        phase = self.policy.phase_number(round)
        return {
            e.name: Expected(
                e.shape, e.dtype, e.role, e.module if e.fates[phase] == "merged" else None
            )
            for e in self.entries
            if e.sent_up(phase)
        }

    def client_start(
        self,
        initial: Mapping[str, Tensor],
        received: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        round: int,  # noqa: A002
        *,
        copies: bool = True,
    ) -> State:
        """Put together the state with which a client starts a round.

        Parameters
        ----------
        initial : mapping
            Of the model as it was built: where what is frozen from the start, or left out, is
            taken from.
        received : mapping
            What the server has sent: exactly :meth:`sent_down`.
        kept : mapping
            The client's own: exactly :meth:`kept`; for a client without a past
            :func:`federated.policy.start_local` gives it.
        round : int
        copies : bool
            False for who only reads: the tensors are then those that were given.

        Returns
        -------
        dict of str to Tensor
            A whole ``state_dict``.

        Raises
        ------
        InputError
            If something is missing or too much; names the tensor.
        """
        for whose, given, names in (
            ("the server has sent", received, self.sent_down(round)),
            ("the client has kept", kept, self.kept(round)),
        ):
            for name in sorted(set(given) ^ set(names)):
                fault = "is not to be in" if name in given else "is missing from"
                raise InputError(f"round {round}: {name} {fault} what {whose}")
        state = {**initial, **received, **kept}
        if not copies:
            return {entry.name: state[entry.name] for entry in self.entries}
        return {entry.name: state[entry.name].detach().clone() for entry in self.entries}

    def check_moved(
        self,
        before: Mapping[str, Tensor],
        after: Mapping[str, Tensor],
        sent: Mapping[str, Tensor] | tuple[str, ...],
        round: int,  # noqa: A002
        *,
        side: Literal["client", "server"] = "client",
    ) -> None:
        """Compare what really moved with what this manifest says.

        See :func:`federated.policy.moved.check_moved`.
        """
        check_moved(self, before, after, sent, round, side=side)

    def apply_to_training(self, model: nn.Module, round: int) -> nn.Module:  # noqa: A002
        """Make a model train as the fates of a round ask.

        See :func:`federated.policy.modes.apply_to_training`.
        """
        return apply_to_training(self, model, round)

    def digest(self) -> str:
        """SHA-256 of the policy and of every tensor's name, role, shape, type and fates."""
        rows = [(e.name, e.role, e.shape, str(e.dtype), e.fates) for e in self.entries]
        text = json.dumps([asdict(self.policy), rows], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def table(self) -> pd.DataFrame:
        """One row for each tensor and phase, as a table of pandas."""
        return frame(self)

    def __str__(self) -> str:
        return show(self)


def _fates(policy: NormPolicy, role: Role, norm: NormTensor | None) -> tuple[Fate, ...]:
    if role == "parameter":
        return tuple("averaged" for _ in policy.phases)
    if role == "buffer":
        return tuple(policy.buffers for _ in policy.phases)
    concerned = norm is not None and (policy.layers == "all" or norm.batch)
    return tuple((phase if concerned else PLAIN).of(role) for phase in policy.phases)


def _check_layers(manifest: Manifest, model: nn.Module) -> None:
    """Merging and freezing statistics must be possible for the layers that hold them."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for entry in manifest.entries:
        if entry.role != "mean":
            continue
        module = modules[entry.module]
        where = f"{entry.module or 'the model'}: {entry.layer}"
        if "merged" in entry.fates and not isinstance(module, _BatchNorm):
            raise InputError(f"{where} is no BatchNorm of torch's; its moments cannot be merged")
        if "frozen" in entry.fates:
            try:
                frozen = isinstance(module, _BatchNorm) and freeze(copy.deepcopy(module))
            except ValueError as error:
                raise InputError(f"{where}: {str(error).lstrip(': ')}") from error
            if not frozen:
                raise InputError(
                    f"{where} cannot normalize with frozen statistics; build it without running "
                    "statistics, or choose a policy that leaves it alone"
                )


def _check_shared(manifest: Manifest, model: nn.Module) -> None:
    """One tensor under two names cannot meet two fates."""
    first: dict[int, Entry] = {}
    state = model.state_dict(keep_vars=True)
    for entry in manifest.entries:
        other = first.setdefault(id(state[entry.name]), entry)
        if other.fates != entry.fates:
            raise InputError(
                f"{other.name} and {entry.name} are one tensor, but would be {other.fates[0]!r} "
                f"and {entry.fates[0]!r}; untie them or choose another policy"
            )
