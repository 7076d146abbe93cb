import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqnorm.kinds import NORM_KINDS, parse_norm
from seqnorm.layers import (
    BatchNorm1d,
    GroupNorm,
    InstanceNorm1d,
    LayerNorm,
    NoNorm,
    RMSNorm,
    make_norm,
)
from seqnorm.moments import Moments

C, L = 8, 13
LAYOUTS = pytest.mark.parametrize("layout", ["NCL", "NLC"])
KINDS = pytest.mark.parametrize("kind", NORM_KINDS)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def to(layout: str, x: Tensor) -> Tensor:
    return x if layout == "NCL" or x.dim() < 3 else x.transpose(1, 2).contiguous()


def last(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    """Call a channels-last twin on channels-first data."""
    return lambda x: norm(x.transpose(1, 2)).transpose(1, 2)


def plain(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    return norm


# ours, torch's, how to call torch's on (N, C, L)
Twin = tuple[Callable[..., nn.Module], Callable[..., nn.Module], Any]
TWINS: list[Any] = [
    pytest.param((BatchNorm1d, nn.BatchNorm1d, plain), (C,), {}, id="batch"),
    pytest.param(
        (BatchNorm1d, nn.BatchNorm1d, plain), (C, 1e-3, None), {}, id="batch-cumulative"
    ),
    pytest.param(
        (BatchNorm1d, nn.BatchNorm1d, plain), (C,),
        {"affine": False, "track_running_stats": False}, id="batch-bare",
    ),
    pytest.param((InstanceNorm1d, nn.InstanceNorm1d, plain), (C,), {}, id="instance"),
    pytest.param(
        (InstanceNorm1d, nn.InstanceNorm1d, plain), (C, 1e-5, 0.3, True, True), {},
        id="instance-tracking",
    ),
    pytest.param(
        (InstanceNorm1d, nn.InstanceNorm1d, plain), (C, 1e-5, None, True, True), {},
        id="instance-without-momentum",
    ),
    pytest.param((GroupNorm, nn.GroupNorm, plain), (4, C), {}, id="group"),
    pytest.param((GroupNorm, nn.GroupNorm, plain), (4, C, 1e-3, False), {}, id="group-bare"),
    pytest.param((LayerNorm, nn.LayerNorm, last), (C,), {}, id="layer"),
    pytest.param((LayerNorm, nn.LayerNorm, last), ([C],), {"bias": False}, id="layer-no-bias"),
    pytest.param(
        (LayerNorm, nn.LayerNorm, last), (C, 1e-3, False), {}, id="layer-bare"
    ),
    pytest.param((RMSNorm, nn.RMSNorm, last), (C,), {}, id="rms"),
    pytest.param((RMSNorm, nn.RMSNorm, last), (C, 1e-3, False), {}, id="rms-bare"),
]  # fmt: skip


def pair(twin: Twin, args: tuple[Any, ...], kw: dict[str, Any], layout: str) -> Any:
    """Build our layer and its twin with the same random weights, by load_state_dict."""
    ours, theirs = twin[0](*args, **kw, layout=layout), twin[1](*args, **kw)
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.randn_like(p))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs, twin[2](theirs)


@LAYOUTS
@pytest.mark.parametrize(("twin", "args", "kw"), TWINS)
def test_outputs_gradients_and_running_statistics_equal_the_twins(
    twin: Twin, args: tuple[Any, ...], kw: dict[str, Any], layout: str
) -> None:
    ours, theirs, call = pair(twin, args, kw, layout)
    assert isinstance(ours, twin[1])
    for step in range(6):
        for module in (ours, theirs):
            module.train(step not in (3, 5))
        x = torch.randn(4, C, L) * (step + 1) + step
        grad = torch.randn(4, C, L)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        got, expected = ours(to(layout, a)), call(b)
        torch.testing.assert_close(got, to(layout, expected), rtol=1e-5, atol=1e-5)
        got.backward(to(layout, grad))
        expected.backward(grad)
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4)
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("twin", "args", "kw"), TWINS)
def test_other_types_equal_the_twins_to_their_precision(
    twin: Twin, args: tuple[Any, ...], kw: dict[str, Any], dtype: torch.dtype
) -> None:
    ours, theirs, call = pair(twin, args, kw, "NCL")
    x = (torch.randn(4, C, L) / 30).to(dtype)
    for module in (ours, theirs):
        module.to(dtype)
    got, expected = ours(x), call(x)
    assert got.dtype == dtype
    assert {name: v.dtype for name, v in ours.state_dict().items()} == {
        name: v.dtype for name, v in theirs.state_dict().items()
    }
    unit = torch.finfo(dtype).eps
    torch.testing.assert_close(got, expected, rtol=8 * unit, atol=8 * unit)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (BatchNorm1d(C), nn.BatchNorm1d(C)),
        (GroupNorm(2, C), nn.GroupNorm(2, C)),
        (LayerNorm(C), nn.LayerNorm(C)),
        (RMSNorm(C), nn.RMSNorm(C)),
    ],
    ids=["batch", "group", "layer", "rms"],
)
@LAYOUTS
def test_two_axes_mean_batch_and_channels(ours: Any, theirs: Any, layout: str) -> None:
    x = torch.randn(5, C)
    norm = copy.deepcopy(ours)
    norm.layout = layout
    torch.testing.assert_close(norm(x), theirs(x), rtol=1e-5, atol=1e-6)


def test_two_axes_mean_one_sequence_to_instance_norm() -> None:
    x = torch.randn(C, L)
    expected = nn.InstanceNorm1d(C)(x)
    torch.testing.assert_close(InstanceNorm1d(C)(x), expected, rtol=1e-5, atol=1e-6)
    last_axis = InstanceNorm1d(C, layout="NLC")(x.T)
    torch.testing.assert_close(last_axis, expected.T, rtol=1e-5, atol=1e-6)
    shorter = InstanceNorm1d(C)(x, torch.tensor([5]))
    torch.testing.assert_close(shorter[:, :5], InstanceNorm1d(C)(x[:, :5]), rtol=1e-5, atol=1e-6)


def test_layer_norm_over_a_sequence_is_group_norm_with_one_group() -> None:
    x = torch.randn(3, C, L)
    torch.testing.assert_close(
        LayerNorm(C, over="CL")(x), nn.GroupNorm(1, C)(x), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("momentum", [0.1, None])
@LAYOUTS
def test_running_statistics_of_batch_norm_count_valid_positions_only(
    momentum: float | None, layout: str
) -> None:
    padded = BatchNorm1d(C, momentum=momentum, layout=layout)
    packed = nn.BatchNorm1d(C, momentum=momentum)
    for _ in range(3):
        x = torch.randn(3, C, L) * 2 + 5
        lengths = torch.tensor([L, 4, 0])
        valid = torch.cat([x[0], x[1, :, :4]], dim=1)[None]
        x[1, :, 4:], x[2] = torch.nan, 1e9
        y = padded(to(layout, x), lengths)
        expected = packed(valid)
        first = y[0] if layout == "NCL" else y[0].T
        torch.testing.assert_close(first, expected[0, :, :L], rtol=1e-5, atol=1e-5)
    for name, value in packed.state_dict().items():
        torch.testing.assert_close(padded.state_dict()[name], value, rtol=1e-5, atol=1e-5)


def test_running_statistics_of_instance_norm_leave_out_empty_sequences() -> None:
    x = torch.randn(3, C, L)
    norm, twin = (k(C, track_running_stats=True) for k in (InstanceNorm1d, nn.InstanceNorm1d))
    norm(x, torch.tensor([L, L, 0]))
    twin(x[:2])
    torch.testing.assert_close(norm.running_mean, twin.running_mean)
    torch.testing.assert_close(norm.running_var, twin.running_var)
    before = copy.deepcopy(norm.state_dict())
    norm(x, torch.tensor([0, 0, 0]))
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


@pytest.mark.parametrize(
    ("shape", "lengths", "found"),
    [
        ((1, C, 1), None, "1 valid of 1"),
        ((1, C), None, "1 valid of 1"),
        ((2, C, L), torch.tensor([1, 0]), "1 valid of 26"),
        ((2, C, L), torch.tensor([0, 0]), "0 valid of 26"),
    ],
    ids=["one", "one-flat", "one-valid", "none-valid"],
)
def test_training_batch_norm_refuses_fewer_than_two_values(
    shape: tuple[int, ...], lengths: Tensor | None, found: str
) -> None:
    norm = BatchNorm1d(C)
    with pytest.raises(ValueError, match=f"Expected more than 1 value per channel.*{found}"):
        norm(torch.randn(shape), lengths)
    assert norm.num_batches_tracked == 0
    assert norm.eval()(torch.randn(shape), lengths).isfinite().all()


@pytest.mark.parametrize("shape", [(0, C, L), (3, C, 0), (0, C)])
def test_an_empty_batch_passes_in_training_and_changes_no_statistics(
    shape: tuple[int, ...],
) -> None:
    norm, before = BatchNorm1d(C), BatchNorm1d(C).state_dict()
    assert norm(torch.randn(shape)).shape == shape
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


def test_batch_norm_loads_a_state_dict_from_before_the_counter() -> None:
    old = nn.BatchNorm1d(C)
    old(torch.randn(4, C, L))
    state = old.state_dict()
    del state["num_batches_tracked"]
    del state._metadata  # as files of old had none
    new = BatchNorm1d(C)
    new.load_state_dict(state)
    assert new.num_batches_tracked == 0
    torch.testing.assert_close(new.running_var, old.running_var)


def test_batch_norm_freezes_its_statistics_when_tracking_is_switched_off() -> None:
    norm, twin = BatchNorm1d(C), nn.BatchNorm1d(C)
    x = torch.randn(4, C, L)
    for module in (norm, twin):
        module.track_running_stats = False
    torch.testing.assert_close(norm(x), twin(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.eval()(x), twin.eval()(x), rtol=1e-5, atol=1e-6)
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    "norm",
    [BatchNorm1d(C, bias=False), InstanceNorm1d(C, affine=True, bias=False),
     GroupNorm(2, C, bias=False), LayerNorm(C, bias=False)],
    ids=["batch", "instance", "group", "layer"],
)  # fmt: skip
def test_a_layer_without_bias_has_a_weight_alone(norm: Any) -> None:
    assert [name for name, _ in norm.named_parameters()] == ["weight"]
    norm(torch.randn(2, C, L)).sum().backward()
    assert norm.weight.grad is not None


@KINDS
@LAYOUTS
def test_every_kind_zeroes_padding_whatever_it_holds(kind: str, layout: str) -> None:
    norm = make_norm(kind, C, layout)
    lengths = torch.tensor([L, 5, 0])
    pad = (torch.arange(L) >= lengths[:, None])[:, None].expand(3, C, L)
    clean = torch.randn(3, C, L)
    x = clean.masked_fill(pad, torch.nan).requires_grad_()
    y = to(layout, norm(to(layout, x), lengths))
    assert (y[pad] == 0).all()
    assert y.isfinite().all()
    (grad,) = torch.autograd.grad(y.square().sum(), x)
    assert (grad[pad] == 0).all()
    assert grad.isfinite().all()
    mask = ~pad[:, 0]
    assert torch.equal(to(layout, make_norm(kind, C, layout)(to(layout, clean), mask)), y)


@KINDS
def test_in_eval_a_padded_batch_equals_the_sequences_one_by_one(kind: str) -> None:
    norm = make_norm(kind, C)
    norm(torch.randn(4, C, L) + 2)
    norm.eval()
    x, lengths = torch.randn(3, C, L), torch.tensor([L, 5, 1])
    y = norm(x, lengths)
    for i, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            y[i : i + 1, :, :n], norm(x[i : i + 1, :, :n]), rtol=1e-6, atol=1e-6
        )


@KINDS
@LAYOUTS
def test_every_kind_compiles_into_one_graph(kind: str, layout: str) -> None:
    norm = make_norm(kind, C, layout)
    twin = copy.deepcopy(norm)
    torch.compiler.reset()
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    for lengths in (None, torch.tensor([L, 5, 2])):
        x = to(layout, torch.randn(3, C, L))
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        got, expected = compiled(a, lengths), twin(b, lengths)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
        got.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[name], value)


def test_compiled_batch_norm_keeps_its_statistics_when_nothing_is_valid() -> None:
    norm = BatchNorm1d(C)
    torch.compiler.reset()
    y = torch.compile(norm, fullgraph=True, backend="eager")(
        torch.randn(2, C, L), torch.zeros(2, dtype=torch.int64)
    )
    assert (y == 0).all()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean.tolist() == [0.0] * C
    assert norm.running_var.tolist() == [1.0] * C


@KINDS
def test_every_kind_exports_with_a_free_batch_size(kind: str) -> None:
    norm = make_norm(kind, C).eval()
    free = {0: torch.export.Dim("batch", min=2)}
    args = (torch.randn(4, C, L), torch.tensor([L, 5, 0, 1]))
    for given in (args[:1], args):
        exported = torch.export.export(norm, given, dynamic_shapes=tuple(free for _ in given))
        fewer = tuple(a[:3] for a in given)
        torch.testing.assert_close(exported.module()(*fewer), norm(*fewer), rtol=1e-5, atol=1e-6)


@KINDS
def test_every_kind_survives_copying_and_pickling(kind: str) -> None:
    norm = make_norm(kind, C, "NLC")
    x, lengths = torch.randn(3, L, C), torch.tensor([L, 5, 2])
    norm(x, lengths)
    norm.eval()
    for twin in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert torch.equal(twin(x, lengths), norm(x, lengths))
        assert repr(twin) == repr(norm)
        assert "layout=NLC" in repr(norm)


@pytest.mark.parametrize("kind", [kind for kind in NORM_KINDS if kind != "none"])
def test_every_norm_is_affine_with_the_same_eps_and_resets(kind: str) -> None:
    norm: Any = make_norm(kind, C)
    assert norm.weight.shape == (C,)
    assert norm.eps == 1e-5
    assert (getattr(norm, "bias", None) is None) == (kind == "rms")
    norm.weight.data.fill_(7)
    norm.reset_parameters()
    assert (norm.weight == 1).all()


def test_names_build_the_layers_they_name() -> None:
    built = {kind: make_norm(kind, C) for kind in NORM_KINDS}
    types = (BatchNorm1d, LayerNorm, LayerNorm, GroupNorm, InstanceNorm1d, RMSNorm, NoNorm)
    assert tuple(type(norm) for norm in built.values()) == types
    assert (built["layer"].over, built["layer_seq"].over) == ("C", "CL")
    assert built["group:8"].num_groups == 8
    x = torch.randn(2, C, L)
    assert built["none"](x) is x


VALID = r"[Vv]alid: batch, layer, layer_seq, group:G \(e.g. group:8\), instance, rms, none$"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bacth", "unknown norm 'bacth'; did you mean 'batch'\\? "),
        ("LAYER", "did you mean 'layer'\\? "),
        ("instnace:3", "did you mean 'instance'\\? "),
        ("batch:2", "unknown norm 'batch:2'"),
        ("xyzzy", "unknown norm 'xyzzy'; "),
        ("", "unknown norm ''; "),
        ("group", "norm 'group' must name its number of groups, as group:8. "),
        ("group:", "norm 'group:' must name"),
        ("group:0", "norm 'group:0' must name"),
        ("group:-2", "norm 'group:-2' must name"),
        ("group:7", "'group:7' does not divide 8 channels; groups can be 1, 2, 4, 8. "),
    ],
)
def test_a_wrong_kind_is_refused_in_one_line_that_names_the_valid_ones(
    kind: str, message: str
) -> None:
    for check in (parse_norm, make_norm):
        with pytest.raises(ValueError, match=f"{message}.*{VALID}") as raised:
            check(kind, C)
        assert "\n" not in str(raised.value)


def test_wrong_inputs_and_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"built for 8 channels, got 13 .*pass layout="):
        LayerNorm(C)(torch.randn(2, L, C))
    with pytest.raises(ValueError, match=r"axes \(N, C, L\), got shape \(2, 8, 3, 3\)"):
        GroupNorm(2, C)(torch.randn(2, C, 3, 3))
    with pytest.raises(ValueError, match="layout must be 'NCL' or 'NLC', got 'NHWC'"):
        RMSNorm(C, layout="NHWC")
    with pytest.raises(ValueError, match=r"over must be 'C' .* got 'L'"):
        LayerNorm(C, over="L")
    with pytest.raises(ValueError, match=r"number of channels, got \[8, 13\]; .*over='CL'"):
        LayerNorm([C, L])
    with pytest.raises(ValueError, match="divisible"):
        GroupNorm(3, C)
    with pytest.raises(ValueError, match=r"lengths\[0\] = 14 is outside 0..13"):
        NoNorm()(torch.randn(1, C, L), torch.tensor([14]))


def test_merged_row_moments_are_what_batch_norm_tracks() -> None:
    x = torch.randn(6, C, L) + 3
    norm = BatchNorm1d(C, momentum=1.0)
    norm(x)
    merged = Moments.merge_all([Moments.of(chunk, (0, 2)) for chunk in x.split(2)])
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, merged.mean.float())
    torch.testing.assert_close(norm.running_var, merged.var(correction=1).float())
