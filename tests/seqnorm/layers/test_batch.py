"""What BatchNorm1d does beyond its twin: frozen statistics, batches of a single value."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqnorm.layers import BatchNorm1d

C, L = 3, 7
LAYOUTS = pytest.mark.parametrize("layout", ["NCL", "NLC"])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def to(layout: str, x: Tensor) -> Tensor:
    return x if layout == "NCL" else x.transpose(1, 2).contiguous()


def trained(**options: Any) -> BatchNorm1d:
    """A layer whose statistics, weight and bias are none of their defaults."""
    norm = BatchNorm1d(C, **options)
    with torch.no_grad():
        norm.running_mean = torch.tensor([1.0, -2.0, 5.0])
        norm.running_var = torch.tensor([4.0, 0.25, 1.0])
        norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 0.5]))
    return norm


def state(norm: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(dict(norm.state_dict()))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# One valid value per channel, with and without a mask; none at all.
SINGLE: list[Any] = [
    pytest.param((1, C, 1), None, id="one"),
    pytest.param((2, C, L), torch.tensor([0, 1]), id="one-valid"),
    pytest.param((2, C, L), torch.tensor([0, 0]), id="none-valid"),
    pytest.param((0, C, L), None, id="empty"),
]


@LAYOUTS
@pytest.mark.parametrize(("shape", "lengths"), SINGLE)
def test_running_normalizes_a_single_value_as_evaluation_does(
    shape: tuple[int, ...], lengths: Tensor | None, layout: str
) -> None:
    norm = trained(on_single="running", layout=layout, activation="gelu")
    before = state(norm)
    x, residual = (to(layout, torch.randn(shape)) for _ in range(2))
    got = norm(x, lengths, residual)
    assert same(before, state(norm))
    assert torch.equal(got, norm.eval()(x, lengths, residual))


@LAYOUTS
@pytest.mark.parametrize(("shape", "lengths"), SINGLE)
def test_identity_applies_the_affine_map_to_a_single_value_as_it_is(
    shape: tuple[int, ...], lengths: Tensor | None, layout: str
) -> None:
    norm = trained(on_single="identity", layout=layout)
    before = state(norm)
    x, residual = torch.randn(shape), torch.randn(shape)
    count = shape[2] if lengths is None else lengths
    pad = (torch.arange(shape[2]) >= torch.as_tensor(count).reshape(-1, 1)).expand(
        shape[0], shape[2]
    )[:, None].expand(shape)  # fmt: skip
    dirty = [to(layout, t.masked_fill(pad, torch.nan)).requires_grad_() for t in (x, residual)]
    y = norm(dirty[0], lengths, dirty[1])
    expected = x * norm.weight[:, None] + norm.bias[:, None] + residual
    torch.testing.assert_close(y, to(layout, expected.masked_fill(pad, 0)))
    assert same(before, state(norm))
    y.sum().backward()
    assert norm.weight.grad is not None
    torch.testing.assert_close(norm.weight.grad, x.masked_fill(pad, 0).sum((0, 2)))
    for leaf in dirty:
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
        assert (leaf.grad[to(layout, pad)] == 0).all()


@pytest.mark.parametrize("on_single", ["error", "running", "identity"])
def test_two_values_are_enough_for_statistics(on_single: str) -> None:
    norm = trained(on_single=on_single)
    y = norm(torch.randn(2, C, L), torch.tensor([1, 1]))
    torch.testing.assert_close(
        (y[:, :, 0] - norm.bias).abs(), norm.weight.detach().abs().expand(2, C), rtol=1e-2, atol=0.0
    )
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("on_single", ["running", "identity"])
@pytest.mark.parametrize("lengths", [(0, 1), (0, 0), (7, 3)])
def test_a_compiled_layer_does_the_same_without_looking_at_the_values(
    on_single: str, lengths: tuple[int, int]
) -> None:
    norm = trained(on_single=on_single, momentum=None)
    twin = copy.deepcopy(norm)
    torch.compiler.reset()
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    a, b = (torch.ones(2, C, L).cumsum(2).requires_grad_() for _ in range(2))
    got, expected = compiled(a, torch.tensor(lengths)), twin(b, torch.tensor(lengths))
    torch.testing.assert_close(got, expected)
    got.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    for p, q in zip(norm.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    for name, value in state(twin).items():
        torch.testing.assert_close(norm.state_dict()[name], value)


@LAYOUTS
def test_frozen_training_is_evaluation_and_changes_no_statistics(layout: str) -> None:
    norm = trained(frozen=True, layout=layout).train()
    before = state(norm)
    x = to(layout, torch.randn(4, C, L)).requires_grad_()
    y = norm(x)
    y.square().sum().backward()
    assert same(before, state(norm))
    assert norm.training
    assert x.grad is not None
    twin = trained(layout=layout).eval()
    again = x.detach().requires_grad_()
    expected = twin(again)
    expected.square().sum().backward()
    assert torch.equal(y, expected)
    assert torch.equal(x.grad, again.grad)
    assert torch.equal(norm.weight.grad, twin.weight.grad)


def test_frozen_is_a_switch_that_survives_train_copy_and_pickle() -> None:
    norm = trained()
    norm(torch.randn(4, C, L))
    moved = state(norm)
    norm.frozen = True
    for one in (norm, copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        one.eval().train()
        one(torch.randn(4, C, L))
        assert same(moved, state(one))
        assert "frozen=True" in repr(one)
    norm.frozen = False
    norm(torch.randn(4, C, L))
    assert not same(moved, state(norm))


def test_frozen_takes_single_values_and_compiles() -> None:
    norm = trained(frozen=True)
    torch.compiler.reset()
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    x = torch.randn(1, C, 1)
    expected = (x - norm.running_mean[:, None]) / (norm.running_var[:, None] + 1e-5).sqrt()
    expected = expected * norm.weight[:, None] + norm.bias[:, None]
    torch.testing.assert_close(compiled(x), expected)
    assert norm.num_batches_tracked == 0


def test_wrong_options_are_named() -> None:
    with pytest.raises(ValueError, match=r"on_single must be one of 'error', .*got 'skip'"):
        BatchNorm1d(C, on_single="skip")
    with pytest.raises(ValueError, match="on_single='running' needs running statistics"):
        BatchNorm1d(C, track_running_stats=False, on_single="running")
    with pytest.raises(ValueError, match="frozen=True needs running statistics; pass track"):
        BatchNorm1d(C, track_running_stats=False, frozen=True)
    norm = BatchNorm1d(C, track_running_stats=False)
    norm.frozen = True
    with pytest.raises(ValueError, match=r"no running statistics .*set frozen=False"):
        norm(torch.randn(2, C, L))
    with pytest.raises(ValueError, match=r"1 valid of 1 positions .*on_single='running' or"):
        BatchNorm1d(C)(torch.randn(1, C, 1))
