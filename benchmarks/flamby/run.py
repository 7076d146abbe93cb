"""Run FLamby's two tabular benchmarks through `federated`, and write results.md.

From the repository root, with the folder of the source files that prepare.py names::

    python benchmarks/flamby/run.py SOURCE --workers 2

First the rates of every method are chosen, by cross-validation inside the training rows. Only then
are the chosen ones run on all training rows, and the test rows looked at.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from methods import ADAM_CONSTANTS, FOLDS, METHODS, REPEATS, Method
from page import results_page
from prepare import prepare

import federated.flower  # noqa: F401  sets Flower's switches before Flower is imported
from data_tools.atomic import write_atomic
from federated.cell import cells_of
from federated.history import load_round
from federated.local_training import train_locally
from federated.run import run_cell
from federated.site import Learner
from federated.spec import Spec, load_spec
from federated.tasks.table import Held, Rows, TableTask
from federated.tasks.task import POOLED

HERE = Path(__file__).parent
SEEDS = (42, 43, 44, 45, 46)  # FLamby's


@dataclass(frozen=True)
class Job:
    """One run: a method at a pair of rates; with a fold, inside the training rows."""

    method: Method
    rate: float
    eta: float | None
    seed: int
    fold: int | None

    def spec(self, data: Path) -> Spec:
        """The spec of this run."""
        overrides = [
            *self.method.overrides,
            f"table.path={data / (self.method.data + '.csv')}",
            f"training.learning_rates=[{self.rate}]",
            f"training.seeds=[{self.seed}]",
        ]
        if self.eta is not None:
            overrides += [
                f"strategy.options.{key}={value}" for key, value in ADAM_CONSTANTS.items()
            ]
            overrides.append(f"strategy.options.eta={self.eta}")
        return load_spec(HERE / f"{self.method.data}.toml", overrides)


@cache
def rows_of(path: Path, toml: str) -> Held:
    """All rows of a prepared file; heart_pooled.csv has the same as heart.csv, scaled otherwise."""
    spec = load_spec(HERE / f"{toml}.toml", [f"table.path={path}"])
    with tempfile.TemporaryDirectory() as folder:
        return TableTask.prepare(spec, Path(folder)).held


def measure(job: Job, data: Path) -> dict[str, float]:
    """Run a job; scores of the last round's model on test rows, or on those of a fold.

    Returns
    -------
    dict of str to float
        ``pooled``: over the rows of all clients at once, prepared as FLamby prepares them;
        ``own``: the same, each client's rows scaled as it scales its own; ``trained``: the one of
        the two that is scaled as the rows it was trained on; ``client/NAME``: of a client's own
        rows; ``clients``: the mean of these.
    """
    torch.set_num_threads(1)
    own = rows_of(data / f"{job.method.data}.csv", job.method.data)
    name = "heart_pooled" if job.method.data == "heart" else job.method.data
    pooled = rows_of(data / f"{name}.csv", job.method.data)
    part = "test"
    if job.fold is not None:
        own, pooled, part = with_fold(own, job.fold), with_fold(pooled, job.fold), "validation"
    held = own if job.method.epochs is None else pooled
    task = TableTask(held)
    model = _federated(job, task, data) if job.method.epochs is None else _plain(job, task, data)
    everyone = task.clients
    scores = {
        "pooled": _score(task, model, pooled, part, everyone),
        "own": _score(task, model, own, part, everyone),
        "trained": _score(task, model, held, part, everyone),
    }
    each = {f"client/{name}": _score(task, model, own, part, [name]) for name in everyone}
    return scores | each | {"clients": float(np.nanmean(list(each.values())))}


def _plain(job: Job, task: TableTask, data: Path) -> torch.nn.Module:
    """The rows of all clients at one place; FLamby's optimizer there is Adam."""
    training = replace(
        job.spec(data).training,
        optimizer="adamw",
        local_epochs=job.method.epochs,
        local_steps=None,
    )
    model = task.build("none", job.seed)
    train_locally(model, task, POOLED, 1, job.seed, training, job.rate, {}, {})
    return model


def _federated(job: Job, task: TableTask, data: Path) -> torch.nn.Module:
    spec = job.spec(data)
    (cell,) = cells_of(spec)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").mkdir()
        task.held.save(Path(folder) / "data" / "table.npz")
        run_cell(spec, cell, task, Path(folder), engine="vectorized")
        made_of = Learner(spec, cell, task).fingerprint()
        saved = load_round(Path(folder) / "cells" / cell.id, made_of)
    assert saved is not None
    model = task.build(cell.norm, cell.seed)
    state = {k.removeprefix("model/"): v for k, v in saved[0].items() if k.startswith("model/")}
    model.load_state_dict(state)
    return model


def _score(
    task: TableTask, model: torch.nn.Module, held: Held, part: str, clients: Sequence[str]
) -> float:
    mine = np.isin(held.client, clients) & (held.part == part)
    rows = Rows(torch.from_numpy(held.inputs[mine]), torch.from_numpy(held.target[mine]))
    return task.evaluate_rows(model, rows)[task.metrics[0]]


def with_fold(held: Held, fold: int) -> Held:
    """Training rows alone, one fifth of each client's as validation, by outcome.

    Every five folds are one repeat, with another order of the rows.
    """
    repeat, fold = divmod(fold, FOLDS)
    train = np.flatnonzero(held.part == "train")
    part = np.full(len(train), "train", dtype="<U10")
    for client in np.unique(held.client):
        mine = np.flatnonzero(held.client[train] == client)
        mine = np.random.default_rng(repeat).permutation(mine)
        mine = mine[np.argsort(held.target[train][mine, -1], kind="stable")]
        part[mine[fold::FOLDS]] = "validation"
    return Held(held.features, held.inputs[train], held.target[train], held.client[train], part)


Measure = Callable[[Sequence[Job]], list[dict[str, float]]]


def tuned(method: Method, run: Measure) -> list[dict[str, Any]]:
    """Cross-validated score of every pair of rates, the best first; of equals the smaller rate."""
    folds = FOLDS * REPEATS[method.data]
    found = run([Job(method, rate, eta, f, f) for rate, eta in method.grid() for f in range(folds)])
    mean = np.reshape([scores["trained"] for scores in found], (-1, folds)).mean(1)
    grid: list[dict[str, Any]] = [
        {"rate": rate, "eta": eta, "score": float(score)}
        for (rate, eta), score in zip(method.grid(), mean, strict=True)
    ]
    return sorted(grid, key=lambda line: (np.isnan(line["score"]), -line["score"]))


def everything(run: Measure) -> dict[str, Any]:
    """Tune every method, then run every method: by its key, ``grid`` and ``runs``."""
    grids = {}
    for method in METHODS:
        grids[method.key] = tuned(method, run)
        print("chosen for", method.key, grids[method.key][0], flush=True)
    done = {}
    for method in METHODS:
        best = grids[method.key][0]
        runs = run([Job(method, best["rate"], best["eta"], seed, None) for seed in SEEDS])
        done[method.key] = {"grid": grids[method.key], "runs": runs}
        print(method.key, f"{np.mean([scores['pooled'] for scores in runs]):.4f}", flush=True)
    return done


def main() -> None:
    """Prepare, tune, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the source files; see prepare.py")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--scores", type=Path, help="keep all scores in this file; if it is there, draw them alone"
    )
    given = parser.parse_args()
    if given.scores and given.scores.is_file():
        done = json.loads(given.scores.read_text())
    else:
        with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(given.workers) as pool:
            data = Path(folder)
            prepare(given.source, data)
            done = everything(lambda jobs: list(pool.map(measure, jobs, [data] * len(jobs))))
        if given.scores:
            write_atomic(given.scores, json.dumps(done, indent=1) + "\n")
    write_atomic(HERE / "results.md", results_page(METHODS, done))


if __name__ == "__main__":
    main()
