import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqnorm.moments import Moments, wide_dtype

numbers = st.floats(-1e6, 1e6, allow_nan=False)
chunks = st.lists(st.lists(numbers, max_size=6), min_size=1, max_size=6)


def row(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_same(left: Moments, right: Moments) -> None:
    torch.testing.assert_close(left.count, right.count, rtol=0, atol=0)
    torch.testing.assert_close(left.mean, right.mean, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(left.m2, right.m2, rtol=1e-9, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(chunks)
def test_merging_in_turn_or_at_once_equals_the_moments_of_the_concatenation(
    parts: list[list[float]],
) -> None:
    whole = Moments.of(row([value for part in parts for value in part]), 0)
    taken = [Moments.of(row(part), 0) for part in parts]
    merged = taken[0]
    for part in taken[1:]:
        merged = merged.merge(part)
    assert_same(merged, whole)
    assert_same(Moments.merge_all(taken), whole)


def test_moments_agree_with_torch() -> None:
    x = torch.randn(5, 3, 7, dtype=torch.float64)
    got = Moments.of(x, (0, 2))
    torch.testing.assert_close(got.mean, x.mean((0, 2)))
    torch.testing.assert_close(got.var(), x.var((0, 2), correction=0))
    torch.testing.assert_close(got.var(correction=1), x.var((0, 2)))
    assert got.count.tolist() == [35.0] * 3


def test_rows_merged_over_the_batch_are_the_moments_of_channels() -> None:
    x = torch.randn(5, 3, 7)
    mask = torch.arange(7) < torch.tensor([7, 3, 0, 1, 5])[:, None, None]
    rows = Moments.of(x, 2, mask)
    assert rows.mean.shape == (5, 3)
    assert_same(rows.over(0), Moments.of(x, (0, 2), mask))
    shared_count = Moments(rows.count[:, :1], rows.mean, rows.m2)
    assert_same(shared_count.over(0), Moments.of(x, (0, 2), mask))


def test_masked_values_have_no_influence_even_if_nan() -> None:
    x = torch.tensor([[1.0, 3.0, torch.nan], [torch.inf, torch.nan, torch.nan]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    got = Moments.of(x, 1, mask)
    assert got.count.tolist() == [2.0, 0.0]
    assert got.mean.tolist() == [2.0, 0.0]
    assert got.m2.tolist() == [2.0, 0.0]


def test_an_empty_set_changes_nothing_when_merged() -> None:
    full, empty = Moments.of(row([1.0, 4.0]), 0), Moments.of(row([]), 0)
    for merged in (full.merge(empty), empty.merge(full)):
        assert (merged.count, merged.mean, merged.m2) == (2.0, 2.5, 4.5)
    nothing = empty.merge(empty)
    assert (nothing.count, nothing.mean, nothing.m2) == (0.0, 0.0, 0.0)


def test_a_large_mean_does_not_spoil_the_variance() -> None:
    left, right = row([1e9, 1e9 + 1]), row([1e9 + 2])
    merged = Moments.of(left, 0).merge(Moments.of(right, 0))
    assert merged.var(correction=1).item() == pytest.approx(1.0, rel=1e-12)


def test_moments_of_halves_are_held_in_float64() -> None:
    got = Moments.of(torch.full((10_000,), 1e3, dtype=torch.float16), 0)
    assert {got.count.dtype, got.mean.dtype, got.m2.dtype} == {torch.float64}
    assert got.mean.item() == 1e3
    assert wide_dtype(torch.device("mps")) == torch.float32


def test_the_variance_of_too_few_values_is_nan() -> None:
    one = Moments.of(row([5.0]), 0)
    assert one.var().item() == 0.0
    assert one.var(correction=1).isnan()
    assert Moments.of(row([]), 0).var().isnan()


def test_moments_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Moments.of(row([1.0]), 0).mean = torch.zeros(())  # type: ignore[misc]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="no moments to merge"):
        Moments.merge_all([])
    with pytest.raises(ValueError, match=r"mask must be boolean, got torch.float32"):
        Moments.of(torch.ones(3), 0, torch.ones(3))
