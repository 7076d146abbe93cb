# mypy: allow-untyped-defs, allow-incomplete-defs
"""Moments of tiles, where a set of numbers is larger than the tile of one program.

:mod:`seqnorm.backends.triton.fold` merges them.
"""

from __future__ import annotations

from seqnorm.backends.triton.language import device, kernel, tl
from seqnorm.backends.triton.tiles import place, total, window

__all__ = ["moments_of_tiles", "partial_at"]


@device
def partial_at(
    n, g, c, p, ct, pt, groups, channels, length,
    OVER: tl.constexpr, NCL: tl.constexpr, BC: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Offsets and mask of a tile's partial results, in the shape that ``total`` gives.

    They are ``(outer, parts, inner)`` in memory: ``(N, tiles, C)`` by row, ``(N * G, tiles, 1)`` by
    group, ``(N * G, tiles, L)`` or ``(N * L * G, tiles, 1)`` by position.
    """
    tiles_c = tl.cdiv(channels, BC)
    tiles_p = tl.cdiv(length, BL)
    if OVER == "C":
        mask = (p < length)[None, :]
        if NCL:
            at = ((n * groups + g) * tiles_c + ct) * length + p[None, :]
        else:
            at = ((n * length + p[None, :]) * groups + g) * tiles_c + ct
    elif OVER == "CL":
        tile = ((n * groups + g) * tiles_c + ct) * tiles_p + pt
        at = tile + tl.zeros([1, 1], tl.int64)
        mask = at >= 0
    else:
        mask = (c < channels)[:, None]
        at = (n * tiles_p + pt) * groups * channels + g * channels + c[:, None]
    return at, mask


@kernel
def moments_of_tiles(
    x,
    valid,
    count,
    mean,
    m2,
    samples,
    groups,
    channel_units,
    length_units,
    OVER: tl.constexpr,
    CENTER: tl.constexpr,
    NCL: tl.constexpr,
    VEC: tl.constexpr,
    HOLES: tl.constexpr,
    COMPUTE: tl.constexpr,
    BC: tl.constexpr,
    BL: tl.constexpr,
    SPAN: tl.constexpr,
):
    """Count, mean and m2, the sum of squared deviations, of a tile in ``SPAN`` samples.

    More than one sample only where samples share moments: short rows would otherwise write partial
    results of about their own size.
    """
    block, g, ct, pt, channels, length = place(
        groups, channel_units, length_units, NCL, VEC, BC, BL
    )
    zeros = tl.zeros(
        [BC if OVER == "L" or OVER == "NL" else 1, BL if OVER == "C" else 1], tl.float64
    )
    all_count = zeros
    all_mean = zeros
    all_m2 = zeros
    for i in range(SPAN):
        n = block * SPAN + i
        if n < samples:
            c, p, at, _, read, keep, _ = window(
                valid, n, g, ct * BC, pt * BL, groups, channels, length, NCL, VEC, HOLES, BC, BL
            )
            # How many numbers: exact in floating point, a tile is small.
            size = total(keep.to(COMPUTE), OVER)
            share = 1 / tl.maximum(size, 1)
            v = tl.where(keep, tl.load(x + at, mask=read, other=0).to(COMPUTE), 0)
            if CENTER:
                shift = total(v, OVER) * share
                v = tl.where(keep, v - shift, 0)
                delta = total(v, OVER) * share
                middle = shift.to(tl.float64) + delta.to(tl.float64)
                spread = total(v * v, OVER) - delta * delta * size
                spread = tl.where(spread < 0, 0, spread).to(tl.float64)
            else:
                middle = zeros
                spread = total(v * v, OVER).to(tl.float64)
            size = size.to(tl.float64)
            union = all_count + size
            gap = middle - all_mean
            share_of_union = size / tl.maximum(union, 1)
            all_mean += gap * share_of_union
            all_m2 += spread + gap * gap * all_count * share_of_union
            all_count = union
    c = ct * BC + tl.arange(0, BC)
    p = pt * BL + tl.arange(0, BL)
    to, mask = partial_at(block, g, c, p, ct, pt, groups, channels, length, OVER, NCL, BC, BL)
    tl.store(count + to, all_count, mask=mask)
    tl.store(mean + to, all_mean, mask=mask)
    tl.store(m2 + to, all_m2, mask=mask)
