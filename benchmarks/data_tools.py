"""Measure data_tools against its peers on real data: same input, same output checked, one run.

Each contender of a case runs in a process of its own, so that its memory is its own; the contenders
take turns. Times are medians of the calls after the first, which is shown apart, since some compile
when they are first called. Run it on a quiet machine from the repository root (some ten minutes)::

    python benchmarks/data_tools.py            # writes benchmarks/data_tools.md
    python benchmarks/data_tools.py --only windows shuffle   # to the screen
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import peak_memory, processor
from twobit_file import write_twobit

from data_tools.encode import encode, one_hot
from data_tools.genome import Genome
from data_tools.interval_sets import overlaps
from data_tools.intervals import read_intervals
from data_tools.negatives import background_windows, balance
from data_tools.shuffle import kmer_shuffle
from data_tools.splits import whole_chromosomes
from data_tools.windows import summit_windows, window_gc

DEMO = Path("examples/data/human_demo")
OUT = Path("benchmarks/data_tools.md")
Call = Callable[[], Any]
WINDOWS, WIDTH = 50_000, 1000
ROUNDS = 3


@dataclass(frozen=True)
class Case:
    """One task and who does it: names to functions that set up and give what is timed."""

    title: str
    contenders: dict[str, Callable[[Path], Call]]
    same: tuple[str, ...] = ()
    calls: int = 5
    note: str = ""


@dataclass(frozen=True)
class Goal:
    """How many times as fast as another ours must be at least."""

    case: str
    other: str
    ours: str
    least: float


# --- what is measured -----------------------------------------------------------------------------


def places(folder: Path) -> pd.DataFrame:
    """50,000 windows of chr22 without an ambiguous base, in random order."""
    rng = np.random.default_rng(0)
    with Genome(folder / "human7.fa", cache_dir=folder) as genome:
        starts = rng.integers(17_000_000, genome.lengths["chr22"] - WIDTH, 2 * WINDOWS)
        known = genome.windows("chr22", starts, WIDTH).max(axis=1) < 4
    start = starts[known][:WINDOWS]
    return pd.DataFrame({"chrom": "chr22", "start": start, "end": start + WIDTH})


def ours_windows(name: str) -> Callable[[Path], Call]:
    """Windows to one-hot by `Genome`."""

    def setup(folder: Path) -> Call:
        table = pd.read_csv(folder / "places.csv")
        genome = Genome(folder / name, cache_dir=folder)
        starts = table["start"].to_numpy()
        return lambda: one_hot(genome.windows("chr22", starts, WIDTH), np.uint8)

    return setup


def tangermeme_windows(folder: Path) -> Call:
    """The same by tangermeme, as its documentation has it."""
    from tangermeme.io import extract_loci

    table = pd.read_csv(folder / "places.csv")
    path = str(folder / "human7.fa")
    return lambda: extract_loci(table, path, in_window=WIDTH).numpy().view(np.uint8)


def pysam_windows(folder: Path) -> Call:
    """A loop over fetches of pysam."""
    import pysam

    starts = pd.read_csv(folder / "places.csv")["start"].tolist()
    file = pysam.FastaFile(str(folder / "human7.fa"))
    return lambda: one_hot(
        np.stack([encode(file.fetch("chr22", s, s + WIDTH)) for s in starts]), np.uint8
    )


def pyfaidx_windows(folder: Path) -> Call:
    """A loop over slices of pyfaidx."""
    import pyfaidx

    starts = pd.read_csv(folder / "places.csv")["start"].tolist()
    file = pyfaidx.Fasta(str(folder / "human7.fa"), as_raw=True)
    return lambda: one_hot(
        np.stack([encode(file["chr22"][s : s + WIDTH]) for s in starts]), np.uint8
    )


def py2bit_windows(folder: Path) -> Call:
    """A loop over sequences of py2bit."""
    import py2bit

    starts = pd.read_csv(folder / "places.csv")["start"].tolist()
    file = py2bit.open(str(folder / "human7.2bit"))
    return lambda: one_hot(
        np.stack([encode(file.sequence("chr22", s, s + WIDTH)) for s in starts]), np.uint8
    )


def plain_write(folder: Path) -> Call:
    """The floor: write as many bytes."""
    result = np.ones((WINDOWS, 4, WIDTH), dtype=np.uint8)
    return lambda: result.copy()


def positives(folder: Path) -> tuple[Genome, pd.DataFrame]:
    """CTCF peaks as windows of 1 kb."""
    genome = Genome(folder / "human7.fa", cache_dir=folder)
    peaks = read_intervals(DEMO / "ctcf_k562.narrowPeak", genome)
    return genome, summit_windows(peaks, genome.lengths, WIDTH, on_edge="drop")


def ours_negatives(folder: Path) -> Call:
    """GC-matched within the chromosome and the caliper, positives without a match dropped."""
    genome, table = positives(folder)
    regions = whole_chromosomes(list(genome.lengths), genome.lengths)

    def call() -> tuple[pd.DataFrame, pd.DataFrame]:
        drawn = background_windows(
            genome, table, regions, "gc_matched", count=1, width=WIDTH, seed=1
        )
        kept = table.drop(index=table.index[drawn.unmatched])
        return kept, drawn.windows

    return call


def tangermeme_negatives(folder: Path) -> Call:
    """Tangermeme's matching in bins over all chromosomes."""
    from tangermeme.match import extract_matching_loci

    table = positives(folder)[1]
    path = str(folder / "human7.fa")
    return lambda: (table, extract_matching_loci(table, path, in_window=WIDTH, random_state=1))


def chrombpnet_negatives(folder: Path) -> Call:
    """ChromBPNet's method, written anew: GC to two digits on a grid, filled with the nearest."""
    import pyfaidx

    table = positives(folder)[1]

    def percent(text: str) -> int:
        upper = text.upper()
        return round(100 * (upper.count("G") + upper.count("C")) / len(upper))

    def call() -> tuple[pd.DataFrame, pd.DataFrame]:
        rng = np.random.default_rng(1)
        file = pyfaidx.Fasta(str(folder / "human7.fa"), as_raw=True)
        rows = []
        for name, mine in table.groupby("chrom", sort=False):
            chrom = str(name)
            bins: dict[int, list[int]] = {}
            taken = pd.arrays.IntervalArray.from_arrays(mine["start"], mine["end"], closed="left")
            grid = np.arange(0, len(file[chrom]) - WIDTH, WIDTH)
            walls = np.sort(np.concatenate([taken.left // WIDTH, (taken.right - 1) // WIDTH]))
            for start in grid[~np.isin(grid // WIDTH, walls)].tolist():
                text = file[chrom][start : start + WIDTH]
                if "N" not in text.upper():
                    bins.setdefault(percent(text), []).append(start)
            for places in bins.values():
                rng.shuffle(places)
            for start in mine["start"].tolist():
                goal = percent(file[chrom][start : start + WIDTH])
                near = sorted((g for g in bins if bins[g]), key=lambda g, to=goal: abs(g - to))
                if near:
                    rows.append((chrom, bins[near[0]].pop()))
        found = pd.DataFrame(rows, columns=["chrom", "start"])
        return table, found.assign(end=found["start"] + WIDTH)

    return call


def shuffle_input(count: int) -> np.ndarray:
    """Real sequences of 1 kb."""
    with Genome(DEMO / "human7.fa.gz") as genome:
        starts = np.random.default_rng(0).integers(17_000_000, 50_000_000, 3 * count)
        codes = genome.windows("chr22", starts, WIDTH)
    return codes[codes.max(axis=1) < 4][:count]


def ours_shuffle(number: int, count: int) -> Callable[[Path], Call]:
    """Shuffles by `kmer_shuffle`."""

    def setup(folder: Path) -> Call:
        codes = shuffle_input(number)
        return lambda: kmer_shuffle(codes, k=2, count=count, seed=0)

    return setup


def tangermeme_shuffle(number: int, count: int) -> Callable[[Path], Call]:
    """Shuffles by tangermeme."""

    def setup(folder: Path) -> Call:
        import torch
        from tangermeme.ersatz import dinucleotide_shuffle

        hot = torch.from_numpy(one_hot(shuffle_input(number), np.float32))
        return lambda: dinucleotide_shuffle(hot, n=count, random_state=0)

    return setup


def ours_read(name: str) -> Callable[[Path], Call]:
    """A file of intervals by `read_intervals`, all of it checked."""
    return lambda folder: lambda: read_intervals(folder / name)


def pandas_read(name: str, sep: str = "\t") -> Callable[[Path], Call]:
    """The same file by pandas, nothing checked."""
    return lambda folder: lambda: pd.read_csv(folder / name, sep=sep, header=None)


def bioframe_read(name: str, schema: str) -> Callable[[Path], Call]:
    """The same file by bioframe."""

    def setup(folder: Path) -> Call:
        import bioframe

        return lambda: bioframe.read_table(str(folder / name), schema=schema)

    return setup


def interval_tables(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables of 200,000 intervals."""
    table = read_intervals(folder / "six.bed")[["chrom", "start", "end"]]
    return table.iloc[:200_000], table.iloc[200_000:400_000]


def ours_overlaps(folder: Path) -> Call:
    """Which intervals overlap any of another table."""
    one, other = interval_tables(folder)
    return lambda: overlaps(one, other)


def bioframe_overlaps(folder: Path) -> Call:
    """The same by bioframe."""
    import bioframe

    one, other = interval_tables(folder)
    return lambda: bioframe.count_overlaps(one, other)["count"].to_numpy() > 0


CASES = {
    "windows": Case(
        f"{WINDOWS:,} windows of {WIDTH} bases to one-hot, uint8",
        {
            "plain write": plain_write,
            "ours, FASTA": ours_windows("human7.fa"),
            "ours, bgzip": ours_windows("human7.fa.gz"),
            "ours, 2bit": ours_windows("human7.2bit"),
            "tangermeme": tangermeme_windows,
            "pysam loop": pysam_windows,
            "pyfaidx loop": pyfaidx_windows,
            "py2bit loop": py2bit_windows,
        },
        same=("ours, FASTA", "ours, bgzip", "ours, 2bit", "tangermeme", "pysam loop",
              "pyfaidx loop", "py2bit loop"),
    ),
    "negatives": Case(
        "GC-matched negatives for the demo's CTCF peaks, 1 kb",
        {
            "ours": ours_negatives,
            "tangermeme": tangermeme_negatives,
            "ChromBPNet's method": chrombpnet_negatives,
        },
        calls=2,
    ),
    "shuffle": Case(
        "dinucleotide shuffles, one each of 2,000 sequences of 1 kb",
        {"ours": ours_shuffle(2000, 1), "tangermeme": tangermeme_shuffle(2000, 1)},
    ),
    "shuffles": Case(
        "dinucleotide shuffles, 20 each of 200 sequences of 1 kb",
        {"ours": ours_shuffle(200, 20), "tangermeme": tangermeme_shuffle(200, 20)},
    ),
    "bed3": Case(
        "a million rows of BED3",
        {"ours": ours_read("three.bed"), "pandas": pandas_read("three.bed"),
         "bioframe": bioframe_read("three.bed", "bed3")},
    ),
    "bed6": Case(
        "a million rows of BED6",
        {"ours": ours_read("six.bed"), "pandas": pandas_read("six.bed"),
         "bioframe": bioframe_read("six.bed", "bed6")},
    ),
    "narrowPeak": Case(
        "a million rows of narrowPeak",
        {"ours": ours_read("ten.narrowPeak"), "pandas": pandas_read("ten.narrowPeak"),
         "bioframe": bioframe_read("ten.narrowPeak", "narrowPeak")},
    ),
    "overlaps": Case(
        "which of 200,000 intervals overlap any of 200,000 others",
        {"ours": ours_overlaps, "bioframe": bioframe_overlaps},
        same=("ours", "bioframe"),
    ),
}  # fmt: skip

GOALS = (
    Goal("windows", "tangermeme", "ours, FASTA", 1.0),
    Goal("windows", "tangermeme", "ours, 2bit", 1.0),
    Goal("windows", "pysam loop", "ours, FASTA", 5.0),
    Goal("windows", "pyfaidx loop", "ours, FASTA", 5.0),
    Goal("negatives", "tangermeme", "ours", 1.0),
    Goal("negatives", "ChromBPNet's method", "ours", 1.0),
    Goal("shuffle", "tangermeme", "ours", 3.0),
    Goal("shuffles", "tangermeme", "ours", 3.0),
    Goal("bed3", "pandas", "ours", 0.5),
    Goal("bed6", "pandas", "ours", 0.5),
    Goal("narrowPeak", "pandas", "ours", 0.5),
)


# --- files ----------------------------------------------------------------------------------------


def prepare(folder: Path) -> None:
    """Make the files that the cases read."""
    with gzip.open(DEMO / "human7.fa.gz") as packed, (folder / "human7.fa").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    shutil.copy(DEMO / "human7.fa.gz", folder)
    with Genome(folder / "human7.fa", cache_dir=folder) as genome:
        write_twobit(folder / "human7.2bit", genome)
    places(folder).to_csv(folder / "places.csv", index=False)
    import pyfaidx

    pyfaidx.Fasta(str(folder / "human7.fa"))
    rng = np.random.default_rng(0)
    count = 1_000_000
    start = rng.integers(0, 240_000_000, count)
    table = pd.DataFrame({"chrom": rng.choice([f"chr{i}" for i in range(1, 23)], count)})
    table = table.assign(start=start, end=start + rng.integers(100, 2000, count))
    table.to_csv(folder / "three.bed", sep="\t", header=False, index=False)
    table["name"] = [f"peak_{i}" for i in range(count)]
    table["score"] = rng.integers(0, 1001, count)
    table["strand"] = rng.choice(["+", "-", "."], count)
    table.to_csv(folder / "six.bed", sep="\t", header=False, index=False)
    for name in ("signal", "p_value", "q_value"):
        table[name] = rng.gamma(2, 10, count).round(5)
    table["summit"] = (table["end"] - table["start"]) // 2
    table.to_csv(folder / "ten.narrowPeak", sep="\t", header=False, index=False)


# --- the contest ----------------------------------------------------------------------------------


def one(case: str, contender: str, folder: Path) -> None:
    """Measure one contender in this process and print what came out as JSON."""
    warnings.simplefilter("ignore")
    call = CASES[case].contenders[contender](folder)
    times, cpu = [], []
    for _ in range(CASES[case].calls + 1):
        began, used = time.perf_counter(), time.process_time()
        result = call()
        times.append(time.perf_counter() - began)
        cpu.append(time.process_time() - used)
        quality = measured(case, result, folder)
        del result
    said = {
        "first": times[0],
        "times": times[1:],
        "cpu": cpu[1:],
        "memory": peak_memory(),
        **quality,
    }
    sys.stdout.write(json.dumps(said) + "\n")


def measured(case: str, result: Any, folder: Path) -> dict[str, Any]:
    """What is compared between contenders, beside their time."""
    if case == "negatives":
        genome = positives(folder)[0]
        given = [table.assign(gc=window_gc(genome, table)) for table in result]
        found = balance(*given).iloc[:-1]
        apart = (found["gc_auroc"] - 0.5).abs().max()
        return {"digest": "", "worst": float(apart), "found": len(result[1])}
    if case in ("windows", "overlaps"):
        return {"digest": hashlib.sha256(np.ascontiguousarray(result)).hexdigest()}
    return {"digest": ""}


def contest(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Let the contenders of a case take turns; medians over all turns."""
    turns: dict[str, list[dict[str, Any]]] = {c: [] for c in CASES[name].contenders}
    for _ in range(ROUNDS):
        for contender in turns:
            done = subprocess.run(
                [sys.executable, __file__, "--one", name, contender, "--folder", str(folder)],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(f"{name}, {contender}: {done.stderr[-2000:]}")
            turns[contender].append(json.loads(done.stdout.splitlines()[-1]))
    found = {}
    for contender, runs in turns.items():
        found[contender] = runs[0] | {
            "first": statistics.median(run["first"] for run in runs),
            "wall": statistics.median(t for run in runs for t in run["times"]),
            "cpu": statistics.median(t for run in runs for t in run["cpu"]),
            "memory": max(run["memory"] for run in runs),
        }
    digests = {found[contender]["digest"] for contender in CASES[name].same}
    if len(digests) > 1:
        raise SystemExit(f"{name}: the contenders give different results")
    return found


def lines_of(name: str, found: dict[str, dict[str, Any]]) -> str:
    """One case as Markdown."""
    quality = "worst" in next(iter(found.values()))
    more = " negatives | GC's AUROC off .5 at most |" if quality else ""
    head = f"| | first call, s | median, s | CPU, s | peak memory, MiB |{more}\n"
    text = f"## {CASES[name].title}\n\n{head}|---|--:|--:|--:|--:|" + (
        "--:|--:|\n" if more else "\n"
    )
    for contender, run in found.items():
        text += (
            f"| {contender} | {run['first']:.3f} | {run['wall']:.3f} | {run['cpu']:.3f} | "
            f"{run['memory']:.0f} |"
        )
        text += f" {run['found']:,} | {run['worst']:.3f} |\n" if quality else "\n"
    return text


def goals_of(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The goals as Markdown."""
    lines = ["| case | ratio of medians | found | at least | held |", "|---|---|--:|--:|---|"]
    for goal in GOALS:
        if goal.case not in results:
            continue
        runs = results[goal.case]
        ratio = runs[goal.other]["wall"] / runs[goal.ours]["wall"]
        held = "yes" if ratio >= goal.least else "**no**"
        lines.append(
            f"| {CASES[goal.case].title} | {goal.other} / {goal.ours} | {ratio:.2f} | "
            f"{goal.least:g} | {held} |"
        )
    return "\n".join(lines)


def page(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The whole page."""
    peers = ("pysam", "pyfaidx", "py2bit", "tangermeme", "bioframe", "pandas", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in peers)
    same = [name for name, case in CASES.items() if case.same and name in results]
    parts = [lines_of(name, found) for name, found in results.items()]
    return f"""# Data tools against their peers

Written by `python benchmarks/data_tools.py`. Every contender runs in a process of its own,
{ROUNDS} times in turn; *first call* is the median of the first calls, with what is compiled then,
*median* that of all later calls, *CPU* their processor time over all threads. Results of
{" and ".join(same)} were compared and are the same to the byte. Peers are called as their
documentation has it; ChromBPNet's method is written anew, since it is no library. *GC's AUROC off
.5 at most*: how well GC alone tells the negatives from the peaks on the worst chromosome.

{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.

{goals_of(results)}

{"".join(part + chr(10) for part in parts).rstrip()}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=[*CASES], default=[*CASES])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        one(*options.one, options.folder)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        results = {}
        for case in options.only:
            results[case] = contest(case, folder)
            sys.stdout.write(lines_of(case, results[case]) + "\n")
            sys.stdout.flush()
    if set(options.only) == set(CASES):
        OUT.write_text(page(results))
    else:
        sys.stdout.write(goals_of(results) + "\n")


if __name__ == "__main__":
    main()
