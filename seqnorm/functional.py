"""The one operation: pick which numbers share a mean and a variance, then apply an affine map.

=========  =================================================  ==============================
``over``   a mean and variance for each                       the literature's name
=========  =================================================  ==============================
``"L"``    channel of each sequence                           InstanceNorm (Ulyanov 2016)
``"C"``    position of each sequence                          LayerNorm, per position
``"CL"``   sequence, or group of its channels                 LayerNorm per sequence (Ba
                                                              2016), GroupNorm (Wu & He 2018)
``"NL"``   channel                                            BatchNorm (Ioffe & Szegedy 2015)
=========  =================================================  ==============================

Sources: arXiv:1607.08022, arXiv:1607.06450, arXiv:1803.08494, arXiv:1502.03167.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from seqnorm.backends import aten, express, ops, reference
from seqnorm.backends.choice import choose
from seqnorm.backends.plan import ACTIVATIONS, Inputs, Plan, Statistics, compute_dtype, outside
from seqnorm.moments import Moments

__all__ = [
    "LAYOUTS",
    "OVER",
    "checked_lengths",
    "concrete",
    "normalize",
    "normalize_with_moments",
    "valid_positions",
]

OVER = ("L", "C", "CL", "NL")
LAYOUTS = ("NCL", "NLC")


def normalize(
    x: Tensor,
    over: str,
    *,
    lengths: Tensor | None = None,
    groups: int = 1,
    center: bool = True,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    layout: str = "NCL",
    mean: Tensor | None = None,
    var: Tensor | None = None,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """Normalize sequences over named axes; ``activation(norm(x) * weight + bias + residual)``.

    Parameters
    ----------
    x : Tensor
        ``(N, C, L)`` or ``(N, L, C)``, see ``layout``; any floating-point type. Statistics are
        taken in float32 (float64 for float64 input) whatever the type.
    over : {"L", "C", "CL", "NL"}
        The axes whose numbers share one mean and variance; see the table of this module.
    lengths : Tensor, optional
        Integers ``(N,)``, the valid positions at the start of each sequence, or booleans
        ``(N, L)``, True where valid. Other positions have no influence, come out 0 and get
        gradient 0, whatever they hold. None: all positions are valid.
    groups : int
        Cuts the channels into groups of neighbours with statistics of their own, for ``over``
        ``"C"`` and ``"CL"``.
    center : bool
        False leaves the mean in and divides by the root mean square (RMSNorm).
    weight, bias : Tensor, optional
        ``(C,)``; the affine map per channel that follows.
    eps : float
        Added to the variance.
    layout : {"NCL", "NLC"}
        Order of the axes of ``x``.
    mean, var : Tensor, optional
        ``(C,)``, both or neither: known statistics to use in place of the input's own, for
        ``over`` ``"L"`` and ``"NL"``.
    activation : {"relu", "gelu"}, optional
        Applied last, in the same pass over memory where the backend can; GELU in its exact form.
    residual : Tensor, optional
        Of the shape of ``x``: added before the activation, as in residual networks.

    Returns
    -------
    Tensor
        Of the shape and type of ``x``. Where a set holds a single number the output is ``bias``.

    Raises
    ------
    ValueError
        If an argument has a wrong value, shape or type; the message names the value and the
        remedy. Values of ``lengths`` are not checked while a graph is traced or vmapped.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[[1.0, 3.0, 9.0]], [[2.0, 4.0, 6.0]]])
    >>> normalize(x, "L", lengths=torch.tensor([2, 3]), eps=0.0).round(decimals=2)
    tensor([[[-1.0000,  1.0000,  0.0000]],
    <BLANKLINE>
            [[-1.2200,  0.0000,  1.2200]]])
    """
    plan = _plan(x, over, layout, groups, center, eps, activation)
    _check(x, plan, weight, bias, residual, mean, var)
    if mean is None:
        _check_shape(lengths, x, plan)
        if (found := express.normalize(x, lengths, weight, bias, residual, plan)) is not None:
            return found[0]
    y, _ = _run(x, plan, lengths, weight, bias, residual, mean, var)
    return y


def normalize_with_moments(
    x: Tensor,
    over: str,
    *,
    lengths: Tensor | None = None,
    groups: int = 1,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    layout: str = "NCL",
    activation: str | None = None,
    residual: Tensor | None = None,
) -> tuple[Tensor, Moments]:
    """:func:`normalize` that also returns the moments it used.

    Parameters
    ----------
    x, over, lengths, groups, weight, bias, eps, layout, activation, residual
        As for :func:`normalize`.

    Returns
    -------
    y : Tensor
        As from :func:`normalize`.
    moments : Moments
        Over valid positions, outside the graph of derivatives. Shapes: ``"L"`` ``(N, C)``;
        ``"NL"`` ``(C,)``; ``"CL"`` ``(N, groups)``; ``"C"`` ``(N, groups, L)``, or
        ``(N, L, groups)`` when the layout is ``"NLC"``.

    Examples
    --------
    >>> import torch
    >>> y, moments = normalize_with_moments(torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]]]), "NL")
    >>> moments.mean.tolist(), moments.var().tolist()
    ([4.0], [5.0])
    """
    plan = _plan(x, over, layout, groups, True, eps, activation)
    _check(x, plan, weight, bias, residual, None, None)
    _check_shape(lengths, x, plan)
    if (found := express.normalize(x, lengths, weight, bias, residual, plan)) is not None:
        return found[0], ops.moments(found[1], found[2], x, lengths, plan)
    y, moments = _run(x, plan, lengths, weight, bias, residual, None, None)
    return y, moments()


def valid_positions(
    lengths: Tensor | None, batch: int, length: int, device: torch.device | None = None
) -> Tensor | None:
    """Turn ``lengths`` into a mask.

    Parameters
    ----------
    lengths : Tensor or None
        Integers ``(N,)`` or booleans ``(N, L)``.
    batch, length : int
        N and L of the input.
    device : torch.device, optional
        Where the mask is needed; lengths on the CPU spare a CUDA input a synchronization.

    Returns
    -------
    Tensor of bool or None
        ``(N, L)``, True at valid positions; None for None.

    Raises
    ------
    ValueError
        For another type or shape, or values outside 0..L.

    Examples
    --------
    >>> import torch
    >>> valid_positions(torch.tensor([1, 3]), batch=2, length=3)
    tensor([[ True, False, False],
            [ True,  True,  True]])
    """
    lengths = checked_lengths(lengths, batch, length, device)
    if lengths is None or lengths.dtype == torch.bool:
        return lengths
    return torch.arange(length, device=device) < lengths.to(device)[:, None]


def checked_lengths(
    lengths: Tensor | None, batch: int, length: int, device: torch.device | None = None
) -> Tensor | None:
    """Check ``lengths`` as :func:`valid_positions` does, but leave them what they are.

    Returns
    -------
    Tensor or None
        Integers ``(N,)`` or booleans ``(N, L)`` on ``device``.
    """
    if lengths is None:
        return None
    _check_lengths(lengths, batch, length)
    if lengths.dtype != torch.bool:
        _check_range(lengths, length)
    return lengths.to(device)


def _check_lengths(lengths: Tensor, batch: int, length: int) -> None:
    if not isinstance(lengths, Tensor):
        raise ValueError(f"lengths must be a tensor, got {type(lengths).__name__}")
    if lengths.is_floating_point() or lengths.is_complex():
        raise ValueError(
            f"lengths must hold integers (N,) or booleans (N, L), got {lengths.dtype}; "
            "pass lengths.long(), or mask.bool() for a mask"
        )
    expected = (batch, length) if lengths.dtype == torch.bool else (batch,)
    if tuple(lengths.shape) != expected:
        raise ValueError(
            f"lengths of type {lengths.dtype} must have shape {expected} for an input with "
            f"N={batch} and L={length}, got {tuple(lengths.shape)}"
        )


def concrete(value: Tensor) -> int | None:
    """The integer in a one-element tensor, or None where values cannot be looked at.

    That is so while torch.compile or torch.export trace, under ``vmap`` and for meta and fake
    tensors: checks that depend on values are then left out, not the computation.
    """
    if torch.compiler.is_compiling():
        return None
    try:
        return int(value)
    except RuntimeError:
        return None


def _check_range(lengths: Tensor, length: int) -> None:
    if lengths.numel() == 0:
        return
    least, most = lengths.aminmax()
    if (low := concrete(least)) is None or (low >= 0 and int(most) <= length):
        return
    raise ValueError(outside(lengths, length))


def _plan(
    x: Tensor,
    over: str,
    layout: str,
    groups: int,
    center: bool,
    eps: float,
    activation: str | None,
) -> Plan:
    if over not in OVER:
        raise ValueError(f"over must be one of {', '.join(map(repr, OVER))}, got {over!r}")
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(map(repr, LAYOUTS))}, got {layout!r}")
    if x.dim() != 3:
        raise ValueError(
            f"x must have three axes ({', '.join(layout)}), got shape {tuple(x.shape)}"
        )
    if not x.is_floating_point():
        raise ValueError(f"x must be floating point, got {x.dtype}; pass x.float()")
    if groups != 1 and "C" not in over:
        raise ValueError(f"groups={groups} needs over='C' or over='CL', got over={over!r}")
    if activation is not None and activation not in ACTIVATIONS:
        valid = " or ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"activation must be {valid} or None, got {activation!r}")
    plan = Plan(over, layout, groups, center, eps, activation)
    channels = x.shape[plan.channel_axis]
    if groups < 1 or channels % groups:
        raise ValueError(f"groups={groups} does not divide the {channels} channels of x")
    return plan


def _check(
    x: Tensor,
    plan: Plan,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
) -> None:
    channels = x.shape[plan.channel_axis]
    for name, value in (("weight", weight), ("bias", bias), ("mean", mean), ("var", var)):
        if value is not None and tuple(value.shape) != (channels,):
            raise ValueError(
                f"{name} must have shape ({channels},), one value per channel of x, "
                f"got {tuple(value.shape)}; does layout={plan.layout!r} name the axes of x?"
            )
    if residual is not None and residual.shape != x.shape:
        raise ValueError(
            f"residual must have the shape of x, {tuple(x.shape)}, got {tuple(residual.shape)}"
        )
    if (mean is None) != (var is None):
        raise ValueError("mean and var go together: pass both or neither")
    if mean is not None and ("C" in plan.over or not plan.center):
        raise ValueError(
            "mean and var are per channel: they need over='L' or over='NL' and center=True, "
            f"got over={plan.over!r}, center={plan.center}"
        )


def _check_shape(lengths: Tensor | None, x: Tensor, plan: Plan) -> None:
    """Check all of lengths but their values, which the kernels look at themselves."""
    if lengths is not None:
        _check_lengths(lengths, x.shape[0], x.shape[3 - plan.channel_axis])


def _run(
    x: Tensor,
    plan: Plan,
    lengths: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
) -> tuple[Tensor, Callable[[], Moments]]:
    """Pick a backend and call it; the moments are worked out when asked for."""
    batch, length = x.shape[0], x.shape[3 - plan.channel_axis]
    valid = checked_lengths(lengths, batch, length, x.device)
    learn = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (mean, var))
    name = choose(x, plan, valid is not None, mean is not None, learn)
    if name in ("native", "triton"):
        return _by_kernels(x, plan, valid, weight, bias, residual, mean, var)
    mask = valid_positions(valid, batch, length, x.device)
    wide = compute_dtype(x)
    inputs = Inputs(
        plan.split(x.to(wide)),
        None if weight is None else plan.per_channel(weight.to(wide)),
        None if bias is None else plan.per_channel(bias.to(wide)),
        None if mask is None else plan.per_position(mask),
        None if residual is None else plan.split(residual.to(wide)),
    )
    statistics: Statistics | None = None
    if mean is not None and var is not None:
        known = [plan.per_channel(t.to(wide)) for t in (mean, var)]
        y = reference.standardize_given(plan, inputs, known[0], known[1])
    elif not plan.center:
        y = reference.divide_by_rms(plan, inputs)
    elif name == "aten" and plan.over == "NL":
        y, statistics = aten.batch_statistics(plan, inputs)
    elif name == "aten":
        y = aten.standardize(plan, inputs)
    else:
        y, statistics = reference.standardize(plan, inputs)

    def moments() -> Moments:
        found = statistics or reference.standardize(plan, inputs)[1]
        return found.moments(plan)

    return plan.join(y).to(x.dtype), moments


def _by_kernels(
    x: Tensor,
    plan: Plan,
    valid: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
) -> tuple[Tensor, Callable[[], Moments]]:
    flipped = not x.is_contiguous() and x.transpose(1, 2).is_contiguous()
    if flipped:
        # A transposed view: work in the order in which the numbers lie, and copy nothing.
        plan = dataclasses.replace(plan, layout=LAYOUTS[1 - LAYOUTS.index(plan.layout)])
        x = x.transpose(1, 2)
        residual = None if residual is None else residual.transpose(1, 2)
    wide = compute_dtype(x)
    y, found_mean, found_var = ops.normalize(
        x,
        valid,
        None if weight is None else weight.to(wide),
        None if bias is None else bias.to(wide),
        None if residual is None else residual.to(x.dtype),
        None if mean is None else mean.detach().to(torch.float64),
        None if var is None else var.detach().to(torch.float64),
        plan,
    )

    def moments() -> Moments:
        found = ops.moments(found_mean, found_var, x, valid, plan)
        return found.transposed() if flipped and plan.over == "C" else found

    return y.transpose(1, 2) if flipped else y, moments
