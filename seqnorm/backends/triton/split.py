# mypy: allow-untyped-defs, allow-incomplete-defs
"""Apply known statistics to tiles, and the backward pass of sets larger than a tile.

The backward pass reads twice: once for the sums over each set, once for the gradient itself.
"""

from __future__ import annotations

from seqnorm.backends.triton.language import kernel, tl
from seqnorm.backends.triton.moments import partial_at
from seqnorm.backends.triton.tiles import (
    activate,
    affine,
    gradient,
    place,
    standardize,
    statistic_at,
    store_row_sums,
    total,
    window,
)

__all__ = ["backward_tiles", "forward_tiles", "sums_of_tiles"]


@kernel
def forward_tiles(
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
    ACTIVATION: tl.constexpr,
    NCL: tl.constexpr,
    VEC: tl.constexpr,
    HOLES: tl.constexpr,
    COMPUTE: tl.constexpr,
    BC: tl.constexpr,
    BL: tl.constexpr,
):
    """Normalize a tile with known statistics."""
    n, g, ct, pt, channels, length = place(groups, channel_units, length_units, NCL, VEC, BC, BL)
    c, p, at, stored, read, keep, _ = window(
        valid, n, g, ct * BC, pt * BL, groups, channels, length, NCL, VEC, HOLES, BC, BL
    )
    v = tl.load(x + at, mask=read, other=0).to(COMPUTE)
    statistic, there = statistic_at(n, g, c, p, groups, channels, length, OVER, NCL)
    v, _ = standardize(v, mean, var, statistic, there, EPS, COMPUTE)
    z = affine(v, g * channels + c, c < channels, weight, bias, residual, at, read)
    z = tl.where(keep, activate(z, ACTIVATION), 0)
    tl.store(y + at, z.to(y.dtype.element_ty), mask=stored)


@kernel
def sums_of_tiles(
    grad,
    x,
    residual,
    valid,
    weight,
    bias,
    mean,
    var,
    gweight,
    gbias,
    along,
    level,
    groups,
    channel_units,
    length_units,
    EPS: tl.constexpr,
    OVER: tl.constexpr,
    ACTIVATION: tl.constexpr,
    NCL: tl.constexpr,
    VEC: tl.constexpr,
    HOLES: tl.constexpr,
    COMPUTE: tl.constexpr,
    BC: tl.constexpr,
    BL: tl.constexpr,
):
    """Sums of a tile by row ``(N, tiles, C)``, which also serve sets of rows, and by position."""
    n, g, ct, pt, channels, length = place(groups, channel_units, length_units, NCL, VEC, BC, BL)
    c, p, at, _, read, keep, _ = window(
        valid, n, g, ct * BC, pt * BL, groups, channels, length, NCL, VEC, HOLES, BC, BL
    )
    statistic, there = statistic_at(n, g, c, p, groups, channels, length, OVER, NCL)
    channel = g * channels + c
    v, d, _ = gradient(
        grad, x, residual, weight, bias, mean, var, channel, c < channels, at, read, keep,
        statistic, there, EPS, ACTIVATION, COMPUTE,
    )  # fmt: skip
    row = (n * tl.cdiv(length, BL) + pt) * groups * channels + channel
    store_row_sums(gweight, gbias, v, d, row, c < channels)
    if OVER == "C":
        if weight is not None:
            d = d * tl.load(weight + channel, mask=c < channels, other=0)[:, None]
        to, mask = partial_at(n, g, c, p, ct, pt, groups, channels, length, OVER, NCL, BC, BL)
        tl.store(along + to, total(d * v, OVER), mask=mask)
        tl.store(level + to, total(d, OVER), mask=mask)


@kernel
def backward_tiles(
    grad,
    x,
    residual,
    valid,
    weight,
    bias,
    mean,
    var,
    along,
    level,
    gx,
    gresidual,
    gweight,
    gbias,
    groups,
    channel_units,
    length_units,
    EPS: tl.constexpr,
    OVER: tl.constexpr,
    ACTIVATION: tl.constexpr,
    NCL: tl.constexpr,
    VEC: tl.constexpr,
    HOLES: tl.constexpr,
    COMPUTE: tl.constexpr,
    BC: tl.constexpr,
    BL: tl.constexpr,
):
    """Gradient of the input: of its own statistics, if the averages ``along`` and ``level`` say so.

    Without them the statistics were given, and this one pass makes the sums by row as well.
    """
    n, g, ct, pt, channels, length = place(groups, channel_units, length_units, NCL, VEC, BC, BL)
    c, p, at, stored, read, keep, _ = window(
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
    if gweight is not None:
        row = (n * tl.cdiv(length, BL) + pt) * groups * channels + channel
        store_row_sums(gweight, gbias, v, d, row, c < channels)
    if weight is not None:
        d = d * tl.load(weight + channel, mask=c < channels, other=0)[:, None]
    if along is not None:
        d = d - v * tl.load(along + statistic, mask=there, other=0)
    if level is not None:
        d = d - tl.load(level + statistic, mask=there, other=0)
    tl.store(gx + at, tl.where(keep, d * rstd, 0).to(gx.dtype.element_ty), mask=stored)
