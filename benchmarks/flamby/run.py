"""Run FLamby's two tabular benchmarks through `federated`, and write results.md.

From the repository root::

    python benchmarks/flamby/prepare.py SOURCE benchmarks/flamby/data
    python benchmarks/flamby/run.py --workers 2

Rates are chosen by 5-fold cross-validation inside the training rows: the test rows are looked at
once, by the runs of the chosen rates.
"""

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from methods import ADAM_CONSTANTS, METHODS, Method
from page import results_page

import federated.flower  # noqa: F401  sets Flower's switches before Flower is imported
from data_tools.atomic import write_atomic
from federated.cell import cells_of
from federated.history import load_round
from federated.run import run_cell
from federated.site import Learner
from federated.spec import Spec, load_spec
from federated.tasks.table import Held, Rows, TableTask

HERE = Path(__file__).parent
SEEDS = (42, 43, 44, 45, 46)  # FLamby's
FOLDS = 5
ONE_PLACE = "everyone"


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
    """Run a job in a folder of its own; scores of the last round's model.

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
    held, part = (pooled if job.method.pooled else own), "test"
    if job.fold is not None:
        held, part = with_fold(held, job.fold), "validation"
    model, task = _trained(job, held, data)
    if job.fold is not None:
        own, pooled = with_fold(own, job.fold), with_fold(pooled, job.fold)
    everyone = np.unique(own.client).tolist()
    scores = {
        "pooled": _score(task, model, pooled, part, everyone),
        "own": _score(task, model, own, part, everyone),
        "trained": _score(task, model, held, part, np.unique(held.client).tolist()),
    }
    each = {f"client/{name}": _score(task, model, own, part, [name]) for name in everyone}
    return scores | each | {"clients": float(np.nanmean(list(each.values())))}


def _trained(job: Job, held: Held, data: Path) -> tuple[torch.nn.Module, TableTask]:
    if job.method.pooled:
        held = replace(held, client=np.full(len(held.client), ONE_PLACE))
    spec = job.spec(data)
    (cell,) = cells_of(spec)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").mkdir()
        held.save(Path(folder) / "data" / "table.npz")
        task = TableTask(held)
        run_cell(spec, cell, task, Path(folder))
        made_of = Learner(spec, cell, task).fingerprint()
        saved = load_round(Path(folder) / "cells" / cell.id, made_of)
    assert saved is not None
    model = task.build(cell.norm, cell.seed)
    state = {k.removeprefix("model/"): v for k, v in saved[0].items() if k.startswith("model/")}
    model.load_state_dict(state)
    return model, task


def _score(
    task: TableTask, model: torch.nn.Module, held: Held, part: str, clients: list[str]
) -> float:
    mine = np.isin(held.client, clients) & (held.part == part)
    rows = Rows(torch.from_numpy(held.inputs[mine]), torch.from_numpy(held.target[mine]))
    return task.evaluate_rows(model, rows)[task.metrics[0]]


def with_fold(held: Held, fold: int) -> Held:
    """Training rows alone, one fifth of each client's as validation, by outcome."""
    train = np.flatnonzero(held.part == "train")
    part = np.full(len(train), "train", dtype="<U10")
    for client in np.unique(held.client):
        mine = np.flatnonzero(held.client[train] == client)
        mine = np.random.default_rng(0).permutation(mine)
        mine = mine[np.argsort(held.target[train][mine, -1], kind="stable")]
        part[mine[fold::FOLDS]] = "validation"
    return Held(held.features, held.inputs[train], held.target[train], held.client[train], part)


def tuned(method: Method, data: Path, pool: ProcessPoolExecutor) -> list[dict[str, Any]]:
    """Cross-validated score of every pair of rates, the best first; of equals the smaller rate."""
    jobs = [Job(method, rate, eta, f, f) for rate, eta in method.grid() for f in range(FOLDS)]
    scores = [found["trained"] for found in pool.map(measure, jobs, [data] * len(jobs))]
    mean = np.reshape(scores, (-1, FOLDS)).mean(1)
    grid: list[dict[str, Any]] = [
        {"rate": rate, "eta": eta, "score": float(score)}
        for (rate, eta), score in zip(method.grid(), mean, strict=True)
    ]
    return sorted(grid, key=lambda line: (np.isnan(line["score"]), -line["score"]))


def main() -> None:
    """Tune, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=HERE / "data", help="what prepare.py wrote")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", help="one line of the table, as 'heart: FedAvg'")
    parser.add_argument("--scores", type=Path, default=HERE / "scores.json", help="taken up again")
    given = parser.parse_args()
    data = given.data.resolve()
    done = json.loads(given.scores.read_text()) if given.scores.is_file() else {}
    with ProcessPoolExecutor(given.workers) as pool:
        for method in sorted(METHODS, key=lambda method: not method.goal):
            key = f"{method.data}: {method.name}"
            if key in done or given.only not in (None, key):
                continue
            grid = tuned(method, data, pool)
            best = grid[0]
            jobs = [Job(method, best["rate"], best["eta"], seed, None) for seed in SEEDS]
            runs = list(pool.map(measure, jobs, [data] * len(jobs)))
            done[key] = {"grid": grid, "runs": runs}
            write_atomic(given.scores, json.dumps(done, indent=1) + "\n")
            print(key, best, f"{np.mean([run['pooled'] for run in runs]):.4f}", flush=True)
    write_atomic(HERE / "results.md", results_page(METHODS, done))


if __name__ == "__main__":
    main()
