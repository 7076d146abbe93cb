"""Measure the norms on a CPU: ours, torch's own, and torch's compiled, against a plain copy.

Forward, and forward with the gradients of x, weight and bias, float32. The contenders of one case
take turns, so that whatever else the machine does meets all of them; medians are reported. Run it
on a quiet machine from the repository root (about five minutes)::

    python benchmarks/norms_cpu.py            # writes benchmarks/norms_cpu.md
    python benchmarks/norms_cpu.py --quick    # two shapes, few rounds, to the screen
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from machine import processor
from torch import Tensor, nn
from torch.nn import functional as F

import seqnorm
from seqnorm.backends import native

# glibc gives large pieces of memory back to the system as soon as they are free and fetches them
# again page by page, or does not, as its history will have it. Kept memory is what all contenders
# then find, as in the training loop of this library; 32 MiB is the most that glibc can be told.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 28),
}

SHAPES = ((64, 64, 1000), (32, 256, 500), (8, 512, 4096), (256, 32, 200))
GROUPS = 8
OUT = Path(__file__).with_suffix(".md")
Norm = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def channels_first(norm: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What users of (N, C, L) write around a norm of the last axis."""
    return norm(x.transpose(1, 2)).transpose(1, 2)


def masked_batch_usual(x: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
    """Masked BatchNorm as it is usually written: multiply by the mask, sum, divide."""
    mask = (torch.arange(x.shape[2]) < lengths[:, None])[:, None].to(x.dtype)
    count = mask.sum()
    mean = (x * mask).sum((0, 2), keepdim=True) / count
    var = (((x - mean) * mask) ** 2).sum((0, 2), keepdim=True) / count
    y = (x - mean) / torch.sqrt(var + 1e-5)
    return (y * weight[:, None] + bias[:, None]) * mask


def masked_group_usual(x: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
    """Masked GroupNorm as it is usually written."""
    n, c, length = x.shape
    mask = (torch.arange(length) < lengths[:, None])[:, None, None].to(x.dtype)
    g = x.view(n, GROUPS, c // GROUPS, length)
    count = mask.sum((2, 3), keepdim=True) * (c // GROUPS)
    mean = (g * mask).sum((2, 3), keepdim=True) / count
    var = (((g - mean) * mask) ** 2).sum((2, 3), keepdim=True) / count
    y = ((g - mean) / torch.sqrt(var + 1e-5)).view(n, c, length)
    return (y * weight[:, None] + bias[:, None]) * mask[:, 0]


def masked_batch_lean(x: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
    """Masked BatchNorm for a compiler: two reductions over selected values, one affine map."""
    mask = (torch.arange(x.shape[2]) < lengths[:, None])[:, None]
    count = lengths.sum()
    mean = torch.where(mask, x, 0).sum((0, 2), keepdim=True) / count
    var = torch.where(mask, x - mean, 0).square().sum((0, 2), keepdim=True) / count
    scale = torch.rsqrt(var + 1e-5) * weight[:, None]
    return torch.where(mask, (x - mean) * scale + bias[:, None], 0)


def masked_group_lean(x: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
    """Masked GroupNorm for a compiler."""
    n, c, length = x.shape
    mask = (torch.arange(length) < lengths[:, None])[:, None, None]
    g = x.view(n, GROUPS, c // GROUPS, length)
    count = (lengths * (c // GROUPS))[:, None, None, None]
    mean = torch.where(mask, g, 0).sum((2, 3), keepdim=True) / count
    var = torch.where(mask, g - mean, 0).square().sum((2, 3), keepdim=True) / count
    scale = torch.rsqrt(var + 1e-5) * weight.view(GROUPS, -1, 1)
    y = torch.where(mask, (g - mean) * scale + bias.view(GROUPS, -1, 1), 0)
    return y.view(n, c, length)


@dataclass(frozen=True)
class Contest:
    """A norm, in the forms that compete, and what ours should reach."""

    name: str
    ours: Callable[[int], nn.Module]
    eager: Norm
    lean: Norm | None = None
    masked: bool = False
    over_eager: float = 1 / 1.05
    over_compiled: float = 0.0


def contests() -> Iterator[Contest]:
    """Every norm of the table."""
    yield Contest(
        "LayerNorm over channels",
        lambda c: seqnorm.LayerNorm(c),
        lambda x, w, b, _: channels_first(lambda t: F.layer_norm(t, t.shape[-1:], w, b), x),
        over_eager=2.0, over_compiled=1.0,
    )  # fmt: skip
    yield Contest(
        "RMSNorm over channels",
        lambda c: seqnorm.RMSNorm(c, eps=1e-5),
        lambda x, w, _, __: channels_first(lambda t: F.rms_norm(t, t.shape[-1:], w, 1e-5), x),
        over_eager=2.0, over_compiled=1.0,
    )  # fmt: skip
    yield Contest(
        "BatchNorm, training",
        lambda c: seqnorm.BatchNorm1d(c),
        lambda x, w, b, _: F.batch_norm(x, torch.zeros_like(w), torch.ones_like(w), w, b, True),
        over_eager=1.7,
    )
    yield Contest(
        "InstanceNorm",
        lambda c: seqnorm.InstanceNorm1d(c, affine=True),
        lambda x, w, b, _: F.instance_norm(x, None, None, w, b),
        over_eager=2.0,
    )
    yield Contest(
        "GroupNorm",
        lambda c: seqnorm.GroupNorm(GROUPS, c),
        lambda x, w, b, _: F.group_norm(x, GROUPS, w, b),
    )
    yield Contest(
        "LayerNorm over the sequence",
        lambda c: seqnorm.LayerNorm(c, over="CL"),
        lambda x, w, b, _: F.group_norm(x, 1, w, b),
    )
    yield Contest(
        "BatchNorm, masked",
        lambda c: seqnorm.BatchNorm1d(c),
        masked_batch_usual, masked_batch_lean, masked=True,
        over_eager=4.0, over_compiled=1.3,
    )  # fmt: skip
    yield Contest(
        "GroupNorm, masked",
        lambda c: seqnorm.GroupNorm(GROUPS, c),
        masked_group_usual, masked_group_lean, masked=True,
        over_eager=4.0, over_compiled=1.3,
    )  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Medians of one case in milliseconds."""

    contest: Contest
    shape: tuple[int, int, int]
    backward: bool
    copy: float
    eager: float
    compiled: float
    ours: float

    @property
    def held(self) -> bool:
        """Whether ours reached what it should."""
        return (
            self.eager / self.ours >= self.contest.over_eager
            and self.compiled / self.ours >= self.contest.over_compiled
        )


def measure(contest: Contest, shape: tuple[int, int, int], backward: bool, rounds: int) -> Row:
    """Time the contenders of one case in turns."""
    torch.manual_seed(0)
    torch.compiler.reset()
    x, slopes = torch.randn(shape), torch.randn(shape)
    lengths = torch.randint(shape[2] // 2, shape[2] + 1, (shape[0],))
    norm = contest.ours(shape[1])
    leaves = [x, torch.rand(shape[1]) + 0.5, torch.randn(shape[1])]
    parameters = list(norm.parameters())
    for p, value in zip(parameters, leaves[1:], strict=False):
        p.data.copy_(value)
    for leaf in (*leaves, *parameters):
        leaf.requires_grad_(backward)

    def run(call: Callable[[], Tensor], inputs: list[Tensor]) -> Callable[[], None]:
        def once() -> None:
            y = call()
            if backward:
                torch.autograd.grad(y, inputs, slopes)

        return once

    used = leaves[: 1 + len(parameters)]
    compiled = torch.compile(contest.lean or contest.eager, fullgraph=True, dynamic=False)
    given = lengths if contest.masked else None

    def copy() -> None:
        x.detach().clone()

    contenders = {
        "copy": copy,
        "eager": run(lambda: contest.eager(*leaves, lengths), used),
        "compiled": run(lambda: compiled(*leaves, lengths), used),
        "ours": run(lambda: norm(x, given), [x, *parameters]),
    }
    expected, found = contest.eager(*leaves, lengths), norm(x, given)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, call in contenders.items():
            call()  # what the one before left in caches and in the allocator is not its matter
            for _ in range(3):
                start = time.perf_counter()
                call()
                if turn:
                    times[name].append(time.perf_counter() - start)
    medians = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    return Row(contest, shape, backward, **medians)


def table(rows: list[Row]) -> str:
    """Draw the rows as Markdown."""
    lines = [
        "| norm | shape | pass | copy | eager | compiled | ours | eager / ours | goal | "
        "compiled / ours | goal | held |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        goal = row.contest.over_compiled
        done = "forward + backward" if row.backward else "forward"
        lines.append(
            f"| {row.contest.name} | {row.shape} | {done}"
            f" | {row.copy:.2f} | {row.eager:.2f} | {row.compiled:.2f} | {row.ours:.2f}"
            f" | {row.eager / row.ours:.2f} | {row.contest.over_eager:.2f}"
            f" | {row.compiled / row.ours:.2f} | {f'{goal:.2f}' if goal else ''}"
            f" | {'yes' if row.held else '**no**'} |"
        )
    return "\n".join(lines)


def report(rows: list[Row], rounds: int) -> str:
    """The whole page."""
    held = sum(row.held for row in rows)
    return f"""# Norms on a CPU

Written by `python benchmarks/norms_cpu.py`. Milliseconds, medians of {3 * rounds} calls; the
contenders take turns of one call for warmth and three that count; float32,
{torch.get_num_threads()} threads. *copy* is `x.clone()`. *eager* is what users of torch write
(for LayerNorm and RMSNorm over channels: transpose, norm, transpose;
masked: multiply by the mask), *compiled* the same under `torch.compile` (masked: written for it),
*ours* the layer of this library, not compiled. *goal* is the least ratio asked for; where none is
given against eager, ours may be 5 % slower. Backward: gradients of x, weight and bias. The C
library is told to keep freed memory up to 32 MiB a piece, for all contenders; tensors of
(8, 512, 4096) are larger, and new memory every time.

{processor()}, torch {torch.__version__}, seqnorm {seqnorm.__version__} with its
{native.instructions()} kernels. Goals held: {held} of {len(rows)}.

{table(rows)}
"""


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two shapes, few rounds, no file")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in KEEP_MEMORY.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEP_MEMORY)  # noqa: S606
    if native.MISSING is not None:
        raise SystemExit(native.MISSING)
    warnings.simplefilter("ignore", DeprecationWarning)
    shapes = SHAPES[::3] if options.quick else SHAPES
    rounds = 5 if options.quick else options.rounds
    rows = []
    for contest in contests():
        for shape in shapes:
            for backward in (False, True):
                rows.append(measure(contest, shape, backward, rounds))
                print(table(rows[-1:]).splitlines()[-1], flush=True)
    if not options.quick:
        OUT.write_text(report(rows, rounds))


if __name__ == "__main__":
    main()
