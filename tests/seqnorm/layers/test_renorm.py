"""BatchRenorm1d against the formula of the paper in float64."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqnorm.layers import BatchNorm1d, BatchRenorm1d

C, L = 3, 6


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def layer(mean: tuple[float, ...], var: tuple[float, ...], **options: Any) -> BatchRenorm1d:
    norm = BatchRenorm1d(C, **options)
    with torch.no_grad():
        norm.running_mean = torch.tensor(mean)
        norm.running_var = torch.tensor(var)
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 3.0]))
    return norm


def by_hand(norm: BatchRenorm1d, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 1 of the paper for rows of channels ``(values, C)``, in float64; r and d."""
    mean, var = rows.mean(0), rows.var(0, correction=0)
    sigma = (var + norm.eps).sqrt()
    running = (norm.running_var.double() + norm.eps).sqrt()
    r = (sigma / running).detach().clamp(1 / norm.r_max, norm.r_max)
    d = ((mean - norm.running_mean.double()) / running).detach().clamp(-norm.d_max, norm.d_max)
    y = ((rows - mean) / sigma * r + d) * norm.weight.double() + norm.bias.double()
    return y, r, d


# The first clips nothing, the second clips r above and below and d on both sides.
RUNNING = {
    "free": ((0.1, -0.2, 0.0), (1.2, 0.8, 1.0)),
    "clipped": ((9.0, -9.0, 0.0), (0.01, 100.0, 1.0)),
}


@pytest.mark.parametrize("running", list(RUNNING))
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_outputs_and_gradients_are_those_of_the_formula(running: str, padded: bool) -> None:
    norm = layer(*RUNNING[running])
    lengths = torch.tensor([6, 2, 0, 4]) if padded else torch.full((4,), L)
    valid = torch.arange(L) < lengths[:, None]
    x = torch.randn(4, C, L).masked_fill(~valid[:, None], torch.nan).requires_grad_()
    rows = x.detach().transpose(1, 2)[valid].double().requires_grad_()
    expected, r, d = by_hand(norm, rows)
    clipped = ((r == 3) | (r == 1 / 3) | (d.abs() == 5)).any()
    assert clipped == (running == "clipped")
    y = norm(x, lengths if padded else None)
    torch.testing.assert_close(y.transpose(1, 2)[valid].double(), expected, rtol=1e-5, atol=1e-5)
    slopes = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, (rows, norm.weight, norm.bias), slopes)
    full = torch.zeros(4, L, C)
    full[valid] = slopes.float()
    got = torch.autograd.grad(y, (x, norm.weight, norm.bias), full.transpose(1, 2))
    near = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(got[0].transpose(1, 2)[valid].double(), wanted[0], **near)
    assert (got[0].transpose(1, 2)[~valid] == 0).all()
    for a, b in zip(got[1:], wanted[1:], strict=True):
        torch.testing.assert_close(a, b.float(), **near)


def test_without_room_for_a_correction_it_is_batch_norm() -> None:
    norm, plain = BatchRenorm1d(C, r_max=1, d_max=0), BatchNorm1d(C)
    for _ in range(3):
        x = torch.randn(4, C, L) * 3 + 2
        torch.testing.assert_close(norm(x), plain(x), rtol=1e-5, atol=1e-5)
    for name, value in plain.state_dict().items():
        assert torch.equal(norm.state_dict()[name], value)


def test_with_all_the_room_training_gives_what_evaluation_gives() -> None:
    norm = layer(*RUNNING["clipped"], r_max=1e9, d_max=1e9)
    x = torch.randn(4, C, L)
    evaluation = copy.deepcopy(norm).eval()(x)
    torch.testing.assert_close(norm(x), evaluation, rtol=1e-5, atol=1e-5)


def test_the_bounds_can_be_moved_in_training_also_of_a_compiled_layer() -> None:
    norm = layer(*RUNNING["clipped"])
    twin = copy.deepcopy(norm)
    torch.compiler.reset()
    compiled = torch.compile(norm, fullgraph=True, backend="eager")
    x = torch.randn(4, C, L)
    for bounds in ((1.0, 0.0), (2.0, 3.0), (3.0, 5.0)):
        for one in (norm, twin):
            one.r_max, one.d_max = bounds
        torch.testing.assert_close(compiled(x), twin(x))


def test_a_compiled_batch_without_a_valid_value_stays_finite() -> None:
    norm = layer(*RUNNING["free"])
    torch.compiler.reset()
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, C, L).requires_grad_()
    y = compiled(x, torch.zeros(2, dtype=torch.int64))
    y.sum().backward()
    assert (y == 0).all()
    for leaf in (x, norm.weight, norm.bias):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    assert norm.num_batches_tracked == 0


def test_the_error_against_float64_does_not_grow_with_the_offset() -> None:
    base = torch.randn(8, C, 100)
    errors = []
    for offset in (0.0, 1e3, 1e5):
        norm = layer((offset,) * C, (1.1, 0.9, 1.3))
        x = base + offset
        expected, _, _ = by_hand(norm, x.transpose(1, 2).reshape(-1, C).double())
        got = norm(x).transpose(1, 2).reshape(-1, C).double()
        errors.append((got - expected).abs().max().item())
    assert max(errors) <= 4 * errors[0], errors


def test_it_loads_the_state_of_batch_norm_and_is_it_in_evaluation() -> None:
    plain = nn.BatchNorm1d(C)
    plain(torch.randn(4, C, L))
    norm = BatchRenorm1d(C)
    norm.load_state_dict(plain.state_dict())
    x = torch.randn(4, C, L)
    torch.testing.assert_close(norm.eval()(x), plain.eval()(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"r_max": 0.5}, "r_max must be at least 1, .*got 0.5"),
        ({"r_max": float("nan")}, "r_max must be at least 1, .*got nan"),
        ({"d_max": -1.0}, "d_max must be at least 0, .*got -1.0"),
    ],
)
def test_bounds_that_cannot_be_are_named(bounds: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchRenorm1d(C, **bounds)  # type: ignore[arg-type]
