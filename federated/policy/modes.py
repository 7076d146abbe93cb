"""Make a model train as the fates of a round ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from seqnorm import freeze, unfreeze
from seqnorm.surgery.frozen import is_frozen

if TYPE_CHECKING:
    from federated.policy.manifest import Manifest

__all__ = ["apply_to_training"]

_FIXED = "_fixed_by_policy"
_STILL = "_statistics_fixed_by_policy"


def apply_to_training(
    manifest: Manifest,
    model: nn.Module,
    round: int,  # noqa: A002
) -> nn.Module:
    """Fix what is frozen in a round, and free what this function had fixed for an earlier one.

    Parameters
    ----------
    manifest : Manifest
        Of this model.
    model : torch.nn.Module
        Changed in place.
    round : int
        Counted from 1.

    Returns
    -------
    torch.nn.Module
        The same model. Frozen weights have ``requires_grad`` off. A BatchNorm whose statistics are
        frozen normalizes with them and leaves them alone, also after ``model.train()``
        (:func:`seqnorm.freeze`), while the rest trains. Calling this twice is calling it once.

    Notes
    -----
    Build the optimizer afterwards: weight decay, which knows nothing of gradients, would otherwise
    move what is frozen. What the user had fixed or frozen stays so.

    Examples
    --------
    >>> from federated.policy import parse_policy
    >>> model = nn.Sequential(nn.BatchNorm1d(8))
    >>> manifest = parse_policy("fixbn:5").manifest(model)
    >>> [manifest.apply_to_training(model, r).train()[0].training for r in (4, 5)]
    [True, False]
    """
    frozen = set(manifest.frozen(round))
    modules = dict(model.named_modules(remove_duplicate=False))
    for entry in manifest.entries:
        if entry.role == "mean":
            _hold(modules[entry.module], entry.name in frozen, model.training)
    mine: set[str] = model.__dict__.get(_FIXED, set())
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in mine - frozen:
        parameters[name].requires_grad_(True)
    new = {name for name in frozen & parameters.keys() if parameters[name].requires_grad}
    for name in new:
        parameters[name].requires_grad_(False)
    model.__dict__[_FIXED] = (mine & frozen) | new
    return model


def _hold(norm: nn.Module, still: bool, training: bool) -> None:
    """Freeze a norm's statistics or, if that was done here, thaw them into the model's mode."""
    if still and not is_frozen(norm):
        freeze(norm)
        norm.__dict__[_STILL] = True
    elif not still and norm.__dict__.pop(_STILL, False):
        unfreeze(norm).train(training)
