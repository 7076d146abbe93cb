"""Fused normalization as operators of torch, with derivatives; kernels: `native`, `triton`.

Each backend with kernels offers ``forward`` and ``backward`` with one contract:

``forward(x, valid, weight, bias, residual, mean, var, plan) -> y, mean, var``
    ``activation(standardized x * weight + bias + residual)``, zeros at padded positions. ``valid``
    is None, int64 ``(N,)`` lengths or a boolean ``(N, L)`` mask; weight and bias are ``(C,)`` in
    the compute type, mean and var float64 in the shape of the sets (:meth:`Plan.sets`). Given mean
    and var, ``(C,)``, are used in place of the input's own. An empty set has mean and var 0.
``backward(grad, x, mean, var, valid, weight, bias, residual, plan, given)``
    Gradients of x, of the residual, and *per sample* ``(N, C)`` of weight and bias.

They are registered as ``torch.ops.seqnorm.normalize`` and ``normalize_backward`` with rules for
shapes, so that graphs are traced through them, and for batches of calls (``vmap``). Derivatives
hang on an ``autograd.Function`` around them, since a formula registered with the operator would
not compose with ``torch.func``; derivatives of the gradient are taken of the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqnorm.backends import native, reference
from seqnorm.backends.plan import Inputs, Plan, compute_dtype
from seqnorm.moments import Moments

__all__ = ["moments", "normalize"]

Outputs = tuple[Tensor, Tensor, Tensor]
Gradients = tuple[Tensor, Tensor, Tensor, Tensor]

_PLAN = "str over, str layout, int groups, bool center, float eps, str? activation"
_LIBRARY = torch.library.Library("seqnorm", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "normalize(Tensor x, Tensor? valid, Tensor? weight, Tensor? bias, Tensor? residual, "
    f"Tensor? mean, Tensor? var, {_PLAN}) -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_LIBRARY.define(  # type: ignore[no-untyped-call]
    "normalize_backward(Tensor grad, Tensor x, Tensor mean, Tensor var, Tensor? valid, "
    f"Tensor? weight, Tensor? bias, Tensor? residual, bool given, {_PLAN}) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def normalize(
    x: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    plan: Plan,
) -> Outputs:
    """Normalize with the kernels of x's device, differentiably; see the module's contract."""
    tensors = (x, valid, weight, bias, residual, mean, var)
    if torch._C._are_functorch_transforms_active():
        return _Transformed.apply(*tensors, *fields(plan))  # type: ignore[no-any-return, no-untyped-call]
    if not (torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)):
        return _operator("normalize", _forward)(*tensors, *fields(plan))  # type: ignore[no-any-return]
    return _Eager.apply(*tensors, *fields(plan))  # type: ignore[no-any-return, no-untyped-call]


def moments(mean: Tensor, var: Tensor, x: Tensor, valid: Tensor | None, plan: Plan) -> Moments:
    """Statistics that :func:`normalize` returned, as moments with their counts."""
    n, channels, length = (x.shape[i] for i in (0, plan.channel_axis, 3 - plan.channel_axis))
    group = channels // plan.groups
    if valid is None:
        size = {"L": length, "NL": n * length, "CL": group * length, "C": group}[plan.over]
        return Moments(torch.full_like(mean, size), mean, var * size)
    if plan.over == "C":
        count = _mask(valid, x, plan) * group
    else:
        count = valid.sum(1) if valid.dtype == torch.bool else valid
        count = {"L": count[:, None], "NL": count.sum(), "CL": count[:, None] * group}[plan.over]
    count = count.to(mean.dtype).expand_as(mean)
    return Moments(count, mean, var * count)


def _mask(valid: Tensor, x: Tensor, plan: Plan) -> Tensor:
    """Valid positions in the shape of statistics over C."""
    if valid.dtype != torch.bool:
        positions = torch.arange(x.shape[3 - plan.channel_axis], device=x.device)
        valid = positions < valid[:, None]
    return valid.unsqueeze(plan.channel_axis)


def fields(plan: Plan) -> tuple[Any, ...]:
    """A plan as the operators take it."""
    return plan.over, plan.layout, plan.groups, plan.center, plan.eps, plan.activation


# --- kernels --------------------------------------------------------------------------------


def _kernels(x: Tensor) -> Any:
    if not x.is_cuda:
        return native
    from seqnorm.backends import triton

    return triton


def _forward(
    x: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    *fields: Any,
) -> Outputs:
    given = mean is not None
    tensors = (x.contiguous(), valid, weight, bias, residual, mean, var)
    y, mean, var = _kernels(x).forward(*tensors, Plan(*fields))
    # An operator must not return its own inputs.
    return (y, mean.clone(), var.clone()) if given else (y, mean, var)


def _backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    given: bool,
    *fields: Any,
) -> Gradients:
    tensors = (grad.to(x.dtype).contiguous(), x.contiguous(), mean, var, valid, weight, bias)
    found = _kernels(x).backward(*tensors, residual, Plan(*fields), given)
    grad_x, grad_residual, grad_weight, grad_bias = found
    return (
        grad_x,
        x.new_empty(0) if grad_residual is None else grad_residual,
        grad_weight,
        grad_bias,
    )


for _device in ("CPU", "CUDA"):
    _LIBRARY.impl("normalize", _forward, _device)  # type: ignore[no-untyped-call]
    _LIBRARY.impl("normalize_backward", _backward, _device)  # type: ignore[no-untyped-call]


# --- shapes ---------------------------------------------------------------------------------


@torch.library.register_fake("seqnorm::normalize", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _shapes(x: Tensor, *arguments: Any) -> Outputs:
    mean, plan = arguments[4], Plan(*arguments[6:])
    sets = plan.sets(x) if mean is None else mean.shape
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    return y, x.new_empty(sets, dtype=torch.float64), x.new_empty(sets, dtype=torch.float64)


@torch.library.register_fake("seqnorm::normalize_backward", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _backward_shapes(grad: Tensor, x: Tensor, *arguments: Any) -> Gradients:
    residual, plan = arguments[5], Plan(*arguments[7:])
    rows = (x.shape[0], x.shape[plan.channel_axis])
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return (
        grad_x,
        x.new_empty(0) if residual is None else torch.empty_like(grad_x),
        x.new_empty(rows, dtype=compute_dtype(x)),
        x.new_empty(rows, dtype=compute_dtype(x)),
    )


# --- batches of calls -----------------------------------------------------------------------


def _call_each(op: Any, size: int, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]) -> Any:
    """One call for each; where what is shared, weights say, differs between the calls."""
    calls = [
        op(*(a if d is None else a.select(d, i) for a, d in zip(arguments, in_dims, strict=True)))
        for i in range(size)
    ]
    return tuple(torch.stack(outputs) for outputs in zip(*calls, strict=True))


def _fold(t: Tensor | None, dim: int | None, size: int) -> Tensor | None:
    """Make the batch of calls part of the batch of sequences."""
    if t is None:
        return None
    t = t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
    return t.flatten(0, 1)


def _vmap_forward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
    size, op = info.batch_size, torch.ops.seqnorm.normalize
    given, over = arguments[5] is not None, arguments[7]
    shared = all(dim is None for dim in (*in_dims[2:4], *in_dims[5:7]))
    if not shared or (over == "NL" and not given):
        return _call_each(op, size, in_dims, arguments), (0, 0, 0)
    x, valid, residual = (_fold(arguments[i], in_dims[i], size) for i in (0, 1, 4))
    y, mean, var = op(x, valid, *arguments[2:4], residual, *arguments[5:])
    y = y.unflatten(0, (size, -1))
    if given:
        return (y, mean, var), (0, None, None)
    return (y, mean.unflatten(0, (size, -1)), var.unflatten(0, (size, -1))), (0, 0, 0)


def _vmap_backward(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
    size, op = info.batch_size, torch.ops.seqnorm.normalize_backward
    given, over = arguments[8], arguments[9]
    statistics_shared = in_dims[2] is None and in_dims[3] is None
    shared = all(dim is None for dim in in_dims[5:7]) and (statistics_shared or not given)
    if not shared or (over == "NL" and not given):
        return _call_each(op, size, in_dims, arguments), (0, 0, 0, 0)
    grad, x, valid, residual = (_fold(arguments[i], in_dims[i], size) for i in (0, 1, 4, 7))
    statistics = [arguments[i] if given else _fold(arguments[i], in_dims[i], size) for i in (2, 3)]
    found = op(grad, x, *statistics, valid, *arguments[5:7], residual, *arguments[8:])
    grad_x, grad_residual, grad_weight, grad_bias = found
    if residual is not None:
        grad_residual = grad_residual.unflatten(0, (size, -1))
    rows = [t.unflatten(0, (size, -1)) for t in (grad_x, grad_weight, grad_bias)]
    dims = (0, None if residual is None else 0, 0, 0)
    return (rows[0], grad_residual, rows[1], rows[2]), dims


torch.library.register_vmap("seqnorm::normalize", _vmap_forward, lib=_LIBRARY)
torch.library.register_vmap("seqnorm::normalize_backward", _vmap_backward, lib=_LIBRARY)


# --- derivatives ----------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    x, valid, weight, bias, residual, mean, _, *fields = inputs
    _, found_mean, found_var = output
    ctx.mark_non_differentiable(found_mean, found_var)
    ctx.save_for_backward(x, found_mean, found_var, valid, weight, bias, residual)
    ctx.rest = (mean is not None, *fields)


def pull_back(ctx: Any, rest: tuple[Any, ...], grad: Tensor | None) -> Any:
    """Gradients of x, valid, weight, bias, residual and whatever else was given, in that order."""
    if grad is None:
        return (None,) * len(ctx.needs_input_grad)
    arguments = (grad, *ctx.saved_tensors, *rest)
    if torch.is_grad_enabled():
        found = _TransformedBackward.apply(*arguments)  # type: ignore[no-untyped-call]
    else:
        found = _operator("normalize_backward", _backward)(*arguments)
    grad_x, grad_residual, grad_weight, grad_bias = found
    needs = ctx.needs_input_grad
    return (
        grad_x,
        None,
        grad_weight.sum(0) if needs[2] else None,
        grad_bias.sum(0) if needs[3] else None,
        grad_residual if needs[4] else None,
        *(None for _ in needs[5:]),
    )


def _operator(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
    """The operator where a graph is traced; else the kernel, without the way through torch."""
    if torch.compiler.is_compiling():
        return getattr(torch.ops.seqnorm, name)  # type: ignore[no-any-return]
    return kernel


class _Eager(torch.autograd.Function):
    """``torch.ops.seqnorm.normalize`` with its gradient."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Outputs:
        output: Outputs = _operator("normalize", _forward)(*arguments)
        _keep(ctx, arguments, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return pull_back(ctx, ctx.rest, grads[0])


class _Transformed(torch.autograd.Function):
    """The same for ``torch.func``, whose transforms need forward and context apart."""

    generate_vmap_rule = True
    setup_context = staticmethod(_keep)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return pull_back(ctx, ctx.rest, grads[0])

    @staticmethod
    def forward(*arguments: Any) -> Outputs:
        return torch.ops.seqnorm.normalize(*arguments)  # type: ignore[no-any-return]


class _TransformedBackward(torch.autograd.Function):
    """``torch.ops.seqnorm.normalize_backward`` with a gradient, from the reference."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> Gradients:
        return torch.ops.seqnorm.normalize_backward(*arguments)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Gradients) -> None:
        ctx.save_for_backward(*inputs[:8])
        ctx.rest = inputs[8:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        grad, x, mean, var, valid, weight, bias, residual = ctx.saved_tensors
        given, *fields = ctx.rest
        known = (mean, var) if given else None
        gradients = _reference_gradients(valid, known, Plan(*fields))
        tensors = [grad, x, weight, bias, residual]
        used = [i for i, t in enumerate(tensors) if t is not None]

        def of_used(*chosen: Tensor) -> tuple[Tensor, ...]:
            values = list(tensors)
            for i, value in zip(used, chosen, strict=True):
                values[i] = value
            return gradients(*values)

        pull = _pull(of_used, *(tensors[i] for i in used))
        found: list[Tensor | None] = [None] * 5
        for i, value in zip(used, pull(grads), strict=True):
            found[i] = value
        grad_grad, grad_x, *rest = found
        return grad_grad, grad_x, None, None, None, *rest, *(None for _ in ctx.rest)


def _pull(function: Callable[..., Any], *primals: Any) -> Callable[[Any], tuple[Any, ...]]:
    """What turns a gradient of the function's output into those of its inputs."""
    return torch.func.vjp(function, *primals)[1]


def _reference_gradients(
    valid: Tensor | None, known: tuple[Tensor, Tensor] | None, plan: Plan
) -> Callable[..., tuple[Tensor, ...]]:
    """Build what the backward kernel computes, from the derivative of the reference."""

    def gradients(
        grad: Tensor,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
    ) -> tuple[Tensor, ...]:
        rows = (x.shape[0], x.shape[plan.channel_axis])
        wide = compute_dtype(x)
        weights = x.new_ones(rows, dtype=wide) if weight is None else weight.expand(rows)
        biases = x.new_zeros(rows, dtype=wide) if bias is None else bias.expand(rows)

        def output(x: Tensor, weights: Tensor, biases: Tensor, *residual: Tensor) -> Tensor:
            kept = None if valid is None else plan.per_position(_positions(valid, x, plan))
            inputs = Inputs(
                plan.split(x.to(wide)),
                _per_sample(weights, plan),
                _per_sample(biases, plan),
                kept,
                plan.split(residual[0].to(wide)) if residual else None,
            )
            return plan.join(_standardize(plan, inputs, known)).to(x.dtype)

        extra = () if residual is None else (residual,)
        grad_x, grad_weight, grad_bias, *rest = _pull(output, x, weights, biases, *extra)(grad)
        return grad_x, rest[0] if rest else x.new_empty(0), grad_weight, grad_bias

    return gradients


def _positions(valid: Tensor, x: Tensor, plan: Plan) -> Tensor:
    return _mask(valid, x, plan).squeeze(plan.channel_axis)


def _per_sample(value: Tensor, plan: Plan) -> Tensor:
    """Make ``(N, C)`` broadcast against the split tensor."""
    value = torch.unflatten(value, 1, (plan.groups, -1))
    return value.unsqueeze(-1) if plan.layout == "NCL" else value.unsqueeze(1)


def _standardize(plan: Plan, inputs: Inputs, known: tuple[Tensor, Tensor] | None) -> Tensor:
    if known is not None:
        mean, var = (plan.per_channel(t.to(inputs.x.dtype)) for t in known)
        return reference.standardize_given(plan, inputs, mean, var)
    if not plan.center:
        return reference.divide_by_rms(plan, inputs)
    return reference.standardize(plan, inputs)[0]
