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
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from folds import FOLDS, fold_scores, score
from methods import ADAM_CONSTANTS, METHODS, REPEATS, Method
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
from federated.tasks.sites import write_names
from federated.tasks.table import Held, TableTask
from federated.tasks.task import POOLED, TEST

HERE = Path(__file__).parent
SEEDS = (42, 43, 44, 45, 46)  # FLamby's
POOLED_FILES = {"heart": "heart_pooled", "brca": "brca"}


@dataclass(frozen=True)
class Job:
    """One run: a method at a pair of rates."""

    method: Method
    rate: float
    eta: float | None
    seed: int

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
        spec = load_spec(HERE / f"{self.method.data}.toml", overrides)
        if self.method.epochs is None:
            return spec
        # All rows at one place: one "round" of so many epochs.
        training = replace(
            spec.training,
            rounds=1,
            local_epochs=self.method.epochs,
            local_steps=None,
            optimizer="adamw",
        )
        return replace(spec, training=training)


@cache
def rows_of(path: Path, toml: str) -> Held:
    """All rows of a prepared file; heart_pooled.csv has the same as heart.csv, scaled otherwise."""
    spec = load_spec(HERE / f"{toml}.toml", [f"table.path={path}"])
    with tempfile.TemporaryDirectory() as folder:
        return TableTask.prepare(spec, Path(folder)).held


def trained_on(method: Method) -> str:
    """Name of the file with the rows that a method trains on."""
    return method.data if method.epochs is None else POOLED_FILES[method.data]


def measure(job: Job, data: Path) -> dict[str, float]:
    """Run a job; scores of the last round's model on the test rows.

    Returns
    -------
    dict of str to float
        ``pooled``: over the rows of all clients at once, prepared as FLamby prepares them;
        ``own``: the same, each client's rows scaled as it scales its own; ``client/NAME``: of a
        client's own rows; ``clients``: the mean of these.
    """
    torch.set_num_threads(1)
    own, pooled = (
        rows_of(data / f"{name}.csv", job.method.data)
        for name in (job.method.data, POOLED_FILES[job.method.data])
    )
    task = TableTask(own if job.method.epochs is None else pooled)
    model = _federated(job, task, data) if job.method.epochs is None else _plain(job, task, data)
    everyone = task.clients
    scores = {
        "pooled": score(task, model, pooled, TEST, everyone),
        "own": score(task, model, own, TEST, everyone),
    }
    each = {f"client/{name}": score(task, model, own, TEST, [name]) for name in everyone}
    return scores | each | {"clients": float(np.nanmean(list(each.values())))}


def _plain(job: Job, task: TableTask, data: Path) -> torch.nn.Module:
    """The rows of all clients at one place."""
    model = task.build("none", job.seed)
    train_locally(model, task, POOLED, 1, job.seed, job.spec(data).training, job.rate, {}, {})
    return model


def _federated(job: Job, task: TableTask, data: Path) -> torch.nn.Module:
    spec = job.spec(data)
    (cell,) = cells_of(spec)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").mkdir()
        task.held.save(Path(folder) / "data" / "table.npz")
        write_names(task.clients, Path(folder))
        run_cell(spec, cell, task, Path(folder), engine="vectorized")
        made_of = Learner(spec, cell, task).fingerprint()
        saved = load_round(Path(folder) / "cells" / cell.id, made_of)
    assert saved is not None
    model = task.build(cell.norm, cell.seed)
    state = {k.removeprefix("model/"): v for k, v in saved[0].items() if k.startswith("model/")}
    model.load_state_dict(state)
    return model


def tuned(method: Method, pool: Executor, data: Path) -> list[dict[str, Any]]:
    """Cross-validated score of every pair of rates, the best first; of equals the smaller rate."""
    waited = [pool.submit(_cross_validated, method, rate, data) for rate in method.rates]
    found = [score for future in waited for score in future.result()]
    grid: list[dict[str, Any]] = [
        {"rate": rate, "eta": eta, "score": score}
        for (rate, eta), score in zip(method.grid(), found, strict=True)
    ]
    return sorted(grid, key=lambda line: (np.isnan(line["score"]), -line["score"]))


def tested(
    method: Method, best: dict[str, Any], pool: Executor, data: Path
) -> list[dict[str, float]]:
    """Scores of the chosen rates on the test rows, for every seed."""
    jobs = [Job(method, best["rate"], best["eta"], seed) for seed in SEEDS]
    return list(pool.map(measure, jobs, [data] * len(jobs)))


def _cross_validated(method: Method, rate: float, data: Path) -> list[float]:
    """Mean over the folds for each rate of the server."""
    torch.set_num_threads(1)
    etas = method.etas or (None,)
    spec, plain = Job(method, rate, etas[0], 0).spec(data), method.epochs is not None
    held = rows_of(data / f"{trained_on(method)}.csv", method.data)
    folds = FOLDS * REPEATS[method.data]
    return [float(np.mean(scores)) for scores in fold_scores(spec, held, etas, folds, plain)]


def everything(pool: Executor, data: Path, scores: Path | None) -> dict[str, Any]:
    """Tune every method, then run every method: by its key, ``grid`` and ``runs``."""
    kept: dict[str, dict[str, Any]] = {"grid": {}, "runs": {}}
    if scores and scores.is_file():
        kept = json.loads(scores.read_text())
    for step in kept:
        for method in METHODS:
            if method.key not in kept[step]:
                found = (
                    tuned(method, pool, data)
                    if step == "grid"
                    else tested(method, kept["grid"][method.key][0], pool, data)
                )
                kept[step][method.key] = found
                print(step, method.key, found[0], flush=True)
                if scores:
                    write_atomic(scores, json.dumps(kept, indent=1) + "\n")
    return {m.key: {step: found[m.key] for step, found in kept.items()} for m in METHODS}


def main() -> None:
    """Prepare, tune, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of the source files; see prepare.py")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--scores", type=Path, help="a file to keep scores in, and to go on from")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(given.workers) as pool:
        prepare(given.source, Path(folder))
        done = everything(pool, Path(folder), given.scores)
    write_atomic(HERE / "results.md", results_page(METHODS, done))


if __name__ == "__main__":
    main()
