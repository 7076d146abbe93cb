"""SyncBatchNorm in real processes against one BatchNorm on the concatenated batch."""

import copy
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from seqnorm.layers import (
    BatchNorm1d,
    DomainBatchNorm1d,
    GhostBatchNorm1d,
    SyncBatchNorm,
    convert_sync_batchnorm,
)

C, L = 3, 5


class Scenario(NamedTuple):
    """A batch, its shares by world size, and how the layer is built."""

    name: str
    shares: dict[int, tuple[int, ...]]
    lengths: tuple[int, ...] | None = None
    options: Mapping[str, Any] = MappingProxyType({})
    dtype: torch.dtype = torch.float32
    offset: float = 0.0
    steps: int = 2


EVEN = {2: (3, 3), 3: (2, 2, 2)}
UNEQUAL = {2: (5, 1), 3: (1, 3, 2)}
EMPTY = {2: (6, 0), 3: (0, 4, 2)}
LENGTHS = (5, 2, 0, 4, 1, 3)
ALL = [
    Scenario("even", EVEN),
    Scenario("unequal", UNEQUAL),
    Scenario("empty", EMPTY),
    Scenario("padded", UNEQUAL, LENGTHS),
    Scenario("padded-empty", EMPTY, LENGTHS),
    Scenario("nothing-valid", UNEQUAL, (0, 5, 3, 1, 0, 0)),  # a rank of padding alone
    Scenario("one-each", {2: (1, 5), 3: (1, 1, 4)}, (1, 1, 0, 0, 0, 0)),
    Scenario("channels-last", UNEQUAL, LENGTHS, {"layout": "NLC"}),
    Scenario("cumulative", UNEQUAL, None, {"momentum": None}),
    Scenario("bare", UNEQUAL, LENGTHS, {"affine": False, "track_running_stats": False}),
    Scenario("activated", EMPTY, LENGTHS, {"activation": "gelu"}),
    Scenario("double", UNEQUAL, LENGTHS, {}, torch.float64),
    Scenario("half", UNEQUAL, LENGTHS, {}, torch.bfloat16),
    Scenario("offset", UNEQUAL, LENGTHS, {}, torch.float32, 1e5),
    Scenario("offset-empty", EMPTY, None, {"layout": "NLC"}, torch.float32, 1e5),
    Scenario("single", UNEQUAL, (0, 1, 0, 0, 0, 0), {"on_single": "running"}),
    Scenario("frozen", UNEQUAL, LENGTHS, {"frozen": True}),
]
BY_NAME = {scenario.name: scenario for scenario in ALL}


def data(scenario: Scenario, step: int) -> dict[str, Any]:
    """x, residual and slopes of the whole batch, ``(N, C, L)``, padding NaN; lengths."""
    generator = torch.Generator().manual_seed(step)
    x, residual, slopes = (
        torch.randn(6, C, L, generator=generator, dtype=torch.float64).float() for _ in range(3)
    )
    lengths = None if scenario.lengths is None else torch.tensor(scenario.lengths)
    x = x * torch.tensor([1.0, 3.0, 0.2])[:, None] + step + scenario.offset
    if lengths is not None:
        x = x.masked_fill((torch.arange(L) >= lengths[:, None])[:, None], torch.nan)
    return {"x": x, "residual": residual, "slopes": slopes, "lengths": lengths}


def cut(batch: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    return {name: None if v is None else v[start:stop].clone() for name, v in batch.items()}


def build(kind: type[BatchNorm1d], scenario: Scenario) -> BatchNorm1d:
    norm = kind(C, **scenario.options)
    with torch.no_grad():
        for p, values in zip(norm.parameters(), ((1.0, -2.0, 0.5), (0.0, 1.0, 3.0)), strict=False):
            p.copy_(torch.tensor(values))
    return norm.to(scenario.dtype)


def step(norm: BatchNorm1d, scenario: Scenario, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Output and gradients of one step, in ``(N, C, L)``."""
    turn = (lambda t: t) if norm.layout == "NCL" else (lambda t: t.transpose(1, 2).contiguous())
    x, residual = (
        turn(batch[name].to(scenario.dtype)).requires_grad_() for name in ("x", "residual")
    )
    y = norm(x, batch["lengths"], residual)
    (y * turn(batch["slopes"]).to(scenario.dtype)).sum().backward()
    found = {"y": turn(y.detach()), "x": turn(x.grad), "residual": turn(residual.grad)}
    for name, p in norm.named_parameters():
        found[name] = p.grad.clone()
        p.grad = None
    return found


def train(kind: type[BatchNorm1d], scenario: Scenario, start: int, stop: int) -> dict[str, Any]:
    norm = build(kind, scenario)
    steps = [
        step(norm, scenario, cut(data(scenario, i), start, stop)) for i in range(scenario.steps)
    ]
    return {"steps": steps, "state": dict(norm.state_dict())}


def bounds(shares: tuple[int, ...], rank: int) -> tuple[int, int]:
    return sum(shares[:rank]), sum(shares[: rank + 1])


# --- a small model under DistributedDataParallel --------------------------------------------

BATCH = {2: (5, 3), 3: (4, 0, 4)}


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv1d(4, C, 3, padding=1), nn.BatchNorm1d(C), nn.ReLU(),
        nn.Conv1d(C, 6, 3), BatchNorm1d(6), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(6, 1),
    )  # fmt: skip


def fit(model: nn.Module, start: int, stop: int, scale: float) -> dict[str, Tensor]:
    torch.manual_seed(2)
    x, target = torch.randn(3, 8, 4, 9), torch.randn(3, 8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for i in range(3):
        loss = (model(x[i, start:stop]) - target[i, start:stop]).square().sum() * scale / 8
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return dict(model.state_dict())


# --- what each process does -------------------------------------------------------------------


def refusal(norm: nn.Module, x: Tensor) -> str:
    try:
        norm(x)
    except ValueError as error:
        return str(error)
    return ""


def work(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":
        # One machine: no name to resolve, no network to look for.
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world
    )
    found: dict[str, Any] = {}
    for scenario in ALL:
        found[scenario.name] = train(SyncBatchNorm, scenario, *bounds(scenario.shares[world], rank))
    again = train(SyncBatchNorm, BY_NAME["padded"], *bounds(UNEQUAL[world], rank))
    found["again"] = again["steps"]
    # One value in all processes together.
    found["error"] = refusal(SyncBatchNorm(C), torch.randn(1 if rank == 0 else 0, C, 1))
    # Rank 0 alone in its group: nobody to exchange with; the others among themselves.
    group = dist.new_subgroups_by_enumeration([[0], list(range(1, world))])[0]
    norm = SyncBatchNorm(C, process_group=group)
    twin = copy.deepcopy(norm)
    x = torch.randn(4, C, L, generator=torch.Generator().manual_seed(rank))
    found["group"] = (norm(x).detach(), twin(x).detach(), twin.process_group is group)
    found["eval"] = (norm.eval()(x).detach(), dict(norm.state_dict()))
    found["untracked"] = SyncBatchNorm(C, track_running_stats=False).eval()(x).detach()
    compiled = torch.compile(SyncBatchNorm(C), backend="eager")
    found["compiled"] = compiled(data(BY_NAME["even"], 0)["x"][rank : rank + 1]).detach()
    model = DistributedDataParallel(convert_sync_batchnorm(network()))
    found["ddp"] = fit(model, *bounds(BATCH[world], rank), scale=world)
    torch.save(found, f"{folder}/{rank}.pt")
    # A process that ends before the others, or with torch's reducer alive, aborts now and then.
    dist.barrier()
    del model
    dist.destroy_process_group()


@pytest.fixture(scope="module", params=[2, 3], ids=["2-ranks", "3-ranks"])
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each process found."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("torch was built without gloo")
    world: int = request.param
    folder = tmp_path_factory.mktemp(f"world{world}")
    torch.multiprocessing.spawn(work, (world, str(folder)), nprocs=world)
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


TOLERANCE = {
    torch.float64: {"rtol": 1e-12, "atol": 1e-12},
    torch.float32: {"rtol": 2e-5, "atol": 2e-5},
    torch.bfloat16: {"rtol": 1.6e-2, "atol": 1.6e-2},
}


@pytest.mark.parametrize("name", list(BY_NAME))
def test_it_equals_one_batch_norm_on_the_concatenated_batch(ranks: list[Any], name: str) -> None:
    scenario = BY_NAME[name]
    expected = train(BatchNorm1d, scenario, 0, 6)
    near = TOLERANCE[scenario.dtype]
    for i, whole in enumerate(expected["steps"]):
        parts = [rank[name]["steps"][i] for rank in ranks]
        for key, value in whole.items():
            pieces = [part[key] for part in parts]
            by_sample = key in ("y", "x", "residual")
            got = torch.cat(pieces) if by_sample else torch.stack(pieces).sum(0)
            scale = 1.0 if by_sample else value.abs().max().item()
            torch.testing.assert_close(got / scale, value / scale, **near)
    for rank in ranks:
        assert rank[name]["state"].keys() == expected["state"].keys()
        for key, value in expected["state"].items():
            torch.testing.assert_close(rank[name]["state"][key], value, rtol=1e-5, atol=1e-5)
            assert torch.equal(rank[name]["state"][key], ranks[0][name]["state"][key])


def test_in_double_precision_it_equals_torch_to_the_last_digits(ranks: list[Any]) -> None:
    scenario = BY_NAME["double"]
    assert scenario.lengths is not None
    norm = build(BatchNorm1d, scenario)
    twin = nn.BatchNorm1d(C).double()
    twin.load_state_dict(norm.state_dict())
    valid = torch.arange(L) < torch.tensor(scenario.lengths)[:, None]
    for i in range(scenario.steps):
        batch = data(scenario, i)
        flat = batch["x"].transpose(1, 2)[valid].double().requires_grad_()
        slopes = batch["slopes"].transpose(1, 2)[valid].double()
        y = twin(flat)
        (y * slopes).sum().backward()
        parts = [rank["double"]["steps"][i] for rank in ranks]
        got = torch.cat([part["x"] for part in parts]).transpose(1, 2)
        torch.testing.assert_close(got[valid], flat.grad, rtol=1e-12, atol=1e-12)
        assert (got[~valid] == 0).all()
        out = torch.cat([part["y"] for part in parts]).transpose(1, 2)[valid]
        residual = batch["residual"].transpose(1, 2)[valid].double()
        torch.testing.assert_close(out, y.detach() + residual, rtol=1e-12, atol=1e-12)
    for key, value in twin.state_dict().items():
        torch.testing.assert_close(ranks[-1]["double"]["state"][key], value, rtol=1e-13, atol=0)


def error(ranks: list[Any], name: str) -> tuple[float, float]:
    """Largest errors of outputs and of gradients against float64."""
    scenario = BY_NAME[name]
    exact = train(BatchNorm1d, scenario._replace(dtype=torch.float64), 0, 6)
    worst = {"y": 0.0, "x": 0.0}
    for i, whole in enumerate(exact["steps"]):
        for key in worst:
            got = torch.cat([rank[name]["steps"][i][key] for rank in ranks]).double()
            worst[key] = max(worst[key], (got - whole[key]).abs().max().item())
    return worst["y"], worst["x"]


def test_the_error_does_not_grow_with_the_offset(ranks: list[Any]) -> None:
    for near, far in zip(error(ranks, "padded"), error(ranks, "offset"), strict=True):
        assert far <= 4 * near, (near, far)


def test_the_same_run_gives_the_same_bits(ranks: list[Any]) -> None:
    for rank in ranks:
        for first, second in zip(rank["padded"]["steps"], rank["again"], strict=True):
            assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_single_value_in_all_processes_is_refused_by_all(ranks: list[Any]) -> None:
    for rank in ranks:
        assert "got 1 valid in the batches of all processes" in rank["error"]


def test_a_group_exchanges_among_its_members_and_copies_share_it(ranks: list[Any]) -> None:
    batches = [
        torch.randn(4, C, L, generator=torch.Generator().manual_seed(rank))
        for rank in range(len(ranks))
    ]
    together = BatchNorm1d(C)(torch.cat(batches[1:]))
    expected = [BatchNorm1d(C)(batches[0]), *together.split(4)]
    for rank, y in zip(ranks, expected, strict=True):
        ours, twins, shared = rank["group"]
        torch.testing.assert_close(ours, y.detach(), rtol=1e-5, atol=1e-5)
        assert torch.equal(ours, twins)
        assert shared


def test_evaluation_uses_running_statistics_and_exchanges_nothing(ranks: list[Any]) -> None:
    for rank, found in enumerate(ranks):
        y, state = found["eval"]
        norm = BatchNorm1d(C)
        norm.load_state_dict(state)
        x = torch.randn(4, C, L, generator=torch.Generator().manual_seed(rank))
        torch.testing.assert_close(y, norm.eval()(x).detach())
        # Without running statistics those of the batch, but of this process alone, as by torch.
        torch.testing.assert_close(found["untracked"], BatchNorm1d(C)(x).detach())


def test_a_compiled_layer_exchanges_outside_the_graph(ranks: list[Any]) -> None:
    x = data(BY_NAME["even"], 0)["x"][: len(ranks)]
    got = torch.cat([rank["compiled"] for rank in ranks])
    torch.testing.assert_close(got, BatchNorm1d(C)(x).detach(), rtol=1e-5, atol=1e-5)


def test_training_with_ddp_equals_training_in_one_process(ranks: list[Any]) -> None:
    expected = fit(network(), 0, 8, scale=1.0)
    for rank in ranks:
        for key, value in expected.items():
            torch.testing.assert_close(rank["ddp"][f"module.{key}"], value, rtol=1e-4, atol=1e-5)


# --- in one process ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["even", "padded", "channels-last", "activated"])
def test_in_one_process_it_is_batch_norm(name: str) -> None:
    scenario = BY_NAME[name]
    ours, twin = (train(kind, scenario, 0, 6) for kind in (SyncBatchNorm, BatchNorm1d))
    for a, b in zip(ours["steps"], twin["steps"], strict=True):
        assert all(torch.equal(a[key], b[key]) for key in b)
    assert all(torch.equal(ours["state"][key], twin["state"][key]) for key in twin["state"])


def test_a_group_of_one_process_is_batch_norm_too(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        test_in_one_process_it_is_batch_norm("padded")
    finally:
        dist.destroy_process_group()


def test_it_compiles_copies_and_pickles() -> None:
    norm = SyncBatchNorm(C, layout="NLC")
    x = torch.randn(2, L, C)
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(norm), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), norm(x), rtol=1e-5, atol=1e-6)
    for twin in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert torch.equal(twin.eval()(x), norm.eval()(x))
        assert twin.weight is not norm.weight
    shared = nn.ModuleList([norm, norm])
    norm.friends = [norm]  # type: ignore[assignment]
    first, second = copy.deepcopy(shared)
    assert first is second
    assert first.friends[0] is first


# --- conversion -------------------------------------------------------------------------------


def test_conversion_keeps_state_options_and_the_hold_of_an_optimizer() -> None:
    ours = BatchNorm1d(
        C, momentum=None, layout="NLC", activation="relu", frozen=True, on_single="identity"
    )
    bare = nn.BatchNorm1d(C, 1e-3, 0.3, affine=False, track_running_stats=False)
    theirs = nn.SyncBatchNorm(C, 1e-4).eval()
    unbiased = BatchNorm1d(C, bias=False)
    model = nn.ModuleDict(
        {"ours": ours, "bare": bare, "again": ours, "unbiased": unbiased,
         "deep": nn.Sequential(nn.ReLU(), theirs)}
    )  # fmt: skip
    state, parameters = copy.deepcopy(model.state_dict()), list(model.parameters())
    converted: Any = convert_sync_batchnorm(model)
    assert converted is model
    assert converted["again"] is converted["ours"]
    kinds = [type(m) for m in (converted["ours"], converted["bare"], converted["deep"][1])]
    assert kinds == [SyncBatchNorm] * 3
    new = converted["ours"]
    options = (new.momentum, new.layout, new.activation, new.frozen, new.on_single)
    assert options == (None, "NLC", "relu", True, "identity")
    assert (converted["bare"].eps, converted["bare"].momentum) == (1e-3, 0.3)
    assert (converted["bare"].affine, converted["bare"].track_running_stats) == (False, False)
    assert converted["unbiased"].bias is None
    assert (new.training, converted["deep"][1].training) == (True, False)
    assert [id(p) for p in converted.parameters()] == [id(p) for p in parameters]
    assert list(converted.state_dict()) == list(state)
    assert all(torch.equal(converted.state_dict()[key], state[key]) for key in state)
    assert convert_sync_batchnorm(model)["ours"] is new


def test_a_norm_that_is_the_model_is_returned_converted() -> None:
    assert type(convert_sync_batchnorm(nn.BatchNorm1d(C))) is SyncBatchNorm
    relu = nn.ReLU()
    assert convert_sync_batchnorm(relu) is relu


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(C), nn.LazyBatchNorm1d(), GhostBatchNorm1d(C, 2),
             DomainBatchNorm1d(C, 2)],
)  # fmt: skip
def test_a_batch_norm_that_cannot_be_synchronized_is_named_and_nothing_replaced(
    norm: nn.Module,
) -> None:
    model = nn.ModuleDict({"first": nn.BatchNorm1d(C), "odd": norm})
    name = type(norm).__name__
    with pytest.raises(ValueError, match=f"{name} at 'odd' has no synchronized form here; "):
        convert_sync_batchnorm(model)
    assert type(model["first"]) is nn.BatchNorm1d
