"""Read one genome from many forked workers and threads at once, and count wrong bases.

A genome of random letters is written as plain FASTA, as bgzip and as 2bit. The truth is held in
memory. Then 16 processes open the file at the same moment while it has no index yet, forked
workers share one open genome, and so do threads. Run it from the repository root::

    python benchmarks/genome_concurrency.py

It ends with an error if a single base is wrong, or if a process fails to open the file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from Bio import bgzf

from data_tools.genome import Genome

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data_tools"))
from twobit_files import twobit_bytes

FORK = multiprocessing.get_context("fork")
WIDTH = 500


def random_letters(length: int) -> str:
    """Give bases in both cases, in stretches, some of them N."""
    rng = np.random.default_rng(3)
    letters = rng.choice(np.frombuffer(b"ACGT", dtype=np.uint8), length)
    stretch = rng.random(length // 100 + 1).repeat(100)[:length]
    letters[stretch < 0.05] = ord("N")
    letters[stretch > 0.6] |= 0x20
    return letters.tobytes().decode("ascii")


def write(path: Path, truth: str) -> None:
    """Write the letters in the format that the name of the file says."""
    if path.suffix == ".2bit":
        path.write_bytes(twobit_bytes({"chr": truth}))
        return
    lines = [truth[i : i + 60] for i in range(0, len(truth), 60)]
    raw = ("\n".join([">chr", *lines]) + "\n").encode("ascii")
    if path.suffix == ".gz":
        with bgzf.BgzfWriter(str(path), "wb") as stream:
            stream.write(raw)
    else:
        path.write_bytes(raw)


def wrong_bases(genome: Genome, truth: str, reads: int, seed: int) -> int:
    """Read at random places and count the bases that differ from the truth."""
    wrong = 0
    for start in np.random.default_rng(seed).integers(0, len(truth) - WIDTH, reads).tolist():
        found, right = genome.fetch("chr", start, start + WIDTH), truth[start : start + WIDTH]
        if found != right:
            wrong += sum(a != b for a, b in zip(found, right, strict=False))
            wrong += abs(len(found) - len(right))
    return wrong


def in_processes(count: int, job: Callable[[int], int]) -> list[int]:
    """Give what each forked process counted; -1 for one that failed."""
    counted = FORK.Array("l", [-1] * count)

    def run(i: int) -> None:
        counted[i] = job(i)

    children = [FORK.Process(target=run, args=(i,)) for i in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return list(counted)


def opened_at_once(path: Path, truth: str, count: int) -> list[int]:
    """Let processes open an unindexed genome at the same moment and read all of it."""
    barrier = FORK.Barrier(count)

    def job(i: int) -> int:
        barrier.wait(60)
        with Genome(path) as genome:
            return int(genome.fetch("chr", 0, genome.lengths["chr"]) != truth)

    return in_processes(count, job)


def measure(path: Path, truth: str, options: argparse.Namespace) -> int:
    """Print a line for each way of sharing; give how much went wrong."""
    workers, each = options.workers, -(-options.reads // options.workers)
    failures = opened_at_once(path, truth, options.openers)
    print(f"{path.name}: {options.openers} openers at once, {sum(map(bool, failures))} failed")
    bad = sum(map(bool, failures))
    with Genome(path) as genome:
        genome.fetch("chr", 0, WIDTH)
        begin = time.perf_counter()
        forked = in_processes(workers, lambda i: wrong_bases(genome, truth, each, i))
        middle = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            threads = list(
                pool.map(lambda i: wrong_bases(genome, truth, each, 100 + i), range(workers))
            )
        end = time.perf_counter()
    for kind, counts, seconds in (
        ("forked workers", forked, middle - begin),
        ("threads", threads, end - middle),
    ):
        bad += sum(map(bool, counts))
        print(
            f"{path.name}: {workers} {kind}, {workers * each:,} reads of {WIDTH} bases in "
            f"{seconds:.1f} s, {sum(counts)} wrong bases"
        )
    return bad


def main() -> None:
    """Measure all formats."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", type=int, default=5_000_000, help="length of the genome")
    parser.add_argument("--reads", type=int, default=100_000, help="reads for each way of sharing")
    parser.add_argument("--workers", type=int, default=4, help="forked workers, and threads")
    parser.add_argument("--openers", type=int, default=16, help="processes that open at once")
    options = parser.parse_args()
    truth = random_letters(options.bases)
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEQNORM_CACHE"] = str(Path(folder) / "cache")
        for name in ("genome.fa", "genome.fa.gz", "genome.2bit"):
            path = Path(folder) / name
            write(path, truth)
            bad += measure(path, truth, options)
    if bad:
        sys.exit(f"{bad} readers went wrong")


if __name__ == "__main__":
    main()
