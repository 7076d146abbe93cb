# mypy: allow-untyped-defs, allow-incomplete-defs
"""What every kernel shares: which tile it works on, and the arithmetic of one number.

A program works on a tile of ``BC`` channels of one group x ``BL`` positions of one sample, whatever
the layout; reductions keep their axes, so statistics are ``(BC, 1)`` by channel, ``(1, BL)`` by
position and ``(1, 1)`` by group, and broadcast against the tile.

The length of the contiguous axis comes as ``units * VEC``. The compiler sees a multiple of the
vector width in that product, which it cannot see in a plain integer, and moves 128 bits at a time
also where the length is not a multiple of 16.
"""

from __future__ import annotations

from seqnorm.backends.triton.language import device, tl

__all__ = [
    "activate",
    "affine",
    "gradient",
    "inverse_root",
    "place",
    "standardize",
    "statistic_at",
    "store_row_sums",
    "total",
    "window",
]


@device
def place(
    groups,
    channel_units,
    length_units,
    NCL: tl.constexpr,
    VEC: tl.constexpr,
    BC: tl.constexpr,
    BL: tl.constexpr,
):
    """Sample, group, tile of channels and of positions; channels of a group, and positions."""
    if NCL:
        channels = channel_units
        length = length_units * VEC
    else:
        channels = channel_units * VEC
        length = length_units
    tiles_c = tl.cdiv(channels, BC)
    tiles_p = tl.cdiv(length, BL)
    program = tl.program_id(0)
    tile = program % (tiles_c * tiles_p)
    # Neighbouring programs read neighbouring memory.
    if NCL:
        ct = tile // tiles_p
        pt = tile % tiles_p
    else:
        ct = tile % tiles_c
        pt = tile // tiles_c
    row = program // (tiles_c * tiles_p)
    return (row // groups).to(tl.int64), row % groups, ct, pt, channels, length


@device
def window(
    valid,
    n,
    g,
    first_c,
    first_p,
    groups,
    channels,
    length,
    NCL: tl.constexpr,
    VEC: tl.constexpr,
    HOLES: tl.constexpr,
    BC: tl.constexpr,
    BL: tl.constexpr,
):
    """Offsets of a tile, and which of it to store, to read, and to count.

    Returns channels in the group ``(BC,)``, positions ``(BL,)``, offsets ``(BC, BL)`` in 64 bits
    since a tensor may hold more than 2**31 numbers, the three masks, and valid positions ``(BL,)``.
    """
    c = first_c + tl.arange(0, BC)
    p = first_p + tl.arange(0, BL)
    if NCL:
        start = (n * groups + g) * channels * length
        at = start + (c.to(tl.int64) * length)[:, None] + p[None, :]
    else:
        start = n * length * groups * channels + g * channels
        at = start + (p.to(tl.int64) * (groups * channels))[None, :] + c[:, None]
    kept = p < length
    stored = (c < channels)[:, None] & kept[None, :]
    read = stored
    if valid is not None:
        if HOLES:
            kept = kept & (tl.load(valid + n * length + p, mask=kept, other=0) != 0)
        else:
            end = tl.load(valid + n).to(tl.int32)
            kept = kept & (p < end)
            # Up to a whole vector: a mask that ends inside one would split it into single loads.
            if NCL:
                read = stored & (p < tl.cdiv(end, VEC) * VEC)[None, :]
            else:
                read = stored & kept[None, :]
    return c, p, at, stored, read, stored & kept[None, :], kept


@device
def total(v, OVER: tl.constexpr):
    """Sum of a tile over the axes that share a mean: (BC, 1), (1, BL) or (1, 1)."""
    if OVER == "C":
        v = tl.sum(v, axis=0, keep_dims=True)
    else:
        v = tl.sum(v, axis=1, keep_dims=True)
        if OVER == "CL":
            v = tl.sum(v, axis=0, keep_dims=True)
    return v


@device
def statistic_at(n, g, c, p, groups, channels, length, OVER: tl.constexpr, NCL: tl.constexpr):
    """Offsets and mask of a tile's statistics, in the shape that :func:`total` gives."""
    if OVER == "C":
        mask = (p < length)[None, :]
        if NCL:
            at = (n * groups + g) * length + p[None, :]
        else:
            at = (n * length + p[None, :]) * groups + g
    elif OVER == "CL":
        at = n * groups + g + tl.zeros([1, 1], tl.int64)
        mask = at >= 0
    else:
        mask = (c < channels)[:, None]
        at = c.to(tl.int64)[:, None]
        if OVER == "L":
            at += n * channels
    return at, mask


@device
def inverse_root(v):
    """1 / sqrt(v), correctly rounded at each step; plain division and root are approximate."""
    return 1.0 / tl.sqrt(v) if v.dtype == tl.float64 else tl.div_rn(1.0, tl.sqrt_rn(v))


@device
def standardize(v, mean, var, at, mask, EPS: tl.constexpr, COMPUTE: tl.constexpr):
    """(v - mean) / sqrt(var + eps), and 1 / sqrt(var + eps), from statistics in float64.

    The mean is subtracted in two parts: rounded to the type of the arithmetic, which is exact
    for numbers on one grid of floating-point numbers, then what the rounding left over.
    """
    wide = tl.load(mean + at, mask=mask, other=0)
    high = wide.to(COMPUTE)
    low = (wide - high).to(COMPUTE)
    rstd = inverse_root(tl.load(var + at, mask=mask, other=0).to(COMPUTE) + EPS)
    return ((v - high) - low) * rstd, rstd


@device
def affine(z, parameters_at, channel_mask, weight, bias, residual, at, read):
    """Apply weight and bias (BC,), each optional, and add the residual, also optional."""
    if weight is not None:
        z = z * tl.load(weight + parameters_at, mask=channel_mask, other=0)[:, None]
    if bias is not None:
        z = z + tl.load(bias + parameters_at, mask=channel_mask, other=0)[:, None]
    if residual is not None:
        z = z + tl.load(residual + at, mask=read, other=0).to(z.dtype)
    return z


@device
def activate(z, ACTIVATION: tl.constexpr):
    """ReLU, which lets NaN through as torch's does, or GELU by erf, or nothing."""
    if ACTIVATION == "relu":
        z = tl.where(z < 0, 0, z)
    if ACTIVATION == "gelu":
        z = 0.5 * z * (1 + tl.erf(z * 0.7071067811865476))
    return z


@device
def slope(grad, z, ACTIVATION: tl.constexpr):
    """Gradient before the activation, from that behind it."""
    if ACTIVATION == "relu":
        grad = tl.where(z <= 0, 0, grad)
    if ACTIVATION == "gelu":
        normal = 0.5 * (1 + tl.erf(z * 0.7071067811865476))
        grad = grad * (normal + z * tl.exp(-0.5 * z * z) * 0.3989422804014327)
    return grad


@device
def gradient(
    grad, x, residual, weight, bias, mean, var, channel, inside, at, read, keep, statistic, there,
    EPS: tl.constexpr, ACTIVATION: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Standardized numbers, gradient before the activation, and 1 / standard deviation."""
    v = tl.load(x + at, mask=read, other=0).to(COMPUTE)
    d = tl.load(grad + at, mask=read, other=0).to(COMPUTE)
    v, rstd = standardize(v, mean, var, statistic, there, EPS, COMPUTE)
    v = tl.where(keep, v, 0)
    if ACTIVATION is not None:
        z = affine(v, channel, inside, weight, bias, residual, at, read)
        d = slope(d, z, ACTIVATION)
    return v, tl.where(keep, d, 0), rstd


@device
def store_row_sums(by_weight, by_bias, v, d, row, inside):
    """Sums over the positions of a tile: g * xhat, for the weight, and g, for the bias."""
    along = tl.sum(d * v, axis=1)
    level = tl.sum(d, axis=1)
    tl.store(by_weight + row, along, mask=inside)
    tl.store(by_bias + row, level, mask=inside)
    return along, level
