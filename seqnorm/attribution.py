"""DeepLIFT through norms: multipliers whose contributions add up to the difference of outputs.

A norm is ``y = a v w + b`` with deviations ``a = x - mean`` and ``v = (var + eps)^(-1/2)``. Between
an input and its reference

    difference of a v  =  (v + v_ref) / 2 * difference of a  +  (a + a_ref) / 2 * difference of v
    difference of v    =  -(v v_ref)^2 / (v + v_ref) * difference of var
    difference of var  =  average over the set of (a + a_ref) * (difference of a)

are exact, so the rule below is complete whatever the two are, and near each other it becomes the
gradient. A position-by-position rescale rule, which is what tools apply to layers that they do not
know, misses the dependence through mean and variance. Derived here; the tool's own rules for
``nn.LayerNorm`` and ``nn.RMSNorm`` give the same numbers.

References
----------
Shrikumar, Greenside & Kundaje 2017, "Learning important features through propagating activation
differences", arXiv:1704.02685.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seqnorm.backends.plan import Plan, activate
from seqnorm.layers import GroupNorm, InstanceNorm1d, LayerNorm, RMSNorm

__all__ = ["deep_lift_rules"]

Rule = Callable[[Any, Any, tuple[Tensor, ...]], tuple[Tensor]]


def deep_lift_rules() -> dict[type[nn.Module], Rule]:
    """Rules for GroupNorm, InstanceNorm, LayerNorm and RMSNorm, of this library and of torch.

    Returns
    -------
    dict
        By class: ``rule(module, grad_input, grad_output)``, as tangermeme's
        ``deep_lift_shap(..., additional_nonlinear_ops=seqnorm.deep_lift_rules())`` takes them.
        They hold without lengths; BatchNorm in evaluation is an affine map and needs none.

    Examples
    --------
    >>> sorted({rule.__name__ for rule in deep_lift_rules().values()})
    ['normalization_rule']
    """
    ours = (GroupNorm, InstanceNorm1d, LayerNorm, RMSNorm)
    torchs = (nn.GroupNorm, nn.InstanceNorm1d)
    return dict.fromkeys((*ours, *torchs), normalization_rule)


def normalization_rule(module: Any, _: Any, grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
    """Turn multipliers of a norm's output into those of its input.

    Parameters
    ----------
    module : nn.Module
        With ``module.input``: inputs and, after them along the first axis, their references.
    grad_output : tuple of one Tensor
        Multipliers of the output, in the same order.

    Returns
    -------
    tuple of one Tensor
        Multipliers of the input.
    """
    plan = _plan(module)
    x, ref = (plan.split(half) for half in module.input.chunk(2))
    a, v = _deviations(plan, x)
    a_ref, v_ref = _deviations(plan, ref)
    grad = plan.split(grad_output[0])
    weight, bias = (_channels(plan, getattr(module, name, None)) for name in ("weight", "bias"))
    z, z_ref = a * v * weight[0] + bias[1], a_ref * v_ref * weight[0] + bias[1]
    slopes = _slopes(z, z_ref, plan.activation)
    both = [_pull(plan, half * slopes * weight[0], a, v, a_ref, v_ref) for half in grad.chunk(2)]
    return (plan.join(torch.cat(both)).reshape(module.input.shape),)


def _pull(plan: Plan, grad: Tensor, a: Tensor, v: Tensor, a_ref: Tensor, v_ref: Tensor) -> Tensor:
    along = grad * (v + v_ref) / 2
    through = (grad * (a + a_ref) / 2).sum(plan.dims, keepdim=True)
    change = -((v * v_ref) ** 2) / (v + v_ref) * through
    pulled = along + change * (a + a_ref) / _size(plan, a)
    # Deviations from the mean do not move when all of a set move together.
    return pulled - pulled.mean(plan.dims, keepdim=True) if plan.center else pulled


def _deviations(plan: Plan, x: Tensor) -> tuple[Tensor, Tensor]:
    a = x - x.mean(plan.dims, keepdim=True) if plan.center else x
    return a, torch.rsqrt(a.square().mean(plan.dims, keepdim=True) + plan.eps)


def _slopes(z: Tensor, z_ref: Tensor, activation: str | None) -> Tensor:
    """Slope of the activation between the two, or at the point where they are one."""
    if activation is None:
        return torch.ones_like(z)
    near = (z - z_ref).abs() < 1e-6
    with torch.enable_grad():
        point = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(activate(point, activation).sum(), point)
    chord = (activate(z, activation) - activate(z_ref, activation)) / (z - z_ref)
    return torch.where(near, slope, chord)


def _size(plan: Plan, x: Tensor) -> int:
    size = 1
    for dim in plan.dims:
        size *= x.shape[dim]
    return size


def _channels(plan: Plan, value: Tensor | None) -> tuple[Tensor, Tensor]:
    """As a factor and as a summand; what leaves things as they are where there is none."""
    if value is None:
        return torch.ones(()), torch.zeros(())
    shaped = plan.per_channel(value)
    return shaped, shaped


def _plan(module: Any) -> Plan:
    layout = getattr(module, "layout", "NCL")
    options: dict[str, Any] = {
        "eps": module.eps,
        "activation": getattr(module, "activation", None),
    }
    if isinstance(module, nn.GroupNorm):
        return Plan("CL", layout, module.num_groups, **options)
    if isinstance(module, nn.InstanceNorm1d):
        if module.track_running_stats:
            raise ValueError("InstanceNorm with running statistics is affine; leave its rule out")
        return Plan("L", layout, **options)
    if isinstance(module, nn.RMSNorm):
        if module.eps is None:
            inputs: Any = module.input
            options["eps"] = torch.finfo(inputs.dtype).eps
        return Plan("C", layout, center=False, **options)
    return Plan(module.over, layout, **options)
