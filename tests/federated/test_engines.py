"""Every engine gives the same bits, and a client that hangs or dies takes nobody with it."""

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import faulty_app
import pytest
from loopback import PROJECT, Loopback

from data_tools.errors import InputError
from federated.client_app import app
from federated.engines import ENGINES, run_on
from federated.engines.workers import WorkerGrid
from federated.messages import TRAIN
from federated.run import run_cell
from federated.run_config import read_run_config, run_config
from federated.spec import as_json

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
def test_superlink_and_three_supernodes_give_the_bits_of_one_process(reference, bits, tmp_path):
    spec, cell, wanted, _ = reference
    # Only what Flower reads of a project: the packages are found where they are installed.
    text = (PROJECT / "pyproject.toml").read_text()
    app = tmp_path / "app"
    app.mkdir()
    app_keys = text[text.index("[tool.flwr.app]") : text.index("[tool.ruff]")]
    head = '[project]\nname = "app"\nversion = "0.0.1"\nlicense = "MIT"\ndescription = "app"\n'
    (app / "pyproject.toml").write_text(head + app_keys)
    run = tmp_path / "run"
    nodes = [{"client": f"client-{number}"} for number in range(3)]
    with Loopback(tmp_path, nodes) as deployment:
        deployment.run(app, run_config(spec, cell, run), until=run / "clients.csv")
    assert bits(run, cell) == wanted
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
