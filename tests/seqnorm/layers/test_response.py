"""FilterResponseNorm1d against the formula of the paper in float64."""

import pytest
import torch
from torch import Tensor

from seqnorm.layers import FilterResponseNorm1d

N, C, L = 3, 4, 9
LENGTHS = torch.tensor([9, 4, 1])
LAYOUTS = pytest.mark.parametrize("layout", ["NCL", "NLC"])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def build(**options: object) -> FilterResponseNorm1d:
    norm = FilterResponseNorm1d(C, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for p in norm.parameters():
            p.add_(torch.randn(C) * 0.3)
    return norm


def by_hand(norm: FilterResponseNorm1d, x: Tensor, residual: Tensor) -> Tensor:
    """One sequence ``(C, n)``."""
    nu2 = x.square().mean(1, keepdim=True)
    eps = torch.tensor(norm.eps) if norm.learned_eps is None else 1e-6 + norm.learned_eps.abs()
    y = norm.weight[:, None] * x / (nu2 + eps.double().view(-1, 1)).sqrt() + norm.bias[:, None]
    return torch.maximum(y + residual, norm.tau[:, None])


@LAYOUTS
@pytest.mark.parametrize("learn_eps", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e4])
def test_outputs_and_gradients_are_those_of_the_formula(
    layout: str, learn_eps: bool, scale: float
) -> None:
    norm = build(eps=1e-4, learn_eps=learn_eps, layout=layout)
    axes = (0, 1, 2) if layout == "NCL" else (0, 2, 1)
    x, residual = torch.randn(N, C, L) * scale, torch.randn(N, C, L)
    got_x = x.clone().requires_grad_()
    got = norm(got_x.permute(axes), LENGTHS, residual.permute(axes)).permute(axes)
    exact = x.double().requires_grad_()
    wide = build(eps=1e-4, learn_eps=learn_eps).double()
    wide.load_state_dict(norm.state_dict())
    slopes = torch.randn(N, C, L)
    total = torch.zeros((), dtype=torch.float64)
    for i, n in enumerate(LENGTHS.tolist()):
        y = by_hand(wide, exact[i, :, :n], residual[i, :, :n].double())
        torch.testing.assert_close(got[i, :, :n].double(), y, rtol=1e-5, atol=1e-5)
        assert (got[i, :, n:] == 0).all()
        total = total + (y * slopes[i, :, :n]).sum()
    grads = torch.autograd.grad(got, (got_x, *norm.parameters()), slopes)
    wanted = torch.autograd.grad(total, (exact, *wide.parameters()))
    for one, other in zip(grads, wanted, strict=True):
        size = max(other.abs().max().item(), 1e-12)
        torch.testing.assert_close(one.double() / size, other / size, rtol=1e-4, atol=1e-5)


def test_it_begins_as_a_norm_and_a_relu() -> None:
    x = torch.randn(N, C, L)
    expected = torch.relu(x / (x.square().mean(2, keepdim=True) + 1e-6).sqrt())
    torch.testing.assert_close(FilterResponseNorm1d(C)(x), expected, rtol=1e-5, atol=1e-6)


def test_the_threshold_learns_from_valid_positions_below_it_alone() -> None:
    norm = FilterResponseNorm1d(C)
    x = torch.randn(N, C, L)
    norm(x, LENGTHS).sum().backward()
    valid = (torch.arange(L) < LENGTHS[:, None])[:, None]
    assert norm.tau.grad is not None
    torch.testing.assert_close(norm.tau.grad, ((x < 0) & valid).sum((0, 2)).float())


def test_parameters_are_named_as_in_the_paper_and_reset() -> None:
    norm = build(learn_eps=True, eps=1e-4)
    assert list(norm.state_dict()) == ["weight", "bias", "tau", "learned_eps"]
    assert list(build().state_dict()) == ["weight", "bias", "tau"]
    norm.reset_parameters()
    starts = {name: p.unique().item() for name, p in norm.named_parameters()}
    expected = {"weight": 1.0, "bias": 0.0, "tau": 0.0, "learned_eps": 1e-4}
    assert starts == pytest.approx(expected)
    assert "learn_eps=True" in repr(norm)
