"""Measure FASTA readers: bulk windows to one-hot, single fetches, opening with and without index.

The readers are pysam, pyfaidx, a plain memory-mapped reader without any check, and
`data_tools.genome.Genome` on plain and on bgzip FASTA. Run it from the repository root::

    python benchmarks/readers.py > benchmarks/readers.md
"""

from __future__ import annotations

import argparse
import gzip
import mmap
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyfaidx
import pysam
from numpy.typing import NDArray

from data_tools.encode import CODE_TABLE, encode, one_hot
from data_tools.genome import Genome

DEMO = Path("examples/data/human_demo/human7.fa.gz")
Starts = NDArray[np.int64]


class Reader(Protocol):
    """What is measured: one window as letters, and many as one-hot uint8 (N, 4, width)."""

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Give one window."""

    def one_hot(self, chrom: str, starts: Starts, width: int) -> NDArray[np.uint8]:
        """Give many windows."""


class _Loop:
    """Reads window by window, the only way that these libraries offer."""

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Give one window."""
        raise NotImplementedError

    def one_hot(self, chrom: str, starts: Starts, width: int) -> NDArray[np.uint8]:
        """Give many windows."""
        codes = np.empty((len(starts), width), dtype=np.uint8)
        for row, start in zip(codes, starts.tolist(), strict=True):
            row[:] = encode(self.fetch(chrom, start, start + width))
        return one_hot(codes, np.uint8)


class Pysam(_Loop):
    """pysam.FastaFile, which writes .fai (and .gzi) beside the file."""

    def __init__(self, path: Path) -> None:
        self.file = pysam.FastaFile(str(path))

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Give one window."""
        text: str = self.file.fetch(chrom, start, end)
        return text


class Pyfaidx(_Loop):
    """pyfaidx.Fasta, which writes .fai beside the file."""

    def __init__(self, path: Path) -> None:
        self.file = pyfaidx.Fasta(str(path), as_raw=True)

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Give one window."""
        text: str = self.file[chrom][start:end]
        return text


class MemoryMap:
    """The floor: a memory map of plain FASTA and a gather with no check of anything."""

    def __init__(self, path: Path) -> None:
        self.layout: dict[str, tuple[int, int, int]] = {}
        with path.open("rb") as stream:
            self.map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self.bytes = np.frombuffer(self.map, dtype=np.uint8)
        at = 0
        while at >= 0:
            end = self.map.find(b"\n", at)
            line = self.map.find(b"\n", end + 1) - end
            at = self.map.find(b"\n>", end)
            name = self.map[self.map.rfind(b">", 0, end) + 1 : end].split()[0].decode()
            self.layout[name] = (end + 1, line - 1, line)
            at += at >= 0

    def fetch(self, chrom: str, start: int, end: int) -> str:
        """Give one window."""
        offset, width, stride = self.layout[chrom]
        first = offset + start // width * stride + start % width
        last = offset + (end - 1) // width * stride + (end - 1) % width
        return self.map[first : last + 1].replace(b"\n", b"").decode("ascii")

    def one_hot(self, chrom: str, starts: Starts, width: int) -> NDArray[np.uint8]:
        """Give many windows."""
        offset, bases, stride = self.layout[chrom]
        lo, hi = int(starts.min()) // bases, (int(starts.max()) + width) // bases + 1
        lines = self.bytes[offset + lo * stride : offset + hi * stride]
        lines = lines[: len(lines) // stride * stride].reshape(-1, stride)[:, :bases]
        codes = np.frombuffer(CODE_TABLE, dtype=np.uint8)[lines].ravel()
        windows = np.lib.stride_tricks.sliding_window_view(codes, width)
        return one_hot(windows[starts - lo * bases], np.uint8)


class OurGenome:
    """`Genome`, in bulk."""

    def __init__(self, path: Path) -> None:
        self.genome = Genome(path)
        self.fetch = self.genome.fetch

    def one_hot(self, chrom: str, starts: Starts, width: int) -> NDArray[np.uint8]:
        """Give many windows."""
        return one_hot(self.genome.windows(chrom, starts, width), np.uint8)


def cpu_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Give the median CPU time of some runs; the result is dropped between runs."""
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def measure(
    make: Callable[[Path], Reader], source: Path, folder: Path, options: argparse.Namespace
) -> tuple[list[float], NDArray[np.uint8]]:
    """Measure one reader on a fresh copy of the file, so that no index exists at first."""
    folder.mkdir()
    path = folder / source.name
    shutil.copy(source, path)
    os.environ["SEQNORM_CACHE"] = str(folder / "cache")
    cold = cpu_seconds(lambda: make(path), 1)
    warm = cpu_seconds(lambda: make(path), options.repeats)
    reader = make(path)
    rng = np.random.default_rng(0)
    limit = options.length - options.width
    starts = rng.integers(0, limit, options.windows)
    few = rng.integers(0, limit, options.fetches).tolist()
    near = [options.length // 2 + 10 * i for i in range(options.fetches)]
    bulk = cpu_seconds(
        lambda: reader.one_hot(options.chrom, starts, options.width), options.repeats
    )

    def fetch_all(places: list[int]) -> None:
        for start in places:
            reader.fetch(options.chrom, start, start + options.width)

    anywhere = cpu_seconds(lambda: fetch_all(few), options.repeats) / options.fetches
    neighbour = cpu_seconds(lambda: fetch_all(near), options.repeats) / options.fetches
    sample = reader.one_hot(options.chrom, starts[:1000], options.width)
    shutil.rmtree(folder)
    return [bulk, anywhere * 1e6, neighbour * 1e6, cold, warm * 1e3], sample


def winners(times: dict[str, float]) -> str:
    """Name the fastest, and whoever is too near to it to tell apart."""
    near = [name for name, value in times.items() if value <= 1.1 * min(times.values())]
    return " = ".join(near)


def machine() -> str:
    """Name the processor, the cores and the versions."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [ln for ln in info.read_text().splitlines() if ln.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    return (
        f"{os.cpu_count()} cores, {model}, Python {platform.python_version()}, "
        f"NumPy {np.__version__}, pysam {version('pysam')}, pyfaidx {version('pyfaidx')}"
    )


def report(rows: dict[str, list[float]], options: argparse.Namespace) -> str:
    """Draw the markdown table and say which reader won."""
    title = f"{options.windows:,} windows of {options.width} bases of {options.chrom}"
    head = ["reader", "bulk, s", "fetch anywhere, µs", "fetch nearby, µs", "first open, s"]
    lines = [
        "# FASTA readers",
        "",
        f"{title} to one-hot uint8 (bulk), {options.fetches:,} single fetches of {options.width} "
        "bases at random places and at neighbouring places, opening a file that has no index yet "
        "and opening it again. CPU time of one core, median of "
        f"{options.repeats} runs (first open: one run), files in the page cache.",
        "",
        f"Machine: {machine()}.",
        "",
        "| " + " | ".join([*head, "open again, ms"]) + " |",
        "|---" + "|---:" * len(head) + "|",
    ]
    for name, (bulk, anywhere, near, cold, warm) in rows.items():
        lines.append(
            f"| {name} | {bulk:.3f} | {anywhere:.1f} | {near:.1f} | {cold:.2f} | {warm:.2f} |"
        )
    checked = {name: row for name, row in rows.items() if not name.startswith("memory map")}
    best = [winners({name: row[i] for name, row in checked.items()}) for i in range(5)]
    lines += [
        "",
        f"Fastest, or within 10 % of it: bulk {best[0]}; fetch anywhere {best[1]}; fetch nearby "
        f"{best[2]}; first open {best[3]}; open again {best[4]}. The memory map, which checks "
        "nothing and reads no bgzip, is the floor and does not compete. All readers gave the same "
        "one-hot arrays on the first 1,000 windows.",
        "",
        "Reproduce: `python benchmarks/readers.py > benchmarks/readers.md`",
    ]
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python benchmarks/readers.py", description=__doc__)
    parser.add_argument("--fasta", type=Path, default=DEMO, help="bgzip FASTA (default: the demo)")
    parser.add_argument("--chrom", default="chr22", help="chromosome to read (default: chr22)")
    parser.add_argument("--windows", type=int, default=50_000, help="windows of the bulk read")
    parser.add_argument("--width", type=int, default=1000, help="bases per window")
    parser.add_argument("--fetches", type=int, default=2000, help="single fetches")
    parser.add_argument("--repeats", type=int, default=5, help="runs to take the median of")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure all readers and print the table."""
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Genome(options.fasta, cache_dir=folder / "cache") as genome:
            options.length = genome.lengths[options.chrom]
        plain, packed = folder / "genome.fa", folder / "genome.fa.gz"
        shutil.copy(options.fasta, packed)
        with gzip.open(packed) as source, plain.open("wb") as target:
            shutil.copyfileobj(source, target)
        readers: list[tuple[str, Callable[[Path], Reader], Path]] = [
            ("memory map, plain, unchecked", MemoryMap, plain),
            ("seqnorm Genome, plain", OurGenome, plain),
            ("pysam, plain", Pysam, plain),
            ("pyfaidx, plain", Pyfaidx, plain),
            ("seqnorm Genome, bgzip", OurGenome, packed),
            ("pysam, bgzip", Pysam, packed),
        ]
        rows, truth = {}, None
        for label, make, path in readers:
            rows[label], sample = measure(make, path, folder / "run", options)
            truth = sample if truth is None else truth
            if not np.array_equal(sample, truth):
                sys.exit(f"{label} reads other bases than {readers[0][0]}")
    print(report(rows, options))


if __name__ == "__main__":
    main()
