"""What can go wrong in a round, and what must survive it."""

import errno
import io
import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import Array, ArrayRecord

import federated.client_app
from data_tools.errors import InputError
from federated.history import load_round
from federated.messages import read_order
from federated.run import run_cell
from federated.server import RunStoppedError
from federated.tasks import open_task
from seqnorm import checkpoint
from seqnorm.checkpoint import CheckpointError
from seqnorm.holdout.windows import WindowSet


def liar(change, *, who=0, rounds=(2,)):
    """The app, but one client's training replies are changed before they leave it."""

    def app(message, context):
        reply = federated.client_app.app(message, context)
        mine = context.node_config["partition-id"] == who
        asked = message.metadata.message_type == "train" and mine
        if asked and read_order(message)[0] in rounds:
            change(reply.content)
        return reply

    return app


def weights(content):
    return dict(content.array_records["arrays"].to_torch_state_dict())


def with_weights(change):
    def apply(content):
        arrays = weights(content)
        change(arrays)
        content["arrays"] = ArrayRecord(arrays)

    return apply


def first(arrays):
    return next(name for name in arrays if name.endswith("weight"))


def nan(arrays):
    arrays[first(arrays)].view(-1)[0] = torch.nan


def infinity(arrays):
    arrays[first(arrays)].view(-1)[0] = torch.inf


def a_million_times(arrays):
    for name in arrays:
        if arrays[name].is_floating_point():
            arrays[name] = arrays[name] * 1e6


def other_shape(arrays):
    arrays[first(arrays)] = arrays[first(arrays)][:1]


def other_type(arrays):
    arrays[first(arrays)] = arrays[first(arrays)].double()


def missing(arrays):
    del arrays[first(arrays)]


def one_more(arrays):
    arrays["of_nobody"] = torch.zeros(2)


def examples(count):
    def apply(content):
        content["metrics"]["num-examples"] = count

    return apply


def stale(content):
    content["config"]["server-round"] = 1


def somebody_else(content):
    content["config"]["client"] = "client-1"


def no_loss(content):
    content["metrics"]["loss"] = float("nan")


class Bomb:
    def __reduce__(self):
        return (print, ("a stranger's code has run",))


def pickled(content):
    stream = io.BytesIO()
    np.save(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    bad = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=stream.getvalue())
    record = content.array_records["arrays"]
    record[first(record)] = bad


@pytest.fixture(scope="module")
def setup(small, opened, tmp_path_factory):
    """Spec, task and cell in a folder that no run has used."""
    spec, folder = small('policies=["fedavg"]'), tmp_path_factory.mktemp("data")
    task, cell = opened(spec, folder)
    return spec, task, cell, folder


def run(setup, tmp_path, app=federated.client_app.app, **rules):
    spec, task, cell, rows = setup
    spec = replace(spec, participation=replace(spec.participation, **rules))
    (tmp_path / "data").symlink_to(rows / "data")
    return run_cell(spec, cell, task, tmp_path, app=app)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_weights(nan), "holds NaN or infinity"),
        (with_weights(infinity), "holds NaN or infinity"),
        (with_weights(a_million_times), "100 is the limit"),
        (with_weights(other_shape), "shape"),
        (with_weights(other_type), "float64"),
        (with_weights(missing), "is missing"),
        (with_weights(one_more), "of_nobody is not expected"),
        (examples(-5), "-5 examples"),
        (examples(10**15), "examples; 1 to"),
        (examples(2.5), "examples are float, not int"),
        (stale, "stale: it answers round 1, this is round 2"),
        (somebody_else, "the reply says that it is of 'client-1'"),
        (no_loss, "its loss is nan"),
        (pickled, "cannot be read"),
    ],
    ids=[
        "nan",
        "inf",
        "million",
        "shape",
        "type",
        "missing",
        "extra",
        "negative",
        "absurd",
        "fraction",
        "stale",
        "impostor",
        "no-loss",
        "pickle",
    ],
)
def test_a_false_reply_is_refused_by_name_and_the_round_goes_on(
    change, reason, setup, tmp_path, capsys
):
    history = run(setup, tmp_path, liar(change))
    assert history.finished
    (event,) = history.events
    assert (event["round"], event["client"], event["event"]) == (2, "client-0", "refused")
    assert reason in event["reason"]
    assert [row["accepted"] for row in history.rounds] == [3, 2]
    assert [row["refused"] for row in history.rounds] == [0, 1]
    assert "a stranger's code" not in capsys.readouterr().out
    assert np.isfinite([row["loss"] for row in history.clients]).all()


def test_the_round_without_a_refused_client_is_that_of_the_others(setup, tmp_path, opened, bits):
    # Whoever is refused leaves no trace: NaN or shape, the weights come out the same.
    found = set()
    for number, change in enumerate((nan, other_shape, missing)):
        folder = tmp_path / str(number)
        folder.mkdir()
        run(setup, folder, liar(with_weights(change)))
        found.add(bits(folder, setup[2]))
    assert len(found) == 1


def test_a_reply_that_comes_twice_counts_once(setup, tmp_path, bits, monkeypatch):
    from federated.engines.in_process import InProcessGrid

    (tmp_path / "once").mkdir()
    (tmp_path / "twice").mkdir()
    run(setup, tmp_path / "once")
    honest = InProcessGrid.send_and_receive
    monkeypatch.setattr(
        InProcessGrid,
        "send_and_receive",
        lambda self, orders, **kw: [r for r in honest(self, orders, **kw) for _ in range(2)],
    )
    with pytest.raises(InputError, match="two nodes say"):
        run(setup, tmp_path / "twice")
    monkeypatch.setattr(
        InProcessGrid,
        "send_and_receive",
        lambda self, orders, **kw: twice_if_training(honest(self, orders, **kw)),
    )
    history = run_cell(setup[0], setup[2], setup[1], tmp_path / "twice")
    assert {event["reason"] for event in history.events} == {"duplicate of its reply"}
    assert bits(tmp_path / "once", setup[2]) == bits(tmp_path / "twice", setup[2])


def twice_if_training(replies):
    kinds = {reply.metadata.message_type for reply in replies}
    return [r for r in replies for _ in range(2 if kinds == {"train"} else 1)]


def test_all_clients_failing_stops_the_run_with_their_reasons(setup, tmp_path):
    def app(message, context):
        if message.metadata.message_type == "train":
            raise OSError("no disk")
        return federated.client_app.app(message, context)

    with pytest.raises(
        RunStoppedError, match=r"round 1: 0 usable replies.*client-2: error"
    ) as info:
        run(setup, tmp_path, app)
    assert "OSError: no disk" in str(info.value)
    assert len(info.value.history.events) == 3
    # Nothing is lost: the same folder goes on once the clients are well again.
    spec, task, cell, _ = setup
    assert run_cell(spec, cell, task, tmp_path).finished


def test_fewer_than_the_minimum_stop_the_run_or_leave_the_weights_as_they_are(setup, tmp_path):
    app = liar(with_weights(nan), rounds=(1, 2))
    (tmp_path / "strict").mkdir()
    with pytest.raises(
        RunStoppedError, match=r"2 usable replies, participation\.minimum asks for 3"
    ):
        run(setup, tmp_path / "strict", app, minimum=3)
    (tmp_path / "patient").mkdir()
    history = run(setup, tmp_path / "patient", app, minimum=3, failed_rounds=2)
    assert [row["accepted"] for row in history.rounds] == [0, 0]
    tensors, _ = load_round(
        tmp_path / "patient" / "cells" / setup[2].id,
        made_of=digest(setup, minimum=3, failed_rounds=2),
    )
    initial = setup[1].build("batch", 0).state_dict()
    assert all(torch.equal(tensors[f"model/{name}"], value) for name, value in initial.items())


def digest(setup, **rules):
    from federated.site import Learner

    spec, task, cell, _ = setup
    spec = replace(spec, participation=replace(spec.participation, **rules))
    return Learner(spec, cell, task).fingerprint()


def test_simulated_faults_are_functions_of_seed_round_and_client(setup, tmp_path):
    rules = {"dropout": 0.3, "crashes": 0.3, "stragglers": 0.3, "failed_rounds": 9}
    events = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        events.append(run(setup, tmp_path / name, **rules).events)
    assert events[0] == events[1]
    told = " ".join(event["reason"] for event in events[0])
    assert "participation." in told
    assert {event["event"] for event in events[0]} <= {"absent", "error"}


def test_a_straggler_keeps_its_own_state_and_a_crashed_client_does_not(small, opened, tmp_path):
    for name, kept in (("crashes", 0), ("stragglers", 3)):
        spec = small(f"participation.{name}=0.999999", "participation.failed_rounds=9")
        task, cell = opened(spec, tmp_path / name)
        history = run_cell(spec, cell, task, tmp_path / name)
        assert [row["accepted"] for row in history.rounds] == [0, 0]
        home = tmp_path / name / "cells" / cell.id / "clients"
        assert len(list(home.glob("*/round-000001"))) == kept


# --- clients with odd rows ------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_clients_with_no_row_one_row_and_one_class_harm_nobody(norm, small, opened, tmp_path):
    spec = small(f'norms=["{norm}"]', "partition.clients=4")
    _, cell = opened(spec, tmp_path)
    path = tmp_path / "data" / "windows.npz"
    windows = WindowSet.load(path)
    table = windows.table
    mine = {n: np.flatnonzero(table["client"] == f"client-{n}") for n in range(3)}
    table.loc[mine[0], "part"] = np.where(table.loc[mine[0], "part"] == "train", "", "test")
    own = mine[1][(table.loc[mine[1], "part"] == "train").to_numpy()]
    table.loc[own[1:], "part"] = ""
    table.loc[mine[2], "label"] = 0
    windows.save(path)
    history = run_cell(spec, cell, open_task(spec, tmp_path), tmp_path)
    assert history.finished
    assert not [event for event in history.events if event["client"] == "client-3"]
    rows = pd.DataFrame(history.clients).query("part == 'test'").set_index(["client", "round"])
    assert np.isfinite(rows.loc["client-3", ["loss", "auprc", "auroc"]]).all(axis=None)
    assert np.isfinite(rows.loc["client-0", "loss"]).all()
    assert rows.loc["client-2", "auroc"].isna().all()
    assert np.isfinite(rows.loc["client-2", "loss"]).all()


# --- checkpoints --------------------------------------------------------------------------------


def test_a_full_disk_at_a_checkpoint_loses_a_round_at_most(setup, tmp_path, bits, monkeypatch):
    (tmp_path / "well").mkdir()
    run(setup, tmp_path / "well")
    whole = bits(tmp_path / "well", setup[2])
    written = checkpoint.write_atomic
    calls = []

    def full(path, content):
        calls.append(path)
        if len(calls) >= 3:  # tensors and state of round 1, then the disk is full
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written(path, content)

    monkeypatch.setattr(checkpoint, "write_atomic", full)
    (tmp_path / "full").mkdir()
    with pytest.raises(OSError, match="No space left on device"):
        run(setup, tmp_path / "full")
    monkeypatch.undo()
    spec, task, cell, _ = setup
    history = run_cell(spec, cell, task, tmp_path / "full")
    assert history.finished
    assert len(history.rounds) == 2
    assert bits(tmp_path / "full", cell) == whole


@pytest.mark.parametrize("file", ["state.json", "tensors-*.safetensors"])
@pytest.mark.parametrize("content", ["half", "zeros", "pickle"])
def test_a_damaged_newest_checkpoint_costs_a_round(file, content, setup, tmp_path, bits):
    run(setup, tmp_path)
    spec, task, cell, _ = setup
    whole = bits(tmp_path, cell)
    (path,) = (tmp_path / "cells" / cell.id / "checkpoint-even").glob(file)
    raw = path.read_bytes()
    damaged = {
        "half": raw[: len(raw) // 2],
        "zeros": bytes(len(raw)),
        "pickle": pickle.dumps(Bomb()),
    }
    path.write_bytes(damaged[content])
    history = run_cell(spec, cell, task, tmp_path)
    assert [event["event"] for event in history.events] == ["damaged"]
    assert str(path) in history.events[0]["reason"]
    assert bits(tmp_path, cell) == whole


def test_with_all_checkpoints_damaged_the_run_stops_and_names_the_file(setup, tmp_path):
    run(setup, tmp_path)
    spec, task, cell, _ = setup
    for path in (tmp_path / "cells" / cell.id).glob("checkpoint-*/state.json"):
        path.write_text("{")
    with pytest.raises(CheckpointError, match=r"state.json: damaged checkpoint"):
        run_cell(spec, cell, task, tmp_path)


def test_a_checkpoint_of_another_spec_is_refused(setup, tmp_path, small):
    run(setup, tmp_path)
    _, task, cell, _ = setup
    other = small('policies=["fedavg"]', "training.batch_size=16")
    with pytest.raises(InputError, match="holds a run of another spec"):
        run_cell(other, cell, task, tmp_path)
