"""What holds for every strategy."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from data_tools.errors import InputError
from federated.guard import Reply
from federated.policy import parse_policy
from federated.policy.manifest import Expected, State
from federated.strategies import (
    STRATEGY_NAMES,
    UP,
    Strategy,
    learned,
    make_strategy,
    mean_by_examples,
)

PARAMETERS: State = {
    "z.weight": torch.linspace(-1, 1, 24).reshape(3, 4, 2),
    "a.bias": torch.linspace(2, 3, 3),
    "scale": torch.tensor(0.5),
}


def replies(number: int = 1, clients: str = "abcdefg") -> list[Reply]:
    """Replies as clients would give them, all different, with different numbers of examples."""
    made = []
    for place, client in enumerate(clients):
        g = torch.Generator().manual_seed(100 * number + place)
        arrays = {
            name: value + 0.1 * torch.randn(value.shape, generator=g)
            for name, value in PARAMETERS.items()
        }
        made.append(
            Reply(client, number, arrays, {"steps": float(place + 1), "loss": 1.0}, 7 * place + 3)
        )
    return made


def completed(strategy: Strategy, given: Sequence[Reply]) -> list[Reply]:
    """Replies with what the strategy wants besides."""
    roles = {n: Expected(tuple(v.shape), v.dtype, "parameter", None) for n, v in PARAMETERS.items()}
    further = strategy.expected(roles)
    return [
        replace(
            reply,
            arrays=reply.arrays | {n: 0.01 * reply.arrays[n.removeprefix(UP)] for n in further},
        )
        for reply in given
    ]


def after(strategy: Strategy, rounds: Sequence[int], parameters: State) -> State:
    for number in rounds:
        parameters = strategy.aggregate(number, parameters, completed(strategy, replies(number)))
    return parameters


def assert_same_bits(one: State, two: State) -> None:
    assert list(one) == list(two)
    for name in one:
        assert one[name].dtype == two[name].dtype
        assert torch.equal(one[name], two[name]), name


every = pytest.mark.parametrize("name", STRATEGY_NAMES)


@every
def test_names_order_shapes_and_types_are_those_of_the_server(name: str) -> None:
    new = after(make_strategy(name), [1], PARAMETERS)
    assert list(new) == list(PARAMETERS)
    for key, value in PARAMETERS.items():
        assert new[key].shape == value.shape
        assert new[key].dtype == value.dtype
        assert not torch.equal(new[key], value)


@every
def test_half_precision_comes_back_as_half_precision(name: str) -> None:
    strategy = make_strategy(name)
    wide = completed(strategy, replies())
    narrow = [replace(r, arrays={n: v.half() for n, v in r.arrays.items()}) for r in wide]
    new = strategy.aggregate(1, {n: v.half() for n, v in PARAMETERS.items()}, narrow)
    assert {value.dtype for value in new.values()} == {torch.float16}
    reference = make_strategy(name).aggregate(1, PARAMETERS, wide)
    for key in reference:
        torch.testing.assert_close(new[key].float(), reference[key], atol=0.02, rtol=0.01)


@every
def test_the_order_of_replies_changes_no_bit(name: str) -> None:
    forward, backward = make_strategy(name), make_strategy(name)
    parameters = PARAMETERS
    for number in (1, 2):
        given = completed(forward, replies(number))
        one = forward.aggregate(number, parameters, given)
        two = backward.aggregate(number, parameters, given[::-1])
        assert_same_bits(one, two)
        parameters = one
    assert_same_bits(forward.state(), backward.state())


@every
def test_a_restart_from_a_checkpoint_changes_no_bit(name: str) -> None:
    whole = make_strategy(name)
    uninterrupted = after(whole, [1, 2, 3], PARAMETERS)
    first = make_strategy(name)
    halfway = after(first, [1], PARAMETERS)
    second = make_strategy(name)
    second.load({key: value.clone() for key, value in first.state().items()})
    assert_same_bits(after(second, [2, 3], halfway), uninterrupted)
    assert_same_bits(second.state(), whole.state())
    assert_same_bits(second.sent_down(PARAMETERS), whole.sent_down(PARAMETERS))


@every
def test_neither_replies_nor_parameters_are_changed(name: str) -> None:
    strategy = make_strategy(name)
    given = completed(strategy, replies())
    before = [{n: v.clone() for n, v in reply.arrays.items()} for reply in given]
    start = {n: v.clone() for n, v in PARAMETERS.items()}
    strategy.aggregate(1, PARAMETERS, given)
    assert_same_bits(start, PARAMETERS)
    for reply, arrays in zip(given, before, strict=True):
        assert_same_bits(reply.arrays, arrays)


@every
def test_a_state_of_another_strategy_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"strategy '{name}' has no state 'other/w'"):
        make_strategy(name).load({"other/w": torch.zeros(1)})


@every
def test_statistics_and_counters_are_refused(name: str) -> None:
    model = torch.nn.Sequential(torch.nn.Conv1d(4, 8, 5), torch.nn.BatchNorm1d(8))
    expected = parse_policy("fedavg").manifest(model).expected(1)
    assert {"1.running_mean", "1.running_var"} <= set(expected)
    assert not set(learned(expected)) & {"1.running_mean", "1.running_var"}
    strategy = make_strategy(name)
    strategy.expected(expected)
    for key in ("1.running_var", "1.num_batches_tracked"):
        value = model.state_dict()[key]
        reply = Reply("a", 1, {key: value}, {"steps": 1.0}, 3)
        with pytest.raises(InputError, match=f"{key} is no weight but a statistic"):
            strategy.aggregate(1, {key: value}, [reply])


@every
def test_replies_that_do_not_fit_are_named(name: str) -> None:
    strategy = make_strategy(name)
    good = completed(strategy, replies())
    first = good[0]
    missing = {n: v for n, v in first.arrays.items() if n != "a.bias"}
    for broken, told in (
        ([], "there are no replies"),
        ([first, first], "client a has replied twice"),
        ([replace(first, arrays=missing)], "client a: a.bias is missing"),
        (
            [replace(first, arrays=first.arrays | {"a.bias": torch.ones(1)})],
            r"a.bias has shape \(1,",
        ),
        ([replace(first, arrays=first.arrays | {"x": torch.ones(1)})], "x is in its reply, but"),
    ):
        with pytest.raises(InputError, match=told):
            strategy.aggregate(1, PARAMETERS, broken)
    # What was refused has left no trace.
    fresh = make_strategy(name)
    one, two = (s.aggregate(1, PARAMETERS, completed(s, good)) for s in (strategy, fresh))
    assert_same_bits(one, two)


@every
def test_a_client_whose_loss_was_not_finite_is_at_fault_unless_it_took_no_step(name: str) -> None:
    strategy, reply = make_strategy(name), replies()[0]
    assert strategy.fault(reply) == ""
    assert "its loss is nan" in strategy.fault(
        replace(reply, metrics={"loss": math.nan, "steps": 2.0})
    )
    assert strategy.fault(replace(reply, metrics={"loss": math.nan, "steps": 0.0})) == ""


@every
def test_nothing_to_aggregate_gives_nothing(name: str) -> None:
    assert make_strategy(name).aggregate(1, {}, [Reply("a", 1, {}, {"steps": 1.0}, 3)]) == {}


# --- the mean --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fedavg", "fedprox"])
def test_fedavg_is_the_mean_by_examples_in_float64_rounded_once(name: str) -> None:
    given = replies()
    new = make_strategy(name).aggregate(1, PARAMETERS, given)
    examples = torch.tensor([r.examples for r in given], dtype=torch.float64)
    for key in PARAMETERS:
        stacked = torch.stack([r.arrays[key].double() for r in given])
        mean = torch.tensordot(examples, stacked, dims=1) / examples.sum()
        torch.testing.assert_close(new[key], mean.float(), rtol=6e-8, atol=0)


def test_a_mean_of_equal_weights_is_these_weights() -> None:
    given = [replace(r, arrays=dict(PARAMETERS)) for r in replies()]
    assert_same_bits(make_strategy("fedavg").aggregate(1, PARAMETERS, given), PARAMETERS)


def test_a_mean_without_examples_is_an_error() -> None:
    with pytest.raises(InputError, match="2 replies have 0 examples"):
        mean_by_examples([replace(r, examples=0) for r in replies()[:2]], ["scale"])
