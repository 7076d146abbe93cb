import pytest
import torch
from torch import Tensor, nn

from data_tools.errors import InputError
from federated.policy import (
    START_RULES,
    Counted,
    between_clients,
    client_statistics,
    parse_policy,
    start_local,
)

SERVER = {
    "n.weight": torch.full((2,), 1.5),
    "n.running_mean": torch.tensor([0.0, 1.0]),
    "n.running_var": torch.tensor([1.0, 4.0]),
    "n.num_batches_tracked": torch.tensor(0),
}
OWN = Counted(
    {"n.running_mean": torch.tensor([2.0, 5.0]), "n.running_var": torch.tensor([4.0, 9.0])},
    {"n": 300},
)
BETWEEN = {
    "n.running_mean": torch.tensor([1.0, 3.0], dtype=torch.float64),
    "n.running_var": torch.tensor([0.5, 0.0], dtype=torch.float64),
}


def untouched(start: dict[str, Tensor]) -> bool:
    names = ("n.weight", "n.num_batches_tracked")
    return list(start) == list(SERVER) and all(torch.equal(start[n], SERVER[n]) for n in names)


def test_by_rule_server_a_client_has_a_copy_of_the_servers_value() -> None:
    start = start_local("server", SERVER)
    assert untouched(start)
    assert all(torch.equal(start[name], SERVER[name]) for name in SERVER)
    assert start["n.weight"].data_ptr() != SERVER["n.weight"].data_ptr()


def test_by_rule_adapt_the_statistics_are_the_sites_own() -> None:
    start = start_local("adapt", SERVER, own=OWN)
    assert untouched(start)
    assert all(torch.equal(start[name], OWN.state[name]) for name in OWN.state)


@pytest.mark.parametrize("k", [2, 8, 1000])
def test_by_rule_shrink_each_channel_follows_the_formula(k: int) -> None:
    start = start_local("shrink", SERVER, own=OWN, k=k, between=BETWEEN)
    assert untouched(start)
    for c in range(2):
        tau2, v = float(BETWEEN["n.running_mean"][c]), float(OWN.state["n.running_var"][c])
        m, x = float(SERVER["n.running_mean"][c]), float(OWN.state["n.running_mean"][c])
        assert float(start["n.running_mean"][c]) == pytest.approx(
            m + tau2 / (tau2 + v / k) * (x - m)
        )
        tau2, s = float(BETWEEN["n.running_var"][c]), float(SERVER["n.running_var"][c])
        weight = tau2 / (tau2 + 2 / (k - 1))
        assert float(start["n.running_var"][c]) == pytest.approx(s * (v / s) ** weight)


def test_shrinkage_has_its_limits_in_the_other_two_rules() -> None:
    none = {name: torch.zeros(2, dtype=torch.float64) for name in BETWEEN}
    much = {name: torch.full((2,), 1e12, dtype=torch.float64) for name in BETWEEN}
    for between, limit in ((none, SERVER), (much, OWN.state)):
        start = start_local("shrink", SERVER, own=OWN, k=5, between=between)
        for name in OWN.state:
            torch.testing.assert_close(start[name], limit[name])


def test_shrinkage_is_nearer_to_a_sites_true_mean_than_either_end() -> None:
    g = torch.Generator().manual_seed(0)
    sites, k, tau = 400, 4, 1.0
    truth = tau * torch.randn(sites, generator=g)
    seen = truth[:, None] + 2 * torch.randn(sites, k, generator=g)
    own = Counted({"running_mean": seen.mean(1), "running_var": seen.var(1)}, {"": k})
    server = {"running_mean": torch.zeros(sites), "running_var": torch.full((sites,), 4.0)}
    between = {"running_mean": torch.full((sites,), tau**2), "running_var": torch.zeros(sites)}
    start = start_local("shrink", server, own=own, k=k, between=between)
    errors = [
        float((value - truth).square().mean())
        for value in (start["running_mean"], server["running_mean"], own.state["running_mean"])
    ]
    assert errors[0] < 0.8 * min(errors[1:])


def test_the_variance_between_clients_is_found_without_that_of_sampling() -> None:
    g = torch.Generator().manual_seed(1)
    channels, clients, k = 2000, 30, 10
    truth = 1.5 * torch.randn(clients, channels, generator=g)
    x = truth[:, None] + 2 * torch.randn(clients, k, channels, generator=g)
    parts = [
        Counted({"n.running_mean": site.mean(0), "n.running_var": site.var(0)}, {"n": k})
        for site in x
    ]
    found = between_clients(parts, [k] * clients)
    assert float(found["n.running_mean"].mean()) == pytest.approx(1.5**2, rel=0.05)
    assert float(found["n.running_var"].mean()) < 0.05  # all have one variance
    assert float(torch.stack([p.state["n.running_mean"] for p in parts]).var(0).mean()) > 2.5
    assert between_clients([parts[0], Counted({}, {"n": 0})], [k, k]) == {}


def test_a_site_starts_from_what_its_policy_keeps() -> None:
    model = nn.Sequential(nn.Conv1d(4, 3, 3), nn.BatchNorm1d(3))
    manifest = parse_policy("silobn").manifest(model)
    state = model.state_dict()
    torch.manual_seed(0)
    own = client_statistics(model, [torch.randn(6, 4, 20) + 3])
    kept = start_local("adapt", {name: state[name] for name in manifest.kept(1)}, own=own)
    received = {name: state[name] for name in manifest.sent_down(1)}
    start = manifest.client_start(state, received, kept, 1)
    assert torch.equal(start["1.running_mean"], own.state["1.running_mean"])
    assert torch.equal(start["1.weight"], state["1.weight"])


def test_a_layer_without_values_and_one_that_is_not_local_keep_the_servers_value() -> None:
    nothing = Counted(OWN.state, {"n": 0})
    start = start_local("adapt", SERVER, own=nothing)
    assert all(torch.equal(start[name], SERVER[name]) for name in SERVER)
    only = {"n.weight": SERVER["n.weight"]}
    assert list(start_local("adapt", only, own=OWN)) == ["n.weight"]


def test_a_constant_channel_stays_finite() -> None:
    own = Counted({**OWN.state, "n.running_var": torch.zeros(2)}, {"n": 9})
    start = start_local("shrink", SERVER, own=own, k=3, between=BETWEEN)
    assert all(bool(value.isfinite().all()) for value in start.values())
    assert bool((start["n.running_var"] >= 0).all())


def test_a_rule_that_lacks_what_it_needs_says_so() -> None:
    with pytest.raises(InputError, match="unknown rule 'sever'; valid: server, adapt, shrink"):
        start_local("sever", SERVER)
    for rule in ("adapt", "shrink"):
        with pytest.raises(InputError, match="needs own="):
            start_local(rule, SERVER)
    for k in (None, 1):
        with pytest.raises(InputError, match="at least 2 sequences"):
            start_local("shrink", SERVER, own=OWN, k=k, between=BETWEEN)
    with pytest.raises(InputError, match=r"between= lacks n\.running_mean"):
        start_local("shrink", SERVER, own=OWN, k=3, between={})
    with pytest.raises(InputError, match="at least two clients"):
        between_clients([OWN], [3])
    with pytest.raises(InputError, match="at least two clients"):
        between_clients([OWN, OWN], [3, 1])
    assert set(START_RULES) == {"server", "adapt", "shrink"}
