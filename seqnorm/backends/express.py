"""The short way to the native kernels: a plain tensor on the CPU, outside of every transform.

For a small batch the general way (:mod:`seqnorm.backends.ops`) takes Python as long as the kernels
take to work. Here nothing is looked at twice, and weight gradients are summed over the samples in
the kernel. Results are the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from seqnorm.backends import choice, native, ops
from seqnorm.backends.plan import Plan

__all__ = ["normalize"]

_PLAIN = (Tensor, Parameter)
_WIDE = {
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.bfloat16: torch.float32,
    torch.float16: torch.float32,
}


def normalize(
    x: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    plan: Plan,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Normalize as :func:`seqnorm.backends.ops.normalize`, or None where this way is too short.

    Shapes have been checked, lengths have not: those outside 0..L raise ValueError.
    """
    wide = _WIDE.get(x.dtype)
    if (
        wide is None
        or not _plain(x, x.dtype)
        or not (weight is None or _plain(weight, wide))
        or not (bias is None or _plain(bias, wide))
        or not (residual is None or _plain(residual, x.dtype))
        or not (valid is None or _plain(valid, valid.dtype))
        or x.numel() == 0
        or not _at_rest()
    ):
        return None
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
        or (residual is not None and residual.requires_grad)
    ):
        return _Express.apply(x, valid, weight, bias, residual, plan)  # type: ignore[no-any-return, no-untyped-call]
    return native.forward(x, valid, weight, bias, residual, None, None, plan)


def _plain(t: Tensor, dtype: torch.dtype) -> bool:
    return type(t) in _PLAIN and t.dtype is dtype and t.is_cpu and t.is_contiguous()


def _at_rest() -> bool:
    """Whether nothing traces, transforms or forbids: then a kernel can be called as it is."""
    return (
        native.MISSING is None
        and choice.free_for("native")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
        and torch._C._get_tracing_state() is None
        and forward_ad._current_level < 0
    )


class _Express(torch.autograd.Function):
    """The kernels and their gradient; derivatives of the gradient go the general way."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        valid: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        plan: Plan,
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, var = native.forward(x, valid, weight, bias, residual, None, None, plan)
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, mean, var, valid, weight, bias, residual)
        ctx.plan = plan
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        grad, plan = grads[0], ctx.plan
        if (
            torch.is_grad_enabled()
            or type(grad) is not Tensor
            or torch._C._are_functorch_transforms_active()
            or torch.compiler.is_compiling()
        ):
            return ops.pull_back(ctx, (False, *ops.fields(plan)), grad)
        x, mean, var, valid, weight, bias, residual = ctx.saved_tensors
        grad = grad.to(x.dtype).contiguous()
        found = native.backward(
            grad, x, mean, var, valid, weight, bias, residual, plan, False, summed=True
        )
        grad_x, grad_residual, grad_weight, grad_bias = found
        needs = ctx.needs_input_grad
        return (
            grad_x,
            None,
            grad_weight if needs[2] else None,
            grad_bias if needs[3] else None,
            grad_residual,
            None,
        )
