"""Measure what work on a whole human genome costs: time and memory, step by step.

The genome has the 24 chromosomes of GRCh38 with their lengths, made of the real bases of the demo's
chromosomes over and over, so that composition and runs of N are real and no 3 GB need be shipped;
peaks lie at random. Every step is a process of its own. It needs 5 GB on disk. Run it on a quiet
machine from the repository root::

    python benchmarks/whole_genome.py    # writes benchmarks/whole_genome.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from machine import peak_memory, processor

from data_tools.encode import AMBIGUOUS, one_hot
from data_tools.genome import Genome
from data_tools.negatives import background_windows, balance
from data_tools.splits import whole_chromosomes
from data_tools.windows import summit_windows, window_gc

DEMO = Path("examples/data/human_demo/human7.fa.gz")
OUT = Path("benchmarks/whole_genome.md")
WIDTH, PEAKS, MILLION = 1000, 100_000, 1_000_000
# Lengths of chr1 to chr22, X, Y in GRCh38, in bases: https://www.ncbi.nlm.nih.gov/grc/human/data
LENGTHS = (
    248956422, 242193529, 198295559, 190214555, 181538259, 170805979, 159345973, 145138636,
    138394717, 133797422, 135086622, 133275309, 114364328, 107043718, 101991189, 90338345,
    83257441, 80373285, 58617616, 64444167, 46709983, 50818468, 156040895, 57227415,
)  # fmt: skip
NAMES = [f"chr{name}" for name in (*range(1, 23), "X", "Y")]
Step = Callable[[Path], str]


def make(folder: Path) -> None:
    """Write the genome as FASTA with lines of 60 bases, and the peaks."""
    with Genome(DEMO) as demo:
        parts = [demo.fetch(name, 0, length) for name, length in demo.lengths.items()]
    every = np.frombuffer("".join(parts).encode(), dtype=np.uint8)
    with (folder / "genome.fa").open("wb") as stream:
        at = 0
        for name, length in zip(NAMES, LENGTHS, strict=True):
            stream.write(f">{name}\n".encode())
            for first in range(0, length, 60_000_000):
                size = min(60_000_000, length - first)
                piece = every[(at + np.arange(size, dtype=np.int64)) % len(every)]
                at = (at + size) % len(every)
                whole = size // 60 * 60
                lines = np.full((whole // 60, 61), ord("\n"), dtype=np.uint8)
                lines[:, :60] = piece[:whole].reshape(-1, 60)
                stream.write(lines.tobytes())
                if size > whole:
                    stream.write(piece[whole:].tobytes() + b"\n")
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"chrom": rng.choice(NAMES[:22], PEAKS)})
    limit = table["chrom"].map(dict(zip(NAMES, LENGTHS, strict=True)))
    table["start"] = (rng.random(PEAKS) * (limit - 3000)).astype(np.int64) + 1000
    table["end"] = table["start"] + 300
    table.to_csv(folder / "peaks.csv", index=False)


def opened(folder: Path) -> Genome:
    """The genome with its index."""
    return Genome(folder / "genome.fa", cache_dir=folder)


def first_open(folder: Path) -> str:
    """Open for the first time."""
    with opened(folder) as genome:
        return f"{sum(genome.lengths.values()):,} bases scanned and checked"


def second_open(folder: Path) -> str:
    """Open again."""
    with opened(folder) as genome:
        return f"{len(genome.lengths)} chromosomes"


def windows(folder: Path) -> str:
    """A million windows of 1 kb, as codes, then expanded batch by batch."""
    with opened(folder) as genome:
        rng = np.random.default_rng(1)
        chroms = rng.choice(NAMES, MILLION)
        limit = pd.Series(chroms).map(genome.lengths).to_numpy()
        starts = (rng.random(MILLION) * (limit - WIDTH)).astype(np.int64)
        codes = genome.windows(chroms, starts, WIDTH)
        total = sum(
            int(one_hot(codes[i : i + 512], np.uint8).sum()) for i in range(0, MILLION, 512)
        )
    return f"{len(codes):,} windows, {total:,} known bases"


def peaks_of(folder: Path, genome: Genome) -> pd.DataFrame:
    """Windows around the peaks that hold no N."""
    table = pd.read_csv(folder / "peaks.csv")
    laid = summit_windows(table, genome.lengths, WIDTH, on_edge="drop")
    return laid[~np.isnan(window_gc(genome, laid))].reset_index(drop=True)


def gc_of_windows(folder: Path) -> str:
    """GC fraction of 100,000 windows."""
    with opened(folder) as genome:
        return f"{len(peaks_of(folder, genome)):,} windows with known bases"


def negatives(folder: Path) -> str:
    """GC-matched negatives for 100,000 peaks."""
    with opened(folder) as genome:
        table = peaks_of(folder, genome)
        regions = whole_chromosomes(NAMES, genome.lengths)
        drawn = background_windows(
            genome, table, regions, "gc_matched", count=1, width=WIDTH, seed=0
        )
        kept = table.drop(index=table.index[drawn.unmatched])
        both = [t.assign(gc=window_gc(genome, t)) for t in (kept, drawn.windows)]
    worst = (balance(*both)["gc_auroc"] - 0.5).abs().max()
    return f"{len(drawn.windows):,} negatives; GC's AUROC off .5 by {worst:.4f} at most"


def store(folder: Path) -> str:
    """A million windows of 1 kb written as a memory-mapped store, and read in random order."""
    from data_tools.window_store import WindowStore, write_window_store

    with opened(folder) as genome:
        rng = np.random.default_rng(2)
        table = pd.DataFrame({"chrom": rng.choice(NAMES, MILLION)})
        limit = table["chrom"].map(genome.lengths).to_numpy()
        table["start"] = (rng.random(MILLION) * (limit - WIDTH)).astype(np.int64)
        table["end"] = table["start"] + WIDTH
        write_window_store(folder / "windows.store", genome, table)
    began = time.perf_counter()
    kept = WindowStore(folder / "windows.store")
    order = rng.permutation(MILLION)
    known = 0
    for first in range(0, MILLION, 512):
        known += int((kept.codes(order[first : first + 512]) < AMBIGUOUS).sum())
    size = sum(f.stat().st_size for f in (folder / "windows.store").rglob("*") if f.is_file())
    seconds = time.perf_counter() - began
    return f"{size >> 20:,} MiB on disk; all read back in batches of 512 in {seconds:.1f} s"


STEPS: dict[str, Step] = {
    "open for the first time (3.1 Gb scanned)": first_open,
    "open again": second_open,
    "1,000,000 windows of 1 kb to codes and one-hot": windows,
    "GC of 100,000 windows of 1 kb": gc_of_windows,
    "GC-matched negatives for 100,000 peaks": negatives,
    "1,000,000 windows of 1 kb to a store, and back": store,
}


def one(name: str, folder: Path) -> None:
    """Run one step in this process and print what it took as JSON."""
    began = time.perf_counter()
    what = STEPS[name](folder)
    said = {
        "seconds": time.perf_counter() - began,
        "memory": peak_memory(),
        "what": what,
    }
    sys.stdout.write(json.dumps(said) + "\n")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], Path(options.one[1]))
        return
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        for step in STEPS:
            done = subprocess.run(
                [sys.executable, __file__, "--one", step, str(folder)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{step}: {done.stderr[-3000:]}")
            said = json.loads(done.stdout.splitlines()[-1])
            lines.append(
                f"| {step} | {said['seconds']:.1f} | {said['memory']:,.0f} | {said['what']} |"
            )
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    OUT.write_text(
        f"""# A whole human genome

Written by `python benchmarks/whole_genome.py`: a FASTA file with the chromosome lengths of GRCh38
({sum(LENGTHS):,} bases) and real bases repeated, {PEAKS:,} peaks at random places. Every step is a
process of its own, with its imports; one core.

{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}.

| step | s | peak memory, MiB | what came out |
|---|--:|--:|---|
{chr(10).join(lines)}
"""
    )


if __name__ == "__main__":
    main()
