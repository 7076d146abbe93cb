"""DynamicTanh against its formula."""

import pytest
import torch

from seqnorm.layers import DynamicTanh

N, C, L = 3, 4, 9


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
def test_outputs_and_gradients_are_those_of_the_formula(layout: str) -> None:
    torch.manual_seed(0)
    norm = DynamicTanh(C, alpha=0.8, layout=layout)
    with torch.no_grad():
        for p in norm.parameters():
            p.add_(torch.randn(p.shape) * 0.3)
    axes = (0, 1, 2) if layout == "NCL" else (0, 2, 1)
    x = torch.randn(N, C, L)
    slopes = torch.randn(N, C, L)
    exact = [p.detach().double().requires_grad_() for p in norm.parameters()]
    alpha, weight, bias = exact
    expected = torch.tanh(alpha * x.double()) * weight[:, None] + bias[:, None]
    got = norm(x.permute(axes)).permute(axes)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
    grads = torch.autograd.grad(got, list(norm.parameters()), slopes)
    wanted = torch.autograd.grad(expected, exact, slopes.double())
    for one, other in zip(grads, wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_it_bounds_what_has_no_bound() -> None:
    y = DynamicTanh(1)(torch.tensor([[[-1e30, 0.0, 1e30, torch.inf]]]))
    assert y.flatten().tolist() == [-1.0, 0.0, 1.0, 1.0]


def test_parameters_are_named_as_in_the_paper_optional_and_reset() -> None:
    norm = DynamicTanh(C, alpha=0.3)
    assert {name: p.shape for name, p in norm.named_parameters()} == {
        "alpha": (1,),
        "weight": (C,),
        "bias": (C,),
    }
    assert list(DynamicTanh(C, bias=False).state_dict()) == ["alpha", "weight"]
    assert list(DynamicTanh(C, affine=False).state_dict()) == ["alpha"]
    for p in norm.parameters():
        p.data.fill_(9)
    norm.reset_parameters()
    starts = [p.unique().item() for p in norm.parameters()]
    assert starts == pytest.approx([0.3, 1.0, 0.0])
