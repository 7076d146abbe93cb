import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from toy_task import Rows

from data_tools.errors import InputError
from federated.engines.together import train_together
from federated.local_training import Trained, batches_of_round, draw_seed, train_locally
from federated.policy import parse_policy
from federated.policy.manifest import State
from federated.strategies import DOWN, KEPT, UP


@dataclass(frozen=True)
class Settings:
    local_epochs: int | None = 2
    local_steps: int | None = None
    batch_size: int = 4
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    momentum: float = 0.0
    clip: float = 5.0


TASK = Rows({"a": 13, "b": 12, "none": 0, "one": 1}, dropout=0.3)


def trained(
    client: str = "a",
    *,
    task: Rows = TASK,
    number: int = 1,
    seed: int = 0,
    norm: str = "batch",
    rate: float = 0.01,
    extras: State | None = None,
    terms: dict[str, float | str | bool] | None = None,
    shared: tuple[str, ...] | None = None,
    **settings: Any,
) -> tuple[Trained, State, State]:
    """What came of a round, and the model's state before and after."""
    model = task.build(norm, 0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    got = train_locally(
        model,
        task,
        client,
        number,
        seed,
        Settings(**settings),
        rate,
        extras or {},
        terms or {},
        shared,
    )
    return got, before, model.state_dict()


def same(one: State, two: State) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_seed_client_and_round_give_the_bits_whatever_came_before() -> None:
    first, _, weights = trained()
    torch.manual_seed(999)
    torch.rand(7)
    trained("b", number=5)
    again, _, weights_again = trained()
    assert first == again
    assert same(weights, weights_again)


def test_another_seed_or_round_gives_other_bits() -> None:
    _, _, weights = trained()
    assert not same(weights, trained(seed=1)[2])
    assert not same(weights, trained(number=2)[2])


def test_dropout_differs_between_clients_with_the_same_rows() -> None:
    task = Rows({"ab": 12, "ba": 12}, dropout=0.3)
    assert all(
        torch.equal(one[0], two[0])
        for one, two in zip(
            task.batches("ab", "train", 4, (0, 0)),
            task.batches("ba", "train", 4, (0, 0)),
            strict=True,
        )
    )
    assert not same(trained("ab", task=task)[2], trained("ba", task=task)[2])


def test_the_callers_random_numbers_go_on_as_if_nobody_had_trained() -> None:
    model = TASK.build("batch", 0)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    train_locally(model, TASK, "a", 1, 0, Settings(), 0.1, {}, {})
    assert torch.equal(torch.rand(3), expected)


def test_a_round_goes_over_every_row_once_an_epoch() -> None:
    got, _, _ = trained("b", local_epochs=3)
    assert (got.examples, got.steps) == (12, 9)
    assert math.isfinite(got.loss)


def test_later_rounds_see_the_orders_that_one_long_round_would_have_seen() -> None:
    seen: list[tuple[int, int] | None] = []

    class Watched(Rows):
        def batches(self, *arguments: Any) -> Iterator[Any]:
            seen.append(arguments[3])
            return super().batches(*arguments)

    for number in (1, 2):
        trained(task=Watched({"a": 8}), number=number, seed=6)
    assert seen == [(6, 0), (6, 1), (6, 2), (6, 3)]


class Numbered(Rows):
    """Rows that say which they are."""

    def batches(
        self, client: str, part: str, batch_size: int, order: tuple[int, int] | None
    ) -> Iterator[Any]:
        places = np.arange(self.rows[client])
        if order is not None:
            np.random.default_rng(order).shuffle(places)
        for first in range(0, len(places), batch_size):
            yield (torch.from_numpy(places[first : first + batch_size]),)


def shown(rows: int, number: int, steps: int, size: int = 4, seed: int = 0) -> list[list[int]]:
    """Rows of every batch of a round of so many steps."""
    settings = Settings(local_epochs=None, local_steps=steps, batch_size=size)
    batches = batches_of_round(Numbered({"a": rows}), "a", number, seed, settings)
    return [batch[0].tolist() for batch, _ in batches]


@pytest.mark.parametrize("rows", [2, 4, 5, 12, 13, 14, 40])
@pytest.mark.parametrize("steps", [1, 3, 7])
def test_a_round_of_steps_has_that_many_at_every_client(rows: int, steps: int) -> None:
    for number in (1, 2, 3):
        assert len(shown(rows, number, steps)) == steps


@pytest.mark.parametrize(("rows", "steps"), [(2, 3), (8, 5), (11, 7), (14, 2), (100, 9)])
def test_rounds_of_steps_show_every_row_equally_often(rows: int, steps: int) -> None:
    seen = np.zeros(rows, dtype=int)
    for number in range(1, 12):
        for batch in shown(rows, number, steps):
            seen[batch] += 1
        assert seen.max() - seen.min() <= 1


def test_a_row_that_is_left_out_of_an_epoch_is_another_one_each_time() -> None:
    seen = np.zeros(9, dtype=int)
    for number in range(1, 101):
        for batch in shown(9, number, 2):
            assert len(batch) == 4
            seen[batch] += 1
    assert seen.sum() == 800
    assert seen.min() > 75


def test_rounds_of_steps_are_one_sequence_cut_in_pieces() -> None:
    whole = shown(14, 1, 21)
    assert [batch for number in range(1, 8) for batch in shown(14, number, 3)] == whole
    # Asked for alone, as after a run was stopped or by a client that was away.
    assert shown(14, 5, 3) == whole[12:15]
    assert shown(14, 1, 21, seed=1) != whole


def test_as_many_steps_as_epochs_have_give_the_bits_of_the_epochs() -> None:
    # 13 rows: three batches of four and a row alone.
    for number in (1, 2):
        epochs = trained(number=number, local_epochs=2)
        steps = trained(number=number, local_epochs=None, local_steps=6)
        assert epochs[0] == steps[0]
        assert same(epochs[2], steps[2])


def test_a_round_of_steps_has_the_same_bits_whatever_came_before() -> None:
    settings: dict[str, Any] = {"local_epochs": None, "local_steps": 5, "number": 3}
    first, _, weights = trained(**settings)
    trained("b", local_epochs=None, local_steps=2)
    again, _, weights_again = trained(**settings)
    assert first == again
    assert first.steps == 5
    assert same(weights, weights_again)


@pytest.mark.parametrize("client", ["none", "one"])
def test_a_client_without_a_batch_takes_none_of_the_steps(client: str) -> None:
    got, before, after = trained(client, local_epochs=None, local_steps=5)
    assert got.steps == 0
    assert same(before, after)
    assert len(shown(1, 2, 5, size=1)) == 5


def test_clients_that_train_together_take_the_same_steps() -> None:
    settings = Settings(None, 5, optimizer="sgd")
    task, clients = Rows({"a": 13, "b": 12, "one": 1}), ("a", "b", "one")
    model = task.build("batch", 0)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    found = train_together(model, task, clients, 3, 0, settings, 0.05, [start] * 3, [{}] * 3, {})
    for client, (together, state) in zip(clients, found, strict=True):
        model.load_state_dict(start)
        alone = train_locally(model, task, client, 3, 0, settings, 0.05, {}, {})
        assert together.steps == alone.steps == (0 if client == "one" else 5)
        for name, value in model.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)


def test_the_last_row_alone_is_left_out_of_an_epoch() -> None:
    got, _, after = trained("a", local_epochs=1)
    assert (got.examples, got.steps) == (13, 3)
    assert after["norms.0.num_batches_tracked"].item() == 3


def test_batches_of_one_row_train_where_they_were_asked_for() -> None:
    got, before, after = trained("a", batch_size=1, local_epochs=1, norm="layer")
    assert got.steps == 13
    assert not same(before, after)


@pytest.mark.parametrize(("client", "examples"), [("none", 0), ("one", 1)])
def test_a_client_that_cannot_take_a_step_leaves_the_model_as_it_was(
    client: str, examples: int
) -> None:
    got, before, after = trained(client)
    assert (got.examples, got.steps) == (examples, 0)
    assert math.isnan(got.loss)
    assert same(before, after)


def test_a_loss_that_is_not_finite_stops_training_and_is_told() -> None:
    task = Rows({"a": 12}, poison="a", dropout=0.3)
    controls = {f"{DOWN}head.bias": torch.full((1,), 0.1)}
    got, _, after = trained(task=task, optimizer="sgd", extras=controls, terms={"scaffold": True})
    assert math.isnan(got.loss)
    assert got.steps < 3
    assert all(value.isfinite().all() for value in after.values())
    assert got.sent[f"{UP}head.bias"].abs().max() == 0


def test_what_needs_no_gradient_is_not_touched() -> None:
    model = TASK.build("batch", 0)
    frozen = {n for n, _ in model.named_parameters() if n.startswith("convs.0")}
    for name, p in model.named_parameters():
        p.requires_grad_(name not in frozen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_locally(model, TASK, "a", 1, 0, Settings(weight_decay=0.5), 0.1, {}, {"mu": 1.0})
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == (name in frozen), name


def test_a_policy_that_freezes_statistics_keeps_them() -> None:
    model = TASK.build("batch", 0)
    parse_policy("fixbn:2").manifest(model).apply_to_training(model, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    train_locally(model, TASK, "a", 3, 0, Settings(), 0.1, {}, {})
    assert torch.equal(model.state_dict()["norms.0.running_mean"], before["norms.0.running_mean"])
    assert not torch.equal(model.state_dict()["head.weight"], before["head.weight"])


@pytest.mark.parametrize("clip", [0.01, 5.0])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_follows_its_formula_with_decay_on_matrices_only(clip: float, momentum: float) -> None:
    _, _, after = trained(
        norm="layer", optimizer="sgd", clip=clip, momentum=momentum, weight_decay=0.1, rate=0.1
    )
    model = TASK.build("layer", 0)
    velocity: State = {}
    model.train()
    # Dropout's draws are the client's.
    torch.manual_seed(draw_seed(0, "a", 1))
    for epoch in (0, 1):
        for batch in TASK.batches("a", "train", 4, (0, epoch)):
            if len(batch[0]) == 1:
                continue
            named = dict(model.named_parameters())
            grads = torch.autograd.grad(TASK.loss(model, batch), list(named.values()))
            norm = torch.sqrt(sum((g.double() ** 2).sum() for g in grads))  # type: ignore[arg-type]
            scale = min(1.0, clip / (norm.item() + 1e-6))
            with torch.no_grad():
                for (name, p), g in zip(named.items(), grads, strict=True):
                    step = scale * g + (0.1 * p if p.ndim > 1 else 0.0)
                    velocity[name] = momentum * velocity.get(name, torch.zeros_like(p)) + step
                    p.sub_(0.1 * velocity[name])
    for name, value in model.state_dict().items():
        torch.testing.assert_close(after[name], value, rtol=1e-5, atol=1e-6)


def test_fedprox_holds_only_what_is_shared() -> None:
    _, before, after = trained(
        terms={"mu": 1e4}, optimizer="sgd", rate=1e-4, shared=("head.weight",), clip=1e9
    )
    _, _, free = trained(optimizer="sgd", rate=1e-4, clip=1e9)
    for name in before:
        moved, without = ((state[name] - before[name]).float().norm() for state in (after, free))
        if name == "head.weight":
            assert moved < 0.5 * without
        elif name == "convs.1.weight":
            assert moved > 0.9 * without


def test_controls_turn_only_the_weights_that_they_are_of() -> None:
    name = "head.bias"
    extras = {f"{DOWN}{name}": torch.full((1,), 0.2), f"{KEPT}{name}": torch.full((1,), 0.5)}
    got, before, after = trained(
        extras=extras, terms={"scaffold": True}, optimizer="sgd", rate=0.1, local_epochs=1
    )
    assert set(got.sent) == {f"{UP}{name}"}
    assert set(got.kept) == {f"{KEPT}{name}"}
    assert got.extras == {**got.kept, **got.sent}
    change = (before[name] - after[name]) / (got.steps * 0.1) - 0.2
    torch.testing.assert_close(got.sent[f"{UP}{name}"], change)
    torch.testing.assert_close(got.kept[f"{KEPT}{name}"], 0.5 + change)


def test_a_control_of_another_model_is_an_error() -> None:
    with pytest.raises(
        InputError, match=r"control of head.bias has shape \(2,\), the weight \(1,\)"
    ):
        trained(
            extras={f"{DOWN}head.bias": torch.zeros(2)}, terms={"scaffold": True}, optimizer="sgd"
        )


@pytest.mark.parametrize("rate", [0.0, -1.0, math.inf, math.nan])
def test_a_learning_rate_must_be_positive_and_finite(rate: float) -> None:
    with pytest.raises(InputError, match="learning_rate must be positive and finite"):
        trained(rate=rate)


def test_an_unknown_optimizer_is_an_error() -> None:
    with pytest.raises(InputError, match="optimizer must be 'adamw' or 'sgd', got 'adam'"):
        trained(optimizer="adam")
