"""The kernels inside torch: graphs, transforms, derivatives of derivatives."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import seqnorm
from seqnorm.backends import native
from seqnorm.backends.plan import Plan
from seqnorm.functional import normalize
from seqnorm.kinds import NORM_KINDS
from seqnorm.layers import (
    BatchNorm1d,
    GroupNorm,
    InstanceNorm1d,
    LayerNorm,
    RMSNorm,
    make_norm,
)

pytestmark = pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
C, L = 8, 13
KINDS = pytest.mark.parametrize("kind", [kind for kind in NORM_KINDS if kind != "none"])
LAYOUTS = pytest.mark.parametrize("layout", ["NCL", "NLC"])
SETS = [("L", 1), ("C", 2), ("CL", 2), ("NL", 1)]
OVER = pytest.mark.parametrize(("over", "groups"), SETS)


def sequences(layout: str = "NCL", n: int = 3, length: int = L, **kw: Any) -> Tensor:
    draw = torch.Generator().manual_seed(n)
    return torch.randn((n, C, length) if layout == "NCL" else (n, length, C), generator=draw, **kw)


def arguments(over: str, groups: int, layout: str, padded: bool, given: bool) -> tuple[Any, ...]:
    x = sequences(layout).requires_grad_()
    weight, bias = torch.rand(C).requires_grad_(), torch.rand(C).requires_grad_()
    valid = torch.tensor([L, 5, 0]) if padded else None
    residual = sequences(layout, dtype=torch.float32).requires_grad_()
    known = (torch.rand(C).double(), torch.rand(C).double()) if given else (None, None)
    return x, valid, weight, bias, residual, *known, over, layout, groups, True, 1e-5, "gelu"


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("padded", [False, True])
@LAYOUTS
@OVER
def test_the_operators_keep_the_rules_of_torch(
    over: str, groups: int, layout: str, padded: bool, given: bool
) -> None:
    if given and "C" in over:
        pytest.skip("statistics are given by channel only")
    args = arguments(over, groups, layout, padded, given)
    plain = tuple(a.detach() if isinstance(a, Tensor) else a for a in args)
    torch.library.opcheck(torch.ops.seqnorm.normalize, plain)
    y, mean, var = torch.ops.seqnorm.normalize(*plain)
    back = (torch.randn_like(y), plain[0], mean, var, *plain[1:5], given, *plain[7:])
    torch.library.opcheck(torch.ops.seqnorm.normalize_backward, back)


@pytest.mark.parametrize("padded", [False, True])
@LAYOUTS
@OVER
def test_first_and_second_derivatives_of_the_kernels_are_exact(
    over: str, groups: int, layout: str, padded: bool
) -> None:
    x = sequences(layout, 2, 3, dtype=torch.float64).requires_grad_()
    residual = sequences(layout, 2, 3, dtype=torch.float64).mul(2).requires_grad_()
    lengths = torch.tensor([3, 2]) if padded else None
    weight = torch.linspace(0.5, 2, C, dtype=torch.float64).requires_grad_()
    bias = torch.linspace(-1, 1, C, dtype=torch.float64).requires_grad_()

    def run(x: Tensor, weight: Tensor, bias: Tensor, residual: Tensor) -> Tensor:
        return normalize(
            x, over, lengths=lengths, groups=groups, weight=weight, bias=bias, layout=layout,
            eps=1e-2, activation="gelu", residual=residual,
        )  # fmt: skip

    with seqnorm.backend("native"):
        assert torch.autograd.gradcheck(run, (x, weight, bias, residual))
        assert torch.autograd.gradgradcheck(run, (x, weight, bias, residual))


def test_first_and_second_derivatives_with_given_statistics_are_exact() -> None:
    x = sequences("NCL", 2, 3, dtype=torch.float64).requires_grad_()
    weight = torch.linspace(0.5, 2, C, dtype=torch.float64).requires_grad_()
    mean, var = torch.rand(C, dtype=torch.float64), torch.rand(C, dtype=torch.float64)

    def run(x: Tensor, weight: Tensor) -> Tensor:
        return normalize(x, "NL", weight=weight, mean=mean, var=var, activation="gelu")

    with seqnorm.backend("native"):
        assert torch.autograd.gradcheck(run, (x, weight))
        assert torch.autograd.gradgradcheck(run, (x, weight))


def test_given_statistics_that_learn_get_their_gradients() -> None:
    x, mean = sequences(), torch.zeros(C, requires_grad=True)
    normalize(x, "NL", mean=mean, var=torch.ones(C)).sum().backward()
    assert mean.grad is not None
    torch.testing.assert_close(mean.grad, torch.full((C,), -3.0 * L), rtol=1e-4, atol=0)


TWINS: list[Any] = [
    pytest.param(lambda: LayerNorm(C, layout="NLC"), lambda: nn.LayerNorm(C), "NLC", id="layer"),
    pytest.param(lambda: RMSNorm(C, layout="NLC"), lambda: nn.RMSNorm(C), "NLC", id="rms"),
    pytest.param(lambda: GroupNorm(2, C), lambda: nn.GroupNorm(2, C), "NCL", id="group"),
    pytest.param(
        lambda: InstanceNorm1d(C, affine=True), lambda: nn.InstanceNorm1d(C, affine=True), "NCL",
        id="instance",
    ),
    pytest.param(lambda: BatchNorm1d(C), lambda: nn.BatchNorm1d(C), "NCL", id="batch"),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs", "layout"), TWINS)
def test_double_backward_equals_the_twins(
    ours: Callable[[], nn.Module], theirs: Callable[[], nn.Module], layout: str
) -> None:
    found = []
    for norm in (ours(), theirs()):
        x = sequences(layout).requires_grad_()
        y = norm(x)
        (grad,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        parameters = [p for p in norm.parameters() if p is not getattr(norm, "bias", None)]
        found.append(torch.autograd.grad(grad.square().sum(), [x, *parameters]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("ours", "theirs", "layout"), TWINS)
def test_jacobians_by_every_way_equal_the_twins(
    ours: Callable[[], nn.Module], theirs: Callable[[], nn.Module], layout: str
) -> None:
    a, b = ours(), theirs()
    x = sequences(layout, 2, 3)
    for module in (a, b):
        module.train(not isinstance(module, nn.BatchNorm1d))
    expected = torch.func.jacrev(b)(x)
    for way in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(way(a)(x), expected, rtol=1e-4, atol=1e-5)
    tangent = torch.ones_like(x)
    torch.testing.assert_close(
        torch.func.jvp(a, (x,), (tangent,))[1], torch.func.jvp(b, (x,), (tangent,))[1],
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("padded", [False, True])
@LAYOUTS
@OVER
def test_vmap_over_any_argument_equals_a_loop(
    over: str, groups: int, layout: str, padded: bool
) -> None:
    lengths = torch.tensor([L, 5, 0]) if padded else None
    xs = torch.stack([sequences(layout, 3) + i for i in range(4)])
    weights = torch.rand(4, C)

    def run(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        def loss(x: Tensor, weight: Tensor) -> Tensor:
            y = normalize(
                x, over, lengths=lengths, groups=groups, weight=weight, layout=layout,
                residual=2 * x, activation="gelu",
            )  # fmt: skip
            return (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum()

        return torch.func.grad(loss, argnums=(0, 1))(x, weight)

    for in_dims in ((0, None), (0, 0), (None, 0)):
        x = xs if in_dims[0] == 0 else xs[0]
        weight = weights if in_dims[1] == 0 else weights[0]
        got = torch.func.vmap(run, in_dims=in_dims)(x, weight)
        for i in range(4):
            one = run(xs[i] if in_dims[0] == 0 else x, weights[i] if in_dims[1] == 0 else weight)
            for a, b in zip(got, one, strict=True):
                torch.testing.assert_close(a[i], b, rtol=1e-5, atol=1e-6)


@KINDS
def test_per_sample_gradients_of_a_model_by_vmap_equal_those_one_by_one(kind: str) -> None:
    model = nn.Sequential(nn.Conv1d(C, C, 3, padding=1), make_norm(kind, C), nn.Flatten())
    model.eval()
    params = dict(model.named_parameters())
    x = sequences(n=5)

    def loss(params: dict[str, Tensor], x: Tensor) -> Tensor:
        y: Tensor = torch.func.functional_call(model, params, (x[None],))
        return (y * torch.linspace(-1, 1, C * L)).sum()

    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(params, x)
    for i in range(5):
        one = torch.func.grad(loss)(params, x[i])
        for name, value in one.items():
            torch.testing.assert_close(got[name][i], value, rtol=1e-4, atol=1e-5)


@KINDS
def test_one_compiled_graph_serves_all_shapes(kind: str) -> None:
    norm = make_norm(kind, C)
    twin = copy.deepcopy(norm)
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(norm, fullgraph=True, dynamic=True, backend="aot_eager")
    for n, length in ((3, 13), (5, 40), (2, 7), (9, 100)):
        a = sequences(n=n, length=length).requires_grad_()
        b = a.detach().clone().requires_grad_()
        got, expected = compiled(a), twin(b)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
        got.pow(3).sum().backward()
        expected.pow(3).sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@KINDS
def test_inductor_gives_the_numbers_of_eager(kind: str) -> None:
    model = nn.Sequential(nn.Conv1d(C, C, 3, padding=1), make_norm(kind, C), nn.ReLU())
    twin = copy.deepcopy(model)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True)
    x = sequences(n=4)
    got, expected = compiled(x), twin(x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    got.square().sum().backward()
    expected.square().sum().backward()
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-4)


@KINDS
def test_an_exported_graph_holds_plain_operations_alone(kind: str) -> None:
    norm = make_norm(kind, C).eval()
    exported = torch.export.export(norm, (sequences(), torch.tensor([L, 5, 0])))
    names = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert not [name for name in names if "seqnorm" in name]


@KINDS
@pytest.mark.parametrize("shape", [(0, C, L), (2, C, 0), (1, C, 1), (2, C, 1)], ids=str)
def test_empty_and_single_inputs_pass_forward_and_backward(
    kind: str, shape: tuple[int, int, int]
) -> None:
    norm = make_norm(kind, C).eval()
    x = torch.randn(shape, requires_grad=True)
    y = norm(x)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert norm(torch.randn(2, C, 5), torch.tensor([0, 0])).tolist() == [[[0.0] * 5] * C] * 2


@KINDS
@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
        lambda t: t[:, :, ::2],
        lambda t: t.expand(4, *t.shape[1:]) if t.shape[0] == 1 else t[::2],
        lambda t: t.transpose(0, 2).contiguous().transpose(0, 2),
    ],
    ids=["channels-last", "every-second-position", "every-second-sequence", "reversed"],
)
def test_views_equal_their_copies(kind: str, view: Callable[[Tensor], Tensor]) -> None:
    norm, twin = make_norm(kind, C), make_norm(kind, C)
    base = sequences(n=4, length=10)
    viewed = view(base)
    lengths = torch.arange(viewed.shape[0]) + 2
    grads = []
    for module, x in ((norm, viewed), (twin, viewed.clone(memory_format=torch.contiguous_format))):
        x = x.detach().requires_grad_()
        y = module(x, lengths)
        y.pow(3).sum().backward()
        grads.append((y, x.grad, module.weight.grad))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(twin.state_dict()[name], value)


def test_an_input_of_no_axes_is_refused_in_one_line() -> None:
    for kind in NORM_KINDS:
        with pytest.raises(ValueError, match=r"got shape \(\)"):
            make_norm(kind, C)(torch.tensor(1.0))


@KINDS
def test_meta_tensors_give_shapes(kind: str) -> None:
    norm = make_norm(kind, C).to("meta").eval()
    y = norm(torch.empty(5, C, L, device="meta"))
    assert y.shape == (5, C, L)
    assert y.device.type == "meta"


@KINDS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_narrow_inputs_keep_statistics_wide(kind: str, dtype: torch.dtype) -> None:
    norm = make_norm(kind, C)
    x = (sequences() * 1e3).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype):
        y = norm(x)
    assert y.dtype == dtype
    assert y.isfinite().all()
    expected = copy.deepcopy(norm).double()(x.detach().double())
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(y.double(), expected, rtol=unit, atol=unit)
    y.float().square().sum().backward()
    assert norm.weight.grad.dtype == torch.float32


@KINDS
def test_copies_pickles_and_checkpointed_segments_work(kind: str) -> None:
    norm = make_norm(kind, C)
    x = sequences().requires_grad_()
    expected = torch.autograd.grad(norm(x).pow(3).sum(), x)[0]
    for twin in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert torch.equal(torch.autograd.grad(twin(x).pow(3).sum(), x)[0], expected)
    y = torch.utils.checkpoint.checkpoint(norm, x, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(y.pow(3).sum(), x)[0], expected)


def test_the_backend_can_be_forced_nested_and_says_what_it_cannot_do() -> None:
    x = sequences()
    plain = normalize(x, "C")
    with seqnorm.backend("reference"):
        reference = normalize(x, "C")
        with seqnorm.backend("auto"):
            assert torch.equal(normalize(x, "C"), plain)
        assert torch.equal(normalize(x, "C"), reference)
    torch.testing.assert_close(reference, plain, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="'aten' cannot do this: no kernel over C in NCL"):
        seqnorm.backend("aten")(normalize)(x, "C")
    with pytest.raises(ValueError, match="'triton' cannot do this: it works on cuda"):
        seqnorm.backend("triton")(normalize)(x, "C")
    with pytest.raises(ValueError, match="unknown backend 'cuda'; valid: native, triton"):
        seqnorm.backend("cuda")
    assert torch.equal(normalize(x, "C"), plain)


def test_without_the_library_torch_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    x = sequences()
    expected = normalize(x, "C")
    monkeypatch.setattr(native, "MISSING", "not built")
    torch.testing.assert_close(normalize(x, "C"), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="not built"):
        seqnorm.backend("native")(normalize)(x, "C")


def test_the_moments_told_are_the_same_from_kernels_and_from_torch() -> None:
    lengths = torch.tensor([L, 5, 0])
    for over, groups in SETS:
        for layout in ("NCL", "NLC"):
            for valid in (None, lengths, torch.arange(L) < lengths[:, None]):
                x = sequences(layout)
                for view in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
                    kw: dict[str, Any] = {"lengths": valid, "groups": groups, "layout": layout}
                    _, got = seqnorm.functional.normalize_with_moments(view, over, **kw)
                    with seqnorm.backend("reference"):
                        _, want = seqnorm.functional.normalize_with_moments(view, over, **kw)
                    for name in ("count", "mean", "m2"):
                        torch.testing.assert_close(
                            getattr(got, name), getattr(want, name), rtol=1e-5, atol=1e-6
                        )


def test_plans_know_the_shapes_of_their_statistics() -> None:
    x = sequences()
    assert Plan("L", "NCL").sets(x) == (3, C)
    assert Plan("NL", "NCL").sets(x) == (C,)
    assert Plan("CL", "NCL", 2).sets(x) == (3, 2)
    assert Plan("C", "NCL", 2).sets(x) == (3, 2, L)
    assert Plan("C", "NLC", 2).sets(x.transpose(1, 2)) == (3, L, 2)
