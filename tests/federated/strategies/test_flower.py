"""Flower's strategies against their formulas, written down by hand in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from federated.guard import Reply
from federated.policy.manifest import State
from federated.strategies import make_strategy

Float64s = NDArray[np.float64]
Step = Callable[[int, Float64s], Float64s]

EXAMPLES = (5, 20, 11)
START: State = {"w": torch.linspace(-2, 2, 12).reshape(3, 4), "b": torch.zeros(2)}


def replies(number: int) -> list[Reply]:
    g = torch.Generator().manual_seed(number)
    return [
        Reply(
            client,
            number,
            {name: v + 0.3 * torch.randn(v.shape, generator=g) for name, v in START.items()},
            {},
            examples,
        )
        for client, examples in zip("abc", EXAMPLES, strict=True)
    ]


def mean(number: int, name: str) -> Float64s:
    values = [reply.arrays[name].double().numpy() for reply in replies(number)]
    whole: Float64s = np.average(np.stack(values), axis=0, weights=EXAMPLES)
    return whole


def by_hand(name: str, step: Step, rounds: int = 3) -> Float64s:
    """Server's weights after some rounds; it holds them as float32 between two."""
    w = START[name].double().numpy()
    for number in range(1, rounds + 1):
        w = (w + step(number, mean(number, name) - w)).astype(np.float32).astype(np.float64)
    return w


def momentum(rate: float, beta: float) -> Step:
    m: Any = 0.0

    def step(number: int, d: Float64s) -> Float64s:
        nonlocal m
        m = beta * m + d
        return np.asarray(rate * m)

    return step


def adaptive(kind: str, eta: float, b1: float, b2: float, tau: float) -> Step:
    m: Any = 0.0
    v: Any = 0.0

    def step(number: int, d: Float64s) -> Float64s:
        nonlocal m, v
        m = b1 * m + (1 - b1) * d
        rate = eta
        if kind == "paper":
            v = b2 * v + (1 - b2) * d**2
        elif kind == "fedadam":
            v = b2 * v + (1 - b2) * d**2
            rate = eta * np.sqrt(1 - b2 ** (number + 1)) / (1 - b1 ** (number + 1))
        elif kind == "fedyogi":
            v = v - (1 - b2) * d**2 * np.sign(v - d**2)
        else:
            v = v + d**2
        return np.asarray(rate * m / (np.sqrt(v) + tau))

    return step


@pytest.mark.parametrize(
    ("name", "options", "step"),
    [
        ("fedavgm", {}, lambda: momentum(1.0, 0.9)),
        (
            "fedavgm",
            {"server_learning_rate": 0.5, "server_momentum": 0.3},
            lambda: momentum(0.5, 0.3),
        ),
        (
            "fedavgm",
            {"server_learning_rate": 0.5, "server_momentum": 0.0},
            lambda: momentum(0.5, 0.0),
        ),
        ("fedadam", {}, lambda: adaptive("fedadam", 0.1, 0.9, 0.99, 1e-3)),
        (
            "fedadam",
            {"eta": 0.03, "beta_1": 0.5, "beta_2": 0.7, "tau": 0.1},
            lambda: adaptive("fedadam", 0.03, 0.5, 0.7, 0.1),
        ),
        (
            "fedadam",
            {"eta": 0.03, "beta_1": 0.5, "bias_correction": 0},
            lambda: adaptive("paper", 0.03, 0.5, 0.99, 1e-3),
        ),
        ("fedyogi", {}, lambda: adaptive("fedyogi", 0.01, 0.9, 0.99, 1e-3)),
        ("fedadagrad", {"eta": 0.2}, lambda: adaptive("fedadagrad", 0.2, 0.0, 0.0, 1e-3)),
    ],
)
def test_server_optimizers_follow_their_formula_for_three_rounds(
    name: str, options: dict[str, float], step: Callable[[], Step]
) -> None:
    strategy, parameters = make_strategy(name, options), START
    for number in (1, 2, 3):
        parameters = strategy.aggregate(number, parameters, replies(number))
    for key in START:
        expected = torch.from_numpy(by_hand(key, step()))
        # Half a unit in the last place of float32 a round.
        torch.testing.assert_close(parameters[key].double(), expected, rtol=2e-7, atol=2e-8)


def test_fedavgm_without_momentum_at_rate_one_is_fedavg() -> None:
    options = {"server_learning_rate": 1.0, "server_momentum": 0.0}
    strategy = make_strategy("fedavgm", options)
    one = strategy.aggregate(1, START, replies(1))
    two = make_strategy("fedavg").aggregate(1, START, replies(1))
    for key in START:
        torch.testing.assert_close(one[key], two[key], rtol=6e-8, atol=1e-9)
    assert strategy.state() == {}


def test_momenta_belong_to_names_not_to_places() -> None:
    turned = dict(reversed(START.items()))
    one, two = make_strategy("fedavgm"), make_strategy("fedavgm")
    one.aggregate(1, START, replies(1))
    two.load(one.state())
    here, there = one.aggregate(2, START, replies(2)), two.aggregate(2, turned, replies(2))
    for key in START:
        assert torch.equal(here[key], there[key])


def test_a_weight_that_joins_later_begins_without_momentum() -> None:
    for name in ("fedavgm", "fedadam"):
        strategy = make_strategy(name)
        small = {"w": START["w"]}
        only = [Reply(r.client, 1, {"w": r.arrays["w"]}, {}, r.examples) for r in replies(1)]
        strategy.aggregate(1, small, only)
        new = strategy.aggregate(2, START, replies(2))
        fresh = make_strategy(name).aggregate(2, START, replies(2))
        assert torch.equal(new["b"], fresh["b"])
        assert not torch.equal(new["w"], fresh["w"])


def test_the_state_is_float64_and_a_copy() -> None:
    strategy = make_strategy("fedadam")
    strategy.aggregate(1, START, replies(1))
    state = strategy.state()
    assert set(state) == {"m_t/w", "m_t/b", "v_t/w", "v_t/b"}
    assert {value.dtype for value in state.values()} == {torch.float64}
    before = {name: value.clone() for name, value in state.items()}
    for value in state.values():
        value.fill_(9.0)
    assert all(torch.equal(strategy.state()[name], before[name]) for name in before)


# --- robust ones -----------------------------------------------------------------------------


def one_of_seven_lies(far: float = 1e6) -> list[Reply]:
    g = torch.Generator().manual_seed(0)
    honest = [
        Reply(
            c, 1, {n: v + 0.1 * torch.randn(v.shape, generator=g) for n, v in START.items()}, {}, 10
        )
        for c in "abcdef"
    ]
    liar = {name: value + far for name, value in START.items()}
    return [Reply("0-liar", 1, liar, {}, 100_000), *honest]


@pytest.mark.parametrize("name", ["fedmedian", "fedtrimmedavg", "krum", "multikrum"])
@pytest.mark.parametrize("far", [3.0, 1e6, -1e30])
def test_an_outlier_of_any_size_with_many_examples_moves_the_result_little(
    name: str, far: float
) -> None:
    new = make_strategy(name).aggregate(1, START, one_of_seven_lies(far))
    for key, value in START.items():
        assert (new[key] - value).abs().max() < 0.4
    if abs(far) > 100:
        lost = make_strategy("fedavg").aggregate(1, START, one_of_seven_lies(far))
        assert (lost["w"] - START["w"]).abs().max() > 100


def test_median_and_trimmed_mean_are_numpys_and_count_no_examples() -> None:
    given = one_of_seven_lies()
    for key in START:
        stacked = np.sort(np.stack([r.arrays[key].double().numpy() for r in given]), axis=0)
        median = make_strategy("fedmedian").aggregate(1, START, given)[key]
        trimmed = make_strategy("fedtrimmedavg", {"beta": 0.3}).aggregate(1, START, given)[key]
        np.testing.assert_array_equal(median.numpy(), stacked[3].astype(np.float32))
        np.testing.assert_allclose(trimmed.numpy(), stacked[2:5].mean(0), rtol=1e-6, atol=1e-7)


def krum_scores(given: list[Reply], malicious: int) -> Float64s:
    """Sums of squared distances to the nearest n - f - 2 others."""
    flat = np.stack(
        [np.concatenate([r.arrays[n].double().numpy().ravel() for n in START]) for r in given]
    )
    scores = []
    for row in range(len(flat)):
        others = np.delete(flat, row, axis=0)
        distances = np.sort(((others - flat[row]) ** 2).sum(1))
        scores.append(distances[: len(flat) - malicious - 2].sum())
    return np.array(scores)


def test_krum_takes_the_client_with_the_least_sum_of_distances() -> None:
    given = one_of_seven_lies(far=2.0)
    best = given[int(krum_scores(given, 1).argmin())]
    new = make_strategy("krum", {"num_malicious_nodes": 1}).aggregate(1, START, given)
    for key in START:
        assert torch.equal(new[key], best.arrays[key])


def test_multikrum_takes_the_mean_of_the_best_by_examples() -> None:
    given = one_of_seven_lies(far=2.0)
    best = np.argsort(krum_scores(given, 2))[:3]
    options = {"num_malicious_nodes": 2, "num_nodes_to_select": 3}
    new = make_strategy("multikrum", options).aggregate(1, START, given)
    chosen = sorted((given[i] for i in best), key=lambda reply: reply.client)
    expected = make_strategy("fedavg").aggregate(1, START, chosen)
    for key in START:
        torch.testing.assert_close(new[key], expected[key], rtol=2e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["fedmedian", "fedtrimmedavg", "krum", "multikrum"])
def test_a_single_reply_is_taken_as_it_is(name: str) -> None:
    only = replies(1)[0]
    new = make_strategy(name).aggregate(1, START, [only])
    for key in START:
        assert torch.equal(new[key], only.arrays[key])
