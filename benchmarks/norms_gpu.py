"""Measure the norms on a CUDA device: ours, torch's own and compiled, Liger-Kernel's.

From 1 MiB to 1 GiB, forward, and forward with the gradients of x, weight and bias. Each time is the
median of CUDA events around one call, with the L2 cache overwritten before it; the contenders of
one case take turns. Speed is the bytes that have to be moved at least (forward: read x, write y;
backward: read x and the gradient, write one) over the time, also as a share of what a copy on the
same device reaches. Run it from the repository root::

    python benchmarks/norms_gpu.py            # writes benchmarks/norms_gpu.md
    python benchmarks/norms_gpu.py --quick    # two sizes, few rounds, to the screen
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import platform
import statistics
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import seqnorm

CHANNELS, LENGTH, GROUPS = 256, 1000, 8
MEBIBYTES = (1, 4, 16, 64, 256, 1024)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CONTENDERS = ("triton", "chosen", "eager", "compiled", "Liger")
OUT = Path(__file__).with_suffix(".md")
Norm = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def channels_first(norm: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What users of (N, C, L) write around a norm of the last axis."""
    return norm(x.transpose(1, 2)).transpose(1, 2)


def mask_of(x: Tensor, lengths: Tensor) -> Tensor:
    """True at valid positions, (N, 1, L)."""
    return (torch.arange(x.shape[2], device=x.device) < lengths[:, None])[:, None]


def masked_batch(x: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
    """Masked BatchNorm: two reductions over selected values, one affine map."""
    mask, wide = mask_of(x, lengths), x.float()
    count = lengths.sum()
    mean = torch.where(mask, wide, 0).sum((0, 2), keepdim=True) / count
    var = torch.where(mask, wide - mean, 0).square().sum((0, 2), keepdim=True) / count
    y = (wide - mean) * (torch.rsqrt(var + 1e-5) * weight[:, None]) + bias[:, None]
    return torch.where(mask, y, 0).to(x.dtype)


def masked_group(x: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
    """Masked GroupNorm."""
    mask = mask_of(x, lengths)[:, None]
    g = x.float().unflatten(1, (GROUPS, -1))
    count = (lengths * g.shape[2])[:, None, None, None]
    mean = torch.where(mask, g, 0).sum((2, 3), keepdim=True) / count
    var = torch.where(mask, g - mean, 0).square().sum((2, 3), keepdim=True) / count
    scale = torch.rsqrt(var + 1e-5) * weight.view(GROUPS, -1, 1)
    y = (g - mean) * scale + bias.view(GROUPS, -1, 1)
    return torch.where(mask, y, 0).flatten(1, 2).to(x.dtype)


def masked_layer(x: Tensor, weight: Tensor, bias: Tensor, lengths: Tensor) -> Tensor:
    """LayerNorm over channels, then zeros at padded positions."""
    y = channels_first(lambda t: F.layer_norm(t, t.shape[-1:], weight, bias), x)
    return torch.where(mask_of(x, lengths), y, 0)


def cast(norm: Norm) -> Norm:
    """Let torch's norms of narrow types have parameters of that type, which they ask for."""
    return lambda x, w, b, lengths: norm(x, w.to(x.dtype), b.to(x.dtype), lengths)


@dataclass(frozen=True)
class Contest:
    """A norm, in the forms that compete."""

    name: str
    ours: Callable[[], nn.Module]
    eager: Norm
    layout: str = "NCL"
    masked: bool = False
    liger: str | None = None


def contests() -> Iterator[Contest]:
    """Every norm of the table."""
    c = CHANNELS
    layer = cast(lambda x, w, b, _: F.layer_norm(x, x.shape[-1:], w, b))
    rms = cast(lambda x, w, _, __: F.rms_norm(x, x.shape[-1:], w, 1e-5))
    yield Contest(
        "LayerNorm over channels",
        lambda: seqnorm.LayerNorm(c),
        lambda x, w, b, n: channels_first(lambda t: layer(t, w, b, n), x),
    )
    yield Contest(
        "RMSNorm over channels",
        lambda: seqnorm.RMSNorm(c, eps=1e-5),
        lambda x, w, b, n: channels_first(lambda t: rms(t, w, b, n), x),
    )
    yield Contest(
        "BatchNorm, training",
        lambda: seqnorm.BatchNorm1d(c),
        lambda x, w, b, _: F.batch_norm(x, None, None, w, b, training=True),
    )
    yield Contest(
        "InstanceNorm",
        lambda: seqnorm.InstanceNorm1d(c, affine=True),
        cast(lambda x, w, b, _: F.instance_norm(x, None, None, w, b)),
    )
    yield Contest(
        "GroupNorm",
        lambda: seqnorm.GroupNorm(GROUPS, c),
        cast(lambda x, w, b, _: F.group_norm(x, GROUPS, w, b)),
    )
    yield Contest(
        "LayerNorm over the sequence",
        lambda: seqnorm.LayerNorm(c, over="CL"),
        cast(lambda x, w, b, _: F.group_norm(x, 1, w, b)),
    )
    last = {"layout": "NLC"}
    yield Contest(
        "LayerNorm, channels last", lambda: seqnorm.LayerNorm(c, layout="NLC"), layer,
        liger="LigerLayerNorm", **last,
    )  # fmt: skip
    yield Contest(
        "RMSNorm, channels last", lambda: seqnorm.RMSNorm(c, eps=1e-5, layout="NLC"), rms,
        liger="LigerRMSNorm", **last,
    )  # fmt: skip
    yield Contest(
        "LayerNorm over channels, masked", lambda: seqnorm.LayerNorm(c), cast(masked_layer),
        masked=True,
    )  # fmt: skip
    yield Contest("BatchNorm, masked", lambda: seqnorm.BatchNorm1d(c), masked_batch, masked=True)
    yield Contest(
        "GroupNorm, masked", lambda: seqnorm.GroupNorm(GROUPS, c), masked_group, masked=True
    )


Call = Callable[[], Any]


def calls(contest: Contest, x: Tensor, lengths: Tensor, backward: bool) -> dict[str, Call]:
    """What to time: each contender as a function without arguments."""
    device = x.device
    norm = contest.ours().to(device).train()
    weight = torch.ones(CHANNELS, device=device, requires_grad=True)
    bias = torch.zeros(CHANNELS, device=device, requires_grad=True)
    grad = torch.randn_like(x)
    # Each case gets code of its own, for its sizes alone: the best that the compiler can do.
    torch.compiler.reset()
    compiled = torch.compile(contest.eager, fullgraph=True, dynamic=False)
    given = lengths if contest.masked else None

    def ours(backend: str) -> Call:
        def run() -> Any:
            with seqnorm.backend(backend):
                return finish(norm(x, given), list(norm.parameters()))

        return run

    def finish(y: Tensor, parameters: list[Tensor]) -> Any:
        return torch.autograd.grad(y, [x, *parameters], grad) if backward else y

    # The bias of an RMSNorm takes no part.
    used = [weight] if "RMSNorm" in contest.name else [weight, bias]
    found: dict[str, Call] = {
        "triton": ours("triton"),
        "chosen": ours("auto"),
        "eager": lambda: finish(contest.eager(x, weight, bias, lengths), used),
        "compiled": lambda: finish(compiled(x, weight, bias, lengths), used),
    }
    if contest.liger and importlib.util.find_spec("liger_kernel"):
        from liger_kernel import transformers

        peer = getattr(transformers, contest.liger)(CHANNELS, eps=1e-5).to(device)
        found["Liger"] = lambda: finish(peer(x), list(peer.parameters()))
    return found


@torch.no_grad()
def check(found: dict[str, Call], dtype: torch.dtype) -> None:
    """Stop if the contenders do not compute the same."""
    expected = found["eager"]().float()
    for name, call in found.items():
        error = (call().float() - expected).abs().max().item()
        if not error <= 64 * torch.finfo(dtype).eps:
            raise SystemExit(f"{name} differs from torch by {error:.1e}: nothing measured")


def medians(found: dict[str, Call], rounds: int, flush: Tensor) -> dict[str, float]:
    """Median milliseconds of each call."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(rounds + 3):
        for name, call in found.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            start.record()
            call()
            end.record()
            end.synchronize()
            if turn >= 3:
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(found) for name, found in times.items()}


def copy_speed(device: torch.device, flush: Tensor) -> float:
    """Bytes per second, read and written, of a large copy on the device."""
    source = torch.randn(1 << 28, device=device)
    target = torch.empty_like(source)
    call = functools.partial(target.copy_, source)
    return 2 * source.nbytes / medians({"copy": call}, 20, flush)["copy"] * 1e3


def sizes(mebibytes: tuple[int, ...], dtype: torch.dtype, memory: int) -> Iterator[int]:
    """Numbers of samples, as long as a dozen tensors of the size fit into memory."""
    for size in mebibytes:
        if (size << 20) * 12 < memory:
            yield max(round((size << 20) / (CHANNELS * LENGTH * dtype.itemsize)), 1)


def rows(options: argparse.Namespace, copy: float, flush: Tensor) -> Iterator[str]:
    """Lines of the table."""
    device = flush.device
    memory = torch.cuda.get_device_properties(device).total_memory
    for contest in contests():
        for kind, dtype in DTYPES.items():
            for samples in sizes(options.mebibytes, dtype, memory):
                size = (samples, CHANNELS, LENGTH)
                size = size if contest.layout == "NCL" else (samples, LENGTH, CHANNELS)
                x = torch.randn(size, device=device).to(dtype).requires_grad_()
                lengths = torch.randint(LENGTH // 2, LENGTH + 1, (samples,), device=device)
                check(calls(contest, x, lengths, backward=False), dtype)
                for backward in (False, True):
                    with torch.set_grad_enabled(backward):
                        found = calls(contest, x, lengths, backward)
                        times = medians(found, options.rounds, flush)
                    moved = x.nbytes * (5 if backward else 2)
                    cells = [
                        f"{times[n] * 1e3:.0f} µs, {moved / times[n] / 1e6:.0f} GB/s, "
                        f"{moved / times[n] * 1e3 / copy:.0%}"
                        if n in times
                        else ""
                        for n in CONTENDERS
                    ]
                    name = f"{contest.name} | {kind} | {x.nbytes / 2**20:.0f}"
                    yield f"| {name} | {'both' if backward else 'forward'} | {' | '.join(cells)} |"


def report(options: argparse.Namespace, device: torch.device) -> Iterator[str]:
    """The Markdown page, line by line."""
    # Larger than any L2 cache.
    flush = torch.empty(1 << 28, dtype=torch.int8, device=device)
    copy = copy_speed(device, flush)
    yield "# Norms on a CUDA device"
    yield ""
    yield (
        f"Sequences (N, {CHANNELS}, {LENGTH}), channels last where the name says so, {GROUPS} "
        "groups, masked ones with lengths from half to all. Time, bytes that have to be moved over "
        "that time, and their share of the speed of a copy. Median of CUDA events "
        f"({options.rounds} rounds, the contenders in turns), L2 overwritten before each call. "
        '"both" is forward and backward. "chosen" is what happens without naming a backend.'
    )
    yield ""
    yield f"Device: {torch.cuda.get_device_name(device)}; a copy of 1 GiB: {copy / 1e9:.0f} GB/s."
    yield ""
    yield f"Versions: {', '.join(versions())}."
    yield ""
    yield "| norm | type | MiB | pass | triton | chosen | torch eager | torch.compile | Liger |"
    yield "|---|---|---:|---|---:|---:|---:|---:|---:|"
    yield from rows(options, copy, flush)
    yield ""
    yield "Reproduce: `python benchmarks/norms_gpu.py`"


def versions() -> Iterator[str]:
    """What was measured with what."""
    yield f"Python {platform.python_version()}"
    yield f"CUDA {torch.version.cuda}"
    for name in ("torch", "triton", "liger-kernel"):
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} not installed"


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python benchmarks/norms_gpu.py", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two sizes, to the screen")
    parser.add_argument("--rounds", type=int, default=30, help="runs to take the median of")
    options = parser.parse_args()
    options.mebibytes = (4, 64) if options.quick else MEBIBYTES
    options.rounds = min(options.rounds, 5) if options.quick else options.rounds
    return options


def main() -> None:
    """Measure and write the table."""
    options = parse()
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured")
        return
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    lines = []
    for line in report(options, torch.device("cuda")):
        print(line, flush=True)
        lines.append(line)
    if not options.quick:
        OUT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
