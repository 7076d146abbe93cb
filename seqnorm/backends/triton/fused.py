# mypy: allow-untyped-defs, allow-incomplete-defs
"""Normalize in one read and one write, where whole sets of numbers fit in the tile of a program.

A set is what shares a mean: a row of positions (``OVER`` ``"L"``), the rows of a group (``"CL"``),
or the channels of a group at one position (``"C"``; its backward pass is in
:mod:`seqnorm.backends.triton.positions`).

The moments are taken by the corrected two-pass formula on numbers from which a rough mean was
subtracted (Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", The American
Statistician 37(3), eq. 1.7): all of it in registers.
"""

from __future__ import annotations

from seqnorm.backends.triton.language import kernel, tl
from seqnorm.backends.triton.tiles import (
    activate,
    affine,
    gradient,
    inverse_root,
    place,
    statistic_at,
    store_row_sums,
    total,
    window,
)

__all__ = ["backward_sets", "forward_sets"]


@kernel
def forward_sets(
    x,
    residual,
    valid,
    weight,
    bias,
    y,
    mean,
    var,
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
):
    """Moments of the sets in a tile, and the tile normalized."""
    n, g, ct, pt, channels, length = place(groups, channel_units, length_units, NCL, VEC, BC, BL)
    c, p, at, stored, read, keep, kept = window(
        valid, n, g, ct * BC, pt * BL, groups, channels, length, NCL, VEC, HOLES, BC, BL
    )
    if OVER == "C":
        count = channels.to(COMPUTE)
    else:
        count = tl.maximum(tl.sum(kept.to(tl.int32), axis=0), 1).to(COMPUTE)
        if OVER == "CL":
            count = count * channels
    v = tl.where(keep, tl.load(x + at, mask=read, other=0).to(COMPUTE), 0)
    if CENTER:
        shift = total(v, OVER) / count
        v = tl.where(keep, v - shift, 0)
        delta = total(v, OVER) / count
        spread = total(v * v, OVER) / count - delta * delta
        spread = tl.where(spread < 0, 0, spread)
        middle = shift.to(tl.float64) + delta.to(tl.float64)
        v = v - delta
    else:
        spread = total(v * v, OVER) / count
        middle = tl.zeros_like(spread).to(tl.float64)
    statistic, there = statistic_at(n, g, c, p, groups, channels, length, OVER, NCL)
    tl.store(mean + statistic, middle, mask=there)
    tl.store(var + statistic, spread.to(tl.float64), mask=there)
    z = affine(
        v * inverse_root(spread + EPS),
        g * channels + c,
        c < channels,
        weight,
        bias,
        residual,
        at,
        read,
    )
    z = tl.where(keep, activate(z, ACTIVATION), 0)
    tl.store(y + at, z.to(y.dtype.element_ty), mask=stored)


@kernel
def backward_sets(
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
):
    """Gradients where a tile holds whole rows (``"L"``) or whole groups of rows (``"CL"``)."""
    n, g, ct, pt, channels, length = place(groups, channel_units, length_units, NCL, VEC, BC, BL)
    c, p, at, stored, read, keep, kept = window(
        valid, n, g, ct * BC, pt * BL, groups, channels, length, NCL, VEC, HOLES, BC, BL
    )
    statistic, there = statistic_at(n, g, c, p, groups, channels, length, OVER, NCL)
    channel = g * channels + c
    v, d, rstd = gradient(
        grad, x, residual, weight, bias, mean, var, channel, c < channels, at, read, keep,
        statistic, there, EPS, ACTIVATION, COMPUTE,
    )  # fmt: skip
    if gresidual is not None:
        tl.store(gresidual + at, d.to(gresidual.dtype.element_ty), mask=stored)
    row = n * groups * channels + channel
    along, level = store_row_sums(gweight, gbias, v, d, row, c < channels)
    if weight is not None:
        w = tl.load(weight + channel, mask=c < channels, other=0)
        d = d * w[:, None]
        along = along * w
        level = level * w
    along = along[:, None]
    level = level[:, None]
    count = tl.maximum(tl.sum(kept.to(tl.int32), axis=0), 1).to(COMPUTE)
    if OVER == "CL":
        count = count * channels
        along = tl.sum(along, axis=0, keep_dims=True)
        level = tl.sum(level, axis=0, keep_dims=True)
    d = d - v * (along / count)
    if CENTER:
        d = d - level / count
    tl.store(gx + at, tl.where(keep, d * rstd, 0).to(gx.dtype.element_ty), mask=stored)
