import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from seqnorm.models.pooling import POOLINGS, GlobalPool, attend, average, maximum

seeds = st.integers(0, 2**32 - 1)
LENGTHS = torch.tensor([1, 6, 3])


def pooled(kind: str, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    torch.manual_seed(0)
    y: Tensor = GlobalPool(kind, x.shape[1]).to(x.dtype)(x, lengths)
    return y.detach()


def drawn(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@settings(max_examples=25)
@given(seeds)
def test_attention_is_the_mean_by_a_softmax_over_positions(seed: int) -> None:
    x, weight = drawn(seed, 3, 5, 6), drawn(seed + 1, 5)
    pool = GlobalPool("attention", 5).double()
    pool.load_state_dict({"score.weight": weight[None]})
    y = pool(x, LENGTHS).detach()
    for row, length in enumerate(LENGTHS.tolist()):
        weights = [math.exp(float(weight @ x[row, :, i])) for i in range(length)]
        expected = sum(w * x[row, :, i] for i, w in enumerate(weights)) / sum(weights)
        torch.testing.assert_close(y[row], expected)
    torch.testing.assert_close(attend(x, torch.zeros(3, 6), None), x.mean(-1))
    one = torch.full((3, 6), -1e4).index_fill(1, torch.tensor(2), 1e4)
    torch.testing.assert_close(attend(x, one, None), x[..., 2])


@settings(max_examples=25)
@given(seeds)
def test_the_other_pools_are_the_maximum_and_the_mean(seed: int) -> None:
    x = drawn(seed, 3, 5, 6)
    rows = [x[i, :, :n] for i, n in enumerate(LENGTHS.tolist())]
    largest, mean = torch.stack([r.amax(1) for r in rows]), torch.stack([r.mean(1) for r in rows])
    assert maximum(x, LENGTHS).equal(largest)
    torch.testing.assert_close(average(x, LENGTHS), mean)
    assert pooled("max", x, LENGTHS).equal(largest)
    both = torch.cat([pooled("max", x, LENGTHS), pooled("mean", x, LENGTHS)], dim=1)
    assert pooled("max_mean", x, LENGTHS).equal(both)


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("padding", [math.nan, math.inf, -math.inf, 1e30])
def test_padding_has_no_influence_and_gets_no_gradient(kind: str, padding: float) -> None:
    x = drawn(0, 3, 5, 6)
    padded = F.pad(x, (0, 4), value=padding).requires_grad_()
    lengths = torch.tensor([6, 6, 6])
    torch.testing.assert_close(pooled(kind, padded.detach(), lengths), pooled(kind, x))
    GlobalPool(kind, 5).double()(padded, lengths).square().sum().backward()
    assert padded.grad is not None
    assert (padded.grad[..., 6:] == 0).all()
    assert (padded.grad[..., :6] != 0).any()


@pytest.mark.parametrize("kind", POOLINGS)
def test_a_sequence_without_a_valid_position_gives_zeros(kind: str) -> None:
    x = torch.full((2, 3, 4), math.nan)
    y = pooled(kind, x, torch.tensor([0, 0]))
    assert y.equal(torch.zeros(2, 6 if kind == "max_mean" else 3))


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_pooled_in_single(kind: str, dtype: torch.dtype) -> None:
    x = (10 + drawn(1, 2, 4, 20_000)).to(dtype)
    torch.manual_seed(0)
    pool = GlobalPool(kind, 4).to(dtype)
    exact = pool.double()(x.double())
    mine = pool.to(dtype)(x, torch.tensor([20_000, 20_000]))
    assert mine.dtype == dtype
    torch.testing.assert_close(mine.double(), exact, rtol=torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("kind", POOLINGS)
def test_the_order_of_positions_does_not_matter(kind: str) -> None:
    x = drawn(3, 2, 4, 9)
    torch.testing.assert_close(pooled(kind, x.flip(2)), pooled(kind, x))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("maxmean", r"no pooling 'maxmean'; did you mean 'max_mean'\? Valid: max_mean, max, mean"),
        (None, "no pooling None; Valid: "),
        ("", "no pooling ''; Valid: .* attention$"),
        (["max"], r"no pooling \['max'\]"),
    ],
)
def test_a_pooling_that_does_not_exist_is_refused_in_one_line(kind: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GlobalPool(kind, 4)
