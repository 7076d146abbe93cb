"""What a run survives of broken sites, odd data and old folders, beyond false replies."""

import random
from contextlib import suppress
from dataclasses import replace
from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import Array, Context, Error, Message, RecordDict

import federated.client_app
import federated.server
import federated.server_app
from data_tools.errors import InputError
from federated.cell import cells_of
from federated.engines.in_process import InProcessGrid
from federated.history import History
from federated.messages import HELLO, answer, read_order, read_reply
from federated.partition.columns import safe_names
from federated.policy import LocalState
from federated.policy.local_state import LocalStateError
from federated.policy.moved import ManifestError
from federated.run import run_cell
from federated.run_config import read_run_config, run_config
from federated.server import Rounds
from federated.setting import settings_of
from federated.site import Learner, Site
from federated.spec import SpecError
from federated.tasks.draw import draw_windows
from federated.tasks.windows import WindowTask


@pytest.fixture(scope="module")
def setup(small, opened, tmp_path_factory):
    """Spec, task and cell in a folder that no run has used."""
    spec, folder = small('policies=["silobn"]'), tmp_path_factory.mktemp("data")
    task, cell = opened(spec, folder)
    return spec, task, cell, folder


@pytest.fixture
def run(setup, tmp_path):
    """Runs the cell in a folder of its own, with another app or other training."""

    def go(app=federated.client_app.app, **training):
        spec, task, cell, rows = setup
        spec = replace(spec, training=replace(spec.training, **training))
        (tmp_path / "data").symlink_to(rows / "data")
        return run_cell(spec, cell, task, tmp_path, app=app)

    return go


# --- the manifest, against what moved -------------------------------------------------------------


def test_a_tensor_that_the_server_changes_against_the_manifest_ends_the_run(run, monkeypatch):
    honest = federated.server.aggregate

    def careless(manifest, *rest):
        name = next(n for n in manifest.kept(1) if n.endswith("running_mean"))
        return honest(manifest, *rest) | {name: torch.full_like(rest[2][name], 7.0)}

    monkeypatch.setattr(federated.server, "aggregate", careless)
    with pytest.raises(ManifestError, match=r"round 1, server: .*running_mean changed.* local"):
        run()


# --- replies to be measured, and replies that cannot be read --------------------------------------


def measuring(change):
    """The app, but client-0 changes what it measured of round 2."""

    def app(message, context):
        reply = federated.client_app.app(message, context)
        asked = message.metadata.message_type == "evaluate" and read_order(message)[0] == 2
        if asked and context.node_config["partition-id"] == 0:
            change(reply.content)
        return reply

    return app


def metric(name, value):
    def apply(content):
        content["metrics"][name] = value

    return apply


def without_primary(content):
    del content["metrics"]["validation/auprc"]


def of_round_1(content):
    content["config"]["server-round"] = 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_primary, "validation/auprc is missing"),
        (metric("test/client", 5.0), "test/client is not expected"),
        (metric("train/auprc", 0.5), "train/auprc is not expected"),
        (metric("validation/auprc", 1e9), "auprc is 1000000000.0; 0 to 1 can be"),
        (metric("validation/auprc", -0.1), "auprc is -0.1; 0 to 1 can be"),
        (metric("test/loss", float("inf")), "test/loss is inf"),
        (metric("test/examples", -3.0), "test/examples is -3.0"),
        (metric("test/examples", float("nan")), "test/examples is nan"),
        (of_round_1, "stale: it measures round 1, this is round 2"),
    ],
)
def test_a_false_measurement_is_refused_by_name_and_in_no_table(change, reason, run):
    history = run(measuring(change), patience=5)
    assert history.finished
    (event,) = history.events
    assert (event["round"], event["client"], event["event"]) == (2, "client-0", "refused")
    assert reason in event["reason"]
    rows = pd.DataFrame(history.clients)
    assert set(rows.query("round == 2")["client"]) == {"client-1", "client-2", "unseen"}
    assert rows.columns.tolist() == list(history.clients[0])


def npy(header, body=b""):
    raw = header.encode()
    raw += b" " * ((64 - (11 + len(raw)) % 64) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(raw).to_bytes(2, "little") + raw + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 no zip file",
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,"),
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**13},)}}"),
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30},)}}"),
        npy("(" * 5000),
    ],
    ids=["empty", "zip", "syntax", "terabytes", "overflow", "deep"],
)
def test_whatever_bytes_a_reply_holds_it_is_refused_and_the_server_lives(data):
    content = answer("a", 1, 3, {"loss": 0.1}, {"w": torch.ones(1)})
    bad = Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=data)
    content.array_records["arrays"]["w"] = bad
    with pytest.raises(InputError, match="the reply cannot be read"):
        read_reply(content, "a")


def test_a_metric_too_large_for_a_float_is_refused():
    with pytest.raises(InputError, match="the reply cannot be read"):
        read_reply(answer("a", 1, 3, {"loss": 10**400}), "a")


@pytest.mark.parametrize("steps", [10**9, -1, 0.5, float("nan")])
def test_a_number_of_steps_that_cannot_be_is_refused(steps, run):
    def app(message, context):
        reply = federated.client_app.app(message, context)
        mine = context.node_config["partition-id"] == 0
        if mine and message.metadata.message_type == "train":
            reply.content["metrics"]["steps"] = steps
        return reply

    history = run(app)
    assert {(e["client"], e["event"]) for e in history.events} == {("client-0", "refused")}
    assert all("steps; a whole number up to" in event["reason"] for event in history.events)


def test_what_a_client_says_of_its_fault_cannot_steer_a_terminal():
    history = History()
    history.note(1, "client-0", "error", "\x1b[2J\x1b]0;title\x07 no\ndisk")
    assert history.events[0]["reason"] == "?[2J?]0;title? no disk"


# --- who is there -----------------------------------------------------------------------------


class Town(InProcessGrid):
    """Nodes that come and go between rounds, and nodes that answer the roll with nonsense."""

    def __init__(self, setup, folder):
        spec, _, cell, rows = setup
        (folder / "data").symlink_to(rows / "data")
        nodes = [{"partition-id": number} for number in range(3)]
        super().__init__(federated.client_app.app, nodes, run_config(spec, cell, folder))
        self.odd = {}

    def leave(self, number):
        return self._contexts.pop(number).node_config

    def call(self, message):
        number = message.metadata.dst_node_id
        if number in self.odd and message.metadata.message_type == HELLO:
            said = self.odd[number]
            content = RecordDict() if said is None else answer(said, 0, 0, {})
            if said == "fault":
                return Message(Error(1, "no data here"), reply_to=message)
            return Message(content, reply_to=message)
        return super().call(message)


def test_a_site_that_starts_again_under_another_number_goes_on_where_it_was(setup, tmp_path, bits):
    spec, task, cell, rows = setup
    (tmp_path / "once").mkdir()
    (tmp_path / "again").mkdir()
    (tmp_path / "once" / "data").symlink_to(rows / "data")
    whole = run_cell(spec, cell, task, tmp_path / "once")
    town = Town(setup, tmp_path / "again")
    rounds = Rounds(Learner(spec, cell, task), town, tmp_path / "again" / "cells" / cell.id)

    def restart(history):
        if len(history.rounds) == 1:
            town.add_node(77, town.leave(1))

    history = rounds.run(restart)
    assert not history.events
    assert history.clients == whole.clients
    assert bits(tmp_path / "again", cell) == bits(tmp_path / "once", cell)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, "does not tell its client's name"),
        ("fault", "a client cannot start: no data here"),
        ("client-1", "two nodes say that they are client 'client-1'"),
        ("../../etc", "which the run has not"),
    ],
)
def test_a_node_that_comes_late_with_nonsense_does_not_end_the_run(said, reason, setup, tmp_path):
    spec, task, cell, _ = setup
    town = Town(setup, tmp_path)
    rounds = Rounds(Learner(spec, cell, task), town, tmp_path / "cells" / cell.id)

    def come(history):
        if len(history.rounds) == 1:
            town.odd[88] = said
            town.add_node(88, town.leave(1))

    history = rounds.run(come)
    assert history.finished
    assert [row["accepted"] for row in history.rounds] == [3, 2]
    (refused, absent) = [event for event in history.events if event["round"] == 2]
    assert refused["event"] == "refused"
    assert reason in refused["reason"]
    assert (absent["client"], absent["reason"]) == ("client-0", "its node has not come")


def test_the_unseen_site_is_measured_with_as_many_threads_as_a_client_has(
    setup, tmp_path, monkeypatch
):
    spec, task, cell, _ = setup
    town = Town(setup, tmp_path)
    call, evaluate, seen = town.call, WindowTask.evaluate, set()

    def in_another_process(message):
        here = torch.get_num_threads()
        try:
            return call(message)
        finally:
            torch.set_num_threads(here)

    def noted(task, model, client, part="test"):
        if client == "unseen":
            seen.add(torch.get_num_threads())
        return evaluate(task, model, client, part)

    monkeypatch.setattr(town, "call", in_another_process)
    monkeypatch.setattr(WindowTask, "evaluate", noted)
    before = torch.get_num_threads()
    torch.set_num_threads(spec.training.threads + 1)
    try:
        Rounds(Learner(spec, cell, task), town, tmp_path / "cells" / cell.id).run()
    finally:
        torch.set_num_threads(before)
    assert seen == {spec.training.threads}


# --- names, folders, configurations ---------------------------------------------------------------


def test_no_site_can_have_a_name_that_means_something_else_or_that_no_folder_may_have(tmp_path):
    names = safe_names(["unseen", "Pooled", "_a", "._-b", "___"])
    assert names == ("unseen-2", "Pooled-2", "a", "b", "site")
    for name in names:
        assert LocalState(tmp_path).load(name, 1) is None


def test_skews_that_differ_only_far_down_have_folders_of_their_own(small, tmp_path):
    spec = small("study={skews=[0.5,0.5000001]}")
    folders = [setting.folder for setting in settings_of(spec, tmp_path, study=True)]
    assert len(set(folders)) == 2
    assert folders[0].name == "skew0.5"


@pytest.mark.parametrize(
    ("key", "value"), [("learning-rate", "fast"), ("seed", "x"), ("seed", 0.9), ("seed", 1e400)]
)
def test_a_value_of_the_run_config_that_cannot_be_is_a_typed_error(key, value, setup, tmp_path):
    spec, _, cell, _ = setup
    with pytest.raises(InputError, match="run config: "):
        read_run_config({**run_config(spec, cell, tmp_path), key: value}, {})


@pytest.mark.parametrize(
    "overrides",
    [("participation.fraction=0.34",), ("study={participations=[1.0,0.34]}",)],
    ids=["simulation", "study"],
)
def test_a_minimum_above_what_a_round_draws_is_refused_before_any_work(overrides, small):
    with pytest.raises(SpecError, match=r"of 3 a fraction of 0\.34 is 1 a round"):
        small("participation.minimum=2", *overrides)


def test_the_local_state_of_another_run_is_never_taken_for_that_of_this_one(tmp_path):
    LocalState(tmp_path, made_of="one").save("site", 3, {"w": torch.ones(1)})
    assert LocalState(tmp_path, made_of="one").load("site", 4) is not None
    for round_ in (1, 4):
        with pytest.raises(LocalStateError, match="is of a run of another spec"):
            LocalState(tmp_path, made_of="two").load("site", round_)


# --- the app that a deployment starts -------------------------------------------------------------


def serve(spec, cell, folder):
    """The ServerApp over nodes in this process."""
    config = run_config(spec, cell, folder)
    nodes = [{"partition-id": number} for number in range(3)]
    grid = InProcessGrid(federated.client_app.app, nodes, config)
    federated.server_app.app(grid, Context(1, 0, {}, RecordDict(), config))


def test_the_tables_of_a_deployment_are_of_all_its_cells(small, tmp_path):
    spec = small("training.rounds=1", "training.seeds=[0,1]")
    for cell in cells_of(spec):
        serve(spec, cell, tmp_path)
    for name in ("clients", "rounds"):
        assert set(pd.read_csv(tmp_path / f"{name}.csv")["seed"]) == {0, 1}


def test_a_deployment_takes_no_rows_of_another_spec(small, tmp_path):
    spec = small("training.rounds=1")
    serve(spec, cells_of(spec)[0], tmp_path)
    other = small("training.rounds=1", "training.seeds=[1]", "partition.rho=0.1")
    with pytest.raises(InputError, match="holds the rows of another spec"):
        serve(other, cells_of(other)[0], tmp_path)


def test_a_deployment_that_was_killed_before_its_rows_were_drawn_draws_them(small, tmp_path):
    spec = small("training.rounds=1")
    (tmp_path / "data").mkdir()
    serve(spec, cells_of(spec)[0], tmp_path)
    assert (tmp_path / "clients.csv").exists()


# --- rows ------------------------------------------------------------------------------------


def test_no_window_of_the_unseen_site_has_the_sequence_of_a_client_on_either_strand(
    small, tmp_path
):
    draw = random.Random(0)
    left, right = ("".join(draw.choices("ACGT", k=6000)) for _ in range(2))
    turned = left[::-1].translate(str.maketrans("ACGT", "TGCA"))
    genome = tmp_path / "genome.fa"
    # All of `there` but its end is the other strand of all of `here`.
    genome.write_text(f">here\n{left}\n>there\n{turned}{right}\n")
    ends = range(250, 5900, 500)
    peaks = [("here", at) for at in ends] + [("there", 6000 - at) for at in ends]
    peaks += [("there", 6000 + at) for at in ends]
    lines = (f"{chrom}\t{at - 30}\t{at + 30}\t.\t0\t.\t1\t1\t1\t30" for chrom, at in peaks)
    (tmp_path / "peaks.narrowPeak").write_text("\n".join(lines) + "\n")
    spec = small('data.chromosomes=["here"]', 'data.unseen=["there"]', "partition.clients=2")
    data = replace(
        spec.data, genome=str(genome), peaks=str(tmp_path / "peaks.narrowPeak"), exclude=None
    )
    drawn = draw_windows(replace(spec, data=data))
    complement = np.array([3, 2, 1, 0, 4], dtype=np.uint8)
    centre = drawn.codes[:, data.jitter : drawn.codes.shape[1] - data.jitter]
    keys = np.array([min(s.tobytes(), complement[s[::-1]].tobytes()) for s in centre], dtype=object)
    unseen = (drawn.rows["client"] == "").to_numpy()
    assert unseen.sum() >= len(ends)
    assert not set(keys[unseen]) & set(keys[~unseen])


def test_rows_that_a_client_adapts_to_are_drawn_without_regard_to_their_labels(
    small, opened, tmp_path
):
    spec = small(
        "participation.start='adapt:48'", "data.negatives_per_positive=3", "partition.rho=0.0"
    )
    task, cell = opened(spec, tmp_path)
    site = Site(Learner(spec, cell, task), "unseen", tmp_path / "kept")
    labels = torch.cat([labels for _, labels in site._batches(48)])
    assert len(labels) == 48
    assert 0.05 < labels.mean() < 0.5


# --- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        (
            'policies=["fedbn"]',
            'strategy.name="scaffold"',
            'training.optimizer="sgd"',
            "participation.stragglers=0.2",
            "participation.failed_rounds=9",
        ),
        ('policies=["fixbn:3"]', 'strategy.name="fedadam"'),
        ('policies=["silobn"]', 'participation.start="shrink:32"', "participation.fraction=0.7"),
    ],
    ids=["scaffold-fedbn", "fedadam-fixbn", "silobn-shrink"],
)
def test_a_run_stopped_before_any_message_goes_on_to_the_same_bits(
    overrides, small, opened, bits, tmp_path, monkeypatch
):
    spec = small("training.rounds=4", "participation.fraction=0.5", *overrides)
    (tmp_path / "whole").mkdir()
    task, cell = opened(spec, tmp_path / "whole" / "rows")
    (tmp_path / "whole" / "data").symlink_to(tmp_path / "whole" / "rows" / "data")
    whole = run_cell(spec, cell, task, tmp_path / "whole")
    honest, calls, stop = InProcessGrid.call, count(), {0}

    def call(grid, message):
        if next(calls) in stop:
            raise KeyboardInterrupt
        return honest(grid, message)

    monkeypatch.setattr(InProcessGrid, "call", call)
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped" / "data").symlink_to(tmp_path / "whole" / "rows" / "data")
    for at in (0, 4, 7, 9):  # of each session: in the roll, in training, in evaluation
        calls, stop = count(), {at}
        with suppress(KeyboardInterrupt):
            run_cell(spec, cell, task, tmp_path / "stopped")
    monkeypatch.undo()
    history = run_cell(spec, cell, task, tmp_path / "stopped")
    assert history.clients == whole.clients
    assert history.events == whole.events
    assert bits(tmp_path / "stopped", cell) == bits(tmp_path / "whole", cell)
