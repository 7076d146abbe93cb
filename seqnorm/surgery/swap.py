"""Replace the norms of a model, and say what that did to its answers."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from seqnorm import layers
from seqnorm.kinds import parse_norm
from seqnorm.layers.base import SequenceNorm
from seqnorm.surgery.change import Change, answers, compare
from seqnorm.surgery.frozen import MARK, freeze, is_frozen
from seqnorm.surgery.norms import Norm, read, show, walk
from seqnorm.surgery.start import adopt, begin
from seqnorm.text_table import text_table

__all__ = ["Conversion", "Replaced", "convert"]

Builder = Callable[[int, str], nn.Module]


@dataclass(frozen=True)
class Replaced:
    """One norm of a model.

    Attributes
    ----------
    name : str
        Where it is.
    before, after : str
        The layers; ``after`` is empty where the old one was kept.
    note : str
        What could not be kept, or why the layer was not replaced.
    """

    name: str
    before: str
    after: str
    note: str


@dataclass(frozen=True)
class Conversion:
    """What :func:`convert` did.

    Attributes
    ----------
    layers : tuple of Replaced
        Every norm of the model.
    change : Change or None
        On the sample, if there was one.
    """

    layers: tuple[Replaced, ...]
    change: Change | None

    @property
    def replaced(self) -> int:
        """How many norms were replaced."""
        return sum(bool(layer.after) for layer in self.layers)

    def __str__(self) -> str:
        rows = [(r.name or "(model)", r.before, r.after or "kept", r.note) for r in self.layers]
        lines = [text_table(("layer", "before", "after", "note"), rows)]
        lines.append(f"{self.replaced} of {len(self.layers)} norms replaced")
        return "\n".join([*lines, *([str(self.change)] if self.change else [])])


def convert(
    model: nn.Module,
    to: str | Builder,
    *,
    sample: Tensor | Sequence[Any] | None = None,
    start: str = "statistics",
    only: Callable[[str, nn.Module], bool] | None = None,
    inplace: bool = False,
) -> tuple[nn.Module, Conversion]:
    """Replace the norms of a model by others that begin with the same weights.

    Parameters
    ----------
    model : torch.nn.Module
        With norms of torch, read as its layers read their input: LayerNorm and RMSNorm
        ``(N, L, C)``, all others ``(N, C, L)``; or with norms of this package.
    to : str or callable
        A kind of :func:`seqnorm.make_norm`, such as ``"group:8"``; ``"same"`` for the twin in
        this package, which takes lengths; or ``function(channels, layout)`` that builds a layer.
    sample : Tensor or sequence, optional
        Input of the model, or the arguments of its call: the report then says how the answers
        changed in evaluation mode.
    start : {"statistics", "copy"}
        How a layer that replaces one with running statistics begins. ``"statistics"`` folds them
        into weight and bias, so that the function is the same on an input whose sequences have
        these statistics; the formula is in :mod:`seqnorm.surgery.start`. ``"copy"`` keeps weight
        and bias as they are.
    only : callable, optional
        ``function(name, module)``, True for norms to replace.
    inplace : bool
        Change the model itself instead of a copy. Weights and biases stay the same objects, so
        that an optimizer keeps its hold on them.

    Returns
    -------
    model : torch.nn.Module
        In place it is the model given, unless that is a norm itself.
    report : Conversion
        Every norm, what became of it, and the change on ``sample``; ``print(report)``.

    Raises
    ------
    ValueError
        For an unknown kind, groups that do not divide the channels, a builder that gives no
        module, or an activation that the new layer cannot take over. Nothing is replaced then.

    Notes
    -----
    Training mode, device, type, ``eps`` and ``requires_grad`` are kept. Which layer is kept and
    why, and what was lost (a bias that RMSNorm has no room for), is in the report. A new
    BatchNorm in the place of a layer without running statistics has none to evaluate with: call
    :func:`recalibrate`. Behind ``nn.Linear``, where there are no positions, InstanceNorm has no
    meaning: leave such norms out by ``only``.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU()).eval()
    >>> new, report = convert(model, to="group:2", sample=torch.randn(2, 4, 30))
    >>> new[1]
    GroupNorm(2, 8, eps=1e-05, affine=True, bias=True, layout=NCL)
    >>> report.replaced, report.change.largest > 0
    (1, True)
    """
    if start not in ("statistics", "copy"):
        raise ValueError(f"start must be 'statistics' or 'copy', got {start!r}")
    if not isinstance(to, str) and not callable(to):
        raise ValueError(f"to must be a kind of norm, 'same' or a function, got {to!r}")
    if isinstance(to, str) and to != "same":
        parse_norm(to)
    before = None if sample is None else answers(model, sample)
    target = model if inplace else copy.deepcopy(model)
    rows, plan = [], []
    for name, old, places in walk(target):
        norm = "left out by `only`" if only and not only(name, old) else read(old)
        new = None
        if isinstance(norm, Norm) and to == "same":
            new, note = (None, "is ours") if isinstance(old, SequenceNorm) else _twin(old)
        elif isinstance(norm, Norm):
            new, note = _build(name, old, norm, to), ""
        else:
            note = norm
        plan.append((old, norm, new, places))
        rows.append((name, show(old), show(new) if new is not None else "", note))
    weights = (p for module in target.modules() for p in module._parameters.values())
    owners = Counter(id(weight) for weight in weights if weight is not None)
    shared = {key for key, count in owners.items() if count > 1}
    notes = [_replace(*entry, start, shared, same=to == "same") for entry in plan]
    if plan and plan[0][0] is target and plan[0][2] is not None:
        target = plan[0][2]
    _no_fast_path(target)
    replaced = tuple(
        Replaced(name, was, now, note or added)
        for (name, was, now, note), added in zip(rows, notes, strict=True)
    )
    change = None if before is None or sample is None else compare(before, answers(target, sample))
    return target, Conversion(replaced, change)


def _build(name: str, old: Any, norm: Norm, to: str | Builder) -> nn.Module:
    try:
        if isinstance(to, str):
            new = layers.make_norm(to, norm.channels, norm.layout)
        else:
            new = to(norm.channels, norm.layout)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if not isinstance(new, nn.Module):
        raise ValueError(f"{name}: `to` gave {type(new).__name__}, not a module")
    activation = getattr(old, "activation", None)
    if activation is not None and not isinstance(new, SequenceNorm):
        raise ValueError(
            f"{name}: the norm applies {activation!r} itself, and {type(new).__name__} has no "
            "room for that; build the layer with it, or take it out of the old one"
        )
    return new


def _twin(old: Any) -> tuple[nn.Module | None, str]:
    """Our layer in the place of torch's; it takes over all numbers as they are."""
    if isinstance(old, nn.SyncBatchNorm):
        return None, "call seqnorm.convert_sync_batchnorm"
    new: nn.Module
    if isinstance(old, nn.BatchNorm1d):
        new = layers.BatchNorm1d(old.num_features, affine=False, track_running_stats=False)
    elif isinstance(old, nn.InstanceNorm1d):
        new = layers.InstanceNorm1d(old.num_features)
    elif isinstance(old, nn.GroupNorm):
        new = layers.GroupNorm(old.num_groups, old.num_channels, affine=False)
    elif isinstance(old, nn.LayerNorm):
        new = layers.LayerNorm(old.normalized_shape, elementwise_affine=False, layout="NLC")
    else:
        new = layers.RMSNorm(old.normalized_shape, elementwise_affine=False, layout="NLC")
    return new, ""


def _replace(
    old: Any,
    norm: Norm | str,
    new: Any,
    places: list[tuple[nn.Module, str]],
    start: str,
    shared: set[int],
    same: bool,
) -> str:
    """Give a new layer the old one's state and put it in its places."""
    if new is None or isinstance(norm, str):
        return ""
    if same:
        ours = new.__dict__.copy()
        new.__dict__.update(old.__dict__)
        new.__dict__.update({key: ours[key] for key in ours if key not in old.__dict__})
        note = ""
    else:
        # Statistics are those of one layer: weights that they are folded into cannot be shared.
        keeps = start == "copy" or norm.mean is None or _running(new)
        alone = adopt(old, new, set() if keeps else shared)
        for key in ("activation", "frozen", "on_single", "momentum"):
            if hasattr(new, key) and hasattr(old, key):
                setattr(new, key, getattr(old, key))
        if norm.eps is not None and hasattr(new, "eps"):
            new.eps = norm.eps
        notes = [begin(norm, new, start)]
        if getattr(old, "num_batches_tracked", None) is not None and _running(new):
            new.num_batches_tracked.copy_(old.num_batches_tracked)
        notes += [f"{name} is shared no more" for name in alone]
        notes += ["hooks dropped"] if old._forward_hooks or old._forward_pre_hooks else []
        note = "; ".join(filter(None, notes))
    new.train(old.training)
    if is_frozen(old) and isinstance(new, nn.BatchNorm1d) and _running(new):
        freeze(new.train(places[0][0].training if places else old.training))
        new.__dict__.update({key: old.__dict__[key] for key in (MARK,) if key in old.__dict__})
    for parent, key in places:
        parent._modules[key] = new
    return note


def _running(norm: nn.Module) -> bool:
    return getattr(norm, "num_batches_tracked", None) is not None


def _no_fast_path(model: nn.Module) -> None:
    """Keep torch's Transformer from reading a norm's weights and computing a LayerNorm itself."""
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            if any(type(norm) is not nn.LayerNorm for norm in (module.norm1, module.norm2)):
                module.activation_relu_or_gelu = 0
        elif isinstance(module, nn.TransformerEncoder):
            # Of all its layers: one that is called in full cannot read what the fast ones pass on.
            norms = [getattr(m, name, None) for m in module.layers for name in ("norm1", "norm2")]
            if any(type(norm) is not nn.LayerNorm for norm in norms):
                module.use_nested_tensor = False
