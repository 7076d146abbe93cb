"""Measure the engines of federated runs: ours, Flower's simulation on Ray, and a bare loop.

Every run is a process of its own. The clients' rows are made here and laid where a run looks for
those that it has prepared, so that every engine, Ray's actors included, opens them in its usual
way. Run it on a quiet machine from the repository root (about ten minutes)::

    python benchmarks/federated_engines.py            # writes benchmarks/federated_engines.md
    python benchmarks/federated_engines.py --quick    # ten clients that echo, to the screen
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from echo import app as echo_app
from echo import echo, name_of
from machine import processor
from safetensors.torch import load_file, save_file
from torch import Tensor

from federated.cell import cells_of
from federated.client_app import app as client_app
from federated.guard import Reply
from federated.local_training import train_locally
from federated.policy import State
from federated.run import run_cell
from federated.site import Learner
from federated.spec import Spec, as_json, from_json
from federated.strategies import learned, make_strategy, mean_by_examples
from federated.tasks import open_task
from federated.tasks.sites import write_names
from federated.tasks.table import Held
from federated.tasks.task import TEST, VALIDATION
from seqnorm.checkpoint import load_checkpoint
from seqnorm.holdout.windows import WindowSet

ENGINES = ("bare loop", "in-process", "workers", "vectorized", "ray")
WORKERS = 2
FEATURES = 1_000
WIDTH = 200
NOISE = 1e-4
"""How far vectorized weights may be from the others, of the largest weight."""

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(__file__).with_suffix(".md")
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0"}
QUIET |= {"FLWR_DISABLE_UPDATE_CHECK": "1"}
# So that Ray's actors and our workers find the app that echoes.
QUIET |= {"PYTHONPATH": os.pathsep.join((str(ROOT), str(OUT.parent)))}


# --- what is run ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """Clients of one kind.

    Attributes
    ----------
    kind : {"echo", "linear", "small CNN"}
    clients, rounds : int
    ray_rounds : int
        Rounds under Ray, where all would take too long.
    """

    kind: str
    clients: int
    rounds: int
    ray_rounds: int

    @property
    def name(self) -> str:
        """As the tables have it."""
        return f"{self.kind}, {self.clients:,} clients"

    @property
    def engines(self) -> tuple[str, ...]:
        """Those that can run it: only clients that train can be trained together."""
        return tuple(e for e in ENGINES if self.kind != "echo" or e != "vectorized")

    def rounds_on(self, engine: str) -> int:
        """How many rounds an engine is given."""
        return self.ray_rounds if engine == "ray" else self.rounds


WORKLOADS = (
    Workload("echo", 10, 12, 12),
    Workload("echo", 100, 12, 12),
    Workload("linear", 100, 12, 12),
    Workload("small CNN", 100, 6, 6),
    Workload("echo", 1_000, 12, 3),
)


def spec_of(work: Workload, rounds: int) -> Spec:
    """What is trained, and how."""
    training = {"rounds": rounds, "learning_rates": [0.01], "seeds": [0], "optimizer": "sgd"}
    keys: dict[str, Any] = {
        "name": "engines",
        "question": "How long does a run take?",
        "policies": ["fedavg"],
        "partition": {"scheme": "iid", "clients": work.clients},
    }
    if work.kind != "small CNN":
        keys |= {
            "norms": ["none"],
            "model": {"name": "linear", "options": {}},
            "table": {"path": "none", "label": "label", "validation": 0},
            "training": training | {"batch_size": 2},
        }
    else:
        keys |= {
            "norms": ["batch"],
            "model": {"name": "cnn", "options": {"channels": 8, "kernel_size": 11}},
            "data": {"genome": "none", "peaks": "none", "chromosomes": ["1"], "width": WIDTH},
            "training": training | {"batch_size": 16},
        }
    return from_json(json.dumps(keys))


def lay_rows(work: Workload, folder: Path) -> None:
    """Make the clients' rows and save them as a run saves those that it has prepared."""
    draw = np.random.default_rng(0)
    names = [name_of(number) for number in range(work.clients)]
    write_names(names, folder)
    if work.kind != "small CNN":
        # A row that is measured, and no AUROC of it: that would be most of the work.
        rows = 3 * work.clients
        Held(
            np.array([f"f{number}" for number in range(FEATURES)]),
            draw.standard_normal((rows, FEATURES), dtype=np.float32),
            draw.integers(0, 2, (rows, 1)).astype(np.float64),
            np.repeat(names, 3),
            np.tile(["train", "train", TEST], work.clients),
        ).save(folder / "data" / "table.npz")
        return
    sizes = {name: (int(draw.integers(56, 73)), 16, 16) for name in names}
    client = np.concatenate([np.repeat(name, sum(sizes[name])) for name in names])
    parts = np.concatenate([np.repeat(["train", VALIDATION, TEST], sizes[n]) for n in names])
    table = pd.DataFrame({"client": client, "part": parts})
    table["label"] = draw.integers(0, 2, len(table))
    codes = draw.integers(0, 4, (len(table), WIDTH), dtype=np.uint8)
    WindowSet(table, codes, 0).save(folder / "data" / "windows.npz")


# --- one run, in a process of its own ------------------------------------------------------------


def run_once(kind: str, engine: str, spec: Spec, folder: Path) -> None:
    """Run the only cell of a spec, and leave times and weights in the folder."""
    task, cell = open_task(spec, folder), cells_of(spec)[0]
    learner = Learner(spec, cell, task)
    began = time.perf_counter()
    if engine == "bare loop":
        state, seconds = bare_loop(learner, trains=kind != "echo")
        total = time.perf_counter() - began
    else:
        app = echo_app if kind == "echo" else client_app
        history = run_cell(spec, cell, task, folder, engine=engine, workers=WORKERS, app=app)
        total = time.perf_counter() - began
        if history.events or not history.finished:
            raise SystemExit(f"{engine}: {history.events[:3]}")
        seconds = [row["seconds"] for row in history.rounds]
        state = weights_of(folder / "cells" / cell.id)
    save_file(state, folder / "weights.safetensors")
    (folder / "times.json").write_text(json.dumps({"run": total, "rounds": seconds}))


def bare_loop(learner: Learner, *, trains: bool) -> tuple[State, list[float]]:
    """Train or echo, average and measure, and nothing else: no message, no check, no file."""
    spec, cell, task, model = learner.spec, learner.cell, learner.task, learner.model
    expected = learner.manifest.expected(1)
    learnt = learned(expected)
    rest = [name for name in expected if name not in learnt]
    strategy = make_strategy(spec.strategy.name, spec.strategy.options)
    torch.set_num_threads(spec.training.threads)
    state, seconds = dict(learner.initial), []
    for number in range(1, spec.training.rounds + 1):
        began = time.perf_counter()
        replies = []
        for place, client in enumerate(task.clients):
            if not trains:
                replies.append(Reply(client, number, echo(place, state), {}, 2))
                continue
            model.load_state_dict(state)
            found = train_locally(
                model, task, client, number, cell.seed, spec.training, cell.learning_rate, {}, {}
            )
            replies.append(Reply(client, number, learner.state(), {}, found.examples))
        parts = [
            Reply(r.client, number, {n: r.arrays[n] for n in learnt}, {}, r.examples)
            for r in replies
        ]
        before = {name: state[name] for name in learnt}
        state |= strategy.aggregate(number, before, parts)
        state |= mean_by_examples(replies, rest)
        model.load_state_dict(state)
        for client in task.clients if trains else ():
            for part in (VALIDATION, TEST):
                task.evaluate(model, client, part)
        seconds.append(time.perf_counter() - began)
    return state, seconds


def weights_of(home: Path) -> State:
    """The server's weights after the last round."""
    found = [load_checkpoint(home / f"checkpoint-{slot}") for slot in ("even", "odd")]
    whole = [checkpoint for checkpoint in found if checkpoint is not None]
    tensors, _ = max(whole, key=lambda pair: len(pair[1]["history"]["rounds"]))
    return {n.removeprefix("model/"): t for n, t in tensors.items() if n.startswith("model/")}


# --- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes
    ----------
    work : Workload
    engine : str
    rounds : int
    run, process : float
        Seconds, of the run itself and of the whole process.
    round : float
        Median seconds of the rounds but the first.
    memory : float
        Highest sum over the process and all that it has started, in MiB.
    weights : dict of str to Tensor
    """

    work: Workload
    engine: str
    rounds: int
    run: float
    process: float
    round: float
    memory: float
    weights: dict[str, Tensor]


def measure(work: Workload, engine: str, rounds: int, rows: Path) -> Row:
    """Run an engine on prepared rows."""
    spec = spec_of(work, rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").symlink_to(rows / "data")
        command = [sys.executable, __file__, "--one", work.kind, engine, as_json(spec), name]
        began = time.perf_counter()
        with (folder / "said").open("w") as said:
            process = subprocess.Popen(
                command, env=os.environ | QUIET, cwd=ROOT, stdout=said, stderr=said
            )
            memory = peak_memory(process)
        seconds = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"{work.name}, {engine}: {(folder / 'said').read_text()[-3000:]}")
        times = json.loads((folder / "times.json").read_text())
        a_round = statistics.median(times["rounds"][1:])
        weights = load_file(folder / "weights.safetensors")
    return Row(work, engine, rounds, times["run"], seconds, a_round, memory, weights)


def peak_memory(process: subprocess.Popen[bytes]) -> float:
    """Watch a process until it ends; its highest memory in MiB, with all that it has started."""
    highest = 0.0
    while process.poll() is None:
        began = time.perf_counter()
        highest = max(highest, sum(map(proportional, family(process.pid))) / 1024)
        # Watching takes a core a little; at most a twentieth of the time.
        time.sleep(max(0.1, 19 * (time.perf_counter() - began)))
    return highest


def family(first: int) -> list[int]:
    """A process and all that it and its children have started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [first]
    for number in found:
        found += children.get(number, [])
    return found


def proportional(number: int) -> int:
    """Memory of a process in KiB; pages that several share count in part (PSS)."""
    try:
        text = Path(f"/proc/{number}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:"), 0)


def contest(work: Workload, repeats: int) -> list[Row]:
    """Every engine on one workload, in turns; of each the fastest run."""
    best: dict[tuple[str, int], Row] = {}
    with tempfile.TemporaryDirectory() as name:
        lay_rows(work, Path(name))
        for _ in range(repeats):
            for engine in work.engines:
                row = measure(work, engine, work.rounds_on(engine), Path(name))
                print(line_of(row), flush=True)
                key = (engine, row.rounds)
                best[key] = min(best.get(key, row), row, key=lambda r: r.run)
        if work.ray_rounds != work.rounds:
            # So that Ray's weights have some to be compared with.
            check(
                [
                    measure(work, "bare loop", work.ray_rounds, Path(name)),
                    best["ray", work.ray_rounds],
                ]
            )
            check([row for row in best.values() if row.engine != "ray"])
        else:
            check(list(best.values()))
    return list(best.values())


def check(rows: Sequence[Row]) -> None:
    """Hold engines to the same weights: the same bits, but for vectorized, the same numbers."""
    for row in rows[1:]:
        apart = distance(row.weights, rows[0].weights)
        print(f"{row.work.name}: {row.engine} is {apart:.1e} from {rows[0].engine}", flush=True)
        if not apart <= (NOISE if row.engine == "vectorized" else 0.0):
            raise SystemExit("the engines do not agree")


def distance(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Largest difference of two weights, of the largest weight."""
    largest = max(float(value.abs().max()) for value in two.values())
    return max(float((one[n].double() - two[n].double()).abs().max()) for n in two) / largest


# --- the page ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Goal:
    """A ratio that is asked for."""

    what: str
    found: float
    least: float | None = None
    most: float | None = None

    @property
    def held(self) -> bool:
        """Whether it is reached."""
        return self.found >= (self.least or 0.0) and self.found <= (self.most or self.found)


def goals(rows: Sequence[Row]) -> list[Goal]:
    """What was asked for, and what was found."""
    by = {(row.work.kind, row.work.clients, row.engine): row for row in rows}

    def ratio(kind: str, clients: int, one: str, two: str, what: str) -> float:
        a, b = by[kind, clients, one], by[kind, clients, two]
        return float(getattr(a, what) / getattr(b, what))

    found = []
    for clients in (10, 100):
        value = ratio("echo", clients, "ray", "in-process", "run")
        found.append(Goal(f"echo, {clients} clients, run: Ray / in-process", value, least=20))
    value = ratio("echo", 1_000, "ray", "in-process", "round")
    found.append(Goal("echo, 1,000 clients, a round: Ray / in-process", value, least=10))
    for engine, what, least, most in (
        ("workers", "run", 2.5, None),
        ("workers", "round", 1.5, None),
        ("vectorized", "round", 2.0, None),
        ("vectorized", "memory", None, 0.5),
    ):
        names = (engine, "ray") if most else ("ray", engine)
        title = f"small CNN, {what}: {names[0]} / {names[1]}"
        found.append(Goal(title, ratio("small CNN", 100, *names, what), least, most))
    value = ratio("small CNN", 100, "in-process", "bare loop", "run")
    found.append(Goal("small CNN, run: in-process / bare loop", value, most=1.3))
    return found


HEAD = "| clients | engine | rounds | run, s | whole process, s | a round, s | peak memory, MiB | \
weights differ by |"


def line_of(row: Row, first: Row | None = None) -> str:
    """A run as a line of the table."""
    apart = "" if first is None else f"{distance(row.weights, first.weights):.0e}"
    return (
        f"| {row.work.name} | {row.engine} | {row.rounds} | {row.run:.2f} | {row.process:.2f}"
        f" | {row.round:.3f} | {row.memory:.0f} | {apart.replace('0e+00', '0')} |"
    )


def table(rows: Sequence[Row]) -> str:
    """All runs as Markdown; weights are compared where rounds are equally many."""
    lines = [HEAD, "|---|---|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        firsts = [r for r in rows if (r.work, r.rounds) == (row.work, row.rounds)]
        lines.append(line_of(row, firsts[0] if firsts[0] is not row else None))
    return "\n".join(lines)


def table_of_goals(found: Sequence[Goal]) -> str:
    """The goals as Markdown."""
    lines = ["| ratio | found | goal | held |", "|---|--:|--:|---|"]
    for goal in found:
        asked = f"at most {goal.most:g}" if goal.most else f"at least {goal.least:g}"
        held = "yes" if goal.held else "**no**"
        lines.append(f"| {goal.what} | {goal.found:.2f} | {asked} | {held} |")
    return "\n".join(lines)


def report(rows: Sequence[Row], repeats: int) -> str:
    """The whole page."""
    found = goals(rows)
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("torch", "flwr", "ray")
    )
    return f"""# Engines of federated runs

Written by `python benchmarks/federated_engines.py`. Every run is a process of its own; the engines
take turns, and of {repeats} runs each the fastest is shown, with its memory (of 1,000 clients there
is one run each). *run* is everything from the call of the run to its end, with the start and the
end of worker processes or of Ray; *whole process* also counts the start of Python and its imports.
*a round* is the median of the rounds but the first: training, aggregating and measuring at all
clients. *peak memory* is the highest sum of proportional set sizes (PSS) over a process and all
that it has started, looked at every tenth of a second or less often. *weights differ by*: largest
difference from the first engine of the same clients and rounds, of the largest weight.

*echo*: {FEATURES:,} weights that clients send back and do not train, with measures that they make
up, so that only the framework costs. *linear*: a linear model of {FEATURES:,} features, one step
on two rows a round. *small CNN*: two
convolutions of 8 channels with BatchNorm, about 64 sequences of {WIDTH} bases a client, batches of
16, SGD. *bare loop* calls training and evaluation of one client after the other and averages: no
messages, no checks, no files. *workers* and *ray* have {WORKERS} processes for clients. A round of
1,000 clients takes Ray so long that it is given fewer.

{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}.
Goals held: {sum(goal.held for goal in found)} of {len(found)}.

{table_of_goals(found)}

{table(rows)}
"""


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="ten clients that echo, no file")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        kind, engine, spec, folder = options.one
        run_once(kind, engine, from_json(spec), Path(folder))
        return
    rows: list[Row] = []
    for work in WORKLOADS[:1] if options.quick else WORKLOADS:
        rows += contest(work, 1 if work.clients == 1_000 else options.repeats)
    if not options.quick:
        OUT.write_text(report(rows, options.repeats))


if __name__ == "__main__":
    main()
