"""GhostBatchNorm1d against BatchNorm of each virtual batch."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqnorm.layers import BatchNorm1d, GhostBatchNorm1d

C, L = 3, 5


@given(batch=st.integers(1, 11), size=st.integers(1, 12), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_each_virtual_batch_is_normalized_alone(batch: int, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    x = (torch.randn(batch, C, L) + torch.arange(batch)[:, None, None]).requires_grad_()
    norm = GhostBatchNorm1d(C, size)
    y = norm(x)
    # Those that are left over join the last one.
    starts = [size * i for i in range(max(batch // size, 1))]
    stops = [*starts[1:], batch]
    expected = torch.cat([nn.BatchNorm1d(C)(x[a:b]) for a, b in zip(starts, stops, strict=True)])
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    slopes = torch.randn_like(y)
    (got,) = torch.autograd.grad(y, x, slopes)
    torch.testing.assert_close(
        got, torch.autograd.grad(expected, x, slopes)[0], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_running_statistics_are_those_of_the_whole_batch(
    momentum: float | None, padded: bool, offset: float
) -> None:
    torch.manual_seed(0)
    norm, whole = GhostBatchNorm1d(C, 2, momentum=momentum), BatchNorm1d(C, momentum=momentum)
    for _ in range(3):
        # Virtual batches of different means: most of the variance is between them.
        x = torch.randn(7, C, L) + 10 * torch.arange(7)[:, None, None] + offset
        lengths = torch.tensor([5, 0, 2, 2, 3, 1, 4]) if padded else None
        norm(x, lengths)
        whole(x, lengths)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value, rtol=1e-6, atol=1e-6)


def test_in_evaluation_it_is_batch_norm_and_loads_its_state() -> None:
    whole = BatchNorm1d(C)
    whole(torch.randn(4, C, L))
    norm = GhostBatchNorm1d(C, 2)
    norm.load_state_dict(whole.state_dict())
    x = torch.randn(4, C, L)
    assert torch.equal(norm.eval()(x), whole.eval()(x))


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
def test_lengths_and_residual_go_with_their_virtual_batch(layout: str) -> None:
    torch.manual_seed(0)
    shape = (5, C, L) if layout == "NCL" else (5, L, C)
    x, residual, lengths = torch.randn(shape), torch.randn(shape), torch.tensor([5, 3, 2, 4, 1])
    options: dict[str, Any] = {"layout": layout, "activation": "relu"}
    y = GhostBatchNorm1d(C, 2, **options)(x, lengths, residual)
    for a, b in ((0, 2), (2, 5)):
        expected = BatchNorm1d(C, **options)(x[a:b], lengths[a:b], residual[a:b])
        assert torch.equal(y[a:b], expected)


def test_a_virtual_batch_of_one_value_is_a_batch_of_one_value() -> None:
    x, lengths = torch.randn(4, C, L), torch.tensor([5, 5, 1, 0])
    with pytest.raises(ValueError, match="1 valid of 10 positions"):
        GhostBatchNorm1d(C, 2)(x, lengths)
    norm, whole = GhostBatchNorm1d(C, 2, on_single="identity"), BatchNorm1d(C)
    y = norm(x, lengths)
    assert torch.equal(y[2, :, 0], x[2, :, 0])
    # The single value still belongs to the whole batch.
    whole(x, lengths)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value)


def test_a_size_that_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="ghost_size must be at least 1 sequence, got 0"):
        GhostBatchNorm1d(C, 0)
    assert repr(GhostBatchNorm1d(C, 4)).endswith("ghost_size=4)")
