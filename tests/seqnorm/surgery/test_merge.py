from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from seqnorm import BatchNorm1d, merge_batchnorm, recalibrate

C = 3


def state(x: Tensor) -> dict[str, Tensor]:
    return {"running_mean": x.mean(0), "running_var": x.var(0) if len(x) > 1 else 0 * x[0]}


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), offset=st.floats(-1e4, 1e4))
def test_the_merge_is_the_statistics_of_all_data(sizes: list[int], offset: float) -> None:
    g = torch.Generator().manual_seed(len(sizes))
    parts = [
        torch.randn(n, C, generator=g, dtype=torch.float64) * (i + 1) + 3 * i + offset
        for i, n in enumerate(sizes)
    ]
    merged = merge_batchnorm([state(x) for x in parts], sizes)
    whole = state(torch.cat(parts))
    for name, value in whole.items():
        torch.testing.assert_close(merged[name], value, rtol=1e-9, atol=1e-9)


def test_sites_that_recalibrate_get_the_statistics_of_their_union() -> None:
    torch.manual_seed(0)
    sites = [torch.randn(n, C, 11) * s + m for n, s, m in ((4, 1, 0), (9, 2, 3), (2, 5, -4))]
    model = nn.Sequential(nn.Conv1d(C, 2, 3), nn.BatchNorm1d(2))
    states = [recalibrate(model, x.split(2))[0].state_dict() for x in sites]
    merged = merge_batchnorm(states, [len(x) * 9 for x in sites])
    union, _ = recalibrate(model, [torch.cat(sites)])
    assert set(merged) == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    for name in ("1.running_mean", "1.running_var"):
        torch.testing.assert_close(merged[name], union.state_dict()[name], rtol=1e-5, atol=1e-5)
    assert merged["1.num_batches_tracked"] == 2 + 5 + 1
    model.load_state_dict(merged, strict=False)


def test_averaging_variances_would_lose_those_between_clients() -> None:
    torch.manual_seed(0)
    parts = [torch.randn(100, C) + shift for shift in (-3.0, 3.0)]
    states = [state(x) for x in parts]
    averaged = (states[0]["running_var"] + states[1]["running_var"]) / 2
    merged = merge_batchnorm(states, [100, 100])["running_var"]
    assert (averaged / merged).max() < 0.15
    torch.testing.assert_close(merged, torch.cat(parts).var(0))


def test_what_is_exact_after_training_is_what_is_said() -> None:
    torch.manual_seed(0)
    x = torch.randn(12, C, 5) * torch.rand(12, 1, 1) + torch.randn(12, 1, 1)
    one, several, fast = BatchNorm1d(C, momentum=None), BatchNorm1d(C, momentum=None), None
    one(x)
    for batch in x.split(3):
        several(batch)
    fast = BatchNorm1d(C, momentum=1.0)
    fast(x)
    for norm in (one, fast):
        merged = merge_batchnorm([norm.state_dict()], [60])
        torch.testing.assert_close(merged["running_var"], x.var((0, 2)))
    merged = merge_batchnorm([several.state_dict()], [60])
    torch.testing.assert_close(merged["running_mean"], x.mean((0, 2)))
    assert (merged["running_var"] < 0.9 * x.var((0, 2))).any()


def test_types_and_the_counter_are_kept() -> None:
    norm = BatchNorm1d(C).half()
    merged = merge_batchnorm([norm.state_dict()] * 2, [4, 4])
    assert merged["running_mean"].dtype == torch.float16
    assert merged["num_batches_tracked"].dtype == torch.int64
    assert merged["num_batches_tracked"].shape == ()
    partial = merge_batchnorm([norm.state_dict(), state(torch.randn(4, C))], [4, 4])
    assert set(partial) == {"running_mean", "running_var"}


def good() -> dict[str, Tensor]:
    return state(torch.randn(4, C))


@pytest.mark.parametrize(
    ("states", "counts", "message"),
    [
        ([], [], "one count for each state is needed, got 0 states"),
        ([good()], [4, 4], "got 1 states and 2 counts"),
        ([good(), good()], [4, 0], r"counts\[1\] = 0: at least 1 value"),
        ([good()], [float("nan")], r"counts\[0\] = nan"),
        ([good()], [float("inf")], r"counts\[0\] = inf"),
        ([good(), {}], [4, 4], r"states\[1\] has running_mean for \[\]"),
        ([{}], [4], r"states\[0\] has running_mean for \[\]"),
        ([{"running_mean": torch.ones(C)}], [4], r"states\[0\] has no running_var"),
        ([good() | {"running_var": torch.ones(2)}], [4], "of the shape of running_mean"),
        ([good(), state(torch.randn(4, 2))], [4, 4], "differs in shape"),
        ([good(), good() | {"running_var": -torch.ones(C)}], [4, 4], r"states\[1\]: running_mean"),
        ([good() | {"running_mean": torch.full((C,), torch.nan)}], [4], "not finite"),
    ],
    ids=range(12),
)
def test_states_that_cannot_be_merged_are_named(states: Any, counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        merge_batchnorm(states, counts)
