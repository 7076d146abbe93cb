"""Freeze the statistics of BatchNorm, so that ``train()`` does not wake them."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from seqnorm.layers import BatchNorm1d

__all__ = [
    "MARK",
    "FrozenBatchNorm1d",
    "FrozenBatchNorm2d",
    "FrozenBatchNorm3d",
    "freeze",
    "is_frozen",
    "unfreeze",
]


class _Frozen:
    """Evaluation mode whatever ``train()`` says."""

    def train(self: Any, mode: bool = True) -> Any:
        """Stay in evaluation mode."""
        return super().train(False)  # type: ignore[misc]


class FrozenBatchNorm1d(_Frozen, nn.BatchNorm1d):
    """What :func:`freeze` makes of :class:`torch.nn.BatchNorm1d`; pickled and loaded as such."""


class FrozenBatchNorm2d(_Frozen, nn.BatchNorm2d):
    """What :func:`freeze` makes of :class:`torch.nn.BatchNorm2d`."""


class FrozenBatchNorm3d(_Frozen, nn.BatchNorm3d):
    """What :func:`freeze` makes of :class:`torch.nn.BatchNorm3d`."""


_FROZEN: dict[type[_BatchNorm], type[_BatchNorm]] = {
    nn.BatchNorm1d: FrozenBatchNorm1d,
    nn.BatchNorm2d: FrozenBatchNorm2d,
    nn.BatchNorm3d: FrozenBatchNorm3d,
}
_THAWED = {frozen: plain for plain, frozen in _FROZEN.items()}
MARK = "_frozen_affine"  # names of the parameters that stopped learning


def is_frozen(norm: nn.Module) -> bool:
    """Whether a BatchNorm normalizes with its running statistics whatever the mode."""
    return isinstance(norm, _Frozen) or bool(getattr(norm, "frozen", False))


def freeze(model: nn.Module, *, affine: bool = False) -> nn.Module:
    """Fix the running statistics of every BatchNorm, also in training.

    The layers normalize with them as in evaluation, and ``model.train()`` changes nothing about
    that: for fine-tuning with small batches, or on another domain. Copies and pickles stay
    frozen; ``state_dict`` is as before.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place, so that an optimizer keeps its hold on the parameters.
    affine : bool
        Fix weight and bias too (``requires_grad`` off).

    Returns
    -------
    torch.nn.Module
        The same model.

    Raises
    ------
    ValueError
        For a BatchNorm without running statistics, or a subclass that is not known here; names
        it, and nothing is changed.

    Notes
    -----
    Layers of this package get ``frozen = True``. Those of torch get the class
    :class:`FrozenBatchNorm1d` (2d, 3d), a subclass that stays in evaluation mode.

    Examples
    --------
    >>> import torch
    >>> model = freeze(nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8)))
    >>> y = model.train()(torch.randn(2, 4, 20))
    >>> int(model[1].num_batches_tracked)
    0
    """
    norms = [(name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    for name, norm in norms:
        if norm.running_mean is None:
            raise ValueError(f"{name}: {type(norm).__name__} has no running statistics to fix")
        if not (is_frozen(norm) or isinstance(norm, BatchNorm1d) or type(norm) in _FROZEN):
            raise ValueError(
                f"{name}: {type(norm).__name__} cannot be frozen; make it a BatchNorm1d first "
                "(seqnorm.convert_sync_batchnorm, seqnorm.convert)"
            )
    for _, norm in norms:
        if isinstance(norm, BatchNorm1d):
            norm.frozen = True
        elif type(norm) in _FROZEN:
            norm.__class__ = _FROZEN[type(norm)]
            norm.eval()
        if affine:
            learn = [key for key, value in norm.named_parameters() if value.requires_grad]
            norm.__dict__[MARK] = tuple({*learn, *norm.__dict__.get(MARK, ())})
            for key in learn:
                getattr(norm, key).requires_grad_(False)
    return model


def unfreeze(model: nn.Module) -> nn.Module:
    """Undo :func:`freeze`, in place.

    Each layer takes the mode of the module that it is in; weights that :func:`freeze` fixed learn
    again.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place.

    Returns
    -------
    torch.nn.Module
        The same model.

    Examples
    --------
    >>> model = nn.Sequential(nn.BatchNorm1d(8))
    >>> unfreeze(freeze(model, affine=True))[0].training
    True
    """
    parents = {child: parent for parent in model.modules() for child in parent.children()}
    for norm in model.modules():
        if not isinstance(norm, _BatchNorm):
            continue
        if isinstance(norm, BatchNorm1d):
            norm.frozen = False
        elif type(norm) in _THAWED:
            norm.__class__ = _THAWED[type(norm)]
            norm.training = parents[norm].training if norm in parents else True
        for key in norm.__dict__.pop(MARK, ()):
            getattr(norm, key).requires_grad_(True)
    return model
