"""A whole run, killed and stopped and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from data_tools.errors import InputError
from federated.simulate import simulate
from seqnorm.runs.record import locked

SPEC = Path(__file__).parents[2] / "examples" / "federated_ctcf.toml"
TABLES = ["clients", "rounds", "events", "manifests", "partition"]


def read(folder):
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in TABLES}
    # Time alone may differ.
    tables["rounds"] = tables["rounds"].drop(columns="seconds")
    return tables


def assert_equal(one, two):
    for name in TABLES:
        pd.testing.assert_frame_equal(one[name], two[name], check_exact=True)


@pytest.fixture(scope="module")
def spec(small):
    return small('norms=["batch","group:4"]', 'policies=["fedavg","fedbn"]', "training.rounds=3")


@pytest.fixture(scope="module")
def whole(spec, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    lines = []
    simulate(spec, folder, workers=2, say=lines.append)
    return folder, lines


def test_every_table_has_every_round_of_every_cell(whole, spec):
    folder, lines = whole
    tables = read(folder)
    cells = tables["rounds"].groupby(["norm", "policy"])["round"].agg(list)
    assert cells.to_dict() == {
        (norm, policy): [1, 2, 3] for norm in spec.norms for policy in spec.policies
    }
    parts = tables["clients"].groupby(["client", "part"]).size()
    assert parts.nunique() == 1
    assert ("unseen", "test") in parts.index
    assert ("unseen", "validation") not in parts.index
    assert tables["events"].empty
    assert tables["partition"]["rows"].sum() > 100
    assert json.loads((folder / "run.json").read_text())["status"] == "complete"
    assert len(lines) == 3


def test_fedbn_is_fedavg_where_there_is_no_batchnorm_and_is_run_once(whole):
    folder, _ = whole
    record = json.loads((folder / "run.json").read_text())
    assert record["same_runs"] == {
        "group-4_fedbn_lr0.01_seed0": "group-4_fedavg_lr0.01_seed0",
    }
    clients = read(folder)["clients"].set_index("policy")
    group, batch = (clients[clients["norm"] == norm] for norm in ("group:4", "batch"))
    assert group.loc["fedavg"].equals(group.loc["fedbn"].set_axis(group.loc["fedavg"].index))
    assert not (batch.loc["fedavg", "loss"].values == batch.loc["fedbn", "loss"].values).all()


def test_a_finished_run_is_gone_on_with_at_no_cost(whole, spec):
    folder, _ = whole
    before = read(folder)
    simulate(spec, folder, resume=True, workers=1, say=lambda line: None)
    assert_equal(read(folder), before)


def test_a_folder_is_used_by_one_run_and_one_spec(whole, spec, small):
    folder, _ = whole
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        simulate(spec, folder)
    with pytest.raises(InputError, match="this run began with another spec"):
        simulate(small("training.rounds=4"), folder, resume=True)
    with locked(folder), pytest.raises(InputError, match="another run is using this folder"):
        simulate(spec, folder, resume=True)
    with pytest.raises(InputError, match="workers must be at least 1"):
        simulate(spec, folder, workers=0)


def test_an_engine_with_processes_gives_the_same_tables(whole, spec, tmp_path):
    simulate(spec, tmp_path, workers=2, engine="workers", say=lambda line: None)
    assert_equal(read(tmp_path), read(whole[0]))
    sessions = json.loads((tmp_path / "run.json").read_text())["sessions"]
    assert [session["engine"] for session in sessions] == ["workers"]
    # The sums of clients that are trained together differ by rounding.
    with pytest.raises(InputError, match="was begun with the engine 'workers', whose sums differ"):
        simulate(spec, tmp_path, resume=True, engine="vectorized", say=lambda line: None)
    with pytest.raises(InputError, match="unknown engine 'rays'; choose one of in-process"):
        simulate(spec, tmp_path, resume=True, engine="rays", say=lambda line: None)


def started(folder, *overrides, engine="in-process"):
    command = "import sys; from federated.cli import main; sys.argv[0] = 'federated'; main()"
    arguments = ["simulate", str(SPEC), "--out", str(folder), "--resume", "--workers", "1"]
    arguments += ["--engine", engine]
    return subprocess.Popen(
        [sys.executable, "-c", command, *arguments, "--override", *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def overrides(small_overrides):
    return [*small_overrides, 'norms=["batch"]', 'policies=["fedbn"]', "training.rounds=4"]


@pytest.fixture(scope="module")
def uninterrupted(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    simulate(small("training.rounds=4"), folder, say=lambda line: None)
    return read(folder)


@pytest.mark.slow
@pytest.mark.parametrize("after", ["data/windows.npz", "client-0", "even", "odd"])
def test_a_run_killed_at_any_stage_goes_on_to_the_same_bits(
    after, overrides, uninterrupted, tmp_path
):
    cell = tmp_path / "cells" / "batch_fedbn_lr0.01_seed0"
    sign = {
        "client-0": cell / "clients" / "client-0",
        "even": cell / "checkpoint-even" / "state.json",
        "odd": cell / "checkpoint-odd" / "state.json",
    }.get(after, tmp_path / after)
    run = started(tmp_path, *overrides)
    deadline = time.monotonic() + 120
    while not sign.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert sign.exists()
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    assert run.returncode == -signal.SIGKILL
    again = started(tmp_path, *overrides)
    printed, _ = again.communicate(timeout=300)
    assert again.returncode == 0, printed
    assert_equal(read(tmp_path), uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", ["in-process", "workers", pytest.param("ray", marks=pytest.mark.ray)]
)
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(engine, overrides, uninterrupted, tmp_path):
    run = started(tmp_path, *overrides, "training.rounds=40", engine=engine)
    sign = tmp_path / "cells" / "batch_fedbn_lr0.01_seed0" / "checkpoint-odd" / "state.json"
    while not sign.exists() and run.poll() is None:
        time.sleep(0.02)
    run.send_signal(signal.SIGINT)
    printed, _ = run.communicate(timeout=60)
    assert run.returncode == 130, printed
    assert "nothing is lost. Go on with:" in printed
    assert (f"--engine {engine} --resume" in printed) == (engine != "in-process")
    assert "Traceback" not in printed
    done = read(tmp_path)
    rounds = done["rounds"]["round"].max()
    assert 1 <= rounds < 40
    wanted = uninterrupted["clients"].query("round == 1").reset_index(drop=True)
    found = done["clients"].query("round == 1").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "interrupted"
