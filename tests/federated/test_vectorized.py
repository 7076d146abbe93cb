"""Clients trained together against clients trained one after the other.

Sums are taken in another order, so bits differ. SGD's results agree to 2e-5 of the largest weight;
AdamW divides by gradients that may be almost nothing, which makes rounding large, and agrees to a
tenth of one step.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy_task import Rows

from data_tools.errors import InputError
from federated.engines import measured as measuring
from federated.engines import together as engine
from federated.engines.measured import measure_together
from federated.engines.together import train_together, why_not
from federated.local_training import Trained, train_locally
from federated.policy.manifest import State
from federated.strategies import DOWN, KEPT, UP

Terms = dict[str, float | str | bool]


@dataclass(frozen=True)
class Settings:
    local_epochs: int | None = 2
    local_steps: int | None = None
    batch_size: int = 8
    optimizer: str = "sgd"
    weight_decay: float = 0.01
    momentum: float = 0.9
    clip: float = 1.0


# 17 leaves a row alone at the end of an epoch, 0 and 1 take no step, 21 and 29 end on 5 rows.
TASK = Rows({"a": 16, "b": 17, "c": 21, "d": 29, "e": 40, "none": 0, "one": 1})
CLIENTS = TASK.clients


def starts_of(model: nn.Module, number: int, apart: float = 0.1) -> list[State]:
    """Different weights for every client."""
    made = []
    for place in range(number):
        g = torch.Generator().manual_seed(place)
        made.append(
            {
                name: value + apart * torch.randn(value.shape, generator=g).abs()
                if value.is_floating_point()
                else value.clone()
                for name, value in model.state_dict().items()
            }
        )
    return made


def both(
    norm: str,
    training: Settings,
    *,
    task: Rows = TASK,
    rate: float = 0.05,
    terms: Terms | None = None,
    extras: Sequence[State] | None = None,
    shared: tuple[str, ...] | None = None,
    frozen: str = "nothing",
) -> tuple[list[tuple[Trained, State]], list[tuple[Trained, State]]]:
    """What comes of clients together, and one by one."""
    model = task.build(norm, 0)
    for name, p in model.named_parameters():
        p.requires_grad_(not re.fullmatch(frozen, name))
    starts = starts_of(model, len(task.clients))
    extras = extras or [{} for _ in task.clients]
    assert why_not(model, task, task.clients, training, terms or {}) == ""
    together = train_together(
        model, task, task.clients, 2, 7, training, rate, starts, extras, terms or {}, shared
    )
    single = []
    for client, start, given in zip(task.clients, starts, extras, strict=True):
        model.load_state_dict(start)
        got = train_locally(model, task, client, 2, 7, training, rate, given, terms or {}, shared)
        single.append((got, {n: v.clone() for n, v in model.state_dict().items()}))
    return together, single


def assert_close(
    together: list[tuple[Trained, State]], single: list[tuple[Trained, State]], atol: float = 2e-5
) -> None:
    for (got, after), (expected, wanted) in zip(together, single, strict=True):
        assert (got.examples, got.steps) == (expected.examples, expected.steps)
        assert got.loss == pytest.approx(expected.loss, abs=atol, nan_ok=True)
        assert list(after) == list(wanted)
        for mine, theirs in ((after, wanted), (got.sent, expected.sent), (got.kept, expected.kept)):
            assert set(mine) == set(theirs)
            for name in theirs:
                assert mine[name].dtype == theirs[name].dtype
                apart = (mine[name].double() - theirs[name].double()).abs().max().item()
                assert apart <= atol, name


norms = pytest.mark.parametrize(
    "norm", ["batch", "group:2", "instance", "layer", "layer_seq", "rms", "none"]
)


@norms
@pytest.mark.parametrize("own", [True, False, None], ids=["own", "common", "own bias"])
@pytest.mark.parametrize("at_once", [1, 24, 1024])
def test_clients_measured_together_are_measured_as_alone(
    norm: str, own: bool | None, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "ROWS_AT_ONCE", at_once)
    model = TASK.build(norm, 0)
    states = starts_of(model, len(CLIENTS))
    if not own:
        bias = [name for name in states[0] if name.endswith("bias") and own is None]
        states = [{**states[0], **{name: state[name] for name in bias}} for state in states]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = measure_together(model, TASK, CLIENTS, "test", states)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for client, state, measures in zip(CLIENTS, states, found, strict=True):
        model.load_state_dict(state)
        assert measures == pytest.approx(TASK.evaluate(model, client, "test"), abs=2e-5)


@norms
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_together_is_sgd_one_by_one(norm: str, momentum: float) -> None:
    assert_close(*both(norm, Settings(momentum=momentum)))


@norms
def test_adamw_together_is_adamw_one_by_one(norm: str) -> None:
    rate = 1e-3
    training = Settings(optimizer="adamw", weight_decay=0.1)
    # A bias that the norm takes away again has a gradient of rounding alone, and AdamW makes whole
    # steps of it: no two machines agree on them, and no output depends on them.
    found = both(norm, training, rate=rate, frozen=r"convs\.\d\.bias")
    assert_close(*found, atol=0.1 * rate)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("shared", [None, ("head.weight", "convs.0.weight")])
def test_fedprox_together_is_fedprox_one_by_one(norm: str, shared: tuple[str, ...] | None) -> None:
    free, _ = both(norm, Settings(momentum=0.0))
    held, single = both(norm, Settings(momentum=0.0), terms={"mu": 2.0}, shared=shared)
    assert_close(held, single)
    assert not torch.equal(held[0][1]["head.weight"], free[0][1]["head.weight"])


def test_scaffold_together_is_scaffold_one_by_one() -> None:
    model = TASK.build("group:2", 0)
    extras: list[State] = []
    for place in range(len(CLIENTS)):
        g = torch.Generator().manual_seed(place)
        own = {
            f"{KEPT}{n}": 0.1 * torch.randn(p.shape, generator=g)
            for n, p in model.named_parameters()
        }
        server = {f"{DOWN}{n}": torch.full_like(p, 0.05) for n, p in model.named_parameters()}
        # One client in two has not trained before.
        extras.append({**server, **(own if place % 2 else {})})
    together, single = both(
        "group:2", Settings(momentum=0.0), terms={"scaffold": True}, extras=extras
    )
    # Controls are changes over steps times rate: 10 times the noise of the weights.
    assert_close(together, single, atol=2e-4)
    assert f"{UP}head.weight" in together[0][0].sent


def test_running_statistics_and_counters_are_each_clients_own() -> None:
    together, single = both("batch", Settings())
    for (got, after), (_, wanted) in zip(together, single, strict=True):
        assert torch.equal(
            after["norms.0.num_batches_tracked"], wanted["norms.0.num_batches_tracked"]
        )
        assert after["norms.0.num_batches_tracked"].item() == got.steps
        torch.testing.assert_close(
            after["norms.1.running_var"], wanted["norms.1.running_var"], rtol=1e-4, atol=1e-5
        )


def test_frozen_parameters_keep_their_bits() -> None:
    together, single = both("batch", Settings(), frozen=r"convs\.0.*")
    assert_close(together, single)
    starts = starts_of(TASK.build("batch", 0), len(CLIENTS))
    for (_, after), start in zip(together, starts, strict=True):
        assert torch.equal(after["convs.0.weight"], start["convs.0.weight"])


def test_a_client_whose_loss_is_not_finite_stops_and_the_others_go_on() -> None:
    together, single = both("batch", Settings(), task=Rows({"a": 16, "b": 21, "c": 16}, poison="b"))
    assert math.isnan(together[1][0].loss)
    assert all(value.isfinite().all() for value in together[1][1].values())
    assert_close(together, single)


def test_clients_in_several_calls_are_clients_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = both("group:2", Settings())
    monkeypatch.setattr(engine, "AT_ONCE", 2)
    parts, _ = both("group:2", Settings())
    assert_close(parts, whole)


def test_batches_of_one_row_train_where_they_were_asked_for() -> None:
    task = Rows({"a": 3, "b": 5})
    together, single = both("layer", Settings(batch_size=1), task=task)
    assert_close(together, single)
    assert together[0][0].steps == 6


def test_the_starts_are_not_changed() -> None:
    model = TASK.build("batch", 0)
    starts = starts_of(model, 2)
    before = [{n: v.clone() for n, v in start.items()} for start in starts]
    train_together(model, TASK, ("a", "b"), 1, 0, Settings(), 0.1, starts, [{}, {}], {})
    for start, kept in zip(starts, before, strict=True):
        assert all(torch.equal(start[name], kept[name]) for name in kept)


# --- reasons ---------------------------------------------------------------------------------


def reason(model: nn.Module, task: Any = TASK) -> str:
    return why_not(model, task, CLIENTS, Settings(), {})


def test_dropout_is_a_reason() -> None:
    told = reason(Rows({"a": 4}, dropout=0.1).build("batch", 0))
    assert "dropout (Dropout) draws random numbers" in told
    assert reason(Rows({"a": 4}).build("batch", 0)) == ""


def test_attention_with_dropout_is_a_reason() -> None:
    attention = nn.Sequential(nn.MultiheadAttention(4, 2, dropout=0.1))
    assert "0 (MultiheadAttention) draws random numbers" in reason(attention)


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(160, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat: Tensor = self.head(F.dropout(x.flatten(1), 0.5))
        return flat


class Looking(Drawing):
    def forward(self, x: Tensor) -> Tensor:
        flat: Tensor = self.head(x.flatten(1))
        return flat if flat.sum().item() > 0 else -flat


def test_a_model_that_draws_without_a_module_for_it_is_found_by_the_trial() -> None:
    assert "cannot be run over stacked weights: vmap" in reason(Drawing())


def test_a_model_that_looks_at_values_is_found_by_the_trial() -> None:
    assert "cannot be run over stacked weights" in reason(Looking())


def test_a_batch_without_tensors_is_a_reason() -> None:
    class Odd(Rows):
        def batches(self, *arguments: Any) -> Iterator[Any]:
            yield ["ACGT", "GGCC"]

        def inputs(self, batch: Any) -> Any:
            return batch

    assert "a batch is list, not a tensor" in reason(nn.Linear(4, 1), Odd({"a": 2, **TASK.rows}))


def test_asking_changes_neither_the_model_nor_its_mode() -> None:
    model = TASK.build("batch", 0).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert reason(model) == ""
    assert not model.training
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)


def test_numbers_that_do_not_fit_are_an_error() -> None:
    model = TASK.build("batch", 0)
    with pytest.raises(InputError, match="2 clients, 1 starts and 2 extras"):
        train_together(
            model, TASK, ("a", "b"), 1, 0, Settings(), 0.1, [model.state_dict()], [{}, {}], {}
        )


def test_the_same_checks_as_one_by_one() -> None:
    model = TASK.build("batch", 0)
    with pytest.raises(InputError, match="plain SGD"):
        train_together(model, TASK, (), 1, 0, Settings(), 0.1, [], [], {"scaffold": True})
    with pytest.raises(InputError, match="learning_rate must be positive"):
        train_together(model, TASK, (), 1, 0, Settings(), -0.1, [], [], {})
