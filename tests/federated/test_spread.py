"""Start rule "shrink": the server learns how far local statistics lie apart, and nothing else."""

import pytest
import torch

from federated.engines.in_process import InProcessGrid
from federated.messages import answer, read_reply
from federated.policy import Counted, between_clients, client_statistics, start_local
from federated.run import run_cell
from federated.site import Learner, Site
from federated.spread import read_spread
from seqnorm.checkpoint import load_checkpoint

SHRINK = "participation.start='shrink:64'"


@pytest.fixture(scope="module", params=["fedbn", "silobn"])
def run(request, small, opened, tmp_path_factory):
    folder = tmp_path_factory.mktemp("spread")
    spec = small(SHRINK, f'policies=["{request.param}"]')
    task, cell = opened(spec, folder)
    history = run_cell(spec, cell, task, folder)
    assert history.finished
    assert not history.events
    tensors = load_checkpoint(folder / "cells" / cell.id / "checkpoint-even")[0]
    return spec, task, cell, folder, history, tensors


def sent(tensors):
    """What the server has told everyone after the last round."""
    return {n.removeprefix("spread/"): t for n, t in tensors.items() if n.startswith("spread/")}


def test_the_server_keeps_the_mean_and_the_variance_of_what_clients_kept(run):
    spec, task, cell, folder, _, tensors = run
    centre, between = read_spread(sent(tensors))
    site = Site(Learner(spec, cell, task), "client-0", folder / "cells" / cell.id / "clients")
    states = [
        {name: value.double() for name, value in site.local.load(c, before_round=3).items()}
        for c in task.clients
    ]
    layers = {name.rpartition(".")[0] for name in centre}
    assert layers
    for name, value in centre.items():
        assert torch.allclose(value, torch.stack([s[name] for s in states]).mean(0), rtol=1e-12)
    parts = [Counted(state, dict.fromkeys(layers, 1)) for state in states]
    wanted = between_clients(parts, [task.examples(c, "train") for c in task.clients])
    assert between.keys() == wanted.keys()
    for name, value in between.items():
        assert torch.allclose(value, wanted[name], rtol=1e-12)


def test_the_unseen_site_begins_between_the_clients_and_its_own_rows(run, tmp_path):
    spec, task, cell, _, _, tensors = run
    learner = Learner(spec, cell, task)
    site = Site(learner, "unseen", tmp_path)
    values = {
        name.removeprefix("model/"): t for name, t in tensors.items() if name.startswith("model/")
    }
    down = {name: values[name] for name in learner.manifest.sent_down(2)} | sent(tensors)
    state = site._state(2, {n: t for n, t in down.items() if n in values}, {}, sent(tensors))
    centre, between = read_spread(sent(tensors))
    learner.model.load_state_dict({**learner.initial, **{n: down[n] for n in values if n in down}})
    own = client_statistics(learner.model, site._batches(64), inputs=task.inputs)
    wanted = start_local(
        "shrink", {n: t.float() for n, t in centre.items()}, own=own, k=64, between=between
    )
    moved = False
    for name, value in centre.items():
        assert torch.equal(state[name], wanted[name])
        between_both = (state[name].double() - value) * (own.state[name].double() - state[name])
        assert (between_both >= -1e-6 * own.state[name].double().square().max()).all()
        moved |= not torch.equal(state[name].double(), value)
    assert moved


def test_what_is_sent_for_it_is_counted_and_a_lie_about_it_refused(run, small, opened, tmp_path):
    spec, task, cell, _, history, _ = run
    plain = small(f'policies=["{cell.policy}"]')
    without = run_cell(plain, cell, opened(plain, tmp_path / "plain")[0], tmp_path / "plain")
    initial = Learner(spec, cell, task).initial
    # Flower sends an array as numpy writes it, behind a header of 128 bytes.
    each = sum(128 + 4 * value.numel() for name, value in initial.items() if "running" in name)
    assert history.rounds[0]["bytes_up"] - without.rounds[0]["bytes_up"] == 3 * each
    real = InProcessGrid.call

    def lying(grid, message):
        reply = real(grid, message)
        if message.metadata.message_type == "train" and message.metadata.dst_node_id == 1:
            told = read_reply(reply.content, "client-0")
            arrays = {n: -1 - t.abs() if n.endswith("var") else t for n, t in told.arrays.items()}
            reply.content = answer("client-0", told.round, told.examples, told.metrics, arrays)
        return reply

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InProcessGrid, "call", lying)
        again = run_cell(spec, cell, opened(spec, tmp_path / "lie")[0], tmp_path / "lie")
    assert {(e["client"], e["event"]) for e in again.events} == {("client-0", "refused")}
    assert "is negative, which no variance is" in again.events[0]["reason"]
