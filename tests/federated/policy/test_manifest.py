import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seqnorm
from data_tools.errors import InputError
from federated.policy import Manifest, ManifestError, NormPolicy, Phase, parse_policy

BATCH = {"bn.weight", "bn.bias"}
BATCH_STATISTICS = {"bn.running_mean", "bn.running_var"}
BATCH_COUNTER = {"bn.num_batches_tracked"}
INSTANCE = {"inst.weight", "inst.bias"}
INSTANCE_STATISTICS = {"inst.running_mean", "inst.running_var"}
INSTANCE_COUNTER = {"inst.num_batches_tracked"}
GROUP = {"group.weight", "group.bias"}
REST = {"conv.weight", "conv.bias", "head.weight", "head.bias"}
BUFFER = {"positions"}
EVERY = (
    BATCH | BATCH_STATISTICS | BATCH_COUNTER | INSTANCE | INSTANCE_STATISTICS | INSTANCE_COUNTER
    | GROUP | REST | BUFFER
)  # fmt: skip


class Model(nn.Module):
    """A layer of each family, and a buffer that belongs to none."""

    def __init__(self, tracked: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3)
        self.bn = nn.BatchNorm1d(4)
        self.inst = seqnorm.InstanceNorm1d(4, affine=True, track_running_stats=tracked)
        self.group = seqnorm.GroupNorm(2, 4)
        self.head = nn.Linear(4, 1)
        self.register_buffer("positions", torch.arange(4.0))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.group(self.inst(self.bn(self.conv(x)))).mean(2))
        return y


def manifest(name: str, model: nn.Module | None = None) -> Manifest:
    return parse_policy(name).manifest(model or Model())


# --- which tensors move under each preset --------------------------------------------------

LEFT = BATCH_COUNTER | INSTANCE_COUNTER | BUFFER
ALL_BATCH = BATCH | BATCH_STATISTICS | BATCH_COUNTER
ALL_NORMS = ALL_BATCH | INSTANCE | INSTANCE_STATISTICS | INSTANCE_COUNTER | GROUP
PRESETS: list[tuple[str, int, set[str], set[str], set[str], set[str]]] = [
    # policy, round, sent up, kept, frozen, sent down if other than up
    ("fedavg", 1, EVERY - LEFT, set(), set(), set()),
    ("fedbn", 1, EVERY - ALL_BATCH - LEFT, ALL_BATCH, set(), set()),
    ("silobn", 1, EVERY - LEFT - BATCH_STATISTICS, BATCH_STATISTICS | BATCH_COUNTER, set(), set()),
    ("fixbn:5", 4, EVERY - LEFT, set(), set(), set()),
    ("fixbn:5", 5, EVERY - LEFT - BATCH_STATISTICS, set(), BATCH_STATISTICS, BATCH_STATISTICS),
    ("moment_merge", 1, EVERY - LEFT, set(), set(), set()),
    ("all_local", 1, REST, ALL_NORMS, set(), set()),
]


@pytest.mark.parametrize(("name", "round_", "up", "kept", "frozen", "down_too"), PRESETS)
def test_each_preset_moves_exactly_these_tensors(
    name: str, round_: int, up: set[str], kept: set[str], frozen: set[str], down_too: set[str]
) -> None:
    found = manifest(name)
    order = list(Model().state_dict())
    for names, expected in (
        (found.sent_up(round_), up),
        (found.sent_down(round_), up | down_too),
        (found.kept(round_), kept),
        (found.frozen(round_), frozen),
    ):
        assert set(names) == expected
        assert list(names) == sorted(names, key=order.index)
    merged = BATCH_STATISTICS if name == "moment_merge" else set()
    assert set(found.with_fate("merged", round_)) == merged
    assert set(found.expected(round_)) == up


def test_under_none_nothing_of_a_norm_moves() -> None:
    found = manifest("none", Model(tracked=False))
    norms = ALL_BATCH | INSTANCE | GROUP
    assert set(found.frozen(3)) == norms
    assert set(found.sent_up(3)) == set(found.sent_down(3)) == REST


def test_every_tensor_has_one_fate_in_every_round() -> None:
    for name in ("fedavg", "fedbn", "silobn", "fixbn:2", "moment_merge", "all_local"):
        found = manifest(name)
        for number in (1, 2, 3):
            fates = [found.with_fate(fate, number) for fate in seen_fates()]
            assert sorted(sum(fates, ())) == sorted(EVERY)


def seen_fates() -> tuple[Any, ...]:
    from federated.policy import FATES

    return FATES


# --- what cannot be treated so is refused ---------------------------------------------------


def test_a_norm_that_cannot_be_frozen_is_named() -> None:
    with pytest.raises(InputError, match="inst: InstanceNorm1d cannot normalize with frozen"):
        manifest("none")
    with pytest.raises(InputError, match=r"0: SyncBatchNorm.*cannot be frozen"):
        manifest("fixbn:3", nn.Sequential(nn.SyncBatchNorm(2)))


def test_tensors_with_state_of_their_own_kind_are_refused() -> None:
    class Odd(nn.Module):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

        def set_extra_state(self, state: object) -> None:
            pass

    with pytest.raises(InputError, match=r"0\._extra_state: only tensors can be sent"):
        manifest("fedavg", nn.Sequential(Odd()))


def test_one_tensor_cannot_meet_two_fates() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.PReLU(4))
    model[1].weight = model[0].weight
    assert manifest("fedavg", model).sent_up(1)[0] == "0.weight"
    with pytest.raises(InputError, match=r"0\.weight and 1\.weight are one tensor"):
        manifest("fedbn", model)


def test_a_shared_norm_has_one_fate_at_all_its_places() -> None:
    norm = nn.BatchNorm1d(4)
    found = manifest("fedbn", nn.Sequential(norm, nn.Linear(4, 4), norm))
    assert len(found.kept(1)) == 10


def test_buffers_of_unknown_layers_are_listed_and_never_averaged_unasked() -> None:
    found = manifest("fedavg")
    assert "positions" in found.with_fate("left out", 1)
    assert "other buffers" in str(found)
    asked = NormPolicy("mine", buffers="averaged")
    assert "positions" in asked.manifest(Model()).sent_up(1)
    model = Model()
    model.register_buffer("steps", torch.tensor(3))
    with pytest.raises(InputError, match=r"steps: a buffer of torch\.int64 cannot be averaged"):
        asked.manifest(model)


# --- tables and digest ---------------------------------------------------------------------


def test_the_table_has_a_row_for_each_tensor_and_phase() -> None:
    table = manifest("fixbn:5").table()
    assert len(table) == 2 * len(EVERY)
    row = table[(table.tensor == "bn.running_var") & (table.first_round == 5)].iloc[0]
    assert (row.fate, row.role, row.layer, row["shape"]) == (
        "frozen",
        "variance",
        "BatchNorm1d",
        "4",
    )
    assert not row.client_to_server
    assert row.server_to_client


def test_the_text_says_when_a_tensor_is_sent() -> None:
    lines = str(manifest("fixbn:5")).splitlines()
    line = next(line for line in lines if line.startswith("bn.running_var"))
    assert "averaged, from round 5 frozen" in line
    assert line.split()[-3:] == ["rounds", "1-4", "always"]
    assert lines[-1] == "other parameters: 4, averaged in every round"
    assert "no norm layer" in str(manifest("fedavg", nn.Linear(2, 2)))


def test_the_digest_changes_with_policy_and_tensors_alone() -> None:
    model = Model()
    first = manifest("fixbn:5", model)
    digest = first.digest()
    first.apply_to_training(model, 7)
    assert manifest("fixbn:5", model).digest() == digest
    others = [manifest("fixbn:6"), manifest("fedavg"), manifest("fixbn:5", Model(tracked=False))]
    assert len({digest, *(other.digest() for other in others)}) == 4


# --- the start of a round ------------------------------------------------------------------


def test_a_client_starts_with_what_it_was_sent_what_it_kept_and_what_was_built() -> None:
    found = manifest("fedbn")
    initial = Model().state_dict()
    received = {name: initial[name] + 1 for name in found.sent_down(1)}
    kept = {name: initial[name] + 2 for name in found.kept(1)}
    start = found.client_start(initial, received, kept, 1)
    Model().load_state_dict(start)
    for name, value in start.items():
        step = 1 if name in received else 2 if name in kept else 0
        assert torch.equal(value, initial[name] + step), name
        assert value.data_ptr() != initial[name].data_ptr()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"received": ("drop", "conv.bias")}, "conv.bias is missing from what the server"),
        ({"received": ("add", "bn.bias")}, "bn.bias is not to be in what the server"),
        ({"kept": ("drop", "bn.bias")}, "bn.bias is missing from what the client"),
        ({"kept": ("add", "conv.bias")}, "conv.bias is not to be in what the client"),
    ],
    ids=str,
)
def test_a_start_that_lacks_or_has_too_much_is_refused(
    change: dict[str, tuple[str, str]], message: str
) -> None:
    found = manifest("fedbn")
    initial = Model().state_dict()
    parts = {
        "received": {name: initial[name] for name in found.sent_down(1)},
        "kept": {name: initial[name] for name in found.kept(1)},
    }
    for which, (what, name) in change.items():
        if what == "drop":
            del parts[which][name]
        else:
            parts[which][name] = initial[name]
    with pytest.raises(InputError, match=message):
        found.client_start(initial, **parts, round=1)


# --- what really moved ---------------------------------------------------------------------


def trained(model: nn.Module, found: Manifest, round_: int) -> tuple[dict[str, Tensor], ...]:
    before = copy.deepcopy(model.state_dict())
    found.apply_to_training(model, round_).train()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.1, weight_decay=0.1)
    torch.manual_seed(0)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(8, 4, 12) + 3).square().sum().backward()
        optimizer.step()
    return before, copy.deepcopy(model.state_dict())


CASES = [(name, number) for name, number, *_ in PRESETS]


@pytest.mark.parametrize(("name", "round_"), CASES)
def test_training_under_each_preset_keeps_to_the_manifest(name: str, round_: int) -> None:
    model = Model()
    found = manifest(name, model)
    before, after = trained(model, found, round_)
    found.check_moved(before, after, found.sent_up(round_), round_)
    moved = {key for key in after if not torch.equal(before[key], after[key])}
    still = set(found.frozen(round_)) | BUFFER
    # torch counts no batch of an InstanceNorm, nor one of frozen statistics.
    counters = INSTANCE_COUNTER | (BATCH_COUNTER if "bn.running_var" in still else set())
    assert moved == EVERY - still - counters


def test_under_none_training_leaves_every_norm_alone() -> None:
    model = Model(tracked=False)
    found = manifest("none", model)
    before, after = trained(model, found, 1)
    found.check_moved(before, after, found.sent_up(1), 1)
    assert {key for key in after if not torch.equal(before[key], after[key])} == REST


def test_what_was_sent_against_the_manifest_is_named() -> None:
    found = manifest("fedbn")
    state = Model().state_dict()
    up = found.sent_up(1)
    with pytest.raises(ManifestError, match=r"bn\.bias was sent, but is local"):
        found.check_moved(state, state, (*up, "bn.bias"), 1)
    with pytest.raises(ManifestError, match=r"other was sent, but is unknown"):
        found.check_moved(state, state, (*up, "other"), 1)
    with pytest.raises(ManifestError, match=r"conv\.bias was not sent, but is averaged"):
        found.check_moved(state, state, tuple(n for n in up if n != "conv.bias"), 1)
    with pytest.raises(ManifestError, match=r"head\.bias is missing \(after\)"):
        found.check_moved(state, {k: v for k, v in state.items() if k != "head.bias"}, up, 1)
    with pytest.raises(ManifestError, match=r"more is in no manifest \(before\)"):
        found.check_moved({**state, "more": torch.ones(1)}, state, up, 1)
    with pytest.raises(InputError, match="side must be"):
        found.check_moved(state, state, up, 1, side="both")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("side", "name", "allowed"),
    [
        ("client", "bn.running_mean", False),
        ("client", "bn.bias", True),
        ("client", "bn.num_batches_tracked", True),
        ("server", "bn.running_mean", False),
        ("server", "bn.num_batches_tracked", False),
        ("server", "positions", False),
        ("server", "bn.bias", True),
    ],
)
def test_what_changed_against_the_manifest_is_named(side: Any, name: str, allowed: bool) -> None:
    found = manifest("fixbn:2")
    before = Model().state_dict()
    after = before | {name: before[name] + 1}
    if allowed:
        found.check_moved(before, after, found.sent_up(2), 2, side=side)
        return
    with pytest.raises(ManifestError, match=rf"round 2, {side}: {name} changed, but is"):
        found.check_moved(before, after, found.sent_up(2), 2, side=side)


def test_a_counter_that_became_a_float_is_named() -> None:
    found = manifest("fedavg")
    before = Model().state_dict()
    for wrong in (torch.tensor(0.5), torch.zeros(1, dtype=torch.int64)):
        after = before | {"bn.num_batches_tracked": wrong}
        with pytest.raises(ManifestError, match=r"bn\.num_batches_tracked is torch"):
            found.check_moved(before, after, found.sent_up(1), 1, side="server")


def test_a_frozen_nan_has_not_moved() -> None:
    found = manifest("fixbn:2")
    state = Model().state_dict()
    state["bn.running_mean"][0] = torch.nan
    found.check_moved(state, copy.deepcopy(state), found.sent_up(2), 2)


# --- modes ---------------------------------------------------------------------------------


def test_phases_of_training_come_and_go_and_calling_twice_is_calling_once() -> None:
    model = Model()
    later = Phase(4)
    policy = NormPolicy("back", (*parse_policy("fixbn:2").phases, later), "batch")
    found = policy.manifest(model)
    for number, training in ((1, True), (2, False), (3, False), (4, True), (2, False)):
        for _ in range(2):
            found.apply_to_training(model, number).train()
            assert model.bn.training is training
            assert model.bn.weight.requires_grad
    found.apply_to_training(model.eval(), 4)
    assert not model.bn.training


def test_weights_that_the_user_fixed_stay_fixed() -> None:
    model = Model(tracked=False)
    model.group.bias.requires_grad_(False)
    still = NormPolicy("mine", (Phase(gamma="frozen", beta="frozen"), Phase(2)))
    found = still.manifest(model)
    found.apply_to_training(model, 1)
    assert not any(model.get_parameter(name).requires_grad for name in found.frozen(1))
    found.apply_to_training(model, 2)
    learn = {name for name, value in model.named_parameters() if value.requires_grad}
    assert learn == set(dict(model.named_parameters())) - {"group.bias"}


def test_a_batchnorm_that_the_user_froze_stays_frozen() -> None:
    model = nn.Sequential(seqnorm.freeze(seqnorm.BatchNorm1d(4)))
    found = manifest("fixbn:2", model)
    for number in (1, 2, 1):
        found.apply_to_training(model, number)
        assert model[0].frozen
