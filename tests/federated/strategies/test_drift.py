"""SCAFFOLD, FedNova and FedProx where the optimum is known: clients with quadratic losses.

A row is (curvature, centre); a client's loss at w is the mean over its rows of
curvature / 2 (w - centre)^2.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from data_tools.errors import InputError
from federated.guard import Reply
from federated.local_training import train_locally
from federated.policy.manifest import State
from federated.strategies import DOWN, KEPT, UP, Strategy, make_strategy


@dataclass(frozen=True)
class Settings:
    local_epochs: int = 1
    batch_size: int = 10
    optimizer: str = "sgd"
    weight_decay: float = 0.0
    momentum: float = 0.0
    clip: float = 1e9


class Point(nn.Module):
    """A weight that is the answer itself."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))


class Quadratics:
    """Clients by name, each with (rows, curvature, centre)."""

    metrics = ("closeness",)
    digest = ""

    def __init__(self, clients: Mapping[str, tuple[int, float, float]]) -> None:
        self.of = clients
        self.clients = tuple(sorted(clients))

    def holdings(self, folder: Path) -> pd.DataFrame:
        return pd.DataFrame()

    def build(self, norm: str, seed: int) -> nn.Module:
        return Point()

    def examples(self, client: str, part: str) -> int:
        return self.of[client][0]

    def batches(
        self, client: str, part: str, batch_size: int, order: tuple[int, int] | None
    ) -> Iterator[Any]:
        rows, curvature, centre = self.of[client]
        held = torch.tensor([[curvature, centre]] * rows, dtype=torch.float64)
        yield from torch.split(held, batch_size)

    def inputs(self, batch: Any) -> Tensor:
        rows: Tensor = batch
        return rows

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        assert isinstance(model, Point)
        loss: Tensor = (0.5 * batch[:, 0] * (model.w - batch[:, 1]) ** 2).mean()
        return loss

    def evaluate(self, model: nn.Module, client: str, part: str) -> dict[str, float]:
        return {}


@dataclass
class Run:
    """What a run leaves behind."""

    path: list[float]
    kept: dict[str, State]
    strategy: Strategy
    down: State


def federate(
    strategy: Strategy,
    task: Quadratics,
    rounds: int,
    learning_rate: float,
    training: Settings,
    start: float = 0.0,
    every: int = 1,
) -> Run:
    """Run rounds; with ``every`` above 1 each client takes part once in so many rounds."""
    server: State = {"w": torch.tensor([start], dtype=torch.float64)}
    kept: dict[str, State] = {client: {} for client in task.clients}
    path, model = [], task.build("none", 0)
    for number in range(1, rounds + 1):
        down = strategy.sent_down(server)
        replies = []
        for place, client in enumerate(task.clients):
            if (place + number) % every:
                continue
            model.load_state_dict(server)
            extras = {**down, **kept[client]}
            got = train_locally(
                model, task, client, number, 0, training, learning_rate, extras, strategy.terms()
            )
            kept[client] = got.kept
            arrays = {"w": model.state_dict()["w"].clone(), **got.sent}
            metrics = {"loss": got.loss, "steps": float(got.steps)}
            replies.append(Reply(client, number, arrays, metrics, got.examples))
        server = strategy.aggregate(number, server, replies)
        path.append(server["w"].item())
    return Run(path, kept, strategy, strategy.sent_down(server))


UNLIKE = Quadratics({"a": (10, 1.0, 0.0), "b": (10, 10.0, 1.0), "c": (10, 2.0, -3.0)})
OPTIMUM = (10.0 - 6.0) / 13.0
MANY = Settings(local_epochs=10)


def test_scaffold_reaches_the_global_optimum_where_fedavg_with_many_steps_does_not() -> None:
    drifted = federate(make_strategy("fedavg"), UNLIKE, 60, 0.05, MANY).path
    right = federate(make_strategy("scaffold"), UNLIKE, 60, 0.05, MANY).path
    assert abs(drifted[-1] - drifted[-2]) < 1e-6
    assert abs(drifted[-1] - OPTIMUM) > 0.3
    assert right[-1] == pytest.approx(OPTIMUM, abs=1e-6)


def test_scaffold_reaches_the_optimum_also_when_few_clients_take_part_at_a_time() -> None:
    options = {"clients": 3}
    run = federate(make_strategy("scaffold", options), UNLIKE, 150, 0.02, MANY, every=2)
    assert run.path[-1] == pytest.approx(OPTIMUM, abs=1e-6)


def test_scaffold_with_one_full_batch_step_is_sgd_on_the_mean_gradient() -> None:
    path = federate(make_strategy("scaffold"), UNLIKE, 5, 0.1, Settings(), start=2.0).path
    w = 2.0
    for got in path:
        w -= 0.1 * sum(a * (w - b) for _, a, b in UNLIKE.of.values()) / 3
        assert got == pytest.approx(w, abs=1e-12)


def test_after_one_full_batch_step_a_control_is_the_clients_gradient() -> None:
    run = federate(make_strategy("scaffold"), UNLIKE, 1, 0.1, Settings(), start=2.0)
    for client, (_, curvature, centre) in UNLIKE.of.items():
        control = run.kept[client][f"{KEPT}w"].item()
        assert control == pytest.approx(curvature * (2.0 - centre), abs=1e-12)


@pytest.mark.parametrize("every", [1, 2])
def test_the_servers_control_is_the_mean_of_the_clients(every: int) -> None:
    run = federate(make_strategy("scaffold"), UNLIKE, 7, 0.02, MANY, every=every)
    mean = sum(run.kept[client][f"{KEPT}w"].item() for client in UNLIKE.clients) / 3
    assert run.down[f"{DOWN}w"].item() == pytest.approx(mean, abs=1e-12)


def test_scaffolds_server_rate_scales_its_step() -> None:
    slow = federate(
        make_strategy("scaffold", {"server_learning_rate": 0.5}), UNLIKE, 1, 0.1, Settings(), 2.0
    )
    fast = federate(make_strategy("scaffold"), UNLIKE, 1, 0.1, Settings(), 2.0)
    assert slow.path[0] - 2.0 == pytest.approx((fast.path[0] - 2.0) / 2, abs=1e-12)


def test_scaffold_refuses_more_clients_than_it_was_told_of() -> None:
    with pytest.raises(InputError, match=r"3 clients have replied so far, .* told of 2"):
        federate(make_strategy("scaffold", {"clients": 2}), UNLIKE, 1, 0.1, Settings())


def test_scaffold_names_the_client_without_a_change_of_its_control() -> None:
    reply = Reply("a", 1, {"w": torch.zeros(1), f"{UP}w": torch.zeros(2)}, {}, 3)
    with pytest.raises(InputError, match="client a: the change of its control of w is missing"):
        make_strategy("scaffold").aggregate(1, {"w": torch.zeros(1)}, [reply])


# --- FedNova ---------------------------------------------------------------------------------

# Of one curvature: the optimum is the mean of the centres by rows, .75.
UNEQUAL = Quadratics({"few": (10, 1.0, 0.0), "many": (30, 1.0, 1.0)})
SMALL = Settings(batch_size=5)


def test_fednova_removes_the_bias_of_fedavg_with_unequal_steps() -> None:
    biased = federate(make_strategy("fedavg"), UNEQUAL, 120, 0.02, SMALL).path[-1]
    right = federate(make_strategy("fednova"), UNEQUAL, 120, 0.02, SMALL).path[-1]
    # Clients weigh p_i tau_i: .25 x 2 steps and .75 x 6 steps. What is left is of the rate's order.
    assert biased == pytest.approx(0.9, abs=0.02)
    assert right == pytest.approx(0.75, abs=0.02)


def test_fednova_follows_its_formula() -> None:
    start = {"w": torch.tensor([1.0])}
    rows = (("a", 10, 2.0, 1.4), ("b", 30, 5.0, -0.5), ("c", 20, 0.0, 1.0))
    given = [Reply(c, 1, {"w": torch.tensor([w])}, {"steps": s}, n) for c, n, s, w in rows]
    new = make_strategy("fednova").aggregate(1, start, given)["w"].item()
    effective = 0.25 * 2 + 0.75 * 5
    assert new == pytest.approx(1 + effective * (0.25 * 0.4 / 2 + 0.75 * -1.5 / 5), rel=1e-6)


def test_fednova_with_equal_steps_is_fedavg() -> None:
    one = federate(make_strategy("fednova"), UNLIKE, 5, 0.05, MANY).path
    two = federate(make_strategy("fedavg"), UNLIKE, 5, 0.05, MANY).path
    assert one == pytest.approx(two, abs=1e-12)


def test_fednova_keeps_the_weights_where_nobody_has_moved() -> None:
    start = {"w": torch.tensor([1.0])}
    reply = Reply("a", 1, {"w": torch.tensor([1.0])}, {"steps": 0.0}, 1)
    assert torch.equal(make_strategy("fednova").aggregate(1, start, [reply])["w"], start["w"])


@pytest.mark.parametrize("steps", [-1.0, 0.5, float("nan"), float("inf"), 1e12, None])
def test_fednova_refuses_a_number_of_steps_that_cannot_be(steps: float | None) -> None:
    metrics = {} if steps is None else {"steps": steps}
    reply = Reply("a", 1, {"w": torch.tensor([1.0])}, metrics, 1)
    strategy = make_strategy("fednova")
    assert "a whole number up to" in strategy.fault(reply)
    with pytest.raises(InputError, match="client a: it took"):
        strategy.aggregate(1, {"w": torch.zeros(1)}, [reply])


@pytest.mark.parametrize("name", ["scaffold", "fednova"])
def test_clients_refuse_another_optimizer_than_plain_sgd(name: str) -> None:
    for training in (Settings(optimizer="adamw"), Settings(momentum=0.9)):
        with pytest.raises(InputError, match=f"strategy '{name}' is defined for plain SGD"):
            federate(make_strategy(name), UNLIKE, 1, 0.1, training)


# --- FedProx ---------------------------------------------------------------------------------


def test_fedprox_with_a_large_mu_keeps_clients_at_the_servers_weights() -> None:
    moved = []
    for mu in (0.0, 1.0, 10.0, 100.0):
        path = federate(make_strategy("fedprox", {"mu": mu}), UNLIKE, 1, 0.005, MANY, 2.0).path
        moved.append(abs(path[0] - 2.0))
    assert moved == sorted(moved, reverse=True)
    assert moved[-1] < 0.1 < 0.3 < moved[0]


def test_fedprox_goes_to_the_minimum_of_loss_plus_proximal_term() -> None:
    one = Quadratics({"a": (10, 3.0, 1.0)})
    strategy = make_strategy("fedprox", {"mu": 2.0})
    path = federate(strategy, one, 1, 0.05, Settings(local_epochs=100), start=-1.0).path
    # 3 (w - 1) + 2 (w + 1) = 0
    assert path[0] == pytest.approx(0.2, abs=1e-9)


def test_fedprox_with_mu_zero_is_fedavg_bit_for_bit() -> None:
    one = federate(make_strategy("fedprox", {"mu": 0.0}), UNLIKE, 3, 0.05, MANY).path
    assert one == federate(make_strategy("fedavg"), UNLIKE, 3, 0.05, MANY).path
