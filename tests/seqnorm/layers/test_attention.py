"""QKNorm against torch's norms and against cosines."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.layers import QKNorm

N, H, L, D = 3, 4, 7, 6
LENGTHS = torch.tensor([7, 3, 0])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def heads(length: int = L, count: int = H) -> Tensor:
    return torch.randn(N, count, length, D) * 3 + 1


def build(kind: str, **options: Any) -> QKNorm:
    norm = QKNorm(D, kind, **options)
    with torch.no_grad():
        for p in norm.parameters():
            p.add_(torch.rand(p.shape))
    return norm


@pytest.mark.parametrize(("kind", "twin"), [("rms", nn.RMSNorm), ("layer", nn.LayerNorm)])
def test_queries_and_keys_are_normalized_in_each_head_as_by_torch(kind: str, twin: Any) -> None:
    norm = build(kind)
    q, k = heads().requires_grad_(), heads(5, 2).requires_grad_()  # other positions, fewer heads
    slopes = torch.randn(q.shape), torch.randn(k.shape)
    got = norm(q, k)
    wanted = []
    for x, weight in ((q, norm.query_weight), (k, norm.key_weight)):
        other = twin(D, eps=1e-6, **({"bias": False} if kind == "layer" else {}))
        other.weight.data.copy_(weight)
        wanted.append(other(x))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    grads = (torch.autograd.grad(y, (q, k), slopes) for y in (got, wanted))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_l2_logits_are_cosines_times_the_learned_scale() -> None:
    norm = build("l2", scale=4.0)
    q, k = heads(), heads()
    got = torch.einsum("nhid,nhjd->nhij", *norm(q, k))
    cosines = F.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=-1)
    assert norm.scale is not None
    lengths = [x.square().sum(-1).sqrt() for x in norm(q, k)]
    torch.testing.assert_close(lengths[0], norm.scale.expand(N, H, L))
    torch.testing.assert_close(lengths[1], torch.ones(N, H, L))
    torch.testing.assert_close(got, norm.scale * cosines, rtol=1e-4, atol=1e-4)
    (grad,) = torch.autograd.grad(got.sum(), norm.scale)
    torch.testing.assert_close(grad, cosines.sum(), rtol=1e-4, atol=1e-3)
    out = F.scaled_dot_product_attention(*norm(q, k), k, scale=1.0)
    torch.testing.assert_close(out, (norm.scale * cosines).softmax(-1) @ k, rtol=1e-4, atol=1e-4)


def test_logits_of_independent_queries_and_keys_begin_with_variance_one() -> None:
    d = 64
    q, k = (torch.randn(8, 2, 100, d) * 50 for _ in range(2))
    for kind, scale in (("l2", 1.0), ("rms", d**-0.5), ("layer", d**-0.5)):
        a, b = QKNorm(d, kind)(q, k)
        logits = a @ b.transpose(2, 3) * scale
        assert logits.var().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("kind", ["rms", "layer", "l2"])
@pytest.mark.parametrize("as_mask", [False, True])
def test_padded_positions_of_every_head_are_zero_and_learn_nothing(
    kind: str, as_mask: bool
) -> None:
    norm = build(kind)
    pad = (torch.arange(L) >= LENGTHS[:, None])[:, None, :, None].expand(N, H, L, D)
    clean = heads(), heads()
    lengths = torch.arange(L) < LENGTHS[:, None] if as_mask else LENGTHS
    plain = norm(*clean)
    q, k = (x.masked_fill(pad, torch.nan).requires_grad_() for x in clean)
    got = norm(q, k, lengths)
    for y, expected in zip(got, plain, strict=True):
        torch.testing.assert_close(y, expected.masked_fill(pad, 0), rtol=1e-5, atol=1e-5)
    leaves = (q, k, *norm.parameters())
    for grad in torch.autograd.grad(sum(y.square().sum() for y in got), leaves):
        assert grad.isfinite().all()
        if grad.dim() == 4:
            assert (grad[pad] == 0).all()


def test_keys_of_another_sequence_have_lengths_of_their_own() -> None:
    norm = build("rms")
    q, k = heads(), heads(12)
    key_lengths = torch.tensor([12, 9, 1])
    a, b = norm(q, k, LENGTHS, key_lengths)
    other, _ = norm(q, q, LENGTHS)
    assert torch.equal(a, other)
    assert (b[1, :, 9:] == 0).all()
    assert torch.equal(b[1, :, :9], norm(q, k)[1][1, :, :9])


def test_zero_queries_stay_zero_with_finite_gradients() -> None:
    for kind in ("rms", "layer", "l2"):
        q = torch.zeros(N, H, L, D, requires_grad=True)
        y, _ = build(kind)(q, heads())
        assert (y == 0).all()
        (grad,) = torch.autograd.grad(y.sum(), q)
        assert grad.isfinite().all()


def test_views_of_one_projection_are_taken_as_they_are() -> None:
    joint = torch.randn(N, L, 2, H, D)
    q, k = joint.permute(2, 0, 3, 1, 4)
    for one, other in zip(
        build("rms")(q, k), build("rms")(q.contiguous(), k.contiguous()), strict=True
    ):
        assert one.shape == other.shape == (N, H, L, D)


def test_weights_begin_and_reset_at_one_and_the_scale_where_it_is_told() -> None:
    assert [name for name, _ in QKNorm(D).named_parameters()] == ["query_weight", "key_weight"]
    assert [name for name, _ in QKNorm(D, "l2").named_parameters()] == ["scale"]
    for norm, start in ((build("rms"), 1.0), (build("l2", scale=7.0), 7.0), (build("l2"), D**0.5)):
        norm.reset_parameters()
        assert all((p == start).all() for p in norm.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "cosine"}, "kind must be one of 'rms', 'layer', 'l2', got 'cosine'"),
        ({"kind": "rms", "scale": 3.0}, "scale=3.0 needs kind='l2', got kind='rms'"),
    ],
)
def test_wrong_options_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QKNorm(D, **arguments)


def test_wrong_shapes_are_named() -> None:
    norm = QKNorm(D)
    with pytest.raises(
        ValueError, match=r"query must have shape \(N, heads, L, 6\), got \(3, 7, 6"
    ):
        norm(torch.randn(N, L, D), heads())
    with pytest.raises(ValueError, match=r"key must have shape .*got \(3, 4, 7, 5\); is head_dim"):
        norm(heads(), heads()[..., :5])
    with pytest.raises(ValueError, match=r"lengths\[0\] = 7 is outside 0..5"):
        norm(heads(), heads(5), LENGTHS)
