# mypy: allow-untyped-defs, allow-incomplete-defs
"""Backward pass over the channels at each position, where they fit in the tile of a program.

The gradient of a position needs that position alone; that of weight and bias needs all of them. A
program therefore walks over ``STEPS`` tiles of positions and writes one sum of each per channel,
which :mod:`seqnorm.backends.triton.fold` adds up in a fixed order.
"""

from __future__ import annotations

from seqnorm.backends.triton.language import kernel, tl
from seqnorm.backends.triton.tiles import (
    gradient,
    place,
    statistic_at,
    total,
    window,
)

__all__ = ["backward_positions"]


@kernel
def backward_positions(
    grad,
    x,
    residual,
    valid,
    weight,
    bias,
    mean,
    var,
    gx,
    gresidual,
    gweight,
    gbias,
    groups,
    channel_units,
    length_units,
    EPS: tl.constexpr,
    OVER: tl.constexpr,
    CENTER: tl.constexpr,
    ACTIVATION: tl.constexpr,
    NCL: tl.constexpr,
    VEC: tl.constexpr,
    HOLES: tl.constexpr,
    COMPUTE: tl.constexpr,
    BC: tl.constexpr,
    BL: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Gradients of ``STEPS`` tiles; sums for weight and bias ``(N, spans, C)``."""
    n, g, _ct, span, channels, length = place(
        groups, channel_units, length_units, NCL, VEC, BC, BL * STEPS
    )
    channel = g * channels + tl.arange(0, BC)
    by_weight = tl.zeros([BC], COMPUTE)
    by_bias = tl.zeros([BC], COMPUTE)
    for step in range(STEPS):
        c, p, at, stored, read, keep, _ = window(
            valid, n, g, 0, (span * STEPS + step) * BL, groups, channels, length,
            NCL, VEC, HOLES, BC, BL,
        )  # fmt: skip
        statistic, there = statistic_at(n, g, c, p, groups, channels, length, OVER, NCL)
        v, d, rstd = gradient(
            grad, x, residual, weight, bias, mean, var, channel, c < channels, at, read, keep,
            statistic, there, EPS, ACTIVATION, COMPUTE,
        )  # fmt: skip
        if gresidual is not None:
            tl.store(gresidual + at, d.to(gresidual.dtype.element_ty), mask=stored)
        by_weight += tl.sum(d * v, axis=1)
        by_bias += tl.sum(d, axis=1)
        if weight is not None:
            d = d * tl.load(weight + channel, mask=c < channels, other=0)[:, None]
        along = total(d * v, OVER) / channels
        if CENTER:
            d = d - total(d, OVER) / channels
        d = (d - v * along) * rstd
        tl.store(gx + at, tl.where(keep, d, 0).to(gx.dtype.element_ty), mask=stored)
    spans = tl.cdiv(length, BL * STEPS)
    row = (n * spans + span) * groups * channels + channel
    inside = tl.arange(0, BC) < channels
    tl.store(gweight + row, by_weight, mask=inside)
    tl.store(gbias + row, by_bias, mask=inside)
