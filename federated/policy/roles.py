"""Find the tensors of norm layers and say what each is: by the type of its layer, never by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import is_parametrized

import seqnorm
from data_tools.errors import InputError
from federated.policy.fates import NORM_ROLES, NormRole
from seqnorm.layers.base import SequenceNorm

__all__ = ["NormTensor", "norm_tensors", "register_norm", "tensors_of"]

_AFFINE: dict[str, NormRole | None] = {"weight": "gamma", "bias": "beta"}
_RUNNING: dict[str, NormRole | None] = _AFFINE | {
    "running_mean": "mean",
    "running_var": "variance",
    "num_batches_tracked": "counter",
}
_KNOWN: dict[type[nn.Module], Mapping[str, NormRole | None]] = {
    _NormBase: _RUNNING,
    nn.LayerNorm: _AFFINE,
    nn.GroupNorm: _AFFINE,
    nn.RMSNorm: _AFFINE,
    SequenceNorm: _AFFINE,
    # The threshold of the output takes the place of an offset; eps is a part of the scale.
    seqnorm.FilterResponseNorm1d: {"tau": "beta", "learned_eps": "gamma"},
    seqnorm.DynamicTanh: {"alpha": "gamma"},
    seqnorm.QKNorm: {"query_weight": "gamma", "key_weight": "gamma", "scale": "gamma"},
    # Its filters are those of the convolution that it stands for.
    seqnorm.BackgroundNorm: _AFFINE | {"filters": None},
}
_BATCH: set[type[nn.Module]] = {_BatchNorm, seqnorm.DomainBatchNorm1d}


class NormTensor(NamedTuple):
    """A tensor of a norm layer.

    Attributes
    ----------
    module : str
        Path of the layer in the model; empty if the model is the layer.
    type : str
        Name of the layer's class.
    role : {"gamma", "beta", "mean", "variance", "counter"}
        Scale, offset, running mean, running variance, number of batches.
    batch : bool
        Whether the layer is of the BatchNorm family.
    """

    module: str
    type: str
    role: NormRole
    batch: bool


def register_norm(
    kind: type[nn.Module], roles: Mapping[str, NormRole | None], *, batch: bool = False
) -> None:
    """Make a norm layer known, so that policies treat its tensors as those of a norm.

    Parameters
    ----------
    kind : type
        The layer's class. A subclass inherits the roles; of those that it registers itself only
        what is new or other need be said.
    roles : mapping
        Name of each parameter and buffer that the layer itself holds to its role; None for one
        that has nothing to do with normalizing.
    batch : bool
        Whether the layer is of the BatchNorm family, which policies such as FedBN are about.

    Raises
    ------
    InputError
        For what is no module type, or a role that does not exist.

    Examples
    --------
    >>> import torch
    >>> class ScaleNorm(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.g = nn.Parameter(torch.ones(1))
    >>> register_norm(ScaleNorm, {"g": "gamma"})
    >>> norm_tensors(nn.Sequential(ScaleNorm()))["0.g"].role
    'gamma'
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)) or kind is nn.Module:
        raise InputError(f"a norm layer is a subclass of torch.nn.Module, got {kind!r}")
    for name, role in roles.items():
        if role is not None and role not in NORM_ROLES:
            valid = ", ".join(NORM_ROLES)
            raise InputError(f"{kind.__name__}.{name}: no role {role!r}; valid: {valid}, None")
    _KNOWN[kind] = dict(roles)
    (_BATCH.add if batch else _BATCH.discard)(kind)


def norm_tensors(model: nn.Module) -> dict[str, NormTensor]:
    """All tensors of the norm layers of a model.

    Parameters
    ----------
    model : torch.nn.Module
        The bare model: a wrapper (DistributedDataParallel, ``torch.compile``) puts its prefix
        (``module.``, ``_orig_mod.``) before the names, here as in its ``state_dict``, and names
        must be the same at all clients. Hand over ``model.module`` or ``model._orig_mod``.

    Returns
    -------
    dict of str to NormTensor
        By the names of ``model.state_dict()``, in its order. A layer that hangs in several places
        is listed once for each, as in the ``state_dict``; what parametrizations hold has the role
        of the tensor that they make.

    Raises
    ------
    InputError
        For a norm with a tensor whose role is not known, or without shapes as yet; names it.

    Notes
    -----
    Known are the norms of torch and of seqnorm, their subclasses, and those given to
    :func:`register_norm`. Weight-standardized convolutions have no tensors of a norm. FiLM's
    linear map is a network of its own, not the scale of a norm; the norm inside is found.

    Examples
    --------
    >>> found = norm_tensors(nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8)))
    >>> {name: tensor.role for name, tensor in found.items()}  # doctest: +NORMALIZE_WHITESPACE
    {'1.weight': 'gamma', '1.bias': 'beta', '1.running_mean': 'mean', '1.running_var': 'variance',
     '1.num_batches_tracked': 'counter'}
    """
    found: dict[str, NormTensor] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        roles = _roles(type(module))
        if roles is None:
            continue
        batch = isinstance(module, tuple(_BATCH))
        for key, value in tensors_of(module).items():
            name = f"{path}.{key}" if path else key
            if is_lazy(value):
                raise InputError(
                    f"{name} has no shape before the layer's first call; call the model once before"
                )
            made = key.split(".")[1] if key.startswith("parametrizations.") else key
            if made not in roles:
                raise InputError(
                    f"{name}: the role of this tensor of a {_shown(module)} is not known; say it "
                    f"with federated.policy.register_norm({_shown(module)}, {{{made!r}: ...}})"
                )
            role = roles[made]
            if role is not None:
                found[name] = NormTensor(path, _shown(module), role, batch)
    return {name: found[name] for name in model.state_dict() if name in found}


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers of a module itself, with those of its parametrizations."""
    held = {**module._parameters, **module._buffers}
    own = {
        key: value
        for key, value in held.items()
        if value is not None and key not in module._non_persistent_buffers_set
    }
    if is_parametrized(module):
        inner = module.get_submodule("parametrizations").state_dict(keep_vars=True)
        own |= {f"parametrizations.{key}": value for key, value in inner.items()}
    return own


def _roles(kind: type) -> Mapping[str, NormRole | None] | None:
    """Of all bases that are known; the nearest decides."""
    known = [_KNOWN[base] for base in reversed(kind.__mro__) if base in _KNOWN]
    return {key: role for roles in known for key, role in roles.items()} if known else None


def _shown(module: nn.Module) -> str:
    """Name of a layer's class, without what a parametrization puts before it."""
    name = type(module).__name__
    return name.removeprefix("Parametrized") if is_parametrized(module) else name
