from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from seqnorm.backends import native
from seqnorm.functional import normalize, normalize_with_moments, valid_positions
from seqnorm.moments import Moments

N, C, L = 4, 6, 11
LENGTHS = torch.tensor([11, 4, 1, 0])
# over, groups, center
CASES = [
    pytest.param("L", 1, True, id="instance"),
    pytest.param("C", 1, True, id="layer"),
    pytest.param("C", 2, True, id="layer-grouped"),
    pytest.param("CL", 1, True, id="layer-seq"),
    pytest.param("CL", 3, True, id="group"),
    pytest.param("NL", 1, True, id="batch"),
    pytest.param("C", 1, False, id="rms"),
    pytest.param("CL", 2, False, id="rms-grouped"),
]
PER_SAMPLE = [case for case in CASES if case.id != "batch"]
LAYOUTS = pytest.mark.parametrize("layout", ["NCL", "NLC"])
PADDED = pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])


@pytest.fixture(autouse=True, params=["kernels", "torch"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every fact of this file holds with the native kernels and without them."""
    if request.param == "torch":
        monkeypatch.setattr(native, "MISSING", "left out by a test")
    torch.manual_seed(0)
    yield
    torch.set_num_threads(1)  # some tests ask what others make of it


def sequences(layout: str = "NCL", shape: tuple[int, int, int] = (N, C, L), **kw: Any) -> Tensor:
    x = torch.randn(shape, **kw)
    return x if layout == "NCL" else x.transpose(1, 2).contiguous()


def affine(channels: int = C, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return {
        "weight": torch.linspace(0.5, 2.0, channels, dtype=dtype),
        "bias": torch.linspace(-1.0, 1.0, channels, dtype=dtype),
    }


def by_hand(
    x: Tensor, over: str, groups: int, center: bool, layout: str, lengths: Tensor | None, eps: float
) -> Tensor:
    """Normalize set by set in float64: an index of the set for each number, nothing else."""
    ncl = (x if layout == "NCL" else x.transpose(1, 2)).double()
    n, c, length = ncl.shape
    rows, channels, positions = torch.meshgrid(
        torch.arange(n), torch.arange(c), torch.arange(length), indexing="ij"
    )
    group = channels // (c // groups) if "C" in over else channels
    key = group
    if "N" not in over:
        key = key + 1000 * rows
    if "L" not in over:
        key = key + 1_000_000 * positions
    valid = torch.ones_like(key, dtype=torch.bool)
    if lengths is not None:
        valid = positions < lengths[rows]
    out = torch.zeros_like(ncl)
    for one in key[valid].unique():
        chosen = (key == one) & valid
        values = ncl[chosen]
        mean = values.mean() if center else 0.0
        out[chosen] = (values - mean) / ((values - mean).square().mean() + eps).sqrt()
    out = out * affine(c)["weight"][:, None] + affine(c)["bias"][:, None]
    out = torch.where(valid, out, 0)
    return out if layout == "NCL" else out.transpose(1, 2)


@LAYOUTS
@PADDED
@pytest.mark.parametrize(("over", "groups", "center"), CASES)
def test_it_equals_normalizing_each_set_by_hand(
    over: str, groups: int, center: bool, layout: str, padded: bool
) -> None:
    x = sequences(layout) * 3 + 2
    lengths = LENGTHS if padded else None
    got = normalize(
        x, over, lengths=lengths, groups=groups, center=center, layout=layout, eps=1e-3, **affine()
    )
    expected = by_hand(x, over, groups, center, layout, lengths, 1e-3)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=2e-6)


@LAYOUTS
@pytest.mark.parametrize(("over", "groups", "center"), PER_SAMPLE)
def test_a_padded_batch_equals_its_sequences_one_by_one(
    over: str, groups: int, center: bool, layout: str
) -> None:
    x = sequences(layout)
    grad = sequences(layout)
    kw: dict[str, Any] = {"groups": groups, "center": center, "layout": layout}
    position = layout.index("L")

    def run(x: Tensor, g: Tensor, lengths: Tensor | None) -> tuple[Tensor, ...]:
        leaves = [x.clone().requires_grad_(), *(p.requires_grad_() for p in affine().values())]
        y = normalize(leaves[0], over, lengths=lengths, weight=leaves[1], bias=leaves[2], **kw)
        return (y.detach(), *torch.autograd.grad(y, leaves, g))

    # A single position has variance 0: its gradient is 0 times 1 / sqrt(eps), rounding magnified.
    lengths = torch.tensor([11, 4, 2, 0])
    y, grad_x, grad_w, grad_b = run(x, grad, lengths)
    sums = [torch.zeros(C), torch.zeros(C)]
    for i, n in enumerate(lengths.tolist()):
        cut = [t[i : i + 1].narrow(position, 0, n) for t in (x, grad, y, grad_x)]
        one_y, one_x, one_w, one_b = run(cut[0], cut[1], None)
        torch.testing.assert_close(cut[2], one_y, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(cut[3], one_x, rtol=1e-5, atol=1e-6)
        sums = [sums[0] + one_w, sums[1] + one_b]
    torch.testing.assert_close(grad_w, sums[0], rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(grad_b, sums[1], rtol=1e-6, atol=2e-6)


@LAYOUTS
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize(("over", "groups", "center"), CASES)
def test_padding_has_no_influence_comes_out_zero_and_gets_no_gradient(
    over: str, groups: int, center: bool, layout: str, garbage: float
) -> None:
    mask = torch.arange(L) < LENGTHS[:, None]
    pad = ~(mask[:, None] if layout == "NCL" else mask[:, :, None]).expand_as(sequences(layout))
    clean = sequences(layout)
    results = []
    for x in (clean, clean.masked_fill(pad, garbage)):
        x.requires_grad_()
        params = affine()
        params["weight"].requires_grad_()
        y = normalize(x, over, lengths=mask, groups=groups, center=center, layout=layout, **params)
        assert (y[pad] == 0).all()
        # A loss that looks at padding must not leak through it either.
        loss = y.square().sum() + y[pad].mul(garbage).nansum()
        grad_x, grad_w = torch.autograd.grad(loss, (x, params["weight"]))
        assert (grad_x[pad] == 0).all()
        results.append((y.detach(), grad_x, grad_w))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()


@LAYOUTS
def test_a_mask_with_holes_counts_only_what_it_marks(layout: str) -> None:
    x = sequences(layout)
    keep = torch.tensor([0, 2, 3, 7, 10])
    mask = torch.zeros(N, L, dtype=torch.bool)
    mask[:, keep] = True
    axis = layout.index("L")
    for over in ("L", "C", "CL", "NL"):
        got = normalize(x, over, lengths=mask, layout=layout).index_select(axis, keep)
        expected = normalize(x.index_select(axis, keep), over, layout=layout)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@LAYOUTS
@PADDED
@pytest.mark.parametrize(("over", "groups", "center"), CASES)
def test_the_error_does_not_grow_with_the_offset(
    over: str, groups: int, center: bool, layout: str, padded: bool
) -> None:
    shape = (8, 6, 200)
    lengths = torch.tensor([200, 150, 100, 60, 30, 20, 9, 2]) if padded else None
    base = sequences(layout, shape)
    errors = []
    for offset in (0.0, 1e2, 1e4, 1e5):
        x = base + offset
        kw: dict[str, Any] = {"lengths": lengths, "groups": groups, "layout": layout}
        got = normalize(x, over, center=center, **kw, **affine())
        exact = by_hand(x, over, groups, center, layout, lengths, 1e-5)
        errors.append((got.double() - exact).abs().max().item())
    assert max(errors) <= 4 * errors[0], errors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@PADDED
@pytest.mark.parametrize(("over", "groups", "center"), CASES)
def test_narrow_inputs_of_a_thousand_are_computed_in_float32_and_keep_their_type(
    over: str, groups: int, center: bool, dtype: torch.dtype, padded: bool
) -> None:
    x = (sequences() * 1e3 + 1e3).to(dtype).requires_grad_()
    lengths = LENGTHS if padded else None
    y = normalize(x, over, lengths=lengths, groups=groups, center=center, **affine())
    assert y.dtype == dtype
    expected = by_hand(x.detach(), over, groups, center, "NCL", lengths, 1e-5).to(dtype)
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(y, expected, rtol=unit, atol=unit / 4)
    (grad,) = torch.autograd.grad(y.float().square().sum(), x)
    assert grad.dtype == dtype
    assert grad.isfinite().all()


def test_autocast_does_not_narrow_the_statistics() -> None:
    x = sequences() + 1e3
    for over in ("L", "C", "CL", "NL"):
        for lengths in (None, LENGTHS):
            plain = normalize(x, over, lengths=lengths, **affine())
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(normalize(x, over, lengths=lengths, **affine()), plain)


@LAYOUTS
@PADDED
@pytest.mark.parametrize(("over", "groups", "center"), CASES)
def test_first_and_second_derivatives_are_exact(
    over: str, groups: int, center: bool, layout: str, padded: bool
) -> None:
    x = sequences(layout, (2, 6, 3), dtype=torch.float64).requires_grad_()
    lengths = torch.tensor([3, 2]) if padded else None
    params = [p.requires_grad_() for p in affine(dtype=torch.float64).values()]

    def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return normalize(
            x, over, lengths=lengths, groups=groups, center=center, weight=weight, bias=bias,
            layout=layout, eps=1e-2,
        )  # fmt: skip

    assert torch.autograd.gradcheck(run, (x, *params))
    assert torch.autograd.gradgradcheck(run, (x, *params))


@LAYOUTS
@PADDED
@pytest.mark.parametrize(("over", "groups", "center"), PER_SAMPLE)
def test_per_sample_gradients_by_vmap_equal_those_one_by_one(
    over: str, groups: int, center: bool, layout: str, padded: bool
) -> None:
    def loss(params: dict[str, Tensor], x: Tensor, length: Tensor) -> Tensor:
        y = normalize(
            x[None], over, lengths=length[None] if padded else None, groups=groups,
            center=center, layout=layout, **params,
        )  # fmt: skip
        return (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum()

    x, params = sequences(layout), affine()
    got = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(params, x, LENGTHS)
    for i in range(N):
        one = torch.func.grad(loss)(params, x[i], LENGTHS[i])
        for name, value in one.items():
            torch.testing.assert_close(got[name][i], value, rtol=1e-5, atol=1e-6)


@LAYOUTS
@PADDED
@pytest.mark.parametrize(("over", "groups", "center"), PER_SAMPLE)
def test_a_per_sample_norm_gives_a_sample_the_same_bits_in_any_batch(
    over: str, groups: int, center: bool, layout: str, padded: bool
) -> None:
    for n, length in ((33, 30), (7, 33), (3, 513)):
        x = sequences(layout, (n, 12, length)) + 3
        lengths = torch.randint(0, length + 1, (n,)) if padded else None
        kw: dict[str, Any] = {"groups": groups, "center": center, "layout": layout}
        y = normalize(x, over, lengths=lengths, **affine(12), **kw)
        for i in (0, n - 1):
            one = None if lengths is None else lengths[i : i + 1]
            alone = normalize(x[i : i + 1], over, lengths=one, **affine(12), **kw)
            assert torch.equal(alone[0], y[i])


@LAYOUTS
@PADDED
@pytest.mark.parametrize(("over", "groups", "center"), CASES)
def test_weight_gradients_have_the_same_bits_with_any_number_of_threads(
    over: str, groups: int, center: bool, layout: str, padded: bool
) -> None:
    x = sequences(layout, (32, 6, 300))
    lengths = torch.arange(32) * 9 if padded else None
    slopes = torch.linspace(-1, 1, x.numel()).view(x.shape)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        params = {name: value.requires_grad_() for name, value in affine().items()}
        y = normalize(
            x, over, lengths=lengths, groups=groups, center=center, layout=layout, **params
        )
        found.append(torch.autograd.grad((y * slopes).sum(), list(params.values())))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@LAYOUTS
@PADDED
@pytest.mark.parametrize(
    ("over", "dims"), [("L", (2,)), ("NL", (0, 2)), ("CL", (2, 3)), ("C", (2,))]
)
def test_the_moments_told_are_those_of_the_valid_positions(
    over: str, dims: tuple[int, ...], layout: str, padded: bool
) -> None:
    x = sequences(layout) + 1e4
    lengths = LENGTHS if padded else None
    groups = 2 if "C" in over else 1
    y, got = normalize_with_moments(x, over, lengths=lengths, groups=groups, layout=layout)
    torch.testing.assert_close(y, normalize(x, over, lengths=lengths, groups=groups, layout=layout))
    ncl = x if layout == "NCL" else x.transpose(1, 2)
    mask = valid_positions(lengths, N, L)
    view = ncl.unflatten(1, (2, 3)) if "C" in over else ncl
    if mask is not None:
        mask = mask[:, None, None] if "C" in over else mask[:, None]
        mask = mask.expand(view.shape)
    expected = Moments.of(view, dims, mask)
    for name in ("count", "mean", "m2"):
        value = getattr(expected, name)
        value = value.transpose(1, 2) if over == "C" and layout == "NLC" else value
        torch.testing.assert_close(getattr(got, name), value, rtol=2e-6, atol=1e-6)
        assert getattr(got, name).dtype == torch.float64


@LAYOUTS
@PADDED
@pytest.mark.parametrize("over", ["L", "NL"])
def test_given_statistics_are_used_instead_of_the_inputs(
    over: str, layout: str, padded: bool
) -> None:
    x = sequences(layout)
    mean, var = torch.linspace(-2, 2, C), torch.linspace(0.1, 3, C)
    lengths = LENGTHS if padded else None
    got = normalize(x, over, lengths=lengths, mean=mean, var=var, layout=layout, **affine())
    ncl = x if layout == "NCL" else x.transpose(1, 2)
    params = {name: value[:, None] for name, value in affine().items()}
    expected = (ncl - mean[:, None]) / (var[:, None] + 1e-5).sqrt()
    expected = expected * params["weight"] + params["bias"]
    if padded:
        expected = expected * (torch.arange(L) < LENGTHS[:, None])[:, None]
    expected = expected if layout == "NCL" else expected.transpose(1, 2)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@LAYOUTS
@PADDED
@pytest.mark.parametrize("shape", [(0, C, L), (2, C, 0), (1, C, 1), (2, C, 1)])
@pytest.mark.parametrize(("over", "groups", "center"), CASES)
def test_empty_and_single_position_inputs_give_finite_outputs_and_gradients(
    over: str, groups: int, center: bool, layout: str, shape: tuple[int, int, int], padded: bool
) -> None:
    x = sequences(layout, shape).requires_grad_()
    lengths = torch.full((shape[0],), shape[2]) if padded else None
    params = {name: value.requires_grad_() for name, value in affine().items()}
    y = normalize(x, over, lengths=lengths, groups=groups, center=center, layout=layout, **params)
    assert y.shape == x.shape
    assert y.isfinite().all()
    for grad in torch.autograd.grad(y.sum(), [x, *params.values()]):
        assert grad.isfinite().all()


@pytest.mark.parametrize("over", ["L", "NL"])
@PADDED
def test_a_set_of_one_number_comes_out_as_the_bias(over: str, padded: bool) -> None:
    x, lengths = (sequences(shape=(2, C, 3)), torch.tensor([1, 0])) if padded else (
        sequences(shape=(1, C, 1)), None
    )  # fmt: skip
    y, moments = normalize_with_moments(x, over, lengths=lengths, **affine())
    torch.testing.assert_close(y[0, :, 0], affine()["bias"])
    torch.testing.assert_close(normalize(x, over, lengths=lengths, **affine()), y)
    assert moments.m2.tolist() == torch.zeros_like(moments.m2).tolist()


def test_weight_and_bias_are_each_optional() -> None:
    x = sequences()
    for over, center in (("L", True), ("C", True), ("NL", True), ("CL", False)):
        for lengths in (None, torch.full((N,), L)):
            base = normalize(x, over, center=center, lengths=lengths)
            p = affine()
            only_weight = normalize(x, over, center=center, lengths=lengths, weight=p["weight"])
            only_bias = normalize(x, over, center=center, lengths=lengths, bias=p["bias"])
            torch.testing.assert_close(only_weight, base * p["weight"][:, None])
            torch.testing.assert_close(only_bias, base + p["bias"][:, None], rtol=1e-5, atol=1e-6)


ones = torch.ones
WRONG: list[Any] = [
    pytest.param({"over": "LC"}, "over must be one of 'L', 'C', 'CL', 'NL', got 'LC'", id="over"),
    pytest.param({"layout": "CNL"}, "layout must be one of 'NCL', 'NLC', got 'CNL'", id="layout"),
    pytest.param({"x": ones(3, 4)}, r"three axes \(N, C, L\), got shape \(3, 4\)", id="axes"),
    pytest.param({"x": ones(2, 4, 5, dtype=torch.int64)}, r"got torch.int64; pass x", id="type"),
    pytest.param({"groups": 3}, "groups=3 does not divide the 4 channels", id="groups"),
    pytest.param({"groups": 0}, "groups=0 does not divide", id="no-groups"),
    pytest.param({"over": "L", "groups": 2}, "groups=2 needs over='C'", id="groups-over"),
    pytest.param({"weight": ones(5)}, r"weight must have shape \(4,\).*got \(5,\)", id="weight"),
    pytest.param({"bias": ones(1)}, r"bias must have shape \(4,\).*got \(1,\)", id="bias"),
    pytest.param({"lengths": [5, 5]}, "lengths must be a tensor, got list", id="list"),
    pytest.param({"lengths": ones(2)}, r"got torch.float32; pass lengths.long", id="float"),
    pytest.param(
        {"lengths": torch.tensor([5, 5, 5])}, r"shape \(2,\) for.*N=2 and L=5, got \(3,\)", id="n"
    ),
    pytest.param(
        {"lengths": ones(2, 4, dtype=torch.bool)}, r"shape \(2, 5\) .*got \(2, 4\)", id="mask"
    ),
    pytest.param({"lengths": torch.tensor([5, 6])}, r"lengths\[1\] = 6 is outside 0..5", id="6"),
    pytest.param({"lengths": torch.tensor([-1, 5])}, r"lengths\[0\] = -1 is outside", id="-1"),
    pytest.param({"over": "L", "mean": ones(4)}, "pass both or neither", id="mean"),
    pytest.param({"mean": ones(4), "var": ones(4)}, "got over='CL'", id="mean-over"),
    pytest.param(
        {"over": "NL", "mean": ones(3), "var": ones(4)}, r"mean must have shape", id="mean-shape"
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_argument_is_named_with_its_value(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"x": ones(2, 4, 5), "over": "CL"} | change
    with pytest.raises(ValueError, match=message) as raised:
        normalize(**arguments)
    assert "\n" not in str(raised.value)


@LAYOUTS
@PADDED
@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize(("over", "groups", "center"), CASES)
def test_residual_and_activation_follow_the_affine_map(
    over: str, groups: int, center: bool, activation: str | None, layout: str, padded: bool
) -> None:
    lengths = LENGTHS if padded else None
    kw: dict[str, Any] = {"groups": groups, "center": center, "layout": layout} | affine()
    mask = torch.arange(L) < LENGTHS[:, None]
    pad = ~(mask[:, None] if layout == "NCL" else mask[:, :, None]).expand_as(sequences(layout))
    pad = pad & padded
    clean = [sequences(layout), sequences(layout)]
    x, residual = (t.masked_fill(pad, torch.nan).requires_grad_() for t in clean)
    y = normalize(x, over, lengths=lengths, activation=activation, residual=residual, **kw)
    a, b = (t.clone().requires_grad_() for t in clean)
    act = {None: lambda t: t, "relu": torch.relu, "gelu": torch.nn.functional.gelu}[activation]
    expected = act(normalize(a, over, lengths=lengths, **kw) + b).masked_fill(pad, 0)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    slopes = sequences(layout)
    got = torch.autograd.grad(y, (x, residual), slopes)
    for one, other in zip(got, torch.autograd.grad(expected, (a, b), slopes), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
