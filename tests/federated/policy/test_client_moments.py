import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from data_tools.errors import InputError
from federated.policy import Counted, client_statistics, merge_statistics, read_counts
from seqnorm import BatchNorm1d, DomainBatchNorm1d, recalibrate

SITES = ((40, 0.0, 1.0), (10, 6.0, 2.0), (25, -3.0, 0.5))  # sequences, mean, standard deviation


def data(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    g = torch.Generator().manual_seed(7)
    drawn = [torch.randn(n, 4, 30, generator=g) * sd + mean for n, mean, sd in SITES]
    return [x.to(dtype) for x in drawn]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(4, 5, 3), BatchNorm1d(5), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(5, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 3, 3), BatchNorm1d(3),
    )  # fmt: skip


def gap(a: dict[str, Tensor], b: dict[str, Tensor], names: list[str]) -> float:
    """Largest relative difference."""
    return max(float(((a[n] - b[n]).abs() / b[n].abs().clamp_min(1)).max()) for n in names)


def statistics(layer: str) -> list[str]:
    return [f"{layer}.running_mean", f"{layer}.running_var"]


def test_merged_statistics_are_those_of_the_pooled_data_where_averages_are_off() -> None:
    model, sites = network(), data()
    parts = [client_statistics(model, x.split(8)) for x in sites]
    merged = merge_statistics([p.state for p in parts], [p.counts for p in parts])
    pooled = recalibrate(model, [torch.cat(sites)])[0].state_dict()
    weights = torch.tensor([float(len(x)) for x in sites])
    averaged = {
        name: sum(w * p.state[name] for w, p in zip(weights, parts, strict=True)) / weights.sum()
        for name in parts[0].state
    }
    first = statistics("1")
    assert gap(merged, pooled, first) < 1e-6
    assert gap(averaged, pooled, first[1:]) > 0.3  # type: ignore[arg-type]
    # The mean of an average weighted by sequences of one length is right all the same.
    assert gap(averaged, pooled, first[:1]) < 1e-6  # type: ignore[arg-type]


def test_of_later_layers_one_exchange_gives_something_else_and_says_so() -> None:
    model, sites = network(), data()
    parts = [client_statistics(model, x.split(8)) for x in sites]
    merged = merge_statistics([p.state for p in parts], [p.counts for p in parts])
    pooled = recalibrate(model, [torch.cat(sites)])[0].state_dict()
    assert gap(merged, pooled, statistics("5")) > 1e-3


def test_one_exchange_for_each_layer_makes_all_layers_exact() -> None:
    model, sites = network().double(), data(torch.float64)
    pooled = recalibrate(model, [torch.cat(sites)])[0].state_dict()
    for layer in ("1", "5", "8"):
        parts = [client_statistics(model, x.split(8), layers=[layer]) for x in sites]
        assert all(set(part.state) == set(statistics(layer)) for part in parts)
        merged = merge_statistics([p.state for p in parts], [p.counts for p in parts])
        model.load_state_dict(merged, strict=False)
    for layer in ("1", "5", "8"):
        assert gap(model.state_dict(), pooled, statistics(layer)) < 1e-6


def test_statistics_of_other_weights_are_those_of_each_clients_inputs() -> None:
    sites = data()
    models = [network() for _ in sites]
    for i, model in enumerate(models):
        model[0].weight.data.mul_(i + 1)
    found = [client_statistics(m, [x]) for m, x in zip(models, sites, strict=True)]
    merged = merge_statistics([p.state for p in found], [p.counts for p in found])
    inputs = torch.cat([m[0](x) for m, x in zip(models, sites, strict=True)]).detach().double()
    assert torch.allclose(merged["1.running_mean"].double(), inputs.mean((0, 2)), atol=1e-5)
    assert torch.allclose(merged["1.running_var"].double(), inputs.var((0, 2)), rtol=1e-5)


def test_counts_are_values_per_channel_with_pooling_and_padding() -> None:
    model, x = network(), data()[1]
    assert client_statistics(model, [x]).counts == {"1": 10 * 28, "5": 10 * 12, "8": 10 * 10}
    lengths = torch.tensor([30, 20, 10, 30, 30, 30, 30, 30, 30, 30])
    norm = nn.Sequential(BatchNorm1d(4))
    found = client_statistics(
        norm, [(x, lengths)], inputs=lambda batch: batch[0], lengths=lambda batch: batch[1]
    )
    assert found.counts == {"0": int(lengths.sum())}
    valid = torch.cat([row[:, :n] for row, n in zip(x, lengths, strict=True)], dim=1)
    assert torch.allclose(found.state["0.running_var"], valid.var(1), rtol=1e-5)


def test_the_model_is_left_as_it_is() -> None:
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    client_statistics(model, data()[:1], layers=["5"])
    assert model.training
    assert not model[1].frozen
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_shared_layer_is_reported_at_all_its_places() -> None:
    norm = nn.BatchNorm1d(4)
    found = client_statistics(nn.Sequential(norm, nn.ReLU(), norm), data()[:1])
    assert set(found.counts) == {"0", "2"}
    assert found.counts["0"] == found.counts["2"] == 2 * 40 * 30
    assert torch.equal(found.state["0.running_var"], found.state["2.running_var"])


def test_a_domain_that_a_client_lacks_has_nothing_to_say() -> None:
    class Net(nn.Module):
        def __init__(self, domain: int) -> None:
            super().__init__()
            self.norm, self.domain = DomainBatchNorm1d(4, 3), domain

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(x, domain=self.domain)
            return y

    sites = data()
    parts = [
        client_statistics(Net(domain), [x]) for domain, x in zip((0, 1, 0), sites, strict=True)
    ]
    assert parts[1].counts == {"norm.domains.0": 0, "norm.domains.1": 300, "norm.domains.2": 0}
    merged = merge_statistics([p.state for p in parts], [p.counts for p in parts])
    assert set(merged) == {*statistics("norm.domains.0"), *statistics("norm.domains.1")}
    both = torch.cat([sites[0], sites[2]])
    assert torch.allclose(merged["norm.domains.0.running_var"], both.var((0, 2)), rtol=1e-5)


@settings(deadline=None)  # a slow machine is no fault
@given(
    sizes=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    offset=st.floats(-1e4, 1e4),
    spread=st.floats(0.1, 100),
)
def test_the_merge_is_that_of_float64_over_all_values(
    sizes: list[int], offset: float, spread: float
) -> None:
    g = torch.Generator().manual_seed(sum(sizes))
    parts = [
        torch.randn(n, 3, generator=g, dtype=torch.float64) * (i + 1) + i * spread + offset
        for i, n in enumerate(sizes)
    ]
    states = [{"a.running_mean": x.mean(0), "a.running_var": x.var(0)} for x in parts]
    merged = merge_statistics(states, [{"a": n} for n in sizes])
    whole = torch.cat(parts)
    torch.testing.assert_close(merged["a.running_mean"], whole.mean(0), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(merged["a.running_var"], whole.var(0), rtol=1e-9, atol=1e-9)


def test_the_order_of_replies_changes_no_bit_once_they_have_names() -> None:
    g = torch.Generator().manual_seed(0)
    states = [
        {"running_mean": torch.randn(50, generator=g, dtype=torch.float64) * 10**i,
         "running_var": torch.rand(50, generator=g, dtype=torch.float64) * 10**i}
        for i in range(4)
    ]  # fmt: skip
    counts, names = [{"": 3}, {"": 50}, {"": 7}, {"": 1000}], ["c", "a", "d", "b"]
    results = []
    for order in itertools.permutations(range(4)):
        pick = [[part[i] for i in order] for part in (states, counts, names)]
        results.append(merge_statistics(*pick))  # type: ignore[arg-type]
    assert all(torch.equal(r[n], results[0][n]) for r in results for n in r)


def test_counts_travel_as_metrics() -> None:
    counted = Counted({}, {"": 3, "a.b": 2**53})
    assert read_counts({"loss": 0.5, **counted.metrics()}) == counted.counts


def test_what_cannot_be_measured_or_merged_is_refused() -> None:
    model = network()
    x = data()[0]
    with pytest.raises(InputError, match="no batch"):
        client_statistics(model, [])
    with pytest.raises(InputError, match="two are needed"):
        client_statistics(nn.Sequential(BatchNorm1d(4)), [x[:1, :, :1]])
    with pytest.raises(InputError, match="NaN or infinity"):
        client_statistics(model, [x * torch.nan])
    with pytest.raises(InputError, match="'2' is no BatchNorm"):
        client_statistics(model, [x], layers=["2"])
    with pytest.raises(InputError, match="no BatchNorm with running"):
        client_statistics(nn.Sequential(nn.LayerNorm(4)), [x])
    state = {"running_mean": torch.zeros(2), "running_var": torch.ones(2)}
    with pytest.raises(InputError, match="0 states"):
        merge_statistics([], [])
    with pytest.raises(InputError, match="different clients"):
        merge_statistics([state, state], [{"": 2}, {"": 2}], ["a", "a"])
    with pytest.raises(InputError, match="is of layers"):
        merge_statistics([state, state], [{"": 2}, {"b": 2}])
    with pytest.raises(InputError, match="lack"):
        merge_statistics([state], [{"b": 2}])
    with pytest.raises(InputError, match="negative"):
        merge_statistics([state | {"running_var": -torch.ones(2)}], [{"": 2}])
