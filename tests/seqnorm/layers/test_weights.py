"""WSConv1d against a convolution with weights standardized by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.layers import WSConv1d

N, L = 3, 12
LENGTHS = torch.tensor([12, 7, 0])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def by_hand(weight: Tensor, eps: float) -> Tensor:
    flat = weight.double().flatten(1)
    mean, var = flat.mean(1, keepdim=True), flat.var(1, correction=0, keepdim=True)
    return ((flat - mean) / (var + eps).sqrt()).view(weight.shape)


OPTIONS: list[dict[str, Any]] = [
    {"padding": "same"},
    {"padding": 1, "stride": 2, "dilation": 2},
    {"groups": 2, "bias": False},
    {"padding": 2, "padding_mode": "circular"},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("layout", ["NCL", "NLC"])
def test_it_is_a_convolution_with_standardized_filters(
    options: dict[str, Any], layout: str
) -> None:
    conv = WSConv1d(4, 6, 3, eps=1e-3, layout=layout, **options)
    plain = nn.Conv1d(4, 6, 3, **options)
    plain.load_state_dict(conv.state_dict())
    weight = by_hand(conv.weight, 1e-3)
    torch.testing.assert_close(conv.standardized().double(), weight, rtol=1e-5, atol=1e-5)
    x = torch.randn(N, 4, L)
    given = {"weight": weight.float()}
    expected = torch.func.functional_call(plain, given, (x,))
    axes = (0, 1, 2) if layout == "NCL" else (0, 2, 1)
    got = conv(x.permute(axes)).permute(axes)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    one = conv(x[0] if layout == "NCL" else x[0].T)
    torch.testing.assert_close(one, got.permute(axes)[0], rtol=1e-4, atol=1e-5)


def test_gradients_of_weights_are_those_of_the_formula() -> None:
    conv = WSConv1d(4, 6, 3, padding=1)
    x, slopes = torch.randn(N, 4, L), torch.randn(N, 6, L)
    (got,) = torch.autograd.grad(conv(x), conv.weight, slopes)
    exact = conv.weight.detach().double().requires_grad_()
    assert conv.bias is not None
    y = F.conv1d(x.double(), by_hand(exact, 1e-5), conv.bias.double(), padding=1)
    (wanted,) = torch.autograd.grad(y, exact, slopes.double())
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max())
    # What standardization takes away cannot be learnt.
    assert got.sum((1, 2)).abs().max() < 1e-4 * got.abs().max()


def test_a_common_offset_of_a_filter_changes_nothing_however_large() -> None:
    conv = WSConv1d(4, 6, 9)
    errors = []
    for offset in (0.0, 1e5):
        with torch.no_grad():
            conv.weight.copy_(torch.randn(conv.weight.shape) + offset)
        exact = by_hand(conv.weight, 1e-5)
        errors.append((conv.standardized() - exact).abs().max().item())
    assert errors[1] <= 4 * errors[0], errors


@pytest.mark.parametrize(
    ("options", "out"),
    [({"padding": "same"}, lambda n: n), ({"padding": 2}, lambda n: n),
     ({"padding": 1}, lambda n: n - 2), ({"padding": 2, "stride": 2}, lambda n: (n + 1) // 2)],
)  # fmt: skip
def test_a_padded_batch_equals_its_sequences_one_by_one(options: Any, out: Any) -> None:
    conv = WSConv1d(4, 6, 5, **options)
    pad = (torch.arange(L) >= LENGTHS[:, None])[:, None].expand(N, 4, L)
    x = torch.randn(N, 4, L).masked_fill(pad, torch.nan).requires_grad_()
    y = conv(x, LENGTHS)
    for i, n in enumerate(LENGTHS.tolist()[:2]):
        alone = conv(x[i : i + 1, :, :n])[0]
        assert alone.shape[1] == out(n)
        torch.testing.assert_close(y[i, :, : out(n)], alone, rtol=1e-5, atol=1e-5)
        if y.shape[2] == L:
            assert (y[i, :, n:] == 0).all()
    y.square().sum().backward()
    assert x.grad is not None
    assert (x.grad[pad] == 0).all()
    assert x.grad.isfinite().all()
    assert conv.weight.grad is not None
    assert conv.weight.grad.isfinite().all()


def test_a_single_sequence_has_a_single_length() -> None:
    conv = WSConv1d(4, 6, 5, padding="same")
    x = torch.randn(4, L)
    got = conv(x, torch.tensor([7]))
    torch.testing.assert_close(got[:, :7], conv(x[:, :7]), rtol=1e-5, atol=1e-5)
    assert (got[:, 7:] == 0).all()


def test_it_loads_the_state_of_a_convolution() -> None:
    plain = nn.Conv1d(4, 6, 5)
    conv = WSConv1d(4, 6, 5)
    assert list(conv.state_dict()) == list(plain.state_dict())
    conv.load_state_dict(plain.state_dict())
    assert isinstance(conv, nn.Conv1d)
    assert torch.equal(conv.weight, plain.weight)
    assert repr(conv) == "WSConv1d(4, 6, kernel_size=(5,), stride=(1,), layout=NCL)"


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"filter of shape \(1, 1\) has one weight, .*wider kernel"
    ):
        WSConv1d(1, 6, 1)
    with pytest.raises(ValueError, match=r"filter of shape \(1, 1\)"):
        WSConv1d(6, 6, 1, groups=6)
    with pytest.raises(ValueError, match="lengths need padding_mode='zeros', got 'reflect'"):
        WSConv1d(4, 6, 3, padding=1, padding_mode="reflect")(torch.randn(N, 4, L), LENGTHS)
    with pytest.raises(ValueError, match="layout must be 'NCL' or 'NLC', got 'NHWC'"):
        WSConv1d(4, 6, 3, layout="NHWC")
