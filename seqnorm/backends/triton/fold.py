# mypy: allow-untyped-defs, allow-incomplete-defs
"""Bring partial results together, in an order that depends on nothing but how many there are.

Partial results are ``(outer, parts, inner)`` and lose their middle axis, at most ``BK`` parts in
one launch. All of it is in float64: there are few of them.
"""

from __future__ import annotations

from torch import Tensor, float64

from seqnorm.backends.triton.blocks import ceil_div, power_of_two
from seqnorm.backends.triton.job import Job, launch
from seqnorm.backends.triton.language import kernel, tl

__all__ = ["add", "merge"]

# Partial results that a program brings together, in columns of neighbours.
FOLD, COLUMNS = 2048, 32


@kernel
def merge_parts(
    count,
    mean,
    m2,
    merged_count,
    merged_mean,
    merged_m2,
    parts,
    width,
    LAST: tl.constexpr,
    BK: tl.constexpr,
    BW: tl.constexpr,
):
    """Moments of unions; where ``LAST``, the variance in the place of the third moment.

    Source: Chan, Golub & LeVeque (1979), "Updating formulae and a pairwise algorithm for computing
    sample variances", Stanford STAN-CS-79-773.
    """
    columns = tl.cdiv(width, BW)
    program = tl.program_id(0)
    row = program // columns
    chunks = tl.cdiv(parts, BK)
    k = row % chunks * BK + tl.arange(0, BK)
    w = program % columns * BW + tl.arange(0, BW)
    inside = w < width
    mask = (k < parts)[:, None] & inside[None, :]
    outer = (row // chunks).to(tl.int64)
    at = (outer * parts + k[:, None]) * width + w[None, :]
    n = tl.load(count + at, mask=mask, other=0)
    each = tl.load(mean + at, mask=mask, other=0)
    all_n = tl.sum(n, axis=0)
    share = 1 / tl.maximum(all_n, 1)
    # Gaps from the first part keep the digits of a mean that is large against the spread.
    first = tl.load(mean + (outer * parts + row % chunks * BK) * width + w, mask=inside, other=0)
    middle = first + tl.sum(n * (each - first[None, :]), axis=0) * share
    gap = each - middle[None, :]
    m = tl.sum(tl.load(m2 + at, mask=mask, other=0) + n * gap * gap, axis=0)
    to = row.to(tl.int64) * width + w
    tl.store(merged_mean + to, middle, mask=inside)
    if LAST:
        tl.store(merged_m2 + to, m * share, mask=inside)
    else:
        tl.store(merged_count + to, all_n, mask=inside)
        tl.store(merged_m2 + to, m, mask=inside)


@kernel
def add_parts(
    first, second, first_sum, second_sum, parts, width, BK: tl.constexpr, BW: tl.constexpr
):
    """Sums of two tensors of one shape."""
    columns = tl.cdiv(width, BW)
    program = tl.program_id(0)
    row = program // columns
    chunks = tl.cdiv(parts, BK)
    k = row % chunks * BK + tl.arange(0, BK)
    w = program % columns * BW + tl.arange(0, BW)
    mask = (k < parts)[:, None] & (w < width)[None, :]
    at = ((row // chunks).to(tl.int64) * parts + k[:, None]) * width + w[None, :]
    to = row.to(tl.int64) * width + w
    kind = first_sum.dtype.element_ty
    one = tl.sum(tl.load(first + at, mask=mask, other=0).to(tl.float64), axis=0)
    tl.store(first_sum + to, one.to(kind), mask=w < width)
    two = tl.sum(tl.load(second + at, mask=mask, other=0).to(tl.float64), axis=0)
    tl.store(second_sum + to, two.to(kind), mask=w < width)


def _fold_blocks(parts: int, inner: int) -> tuple[int, int, int]:
    """Parts and columns of a program, and how many programs share the parts."""
    columns = min(power_of_two(inner), COLUMNS)
    rows = min(power_of_two(parts), max(FOLD // columns, 2))
    return rows, columns, ceil_div(parts, rows)


def merge(job: Job, sizes: tuple[int, int, int], partial: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance from count, mean and m2 of parts."""
    outer, parts, inner = sizes
    mean, var = job.statistics()
    while True:
        rows, columns, chunks = _fold_blocks(parts, inner)
        last = chunks == 1
        merged = [job.empty(outer * chunks * inner, dtype=float64) for _ in range(3)]
        into = [None, mean, var] if last else merged
        launch(
            merge_parts, outer * chunks * ceil_div(inner, columns), 4,
            *partial, *into, parts, inner, LAST=last, BK=rows, BW=columns,
        )  # fmt: skip
        if last:
            return mean, var
        parts, partial = chunks, merged


def add(job: Job, sizes: tuple[int, int, int], sums: list[Tensor]) -> list[Tensor]:
    """Two tensors of sums ``(outer, inner)``, from parts."""
    outer, parts, inner = sizes
    while parts > 1:
        rows, columns, chunks = _fold_blocks(parts, inner)
        added = [job.empty(outer * chunks * inner) for _ in range(2)]
        launch(
            add_parts, outer * chunks * ceil_div(inner, columns), 4,
            *sums, *added, parts, inner, BK=rows, BW=columns,
        )  # fmt: skip
        parts, sums = chunks, added
    return [s.view(outer, inner) for s in sums]
