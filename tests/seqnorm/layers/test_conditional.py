"""FiLM and AdaIN against their formulas in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqnorm.kinds import NORM_KINDS
from seqnorm.layers import AdaIN, FiLM, make_norm

N, C, L, K = 3, 8, 9, 2
LENGTHS = torch.tensor([9, 4, 1])
LAYOUTS = pytest.mark.parametrize("layout", ["NCL", "NLC"])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def to(layout: str, x: Tensor) -> Tensor:
    return x if layout == "NCL" else x.transpose(1, 2).contiguous()


# --- FiLM -------------------------------------------------------------------------------------


@LAYOUTS
@pytest.mark.parametrize("kind", NORM_KINDS)
def test_film_begins_as_the_norm_alone_whatever_the_condition(kind: str, layout: str) -> None:
    film, norm = FiLM(C, K, kind, layout=layout), make_norm(kind, C, layout)
    x, condition = to(layout, torch.randn(N, C, L)), torch.randn(N, K) * 100
    torch.testing.assert_close(film(x, LENGTHS, condition=condition), norm(x, LENGTHS))
    assert {name for name, _ in film.named_parameters()} == {"linear.weight", "linear.bias"}


@LAYOUTS
@pytest.mark.parametrize("kind", ["batch", "layer", "none"])
def test_film_scales_and_shifts_each_sequence_by_its_condition(kind: str, layout: str) -> None:
    film = FiLM(C, K, kind, layout=layout, activation="relu")
    nn.init.normal_(film.linear.weight)
    nn.init.normal_(film.linear.bias)
    x, residual, condition = torch.randn(N, C, L), torch.randn(N, C, L), torch.randn(N, K)
    got = film(to(layout, x), LENGTHS, to(layout, residual), condition=condition)
    plain = make_norm(kind, C)(x, LENGTHS)
    expected = torch.zeros(N, C, L)
    for i in range(N):
        both = film.linear.weight @ condition[i] + film.linear.bias
        gamma, beta = 1 + both[:C, None], both[C:, None]
        expected[i] = torch.relu(gamma * plain[i] + beta + residual[i])
        expected[i, :, LENGTHS[i] :] = 0
    torch.testing.assert_close(got, to(layout, expected), rtol=1e-5, atol=1e-5)


def test_film_learns_from_valid_positions_alone() -> None:
    film = FiLM(C, K, "layer")
    x = torch.randn(N, C, L, requires_grad=True)
    condition = torch.randn(N, K, requires_grad=True)
    nn.init.normal_(film.linear.weight)
    film(x, torch.tensor([9, 4, 0]), condition=condition).square().sum().backward()
    assert condition.grad is not None
    assert (condition.grad[:2] != 0).all()
    assert (condition.grad[2] == 0).all()


def test_film_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"condition must have shape \(3, 2\).*got \(2,\)"):
        FiLM(C, K)(torch.randn(N, C, L), condition=torch.randn(K))
    with pytest.raises(ValueError, match="unknown norm 'bacth'; did you mean 'batch'"):
        FiLM(C, K, "bacth")


# --- AdaIN ------------------------------------------------------------------------------------


def by_hand(x: Tensor, n: int, mean: Tensor, std: Tensor, eps: float) -> Tensor:
    """One sequence ``(C, L)`` of n valid positions, in float64."""
    cut = x[:, :n].double()
    z = (cut - cut.mean(1, keepdim=True)) / (cut.var(1, correction=0, keepdim=True) + eps).sqrt()
    return torch.cat([z * std[:, None] + mean[:, None], torch.zeros(C, x.shape[1] - n)], dim=1)


@LAYOUTS
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_adain_gives_the_statistics_of_the_valid_part_of_a_style(
    layout: str, offset: float
) -> None:
    x, style = torch.randn(N, C, L) * 3 + offset, torch.randn(N, C, 6) * 0.5 - 2
    style_lengths = torch.tensor([6, 2, 3])
    pad = torch.arange(6) >= style_lengths[:, None]
    dirty = style.masked_fill(pad[:, None], torch.nan).requires_grad_()
    norm = AdaIN(eps=1e-3, layout=layout)
    got = norm(to(layout, x), LENGTHS, style=to(layout, dirty), style_lengths=style_lengths)
    exact = style.double().requires_grad_()
    rows = []
    for i in range(N):
        cut = exact[i, :, : style_lengths[i]]
        mean, std = cut.mean(1), (cut.var(1, correction=0) + 1e-3).sqrt()
        rows.append(by_hand(x[i], int(LENGTHS[i]), mean, std, 1e-3))
    expected = torch.stack(rows)
    torch.testing.assert_close(to(layout, got).double(), expected, rtol=1e-5, atol=1e-5)
    slopes = torch.randn(N, C, L)
    (grad,) = torch.autograd.grad(to(layout, got), dirty, slopes)
    (wanted,) = torch.autograd.grad(expected, exact, slopes.double())
    torch.testing.assert_close(grad.double(), wanted, rtol=1e-4, atol=1e-5)
    assert (grad.transpose(1, 2)[pad] == 0).all()


@LAYOUTS
def test_adain_takes_given_statistics_and_learns_them(layout: str) -> None:
    x = torch.randn(N, C, L)
    mean, std = (torch.randn(N, C).requires_grad_() for _ in range(2))
    got = to(layout, AdaIN(layout=layout)(to(layout, x), LENGTHS, statistics=(mean, std)))
    rows = [by_hand(x[i], int(LENGTHS[i]), mean[i], std[i], 1e-5) for i in range(N)]
    torch.testing.assert_close(got.double(), torch.stack(rows), rtol=1e-5, atol=1e-5)
    got.sum().backward()
    assert mean.grad is not None
    torch.testing.assert_close(mean.grad, LENGTHS[:, None].expand(N, C).float())


def test_a_sequence_in_its_own_style_comes_out_as_it_is() -> None:
    x = torch.randn(N, C, L) * 5 + 3
    y = AdaIN()(x, LENGTHS, style=x, style_lengths=LENGTHS)
    keep = (torch.arange(L) < LENGTHS[:, None])[:, None]
    torch.testing.assert_close(y, torch.where(keep, x, 0), rtol=1e-5, atol=1e-5)


def test_the_statistics_of_a_style_keep_their_digits_at_a_large_offset() -> None:
    style = torch.randn(2, C, 200)
    errors = []
    for offset in (0.0, 1e5):
        shifted = style + offset
        _, std = AdaIN()._of_style(shifted, None, (2, C))
        exact = (shifted.double().var(2, correction=0) + 1e-5).sqrt()
        errors.append((std - exact).abs().max().item())
    assert errors[1] <= 4 * errors[0], errors


x = torch.randn(N, C, L)
WRONG: list[Any] = [
    ({}, r"pass either style= or statistics=\(mean, std\)"),
    ({"style": x, "statistics": (x, x)}, r"pass either style= or statistics"),
    ({"style": x[:2]}, r"style must be .*N=3 and C=8 as the input, got shape \(2, 8, 9\)"),
    ({"style": x[:, :2]}, r"N=3 and C=8 as the input, got shape \(3, 2, 9\)"),
    ({"style": x[0]}, r"style must be of axes \(N, C, L\) .*got shape \(8, 9\)"),
    ({"style": x, "style_lengths": torch.tensor([9, 0, 1])}, r"style\[1\] has no valid position"),
    ({"style": x, "style_lengths": torch.tensor([9, 10, 1])}, r"lengths\[1\] = 10 is outside"),
    ({"statistics": (x[:, :, 0], x[0, :, 0])}, r"the std in statistics .*\(3, 8\).*got \(8,\)"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_adain_names_what_is_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        AdaIN()(x, **arguments)
    assert "\n" not in str(raised.value)
