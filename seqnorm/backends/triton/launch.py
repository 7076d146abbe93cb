"""Choose kernels, launch them, bring their partial results together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqnorm.backends.plan import Plan
from seqnorm.backends.triton.blocks import ceil_div, part_of_sets, whole_sets
from seqnorm.backends.triton.fold import add, merge
from seqnorm.backends.triton.fused import backward_sets, forward_sets
from seqnorm.backends.triton.job import Job, aligned
from seqnorm.backends.triton.moments import moments_of_tiles
from seqnorm.backends.triton.positions import backward_positions
from seqnorm.backends.triton.split import backward_tiles, forward_tiles, sums_of_tiles

__all__ = ["backward", "forward"]

# Positions that a program of the backward pass over channels sums up, and positions of short rows
# that one takes the moments of: enough that partial results are few beside what is read.
SPAN = 64
BATCH_SPAN = 256


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
    """See :func:`seqnorm.backends.triton.forward`."""
    job = Job(x, valid, plan)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    given = mean is not None
    if x.numel() == 0:
        if mean is None or var is None:
            mean, var = (statistic.zero_() for statistic in job.statistics())
        return y, mean, var
    inputs = [aligned(x), aligned(residual), job.valid, aligned(weight), aligned(bias)]
    with torch.cuda.device_of(y):  # type: ignore[no-untyped-call]
        whole = None if given else whole_sets(plan.over, job.shape, backward=False)
        if whole is not None:
            mean, var = job.statistics()
            job.launch(
                forward_sets, whole, *inputs, y, mean, var,
                EPS=plan.eps, OVER=plan.over, CENTER=plan.center, ACTIVATION=plan.activation,
            )  # fmt: skip
            return y, mean, var
        if mean is None or var is None:
            mean, var = _moments(job, inputs[0])
        over = "NL" if given else plan.over
        job.launch(
            forward_tiles, part_of_sets(over, job.shape, backward=False), *inputs, y,
            aligned(mean), aligned(var), EPS=plan.eps, OVER=over, ACTIVATION=plan.activation,
        )  # fmt: skip
    return y, mean, var


def _moments(job: Job, x: Tensor | None) -> tuple[Tensor, Tensor]:
    plan, shape = job.plan, job.shape
    block = part_of_sets(plan.over, shape, backward=False)
    span = min(max(BATCH_SPAN // shape.length, 1), 16) if plan.over == "NL" else 1
    rows = ceil_div(shape.samples, span)
    sizes = job.parts(block, rows)
    partial = [job.empty(*sizes, dtype=torch.float64) for _ in range(3)]
    job.launch(
        moments_of_tiles, block, x, job.valid, *partial, shape.samples,
        rows=rows, OVER=plan.over, CENTER=plan.center, SPAN=span,
    )  # fmt: skip
    return merge(job, sizes, partial)


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
    """See :func:`seqnorm.backends.triton.backward`."""
    job = Job(x, valid, plan)
    shape, width = job.shape, job.width
    gx = torch.empty_like(x, memory_format=torch.contiguous_format)
    gresidual = None if residual is None else torch.empty_like(gx)
    if x.numel() == 0:
        zeros = torch.zeros(shape.samples, width, dtype=job.compute, device=x.device)
        return gx, gresidual, zeros, zeros.clone()
    tensors = [aligned(t) for t in (grad, x, residual)]
    tensors += [job.valid, *(aligned(t) for t in (weight, bias, mean, var))]
    rule: dict[str, Any] = {
        "EPS": plan.eps,
        "OVER": "NL" if given else plan.over,
        "ACTIVATION": plan.activation,
    }
    with torch.cuda.device_of(gx):  # type: ignore[no-untyped-call]
        whole = None if given else whole_sets(plan.over, shape, backward=True)
        if whole is None:
            gweight, gbias = _backward_split(job, tensors, weight, gx, gresidual, rule, given)
        elif plan.over == "C":
            steps = ceil_div(min(SPAN, shape.length), whole.positions)
            spans = ceil_div(shape.length, whole.positions * steps)
            sums = [job.empty(shape.samples, spans, width) for _ in range(2)]
            job.launch(
                backward_positions, whole, *tensors, gx, gresidual, *sums,
                CENTER=plan.center, STEPS=steps, **rule,
            )  # fmt: skip
            gweight, gbias = add(job, (shape.samples, spans, width), sums)
        else:
            gweight, gbias = (job.empty(shape.samples, width) for _ in range(2))
            job.launch(
                backward_sets, whole, *tensors, gx, gresidual, gweight, gbias,
                CENTER=plan.center, **rule,
            )  # fmt: skip
    return gx, gresidual, gweight.view(shape.samples, width), gbias.view(shape.samples, width)


def _backward_split(
    job: Job,
    tensors: list[Tensor | None],
    weight: Tensor | None,
    gx: Tensor,
    gresidual: Tensor | None,
    rule: dict[str, Any],
    given: bool,
) -> list[Tensor]:
    """Two passes over memory, or one where the statistics were given."""
    block = part_of_sets(rule["OVER"], job.shape, backward=True)
    rows = (job.shape.samples, block.tiles(job.shape)[1], job.width)
    sums = [job.empty(*rows) for _ in range(2)]
    if given:
        job.launch(backward_tiles, block, *tensors, None, None, gx, gresidual, *sums, **rule)
        return add(job, rows, sums)
    sizes = job.parts(block, job.shape.samples)
    by_position = [job.empty(*sizes) for _ in range(2)] if job.plan.over == "C" else []
    job.launch(sums_of_tiles, block, *tensors, *sums, *(by_position or (None, None)), **rule)
    sums = add(job, rows, sums)
    if by_position:
        averages = [s / job.shape.channels for s in add(job, sizes, by_position)]
    else:
        averages = _averages(job, [s if weight is None else s * weight for s in sums])
    along, level = averages if job.plan.center else (averages[0], None)
    job.launch(backward_tiles, block, *tensors, along, level, gx, gresidual, None, None, **rule)
    return sums


def _averages(job: Job, sums: list[Tensor]) -> list[Tensor]:
    """Over the numbers of each set, from the sums of its rows ``(N, C)``."""
    shape, count = job.shape, job.counts()
    if job.plan.over == "NL":
        sums = add(job, (1, shape.samples, job.width), sums)
        count = count * shape.samples if isinstance(count, int) else count.sum()
    elif job.plan.over == "CL":
        sums = add(job, (shape.samples * shape.groups, shape.channels, 1), sums)
        sums = [s.view(shape.samples, shape.groups) for s in sums]
        count = count * shape.channels
    if isinstance(count, int):
        return [s / count for s in sums]
    count = count.to(job.compute).clamp_min(1)
    return [s.view(*count.shape, -1) / count[..., None] for s in sums]
