"""What every layer promises: padding, layouts, types, compilation, copies, derivatives."""

import copy
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seqnorm.layers import (
    AdaIN,
    BatchNorm1d,
    BatchRenorm1d,
    DomainBatchNorm1d,
    DynamicTanh,
    FiLM,
    FilterResponseNorm1d,
    GhostBatchNorm1d,
    QKNorm,
    WSConv1d,
)

N, C, L = 4, 6, 9
LENGTHS = torch.tensor([9, 5, 2, 0])
LAYOUTS = pytest.mark.parametrize("layout", ["NCL", "NLC"])
PADDED = pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])

Extra = dict[str, Tensor]


class Case(NamedTuple):
    """How to build a layer, what else it is called with, and what it promises."""

    name: str
    build: Callable[..., nn.Module]  # of layout and, where it is a norm, activation
    extra: Callable[[Tensor, str], Extra]  # per-sample arguments, from (N, C, L) and the layout
    per_sample: bool = True
    residual: bool = True
    activation: bool = True


def nothing(x: Tensor, layout: str) -> Extra:
    return {}


def domains(x: Tensor, layout: str) -> Extra:
    return {"domain": torch.arange(x.shape[0]) % 2}


def conditions(x: Tensor, layout: str) -> Extra:
    return {"condition": torch.linspace(-1, 1, x.shape[0] * 3).view(-1, 3).to(x.dtype)}


def styles(x: Tensor, layout: str) -> Extra:
    style = torch.linspace(-2, 3, x.shape[0] * C * 4).view(-1, C, 4).cos().to(x.dtype)
    return {"style": to(layout, style)}


class Heads(QKNorm):
    """QKNorm as a layer of sequences: two heads, queries less keys, which are turned round."""

    def __init__(self, kind: str, layout: str) -> None:
        super().__init__(C // 2, kind)
        self.layout = layout

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:  # type: ignore[override]
        last = x if self.layout == "NLC" else x.transpose(1, 2)
        heads = last.unflatten(2, (2, C // 2)).transpose(1, 2)
        q, k = super().forward(heads, heads.flip(-1), lengths)
        y = (q - k).transpose(1, 2).flatten(2)
        return y if self.layout == "NLC" else y.transpose(1, 2)


CASES = [
    Case("batch", lambda **o: BatchNorm1d(C, **o), nothing, per_sample=False),
    Case("ghost", lambda **o: GhostBatchNorm1d(C, 2, **o), nothing, per_sample=False),
    Case("renorm", lambda **o: BatchRenorm1d(C, r_max=1.2, d_max=0.2, **o), nothing, False),
    Case("domain", lambda **o: DomainBatchNorm1d(C, 2, **o), domains, per_sample=False),
    Case(
        "domain-shared", lambda **o: DomainBatchNorm1d(C, 2, share_affine=True, **o), domains, False
    ),
    Case("film-layer", lambda **o: FiLM(C, 3, "layer", **o), conditions),
    Case("film-batch", lambda **o: FiLM(C, 3, "batch", **o), conditions, per_sample=False),
    Case("film-none", lambda **o: FiLM(C, 3, "none", **o), conditions),
    Case("adain", lambda **o: AdaIN(**o), styles),
    Case("frn", lambda **o: FilterResponseNorm1d(C, **o), nothing, activation=False),
    Case(
        "frn-eps",
        lambda **o: FilterResponseNorm1d(C, 1e-2, learn_eps=True, **o),
        nothing,
        activation=False,
    ),
    Case("tanh", lambda **o: DynamicTanh(C, **o), nothing),
    Case("ws", lambda **o: WSConv1d(C, C, 3, padding="same", **o), nothing, True, False, False),
    Case("qk-rms", lambda **o: Heads("rms", **o), nothing, True, False, False),
    Case("qk-layer", lambda **o: Heads("layer", **o), nothing, True, False, False),
    Case("qk-l2", lambda **o: Heads("l2", **o), nothing, True, False, False),
]


def over(wanted: Callable[[Case], bool]) -> pytest.MarkDecorator:
    chosen = [case for case in CASES if wanted(case)]
    return pytest.mark.parametrize("case", chosen, ids=lambda case: case.name)


ALL = over(lambda case: True)
PER_SAMPLE = over(lambda case: case.per_sample)
# Batch renormalization corrects towards a running mean in float32: see test_renorm.
WITH_STATISTICS = over(lambda case: case.name not in ("tanh", "film-none", "ws", "renorm"))
# torch's convolution computes in the type that it is given.
OWN_ARITHMETIC = over(lambda case: case.name != "ws")
# With weights; the bits of torch's matrix products and convolutions depend on the threads.
LEARNING = over(lambda case: not case.name.startswith(("ws", "film", "adain")))
ACTIVATED = over(lambda case: case.activation)
OF_CHANNELS = over(lambda case: not case.name.startswith(("adain", "ws", "qk")))


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def to(layout: str, x: Tensor) -> Tensor:
    return x if layout == "NCL" else x.transpose(1, 2).contiguous()


def build(case: Case, layout: str = "NCL", **options: Any) -> nn.Module:
    """Build a layer none of whose parameters is at its default."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layer = case.build(layout=layout, **options)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.rand(p.shape, generator=generator) * 0.4)
    return layer


def padding(lengths: Tensor, length: int = L) -> Tensor:
    return (torch.arange(length) >= lengths[:, None])[:, None].expand(-1, C, -1)


def call(
    case: Case, layer: nn.Module, x: Tensor, lengths: Tensor | None, residual: Tensor | None = None
) -> Tensor:
    """Call a layer of any layout with data in ``(N, C, L)``."""
    layout = str(layer.layout)
    arguments = [to(layout, x), lengths]
    if residual is not None:
        arguments.append(to(layout, residual))
    return to(layout, layer(*arguments, **case.extra(x, layout)))


@ALL
@LAYOUTS
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
def test_padding_has_no_influence_comes_out_zero_and_gets_no_gradient(
    case: Case, layout: str, garbage: float
) -> None:
    pad = padding(LENGTHS)
    clean, residual = torch.randn(N, C, L), torch.randn(N, C, L)
    found = []
    options = {"activation": "gelu"} if case.activation else {}
    for value in (0.0, garbage):
        layer = build(case, layout, **options)
        x, r = (t.masked_fill(pad, value).requires_grad_() for t in (clean, residual))
        y = call(case, layer, x, LENGTHS, r if case.residual else None)
        assert (y[pad] == 0).all()
        # A loss that looks at padding must not leak through it either.
        loss = (y * torch.linspace(-1, 2, y.numel()).view(y.shape)).sum()
        loss = loss + y[pad].mul(garbage).nansum()
        leaves = [x, *layer.parameters()] + ([r] if case.residual else [])
        grads = torch.autograd.grad(loss, leaves)
        assert (grads[0][pad] == 0).all()
        found.append([y.detach(), *grads, *layer.state_dict().values()])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()
    mask = ~pad[:, 0]
    again = call(
        case, build(case, layout, **options), clean, mask, residual if case.residual else None
    )
    assert torch.equal(again, found[0][0])


@ALL
@PADDED
def test_both_layouts_give_the_same_numbers(case: Case, padded: bool) -> None:
    x = torch.randn(N, C, L)
    lengths = LENGTHS if padded else None
    first, last = build(case, "NCL"), build(case, "NLC")
    for _ in range(2):
        a, b = (x.clone().requires_grad_() for _ in range(2))
        y, z = call(case, first, a, lengths), call(case, last, b, lengths)
        torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)
        y.square().sum().backward()
        z.square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)
    for p, q in zip(first.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(last.state_dict()[name], value, rtol=1e-5, atol=1e-5)


@ALL
@given(
    lengths=st.lists(st.integers(0, L), min_size=1, max_size=4), length=st.integers(1, L),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_a_padded_batch_equals_its_sequences_one_by_one(
    case: Case, lengths: list[int], length: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer = build(case).eval()  # where statistics are of a batch, those that are kept
    counts = torch.tensor(lengths).clamp_max(length)
    x = torch.randn(len(lengths), C, length)
    y = call(case, layer, x, counts)
    for i, n in enumerate(counts.tolist()):
        extra = {name: value[i : i + 1] for name, value in case.extra(x, "NCL").items()}
        one = layer(x[i : i + 1, :, :n], None, **extra) if n else x[i : i + 1, :, :0]
        torch.testing.assert_close(y[i : i + 1, :, :n], one, rtol=1e-5, atol=1e-5)


@ALL
@LAYOUTS
@PADDED
def test_derivatives_are_exact(case: Case, layout: str, padded: bool) -> None:
    layer = build(case, layout, **({"activation": "gelu"} if case.activation else {})).double()
    shape = (4, C, 3)
    x, residual = (torch.randn(shape, dtype=torch.float64).requires_grad_() for _ in range(2))
    lengths = torch.tensor([3, 2, 3, 3]) if padded else None
    parameters = {name: p.detach().clone().requires_grad_() for name, p in layer.named_parameters()}
    start = copy.deepcopy(layer.state_dict())

    def run(x: Tensor, residual: Tensor, *values: Tensor) -> Tensor:
        layer.load_state_dict(start)
        arguments = [to(layout, x), lengths] + ([to(layout, residual)] if case.residual else [])
        extra = case.extra(x, layout)
        given = dict(zip(parameters, values, strict=True))
        y: Tensor = torch.func.functional_call(layer, given, tuple(arguments), extra)
        return y

    if not case.residual:
        residual = residual.detach()
    # r and d of batch renormalization are constants by definition, not for finite differences.
    if case.name == "renorm":
        layer.eval()
    assert torch.autograd.gradcheck(run, (x, residual, *parameters.values()))


@WITH_STATISTICS
@PADDED
def test_the_error_does_not_grow_with_the_offset(case: Case, padded: bool) -> None:
    lengths = torch.tensor([200, 150, 9, 2]) if padded else None
    base = torch.randn(4, C, 200)
    errors = []
    for offset in (0.0, 1e2, 1e4, 1e5):
        x = base + offset
        exact = call(case, build(case).double(), x.double(), lengths)
        errors.append((call(case, build(case), x, lengths) - exact).abs().max().item())
    assert max(errors) <= 4 * errors[0], errors


@OWN_ARITHMETIC
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_are_computed_in_float32_and_kept(case: Case, dtype: torch.dtype) -> None:
    x = (torch.randn(N, C, L) * 100 + 100).to(dtype).requires_grad_()
    residual = torch.randn(N, C, L).to(dtype) if case.residual else None
    layer = build(case).to(dtype)
    wide = copy.deepcopy(layer).float()
    y = call(case, layer, x, LENGTHS, residual)
    assert y.dtype == dtype
    other = None if residual is None else residual.float()
    unit = torch.finfo(dtype).eps
    # One rounding, at the end; but the condition and the style are narrow too, and so are the
    # heads before they are summed here.
    roundings = 8 if case.name.startswith(("film", "adain", "qk")) else 1
    expected = call(case, wide, x.detach().float(), LENGTHS, other)
    near = roundings * 0.51 * unit
    torch.testing.assert_close(y.float(), expected, rtol=near, atol=near / 50 * roundings**2)
    (grad,) = torch.autograd.grad(y.float().square().sum(), x)
    assert grad.dtype == dtype
    assert grad.isfinite().all()


@ALL
@LAYOUTS
def test_it_compiles_into_one_graph(case: Case, layout: str) -> None:
    layer = build(case, layout)
    twin = copy.deepcopy(layer)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for lengths in (None, torch.tensor([L, 5, 2, 3])):
        x = torch.randn(N, C, L)
        extra = case.extra(x, layout)
        a, b = (to(layout, x).requires_grad_() for _ in range(2))
        got, expected = compiled(a, lengths, **extra), twin(b, lengths, **extra)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        got.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[name], value, rtol=1e-5, atol=1e-5)


@ALL
def test_it_exports_with_a_free_batch_size(case: Case) -> None:
    layer = build(case).eval()
    x = torch.randn(N, C, L)
    given = {"x": x, "lengths": LENGTHS} | case.extra(x, "NCL")
    free = {name: {0: torch.export.Dim("batch", min=2)} for name in given}
    exported = torch.export.export(layer, (), given, dynamic_shapes=free)
    fewer = {name: value[:3] for name, value in given.items()}
    torch.testing.assert_close(exported.module()(**fewer), layer(**fewer), rtol=1e-5, atol=1e-5)


@PER_SAMPLE
@PADDED
def test_per_sample_gradients_by_vmap_equal_those_one_by_one(case: Case, padded: bool) -> None:
    layer = build(case)
    parameters = {name: p.detach() for name, p in layer.named_parameters()}
    x = torch.randn(N, C, L)
    extra = case.extra(x, "NCL")

    def loss(given: dict[str, Tensor], x: Tensor, n: Tensor, extra: Extra) -> Tensor:
        one = {name: value[None] for name, value in extra.items()}
        y = torch.func.functional_call(layer, given, (x[None], n[None] if padded else None), one)
        return (y * torch.linspace(-1, 1, C * L).view(1, C, L)).sum()

    argnums = (0, 1) if parameters else (1,)
    one_by_one = torch.func.grad(loss, argnums=argnums)
    got = torch.func.vmap(one_by_one, in_dims=(None, 0, 0, 0))(parameters, x, LENGTHS, extra)
    for i in range(N):
        each = {name: value[i] for name, value in extra.items()}
        expected = one_by_one(parameters, x[i], LENGTHS[i], each)
        torch.testing.assert_close(got[-1][i], expected[-1], rtol=1e-5, atol=1e-5)
        for name in parameters:
            torch.testing.assert_close(got[0][name][i], expected[0][name], rtol=1e-4, atol=1e-4)


@ALL
def test_it_survives_copying_pickling_and_a_state_dict(case: Case) -> None:
    layer = build(case, "NLC")
    x = torch.randn(N, C, L)
    call(case, layer, x, LENGTHS)
    layer.eval()
    loaded = case.build(layout="NLC").eval()
    loaded.load_state_dict(layer.state_dict())
    expected = call(case, layer, x, LENGTHS)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert torch.equal(call(case, twin, x, LENGTHS), expected)
        assert repr(twin) == repr(layer)


@ACTIVATED
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@LAYOUTS
def test_the_activation_comes_last_after_the_residual(
    case: Case, activation: str, layout: str
) -> None:
    x, residual = torch.randn(N, C, L), torch.randn(N, C, L)
    fused = call(case, build(case, layout, activation=activation), x, LENGTHS, residual)
    act = {"relu": torch.relu, "gelu": nn.functional.gelu}[activation]
    plain = act(call(case, build(case, layout), x, LENGTHS) + residual)
    torch.testing.assert_close(fused, plain.masked_fill(padding(LENGTHS), 0), rtol=1e-5, atol=1e-5)


@OF_CHANNELS
def test_two_axes_mean_batch_and_channels(case: Case) -> None:
    x = torch.randn(4, C)
    extra = case.extra(x[:, :, None], "NCL")
    for layout in ("NCL", "NLC"):
        y = build(case, layout)(x, **extra)
        one = build(case, "NCL")(x[:, :, None], **extra)
        torch.testing.assert_close(y, one[:, :, 0], rtol=1e-5, atol=1e-5)


@over(lambda case: not case.name.startswith("qk"))
def test_a_wrong_layout_is_named(case: Case) -> None:
    with pytest.raises(ValueError, match="layout must be 'NCL' or 'NLC', got 'CNL'"):
        case.build(layout="CNL")


@OF_CHANNELS
def test_a_wrong_shape_is_named(case: Case) -> None:
    x = torch.randn(2, C, L)
    extra = case.extra(x, "NCL")
    with pytest.raises(ValueError, match=rf"built for {C} channels, got {L} .*pass layout="):
        build(case)(x.transpose(1, 2), **extra)
    with pytest.raises(ValueError, match=r"lengths\[1\] = 10 is outside 0..9"):
        build(case)(x, torch.tensor([9, 10]), **extra)


@over(lambda case: case.per_sample and not case.name.startswith(("ws", "film")))
@LAYOUTS
@PADDED
def test_a_per_sample_layer_gives_a_sample_the_same_bits_in_any_batch(
    case: Case, layout: str, padded: bool
) -> None:
    x = torch.randn(7, C, 33) + 3
    lengths = torch.randint(0, 34, (7,)) if padded else None
    layer = build(case, layout)
    extra = case.extra(x, layout)
    y = layer(to(layout, x), lengths, **extra)
    for i in (0, 3, 6):
        one = None if lengths is None else lengths[i : i + 1]
        each = {name: value[i : i + 1] for name, value in extra.items()}
        assert torch.equal(layer(to(layout, x[i : i + 1]), one, **each)[0], y[i])


@LEARNING
@LAYOUTS
@PADDED
def test_gradients_of_weights_have_the_same_bits_with_any_number_of_threads(
    case: Case, layout: str, padded: bool
) -> None:
    x = torch.randn(32, C, 300)
    lengths = torch.arange(32) * 9 + 2 if padded else None
    slopes = torch.linspace(-1, 1, x.numel()).view(x.shape)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            layer = build(case, layout)
            (call(case, layer, x, lengths) * slopes).sum().backward()
            found.append([p.grad for p in layer.parameters()])
    finally:
        torch.set_num_threads(1)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
