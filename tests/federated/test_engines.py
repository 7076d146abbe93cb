"""Engines give the same bits (clients trained together: the same numbers), and a client that hangs
or dies takes nobody with it."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import faulty_app
import pytest
from loopback import PROJECT, Loopback

from data_tools.errors import InputError
from federated.cell import cells_of
from federated.client_app import app
from federated.engines import ENGINES, run_on
from federated.engines.vectorized import VectorizedGrid
from federated.engines.workers import WorkerGrid
from federated.messages import TRAIN, read_order
from federated.run import run_cell
from federated.run_config import read_run_config, run_config
from federated.spec import as_json
from federated.tasks import open_task
from federated.tasks.task import UNSEEN
from federated.tasks.windows import WindowTask
from seqnorm.checkpoint import load_checkpoint

NOISE = 1e-5
"""How far weights of clients trained together may be from those one by one, with SGD."""

IN_RAY = """
import sys
from pathlib import Path
from federated.run import run_cell
from federated.run_config import read_run_config
from federated.tasks import open_task
if __name__ == "__main__":
    spec, cell, folder = read_run_config({"spec": sys.argv[1], "folder": sys.argv[2]}, {})
    history = run_cell(spec, cell, open_task(spec, folder), folder, engine="ray", workers=2)
    assert history.finished and not history.events, history.events
"""


@pytest.fixture(scope="module")
def reference(small, opened, bits, tmp_path_factory):
    """Spec, folder and bits of a run in this process."""
    spec, folder = small(), tmp_path_factory.mktemp("in-process")
    task, cell = opened(spec, folder)
    history = run_cell(spec, cell, task, folder)
    assert history.finished
    assert not history.events
    return spec, cell, bits(folder, cell), history


def test_workers_give_the_bits_of_one_process(reference, opened, bits, tmp_path):
    spec, cell, wanted, before = reference
    task, _ = opened(spec, tmp_path)
    history = run_cell(spec, cell, task, tmp_path, engine="workers", workers=2)
    assert bits(tmp_path, cell) == wanted
    assert history.clients == before.clients


@pytest.mark.ray
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_ray_gives_the_bits_of_one_process(reference, opened, bits, tmp_path):
    spec, cell, wanted, _ = reference
    opened(spec, tmp_path)
    script = tmp_path / "in_ray.py"
    script.write_text(IN_RAY)
    done = subprocess.run(
        [sys.executable, script, as_json(spec), tmp_path],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert bits(tmp_path, cell) == wanted


@pytest.mark.slow
def test_superlink_and_three_supernodes_give_the_bits_of_one_process(
    reference, opened, bits, tmp_path
):
    spec, cell, wanted, _ = reference
    # Only what Flower reads of a project: the packages are found where they are installed.
    text = (PROJECT / "pyproject.toml").read_text()
    app = tmp_path / "app"
    app.mkdir()
    app_keys = text[text.index("[tool.flwr.app]") : text.index("[tool.ruff]")]
    head = '[project]\nname = "app"\nversion = "0.0.1"\nlicense = "MIT"\ndescription = "app"\n'
    (app / "pyproject.toml").write_text(head + app_keys)
    # Each site has a folder with its own rows alone, and the server has no client's.
    task, _ = opened(spec, tmp_path / "all")
    run = tmp_path / "server"
    task.share(run, UNSEEN)
    for client in task.clients:
        task.share(tmp_path / client, client)
    nodes = [{"client": name, "folder": str(tmp_path / name)} for name in task.clients]
    with Loopback(tmp_path, nodes) as deployment:
        deployment.run(app, run_config(spec, cell, run), until=run / "clients.csv")
    assert bits(run, cell) == wanted
    assert not (run / "cells" / cell.id / "clients").exists()
    assert (tmp_path / "client-1" / "cells" / cell.id / "clients" / "client-1").is_dir()
    assert not deployment.left()


@pytest.mark.parametrize(
    ("fault", "event", "reason"),
    [
        ("hang", "absent", "no answer within 15 s"),
        ("die", "error", "its process died with exit code -9"),
        ("raise", "error", "RuntimeError: the disk of this client is broken"),
    ],
)
def test_a_client_that_fails_is_named_and_the_others_go_on(
    fault, event, reason, reference, opened, tmp_path
):
    spec, cell, _, _ = reference
    task, _ = opened(spec, tmp_path)
    (tmp_path / "client-0-will").write_text(fault)
    history = run_cell(
        spec, cell, task, tmp_path, engine="workers", workers=2, app=faulty_app.app, timeout=15.0
    )
    assert history.finished
    found = [e for e in history.events if e["round"] == 2]
    assert [(e["client"], e["event"]) for e in found] == [("client-0", event)]
    assert reason in found[0]["reason"]
    assert [r["accepted"] for r in history.rounds] == [3, 2]
    # It is measured again after its round was lost.
    measured = {r["client"] for r in history.clients if r["round"] == 2}
    assert measured == {"client-0", "client-1", "client-2", "unseen"}


def test_workers_end_with_their_block(reference, opened, tmp_path):
    spec, cell, _, _ = reference
    opened(spec, tmp_path)
    nodes = [{"partition-id": number} for number in range(3)]
    with WorkerGrid(app, nodes, run_config(spec, cell, tmp_path), 2) as grid:
        numbers = [worker.process.pid for worker in grid._workers]
        assert all(Path(f"/proc/{number}").exists() for number in numbers)
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{n}").exists() for n in numbers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{number}").exists() for number in numbers)


def test_an_unknown_engine_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match="unknown engine 'rya'; choose one of in-process, workers"):
        run_on("rya", None, [], {}, lambda grid: None)
    assert {"in-process", "workers", "ray"} <= set(ENGINES)


def test_a_run_config_reads_back(small, reference, tmp_path):
    spec, cell, _, _ = reference
    written = run_config(spec, cell, tmp_path)
    assert read_run_config(written, {}) == (spec, cell, tmp_path)
    assert read_run_config(written, {"folder": "/elsewhere"})[2] == Path("/elsewhere")
    assert read_run_config({"spec": written["spec"], "norm": ""}, {})[:2] == (spec, cell)
    with pytest.raises(InputError, match=r"'spec' is missing"):
        read_run_config({"spec": ""}, {})
    with pytest.raises(InputError, match="the spec has no cell layer_fedbn"):
        read_run_config({**written, "norm": "layer"}, {})


def test_training_is_what_the_progress_counts(reference, opened, tmp_path):
    spec, cell, _, _ = reference
    task, _ = opened(spec, tmp_path)
    seen = []
    run_cell(spec, cell, task, tmp_path, seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 2.0
    assert TRAIN == "train"


# --- clients that train together -------------------------------------------------------------


@pytest.fixture(scope="module")
def run_on_engine(small, opened, bits, tmp_path_factory):
    """Runs a spec on an engine: history, weights and the folder."""
    drawn = {}

    def run(engine, *overrides, app=app):
        spec, folder = small(*overrides), tmp_path_factory.mktemp(engine)
        if spec.partition not in drawn:
            drawn[spec.partition] = tmp_path_factory.mktemp("drawn")
            opened(spec, drawn[spec.partition])
        shutil.copytree(drawn[spec.partition] / "data", folder / "data")
        task, cell = open_task(spec, folder), cells_of(spec)[0]
        history = run_cell(spec, cell, task, folder, engine=engine, app=app)
        return history, weights(folder, cell), folder

    return run


def weights(folder, cell):
    home = folder / "cells" / cell.id
    found = [load_checkpoint(home / f"checkpoint-{slot}") for slot in ("even", "odd")]
    return max((f for f in found if f), key=lambda f: len(f[1]["history"]["rounds"]))[0]


def kept_files(folder):
    homes = folder.glob("cells/*/clients/*/round-*")
    return {str(home.relative_to(folder)): load_checkpoint(home)[0] for home in homes}


def apart(one, two):
    assert one.keys() == two.keys()
    return max((float((one[n].double() - two[n].double()).abs().max()) for n in one), default=0.0)


SGD = ("training.optimizer='sgd'", "training.momentum=0.0", "training.learning_rates=[0.05]")


@pytest.mark.parametrize(
    "overrides",
    [
        ('policies=["fedavg"]',),
        ('policies=["fedbn"]', "participation.start='adapt:64'"),
        ('policies=["silobn"]', "participation.start='shrink:64'", "participation.fraction=0.7"),
        ('policies=["moment_merge"]',),
        ('policies=["fedavg"]', "strategy.name='scaffold'"),
        ('policies=["fedbn"]', "strategy.name='fedprox'", "strategy.options={mu=0.5}"),
        ('policies=["fedavg"]', "participation.crashes=0.3", "participation.stragglers=0.3"),
        ('policies=["fedavg"]', "training.timeout=60", "partition.clients=5"),
    ],
    ids=["fedavg", "fedbn", "shrink", "merged", "scaffold", "fedprox", "faults", "five"],
)
def test_clients_together_do_all_that_they_do_one_by_one(run_on_engine, overrides):
    given = (*SGD, "training.rounds=3", "participation.failed_rounds=3", *overrides)
    wanted, theirs, there = run_on_engine("in-process", *given)
    history, ours, here = run_on_engine("vectorized", *given)
    assert history.finished
    assert history.events == wanted.events
    assert apart(ours, theirs) <= NOISE
    kept, same = kept_files(here), kept_files(there)
    assert kept.keys() == same.keys()
    assert all(apart(kept[name], same[name]) <= 20 * NOISE for name in kept)
    for row, other in zip(history.rounds, wanted.rounds, strict=True):
        assert row["accepted"] == other["accepted"]
        assert (row["bytes_up"], row["bytes_down"]) == (other["bytes_up"], other["bytes_down"])
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-4, nan_ok=True)
    named = [(row["round"], row["client"], row["part"]) for row in history.clients]
    assert named == [(row["round"], row["client"], row["part"]) for row in wanted.clients]
    for row, other in zip(history.clients, wanted.clients, strict=True):
        assert row["examples"] == other["examples"]
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-3, nan_ok=True)


def test_clients_together_give_the_same_bits_again(run_on_engine):
    first, ours, _ = run_on_engine("vectorized")
    again, theirs, _ = run_on_engine("vectorized")
    assert apart(ours, theirs) == 0
    assert first.clients == again.clients


def test_clients_together_give_the_same_bits_after_a_resume(
    run_on_engine, small, opened, monkeypatch, tmp_path
):
    whole, wanted, _ = run_on_engine("vectorized", "training.rounds=3")
    spec = small("training.rounds=3")
    task, cell = opened(spec, tmp_path)
    real = VectorizedGrid._train
    asked = []

    def stop_in_round_2(grid, pairs):
        asked.append(read_order(pairs[0][0])[0])
        replies = list(real(grid, pairs))
        if asked == [1, 2]:
            raise KeyboardInterrupt  # when clients have saved their round, and the server has not
        return replies

    monkeypatch.setattr(VectorizedGrid, "_train", stop_in_round_2)
    with pytest.raises(KeyboardInterrupt):
        run_cell(spec, cell, task, tmp_path, engine="vectorized")
    history = run_cell(spec, cell, task, tmp_path, engine="vectorized")
    assert asked == [1, 2, 2, 3]
    assert apart(weights(tmp_path, cell), wanted) == 0
    assert history.clients == whole.clients


def test_a_model_that_cannot_be_stacked_is_trained_one_by_one_and_the_reason_said_once(
    run_on_engine,
):
    dropout = "model.options={channels=8,blocks=1,dropout=0.1}"
    _, wanted, _ = run_on_engine("in-process", dropout)
    with pytest.warns(UserWarning, match="one after the other: .* draws random numbers") as said:
        _, found, _ = run_on_engine("vectorized", dropout)
    assert len(said) == 1
    assert apart(found, wanted) == 0


def test_an_app_of_somebody_else_is_called_client_by_client(run_on_engine, tmp_path):
    def other(message, context):
        return app(message, context)

    with pytest.warns(UserWarning, match="the app is not that of federated.client_app"):
        history, _, _ = run_on_engine("vectorized", app=other)
    assert history.finished


def test_a_fault_of_one_client_in_a_cohort_is_not_the_others(run_on_engine, monkeypatch):
    real = WindowTask.batches

    def batches(task, client, part, size, order):
        if client == "client-1" and part == "train" and order is not None:
            raise OSError("the disk of this client is broken")
        return real(task, client, part, size, order)

    monkeypatch.setattr(WindowTask, "batches", batches)
    # By "adapt:K" it would read its rows, and fail, before it trains.
    start = 'participation.start="server"'
    with pytest.warns(UserWarning, match="OSError: the disk of this client is broken"):
        history, _, _ = run_on_engine("vectorized", start)
    assert {e["client"] for e in history.events} == {"client-1"}
    assert [row["accepted"] for row in history.rounds] == [2, 2]


def test_progress_counts_clients_that_train_together(reference, opened, tmp_path):
    spec, cell, _, _ = reference
    task, _ = opened(spec, tmp_path)
    seen = []
    run_cell(spec, cell, task, tmp_path, seen.append, engine="vectorized")
    assert seen == sorted(seen)
    assert seen[-1] == 2.0


# --- what a client keeps ---------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["in-process", "vectorized"])
@pytest.mark.parametrize("poisoned", [1, 2])
def test_after_a_loss_that_is_not_finite_a_client_keeps_what_it_had(
    engine, poisoned, run_on_engine, monkeypatch
):
    real, epochs = WindowTask.batches, []

    def batches(task, client, part, size, order):
        found = list(real(task, client, part, size, order))
        if client == "client-1" and part == "train" and order and order[1] == poisoned - 1:
            epochs.append(order[1])
            x, labels = found[-1]
            found[-1] = (x * float("nan"), labels)
        return iter(found)

    monkeypatch.setattr(WindowTask, "batches", batches)
    history, _, folder = run_on_engine(engine, "training.local_epochs=1")
    refused = [e for e in history.events if e["event"] == "refused"]
    assert [(e["client"], e["round"]) for e in refused] == [("client-1", poisoned)]
    assert "loss is nan" in refused[0]["reason"]
    files = kept_files(folder)
    rounds = {name.rpartition("-")[2] for name in files if "/client-1/" in name}
    assert rounds == {"000001", "000002"} - {f"{poisoned:06d}"}
    assert all(value.isfinite().all() for state in files.values() for value in state.values())
    assert epochs
