"""Measure what a hold-out study takes beside training, and what a second worker gains.

The first is read from a finished run: its whole time, from the command's start to its report,
times its workers, against the same epochs of `seqnorm.training.fit` alone: windows at hand, nothing
drawn, kept, scored or written. Those are the run's own training less what a job adds to its epochs,
which is measured here in pairs, one right after the other, since a machine is not as fast an hour
later. The second is measured on a short study, run with one worker and with two. A third part says
what the size of a batch does to a bare loop. Run it on a quiet machine from the repository root
(some minutes)::

    python benchmarks/holdout_scale.py runs/human_ctcf    # writes benchmarks/holdout_scale.md
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
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from machine import processor

from seqnorm.holdout.design import Cell
from seqnorm.holdout.draw import evaluation_file, training_file
from seqnorm.holdout.jobs import bare_job
from seqnorm.holdout.load import load_spec
from seqnorm.holdout.run import read_tables
from seqnorm.holdout.scores import select, tensors_of
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.trial import Trial, config_of, model_of, train, validation_score
from seqnorm.holdout.windows import VALIDATION, WindowSet
from seqnorm.runs.pool import Pool
from seqnorm.training import fit

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "examples" / "human_ctcf.toml"
PAGE = Path(__file__).with_suffix(".md")
SIZES = (16, 32, 64, 128, 256, 512)
ROUNDS = 15
PAIRS = 3
SHAPE = [
    "norms=['batch', 'layer', 'layer_seq', 'rms']",
    "training.learning_rates=[0.01, 0.02]",
    "training.seeds=[0, 1, 2]",
    "training.epochs=6",
]


def study(folder: Path, workers: int) -> float:
    """Seconds of the whole command, from its start to its report."""
    program = [sys.executable, "-c", "from seqnorm.cli import main; main()"]
    options = ["--out", str(folder), "--workers", str(workers), "--override", *SHAPE]
    began = time.perf_counter()
    subprocess.run(
        [*program, "holdout", str(SPEC), *options], check=True, stdout=subprocess.DEVNULL
    )
    return time.perf_counter() - began


def in_pairs(spec: Spec, folder: Path, trial: Trial, alone_first: bool) -> tuple[float, float]:
    """In a worker: seconds of the same epochs with nothing around them, and as a job of a study."""
    training, evaluation = (
        WindowSet.load(file)
        for file in (
            training_file(spec, folder, trial.task, trial.fold, trial.negatives, trial.seed),
            evaluation_file(folder, trial.task, trial.fold),
        )
    )
    data = tensors_of(training), tensors_of(select(evaluation, VALIDATION))

    def alone(**changed: int) -> float:
        model, config = model_of(spec, trial), replace(config_of(spec, trial), **changed)
        began = time.perf_counter()
        fit(model, *data, config, score=validation_score)
        return time.perf_counter() - began

    def as_job() -> float:
        with tempfile.TemporaryDirectory() as name:
            began = time.perf_counter()
            train(spec, trial, Path(name) / "trial", training, evaluation, lambda epoch: None)
            return time.perf_counter() - began

    # The first finds what the others need.
    alone(epochs=1)
    if alone_first:
        return alone(), as_job()
    job = as_job()
    return alone(), job


def jobs_span(folder: Path) -> float:
    """Seconds from when the first job could begin to when the last had ended."""
    measured = max(path.stat().st_mtime for path in folder.glob("trials/*/measures.npz"))
    return measured - (folder / "windows.csv").stat().st_mtime


def session_of(folder: Path) -> dict[str, Any]:
    """What the last session of a run has recorded."""
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())["sessions"][-1]
    return found


def accounts(run: Path) -> str:
    """What a finished run of a fixed design took, and what its epochs take alone."""
    record, spec = session_of(run), load_spec(run / "spec.toml")
    began = datetime.fromisoformat(record["started"]).timestamp()
    workers = record["workers"]
    ended = (run / "report.html").stat().st_mtime
    if ended - datetime.fromisoformat(record["updated"]).timestamp() > 60:
        sys.exit(f"{run}: drawn again, or copied, since it ended: its time is not known any more")
    whole = workers * (ended - began)
    cells = read_tables(run).tuning.groupby(list(Cell._fields))
    rates = {tuple(row[key] for key in Cell._fields): row for row in record["throughput"]}
    with Pool(workers, spec.training.threads, lambda *told: None) as pool:
        for place, (key, _) in enumerate(cells):
            task, model, negatives, norm = key
            trial = Trial(model, negatives, norm, spec.training.learning_rates[0], 0, task)
            for again in range(PAIRS):
                pool.submit((key, again), in_pairs, spec, run, trial, (place + again) % 2 == 0)
        pairs = [job / alone for _, (alone, job), _ in pool.finished()]
    jobs = record["job_seconds"]
    low, added, high = quantiles(pairs)
    alone = jobs["training"] / added
    rest = whole - sum(jobs.values())
    rows = {
        "the whole command, all workers": whole,
        **{f"- {name}": seconds for name, seconds in jobs.items()},
        "- starting, drawing windows, tables, report, waiting": rest,
        f"the same epochs of `fit` alone: training / {added:.3f}": alone,
    }
    spread = f"median of {len(pairs)} pairs, quartiles {low:.3f} and {high:.3f}"
    lines = "\n".join(f"| {name} | {seconds:,.0f} |" for name, seconds in rows.items())
    speeds = "\n".join(speed_row(key, rates[key]) for key, _ in cells)
    return (
        f"## The whole job against training alone\n\n`{run.name}`: "
        f"{cells.ngroups} cells, {sum(len(trials) for _, trials in cells)} trials, {workers} "
        f"workers. The whole job takes **{100 * (whole / alone - 1):.1f} %** more than its epochs "
        f"of `fit` alone. A job takes {added:.3f} times as long as these ({spread}).\n\n"
        f"| | worker seconds |\n|---|---:|\n{lines}\n\n"
        "Training windows a second of a worker. A bare loop is forward and backward passes over "
        "one batch, measured right before each training; `fit` also validates after each epoch. "
        "Medians over the trials of a cell. The last column is the time that bare "
        "passes over the training windows, and bare forward passes over the validation windows, "
        "take of the time of training.\n\n"
        "| task, model, negatives, norm | bare loop | in the study | bare work |\n"
        f"|---|---:|---:|---:|\n{speeds}\n"
    )


def two_workers(folder: Path) -> str:
    """What a second worker gains on a short study: pairs of runs, one right after the other."""
    jobs: list[float] = []
    commands: list[float] = []
    rows: list[str] = []
    same = True
    for pair in range(PAIRS):
        runs = {workers: folder / f"{pair}-{workers}" for workers in (1, 2)}
        # The first of a pair in turn, so that a drift of the machine falls on both.
        order = (1, 2) if pair % 2 == 0 else (2, 1)
        whole = {workers: study(runs[workers], workers) for workers in order}
        spans = {number: jobs_span(run) for number, run in runs.items()}
        same &= all(
            path.read_bytes() == (runs[2] / path.name).read_bytes()
            for path in runs[1].glob("*.csv")
        )
        jobs.append(spans[1] / spans[2])
        commands.append(whole[1] / whole[2])
        rows.append(f"| {spans[1]:.0f} | {spans[2]:.0f} | {jobs[-1]:.2f} | {commands[-1]:.2f} |")
    trials = len(read_tables(folder / "0-1").tuning)
    return (
        f"## Two workers\n\n`{SPEC.name}` with {', '.join(SHAPE)}: {trials} trials. Two workers do "
        f"the jobs **{median(jobs):.2f}** times as fast as one, their own start included; with "
        f"what is done once, drawing windows and the report, {median(commands):.2f} times (medians "
        f"of {PAIRS} pairs). Tables of both: "
        f"{'the same, byte for byte' if same else 'DIFFERENT'}.\n\n"
        "| jobs by one worker (s) | by two (s) | gain | of the whole command |\n"
        "|---:|---:|---:|---:|\n" + "\n".join(rows) + "\n"
    )


def speed_row(key: tuple[str, ...], told: dict[str, Any]) -> str:
    """Windows a second of a cell: bare, and in the study."""
    figures = (told["bare_windows_per_second"], told["windows_per_second"])
    cells = " | ".join(f"{figure:,.0f}" for figure in figures)
    return f"| {', '.join(key)} | {cells} | {100 * told['share_bare']:.0f} % |"


def batch_speed(spec: Spec, run: Path, norm: str, size: int) -> float:
    """In a worker: windows a second of a bare loop with batches of a size."""
    model, negatives = spec.models[0].name, spec.negatives.kinds[0]
    trial = Trial(model, negatives, norm, spec.training.learning_rates[0], 0)
    sized = replace(spec, training=replace(spec.training, batch_size=size))
    return 1 / bare_job(sized, run, trial).step


def batches(run: Path) -> str:
    """What the size of a batch does to the speed of a bare loop."""
    spec = load_spec(run / "spec.toml")
    cells = [(norm, size) for norm in spec.norms for size in SIZES]
    found: dict[tuple[str, int], list[float]] = {cell: [] for cell in cells}
    # One worker, so that nothing else runs; sizes in turn, since a machine's speed drifts.
    with Pool(1, spec.training.threads, lambda *told: None) as pool:
        for _ in range(ROUNDS):
            for cell in cells:
                pool.submit(cell, batch_speed, spec, run, *cell)
        for cell, speed, _ in pool.finished():
            found[cell].append(speed)
    rows = "\n".join(
        f"| {norm} | {' | '.join(f'{median(found[norm, size]):,.0f}' for size in SIZES)} |"
        for norm in spec.norms
    )
    return (
        f"## Batch sizes\n\nTraining windows a second of a bare loop (`{run.name}`, one worker, "
        f"medians of {ROUNDS}), by the windows of a batch.\n\n"
        f"| norm | {' | '.join(map(str, SIZES))} |\n|---|{'---:|' * len(SIZES)}\n{rows}\n"
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run that was finished in one session")
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as name:
        text = f"{accounts(run)}\n{two_workers(Path(name))}\n{batches(run)}"
    PAGE.write_text(
        "# What a hold-out study takes beside training\n\n"
        f"Made by `benchmarks/holdout_scale.py`: {processor()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, torch {torch.__version__}.\n\n{text}"
    )


if __name__ == "__main__":
    main()
