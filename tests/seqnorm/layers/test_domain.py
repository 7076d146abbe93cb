"""DomainBatchNorm1d against one BatchNorm for each domain."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from seqnorm.layers import BatchNorm1d, DomainBatchNorm1d

C, L, D = 3, 5, 3
DOMAIN = torch.tensor([2, 0, 0, 2, 0])
LENGTHS = torch.tensor([5, 3, 2, 0, 4])
LAYOUTS = pytest.mark.parametrize("layout", ["NCL", "NLC"])
SHARED = pytest.mark.parametrize("share_affine", [False, True], ids=["own-affine", "shared-affine"])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def sequences(layout: str, n: int = 5) -> Tensor:
    x = torch.randn(n, C, L) + 5 * torch.arange(n)[:, None, None]
    return x if layout == "NCL" else x.transpose(1, 2).contiguous()


def build(**options: Any) -> tuple[DomainBatchNorm1d, list[BatchNorm1d]]:
    """A layer with weights of its own for each domain, and the norms that it should be made of."""
    norm = DomainBatchNorm1d(C, D, **options)
    with torch.no_grad():
        for p in norm.parameters():
            p.copy_(torch.randn(C))
    options.pop("share_affine", None)
    twins = [BatchNorm1d(C, **options) for _ in range(D)]
    for domain, twin in enumerate(twins):
        own: Any = norm if norm.share_affine else norm.domains[domain]
        twin.weight.data.copy_(own.weight)
        twin.bias.data.copy_(own.bias)
    return norm, twins


@SHARED
@LAYOUTS
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_sequences_of_a_domain_are_normalized_as_if_alone(
    share_affine: bool, layout: str, padded: bool
) -> None:
    norm, twins = build(share_affine=share_affine, layout=layout, activation="gelu")
    lengths = LENGTHS if padded else None
    for training in (True, True, False):
        norm.train(training)
        x, residual = (sequences(layout).requires_grad_() for _ in range(2))
        y = norm(x, lengths, residual, domain=DOMAIN)
        slopes = torch.randn_like(y)
        got = torch.autograd.grad(y, (x, residual), slopes)
        for number, twin in enumerate(twins):
            rows = (number == DOMAIN).nonzero().flatten()
            if not len(rows):
                continue
            a, b = (t.detach()[rows].requires_grad_() for t in (x, residual))
            expected = twin.train(training)(a, None if lengths is None else lengths[rows], b)
            torch.testing.assert_close(y[rows], expected, rtol=1e-5, atol=1e-5)
            grads = torch.autograd.grad(expected, (a, b), slopes[rows])
            for one, other in zip(got, grads, strict=True):
                torch.testing.assert_close(one[rows], other, rtol=1e-4, atol=1e-4)
    for domain, twin in zip(norm.domains, twins, strict=True):
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(getattr(domain, name), getattr(twin, name))


@SHARED
def test_a_number_stands_for_a_batch_of_that_domain(share_affine: bool) -> None:
    norm, _ = build(share_affine=share_affine)
    twin = copy.deepcopy(norm)
    x, residual = sequences("NCL"), sequences("NCL")
    got = norm(x, LENGTHS, residual, domain=1)
    expected = twin(x, LENGTHS, residual, domain=torch.ones(5, dtype=torch.int32))
    torch.testing.assert_close(got, expected)
    for name, value in twin.state_dict().items():
        assert torch.equal(norm.state_dict()[name], value)


def test_weights_are_shared_or_of_the_domain() -> None:
    names = {name for name, _ in DomainBatchNorm1d(C, 2).named_parameters()}
    assert names == {f"domains.{d}.{name}" for d in range(2) for name in ("weight", "bias")}
    names = {name for name, _ in DomainBatchNorm1d(C, 2, share_affine=True).named_parameters()}
    assert names == {"weight", "bias"}
    for share in (False, True):
        bare = DomainBatchNorm1d(C, 2, affine=False, share_affine=share)
        assert not list(bare.parameters())
        bare(sequences("NCL"), domain=0)


def test_a_domain_can_be_frozen_and_one_that_is_absent_is_left_alone() -> None:
    norm, _ = build()
    norm.domains[0].frozen = True
    before = copy.deepcopy(norm.state_dict())
    norm(sequences("NCL"), domain=DOMAIN)
    moved = {
        name for name, value in norm.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {
        f"domains.2.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }


def test_a_domain_of_one_value_is_a_batch_of_one_value() -> None:
    x, lengths = torch.randn(3, C, L), torch.tensor([5, 5, 1])
    domain = torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match="1 valid of 15 positions"):
        DomainBatchNorm1d(C, 2)(x, lengths, domain=domain)
    y = DomainBatchNorm1d(C, 2, on_single="identity")(x, lengths, domain=domain)
    assert torch.equal(y[2, :, 0], x[2, :, 0])


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        (3, r"domain 3 is outside 0\.\.2$"),
        (-1, r"domain -1 is outside 0\.\.2$"),
        (torch.tensor([0, 0, 3, 0, 0]), r"domain\[2\] = 3 is outside 0\.\.2$"),
        (torch.tensor([0, -1, 0, 0, 0]), r"domain\[1\] = -1 is outside 0\.\.2$"),
        (torch.tensor([0, 1]), r"domain must have shape \(5,\).*got \(2,\)"),
        (torch.tensor(1), r"domain must have shape \(5,\).*got \(\)"),
        (torch.zeros(5), r"integers \(N,\), got torch.float32"),
        (torch.zeros(5, dtype=torch.bool), r"integers \(N,\), got torch.bool"),
        ("human", r"integers \(N,\), got str"),
    ],
)
def test_a_domain_that_cannot_be_is_named(domain: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DomainBatchNorm1d(C, D)(sequences("NCL"), domain=domain)


def test_no_domain_is_refused() -> None:
    with pytest.raises(ValueError, match="num_domains must be at least 1, got 0"):
        DomainBatchNorm1d(C, 0)
