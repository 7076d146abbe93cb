import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from data_tools.errors import InputError
from federated.guard import Guard, Limits, Reply, TooFewRepliesError
from federated.policy import parse_policy

MODEL = nn.Sequential(nn.Conv1d(4, 8, 5), nn.BatchNorm1d(8), nn.Linear(8, 2))
START = {name: value.detach().clone() for name, value in MODEL.state_dict().items()}
MANIFEST = parse_policy("moment_merge").manifest(MODEL)
EXPECTED = MANIFEST.expected(3)


def reply(client: str = "a", step: float = 0.01, **change: Any) -> Reply:
    g = torch.Generator().manual_seed(len(client) + ord(client[0]))
    arrays = {
        name: START[name] + step * torch.randn(START[name].shape, generator=g).abs()
        for name in EXPECTED
    }
    return replace(Reply(client, 3, arrays, {"loss": 0.5, "values/1": 640.0}, 20), **change)


def with_array(client: str, name: str, value: Tensor) -> Reply:
    good = reply(client)
    return replace(good, arrays={**good.arrays, name: value})


def guard(**options: Any) -> Guard:
    return Guard(EXPECTED, round=3, reference=START, **options)


def refused_for(bad: Reply, **options: Any) -> str:
    """Reason for which one reply of three is refused."""
    accepted, refused = guard(**options).check([reply("x"), bad, reply("y")])
    assert [r.client for r in accepted] == ["x", "y"]
    assert [r.client for r in refused] == [bad.client]
    return refused[0].reason


def test_sound_replies_pass_sorted_by_client() -> None:
    replies = [reply("c"), reply("a"), reply("b")]
    accepted, refused = guard(minimum=3).check(replies)
    assert [r.client for r in accepted] == ["a", "b", "c"]
    assert refused == []


# --- one broken reply ------------------------------------------------------------------------

WEIGHT = "0.weight"


def test_a_missing_and_an_extra_tensor_are_named() -> None:
    arrays = reply("b").arrays
    less = {name: value for name, value in arrays.items() if name != "2.bias"}
    assert refused_for(reply("b", arrays=less)) == "2.bias is missing"
    more = {**arrays, "1.num_batches_tracked": torch.tensor(3)}
    assert refused_for(reply("b", arrays=more)) == "1.num_batches_tracked is not expected"
    assert refused_for(reply("b", arrays={})).endswith("is missing")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.zeros(8, 4, 6), r"0.weight has shape (8, 4, 6), not (8, 4, 5)"),
        (torch.zeros(160), r"0.weight has shape (160,), not (8, 4, 5)"),
        (torch.zeros(8, 4, 5, dtype=torch.float64), "0.weight is of torch.float64, not torch.f"),
        (torch.zeros(8, 4, 5, dtype=torch.int64), "0.weight is of torch.int64, not torch.float32"),
        (torch.zeros(8, 4, 5).to_sparse(), "0.weight is no plain tensor"),
        (torch.zeros(8, 4, 5, device="meta"), "0.weight is no plain tensor"),
        ([0.0], "0.weight is no plain tensor on the CPU but list"),
        (START[WEIGHT].clone().index_fill_(0, torch.tensor(7), torch.nan), "holds NaN or infinity"),
        (START[WEIGHT].clone().index_fill_(0, torch.tensor(0), torch.inf), "holds NaN or infinity"),
        (START[WEIGHT] - torch.inf, "0.weight holds NaN or infinity"),
    ],
)
def test_a_tensor_of_the_wrong_kind_is_named(value: Any, reason: str) -> None:
    assert reason in refused_for(with_array("b", WEIGHT, value))


def test_a_negative_variance_is_refused() -> None:
    value = START["1.running_var"].clone()
    value[3] = -1e-6
    said = refused_for(with_array("b", "1.running_var", value))
    assert said == "1.running_var is negative, which no variance is"


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        (0, "0 examples"),
        (-5, "-5 examples"),
        (10**9 + 1, "1 to 1000000000 can be"),
        pytest.param(10**5000, "a huge number examples", id="huge"),
        (True, "bool, not int"),
        (20.0, "float, not int"),
        ("20", "str, not int"),
        (None, "NoneType, not int"),
    ],
)
def test_an_absurd_number_of_examples_is_refused(examples: Any, said: str) -> None:
    assert said in refused_for(reply("b", examples=examples))


@pytest.mark.parametrize("number", [2, 4, 0, True, 3.0, pytest.param(10**5000, id="huge")])
def test_a_reply_to_another_round_is_stale(number: Any) -> None:
    assert "stale: it answers round" in refused_for(reply("b", round=number))


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"values/1": -1.0},
        {"values/1": 0.5},
        {"values/1": float("nan")},
        {"values/1": float("inf")},
        {"values/1": 2.0**54},
        {"values/1": True},
        {"values/1": "640"},
    ],
    ids=str,
)
def test_counts_of_merged_statistics_must_be_whole_numbers(metrics: dict[str, Any]) -> None:
    assert "count of values of 1 is" in refused_for(reply("b", metrics=metrics))


def test_counts_of_other_layers_are_not_expected_and_zero_is_a_count() -> None:
    metrics = {"values/1": 640.0, "values/7": 1.0}
    assert refused_for(reply("b", metrics=metrics)) == "values/7 is not expected"
    accepted, _ = guard().check([reply("b", metrics={"values/1": 0})])
    assert len(accepted) == 1


def test_a_metric_that_does_not_exist_for_a_client_is_no_fault() -> None:
    accepted, _ = guard().check([reply(metrics={"values/1": 9.0, "auroc": float("nan")})])
    assert len(accepted) == 1


@pytest.mark.parametrize("change", [{"arrays": None}, {"metrics": [1]}])
def test_what_is_no_dict_is_refused(change: dict[str, Any]) -> None:
    assert "no dict" in refused_for(reply("b", **change))


@pytest.mark.parametrize("name", [None, 3, ""])
def test_a_client_without_a_name_is_refused(name: Any) -> None:
    accepted, refused = guard().check([reply("a"), replace(reply("b"), client=name)])
    assert [r.client for r in accepted] == ["a"]
    assert refused[0].reason == "its name is no text"


# --- out of range ----------------------------------------------------------------------------


def scaled(client: str, factor: float) -> Reply:
    good = reply(client)
    return replace(good, arrays={name: value * factor for name, value in good.arrays.items()})


@pytest.mark.parametrize("others", [0, 1, 2, 9])
def test_weights_times_a_million_are_refused_among_any_number_of_clients(others: int) -> None:
    bad = scaled("bad", 1e6)
    good = [reply(f"g{i}") for i in range(others)]
    accepted, refused = guard(minimum=0).check([bad, *good])
    assert len(accepted) == others
    assert refused[0].client == "bad"
    assert "the limit" in refused[0].reason


@pytest.mark.parametrize("name", [n for n, e in EXPECTED.items() if e.role != "mean"])
def test_a_single_tensor_times_a_million_is_refused(name: str) -> None:
    value = (START[name] + 0.01) * 1e6
    said = refused_for(with_array("b", name, value))
    assert said.startswith(f"{name} ")


def test_it_is_also_refused_in_a_first_round_without_a_reference() -> None:
    first = Guard(EXPECTED, round=3, minimum=0)
    assert len(first.check([reply("a"), reply("b")])[0]) == 2
    assert first.check([scaled("bad", 1e6)])[0] == []


def test_of_two_updates_the_larger_is_compared_with_the_smaller() -> None:
    accepted, refused = guard().check([reply("a", step=0.01), reply("b", step=20.0)])
    assert [r.client for r in accepted] == ["a"]
    assert "the median of the round is 0.1" in refused[0].reason


def test_a_client_that_hardly_moved_makes_no_other_look_wild() -> None:
    accepted, refused = guard().check([reply("a", step=0.0), reply("b", step=0.05)])
    assert len(accepted) == 2
    assert not refused


def test_statistics_of_raw_values_pass_where_all_sites_have_them() -> None:
    raw = [
        replace(r, arrays={**r.arrays, "1.running_var": torch.full((8,), size)})
        for r, size in ((reply("a"), 1e8), (reply("b"), 3e9), (reply("c"), 1e7))
    ]
    assert len(guard().check(raw)[0]) == 3
    alone = [replace(raw[0], arrays=reply("a").arrays), reply("b"), raw[1]]
    with pytest.raises(TooFewRepliesError):
        guard(minimum=3).check([alone[0], reply("c"), replace(raw[1], client="z")])


def test_values_that_overflow_when_squared_are_refused() -> None:
    largest = torch.full((8, 4, 5), torch.finfo(torch.float32).max)
    assert "changed by" in refused_for(with_array("b", WEIGHT, largest))


def test_limits_can_be_set() -> None:
    bold = reply("b", step=5.0)
    assert "norm" in refused_for(bold)
    wide = Limits(change_over_median=1e6)
    accepted, _ = guard(limits=wide).check([reply("x"), bold, reply("y")])
    assert len(accepted) == 3
    assert "limit" in refused_for(reply("b", step=0.2), limits=Limits(change=0.1))
    assert "examples" in refused_for(reply("b", examples=30), limits=Limits(examples=20))


# --- duplicates, order, minimum --------------------------------------------------------------


def test_of_a_reply_that_came_twice_bit_for_bit_one_is_taken() -> None:
    accepted, refused = guard().check([reply("a"), reply("b"), reply("a")])
    assert [r.client for r in accepted] == ["a", "b"]
    assert [str(r) for r in refused] == ["client a: duplicate of its reply"]


@pytest.mark.parametrize(
    "change", [{"step": 0.02}, {"examples": 21}, {"metrics": {"values/1": 641.0}}], ids=str
)
def test_of_different_replies_of_one_client_none_is_taken(change: dict[str, Any]) -> None:
    accepted, refused = guard().check([reply("a"), reply("b"), reply("a", **change)])
    assert [r.client for r in accepted] == ["b"]
    assert [r.reason for r in refused] == ["duplicate: 2 different replies to one round"] * 2


def test_the_outcome_does_not_depend_on_the_order_of_replies() -> None:
    replies = [reply("a"), reply("b"), reply("b"), scaled("c", 1e6), reply("d", examples=0)]
    outcomes = {
        (tuple(r.client for r in accepted), tuple(refused))
        for accepted, refused in (guard().check(p) for p in itertools.permutations(replies))
    }
    assert len(outcomes) == 1


def test_below_the_minimum_a_typed_error_names_who_was_refused() -> None:
    bad = [reply(name, examples=0) for name in "bcdefgh"]
    with pytest.raises(TooFewRepliesError, match=r"round 3: 1 of 8 .* 2 are needed .*b: 0 ex") as e:
        guard(minimum=2).check([reply("a"), *bad])
    assert isinstance(e.value, InputError)
    assert "\n" not in str(e.value)
    assert [r.client for r in e.value.accepted] == ["a"]
    assert len(e.value.refused) == 7
    with pytest.raises(TooFewRepliesError, match=r"0 of 0 replies .*none was refused"):
        guard().check([])


def test_what_a_client_writes_into_names_is_shown_in_one_short_line() -> None:
    arrays: Any = {**reply("b").arrays, "x\n\x1b[31m" + "y" * 10**6: torch.zeros(1)}
    said = refused_for(reply("b", arrays=arrays))
    assert len(said) < 120
    assert said.isprintable()
    assert refused_for(reply("b", arrays={**reply("b").arrays, 3: torch.zeros(1)}))


class Largest(TorchDispatchMode):
    """The largest tensor that operations make anew."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        for made in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(made, Tensor) and made.untyped_storage().data_ptr() not in known:
                self.numbers = max(self.numbers, made.numel())
        return out


def test_a_large_reply_is_looked_at_in_pieces() -> None:
    model = nn.Linear(1000, 1000, bias=False)
    expected = parse_policy("fedavg").manifest(model).expected(1)
    sent = model.state_dict()
    replies = [Reply(name, 1, {n: v + 0.01 for n, v in sent.items()}, {}, 5) for name in "abc"]
    with Largest() as seen:
        accepted, _ = Guard(expected, round=1, reference=sent).check(replies)
    assert len(accepted) == 3
    assert 0 < seen.numbers < 300_000


@settings(deadline=None)  # a slow machine is no fault
@given(factor=st.floats(-2, 3), n=st.integers(1, 6))
def test_clients_that_all_do_alike_are_never_refused(factor: float, n: int) -> None:
    replies = [reply(f"c{i}", step=abs(factor)) for i in range(n)]
    accepted, refused = guard().check(replies)
    assert len(accepted) == n
    assert not refused
