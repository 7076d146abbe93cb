"""Triton kernels for CUDA devices; Triton is imported when one of them is called.

Memory is what these kernels wait for, so each reads and writes as little as it can:

=====================  ============================================  =============================
sets of numbers        fit in the tile of one program                do not
=====================  ============================================  =============================
forward                one read, one write (``fused``)               one read more (``moments``,
                                                                     ``fold``, then ``split``)
backward               two reads, one write (``fused``,              two reads more (``split``)
                       ``positions``)
=====================  ============================================  =============================

BatchNorm is always of the second kind. There are no atomic additions and no search for the fastest
tile: partial sums are the same in every run, and those of a sample are the same in every batch.
"""

from __future__ import annotations

import functools
import importlib.util
import os

import torch
from torch import Tensor

from seqnorm.backends.plan import Plan

__all__ = ["available", "backward", "forward"]


@functools.cache
def available() -> bool:
    """Whether Triton is installed and has something to run on.

    Returns
    -------
    bool
        True with a CUDA device, or with Triton's interpreter switched on
        (``TRITON_INTERPRET=1``), which runs on the CPU and is only good for tests.
    """
    if importlib.util.find_spec("triton") is None:
        return False
    interpreter = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")
    return interpreter or torch.cuda.is_available()


def forward(
    x: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    plan: Plan,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize; ``activation(standardized * weight + bias + residual)``.

    Parameters
    ----------
    x : Tensor
        ``(N, C, L)`` or ``(N, L, C)``, as ``plan.layout`` says; float16, bfloat16, float32 or
        float64. The arithmetic is in float32, for float64 in float64.
    valid : Tensor or None
        Integers ``(N,)``, the valid positions at the start of each sequence, or booleans
        ``(N, L)``. Other positions have no influence and come out 0.
    weight, bias : Tensor or None
        ``(C,)`` in the type of the arithmetic.
    residual : Tensor or None
        Of the shape and type of ``x``.
    mean, var : Tensor or None
        ``(C,)``, float64, both or neither: known statistics for ``plan.over`` ``"L"`` and ``"NL"``.
    plan : Plan
        Which numbers share moments, and what follows.

    Returns
    -------
    y : Tensor
        Of the shape and type of ``x``.
    mean, var : Tensor
        float64; ``(N, C)`` over ``"L"``, ``(C,)`` over ``"NL"``, ``(N, G)`` over ``"CL"``,
        ``(N, G, L)`` or ``(N, L, G)`` over ``"C"``. The variance divides by the count; without
        centering, ``mean`` is 0 and ``var`` the mean square. Both are 0 for an empty set. Those
        that were given, where they were.
    """
    from seqnorm.backends.triton import launch

    return launch.forward(x, valid, weight, bias, residual, mean, var, plan)


def backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    plan: Plan,
    given: bool,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of :func:`forward`.

    Parameters
    ----------
    grad : Tensor
        Gradient of ``y``, of its shape.
    x, valid, weight, bias, residual, plan
        As for :func:`forward`.
    mean, var : Tensor
        As :func:`forward` returned them.
    given : bool
        Whether they were given to it: they are then constants, not functions of ``x``.

    Returns
    -------
    gx, gresidual : Tensor
        Of the shape and type of ``x``; the second is None where there was no residual.
    gweight, gbias : Tensor
        ``(N, C)`` in the type of the arithmetic: per sample, for the caller to sum.
    """
    from seqnorm.backends.triton import launch

    return launch.backward(grad, x, mean, var, valid, weight, bias, residual, plan, given)
