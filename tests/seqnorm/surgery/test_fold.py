import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from seqnorm import CNN, BatchNorm1d, GroupNorm, InstanceNorm1d, NoNorm, fold, make_norm


def trained(norm: Any) -> Any:
    """Give a norm numbers as training leaves behind, some of them odd."""
    with torch.no_grad():
        for name, value in (*norm.named_parameters(), *norm.named_buffers()):
            if name.endswith("var"):
                value.copy_(torch.rand_like(value) * 5 + 0.01)
            elif value.is_floating_point():
                value.copy_(torch.randn_like(value) * 2)
    return norm.eval()


def exact(model: nn.Module, x: Tensor) -> Tensor:
    """The model's answers in float64."""
    return copy.deepcopy(model).double()(x.double()).detach()


def pairs() -> list[Any]:
    """Layer, norm, input."""
    conv, tr, line = nn.Conv1d, nn.ConvTranspose1d, nn.Linear
    x = (3, 4, 21)
    return [
        pytest.param(conv(4, 6, 5), nn.BatchNorm1d(6), x, id="conv"),
        pytest.param(conv(4, 6, 5, padding=2, bias=False), nn.BatchNorm1d(6), x, id="no-bias"),
        pytest.param(conv(4, 6, 3, 2, 1, 2, groups=2), nn.BatchNorm1d(6, affine=False), x,
                     id="grouped-bare"),
        pytest.param(conv(4, 8, 3, groups=4), BatchNorm1d(8, bias=False), x, id="depthwise"),
        pytest.param(tr(4, 6, 4, stride=3), nn.BatchNorm1d(6), x, id="transposed"),
        pytest.param(tr(4, 6, 4, padding=1, groups=2, bias=False), BatchNorm1d(6), x,
                     id="transposed-grouped"),
        pytest.param(line(4, 6), nn.BatchNorm1d(6), (5, 4), id="linear"),
        pytest.param(line(4, 6, bias=False), BatchNorm1d(6, layout="NLC"), (5, 7, 4),
                     id="linear-channels-last"),
        pytest.param(conv(4, 6, 3), InstanceNorm1d(6, affine=True, track_running_stats=True), x,
                     id="instance-with-running-statistics"),
    ]  # fmt: skip


@pytest.mark.parametrize(("layer", "norm", "shape"), pairs())
@pytest.mark.parametrize("sampled", [True, False])
def test_a_norm_after_a_layer_is_folded_to_the_last_digits(
    layer: Any, norm: Any, shape: tuple[int, ...], sampled: bool
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(layer, trained(norm)).eval()
    x = torch.randn(shape)
    expected = exact(model, x)
    folded, report = fold(model, x if sampled else None, strict=True)
    assert report.folded == 1
    assert report.layers[0].into == "0"
    unit = 2**-23 * float(expected.abs().max())
    error = (folded(x).double() - expected).abs().max()
    assert error <= 8 * unit
    # In float64 nothing but its own rounding is left.
    twice, _ = fold(copy.deepcopy(model).double(), strict=True)
    torch.testing.assert_close(twice(x.double()), expected, rtol=1e-13, atol=1e-12)
    assert isinstance(folded[1], NoNorm if hasattr(norm, "layout") else nn.Identity)
    if sampled:
        assert report.change is not None
        assert report.change.largest <= 16 * unit


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 5), (3, 4, 21)),
        (nn.Conv1d(4, 6, 5, padding="valid", groups=2, bias=False), (3, 4, 21)),
        (nn.Conv1d(4, 8, 1, padding="same", groups=4), (3, 4, 21)),
        (nn.Conv1d(4, 6, 5, stride=2, padding=3, padding_mode="reflect"), (3, 4, 21)),
        (nn.Conv1d(4, 6, 5, padding=2, padding_mode="circular"), (3, 4, 21)),
        (nn.Linear(4, 6), (3, 4)),
        (nn.Linear(4, 6, bias=False), (3, 4)),
    ],
    ids=["conv", "grouped", "pointwise", "reflect", "circular", "linear", "linear-no-bias"],
)
@pytest.mark.parametrize("sampled", [True, False])
def test_a_norm_before_a_layer_without_zero_padding_is_folded(
    layer: Any, shape: tuple[int, ...], sampled: bool
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(trained(nn.BatchNorm1d(4)), layer).eval()
    x = torch.randn(shape)
    expected = exact(model, x)
    folded, report = fold(model, x if sampled else None, strict=True)
    assert report.layers[0].into == "1"
    torch.testing.assert_close(folded(x).double(), expected, rtol=0, atol=3e-5)
    twice, _ = fold(copy.deepcopy(model).double(), strict=True)
    torch.testing.assert_close(twice(x.double()), expected, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 5, padding=2),
        nn.Conv1d(4, 6, 5, padding="same"),
        nn.ConvTranspose1d(4, 6, 3),
    ],
)
def test_a_norm_before_a_layer_with_zeros_at_its_ends_is_folded_if_its_shift_is_zero(
    layer: Any,
) -> None:
    norm = trained(nn.BatchNorm1d(4))
    model = nn.Sequential(norm, layer).eval()
    x = torch.randn(2, 4, 12)
    same, report = fold(model, x)
    assert report.folded == 0
    assert "its shift is not 0" in report.layers[0].reason
    assert torch.equal(same(x), model(x))
    nn.init.zeros_(norm.running_mean)
    nn.init.zeros_(norm.bias)
    folded, report = fold(model, x, strict=True)
    torch.testing.assert_close(folded(x).double(), exact(model, x), rtol=0, atol=1e-5)


class Residual(nn.Module):
    """A forward of its own: conv, norm, activation, and a way round."""

    def __init__(self, norm: Any, tap: bool = False) -> None:
        super().__init__()
        self.conv, self.norm, self.tap = nn.Conv1d(4, 4, 3, padding=1), trained(norm), tap

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        z: Tensor = F.relu(self.norm(y)) + x
        return z + y if self.tap else z


def test_outside_sequential_a_sample_shows_the_order_of_layers() -> None:
    model = nn.Sequential(Residual(nn.BatchNorm1d(4)), Residual(BatchNorm1d(4))).eval()
    x = torch.randn(2, 4, 12)
    _, blind = fold(model)
    assert [f.reason for f in blind.layers] == [
        "is not in nn.Sequential; pass sample= to see what stands next to it"
    ] * 2
    folded, report = fold(model, x, strict=True)
    assert [f.into for f in report.layers] == ["0.conv", "1.conv"]
    torch.testing.assert_close(folded(x).double(), exact(model, x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("where", ["tap", "returned", "view", "property", "data"])
def test_a_layer_whose_output_goes_elsewhere_too_is_left_alone(where: str) -> None:
    class Tap(Residual):
        def forward(self, x: Tensor) -> Any:
            y = self.conv(x)
            if where == "returned":
                return self.norm(y).sum((1, 2)) + 0 * y.sum((1, 2))
            if where == "view":
                return self.norm(y) + y[:, :, :1]
            if where in ("property", "data"):
                return self.norm(y) + (y.mT.mT if where == "property" else y.data)
            return super().forward(x)

    model = Tap(nn.BatchNorm1d(4), tap=True).eval()
    x = torch.randn(2, 4, 12)
    same, report = fold(model, x)
    assert "output of Conv1d goes elsewhere too" in report.layers[0].reason
    assert torch.equal(same(x), model(x))


def test_a_layer_whose_output_the_model_returns_is_left_alone() -> None:
    class Returned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv1d(4, 4, 3), trained(nn.BatchNorm1d(4))

        def forward(self, x: Tensor) -> Any:
            y = self.conv(x)
            return {"features": [y], "logits": self.norm(y)}

    from seqnorm.surgery.neighbours import by_sample

    model = Returned()
    before, _ = by_sample(model, torch.randn(2, 4, 12))[model.norm]
    assert before.layer is None
    assert "the model returns it" in before.reason


def test_a_layer_or_norm_whose_numbers_are_used_elsewhere_too_is_left_alone() -> None:
    class Tied(nn.Module):
        def __init__(self, of: str) -> None:
            super().__init__()
            self.conv, self.norm, self.of = nn.Conv1d(4, 4, 3), trained(nn.BatchNorm1d(4)), of

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(self.conv(x))
            if self.of == "conv":
                return F.conv_transpose1d(y, self.conv.weight)
            return y * self.norm.running_var[:, None]

    x = torch.randn(2, 4, 12)
    for of, reason in (("conv", "Conv1d's weight"), ("norm", "its running_var")):
        model = Tied(of).eval()
        same, report = fold(model, x)
        assert f"{reason} is used elsewhere too" in report.layers[0].reason
        assert torch.equal(same(x), model(x))


def test_a_norm_in_two_places_is_folded_only_if_a_sample_shows_one_call() -> None:
    class Twice(nn.Module):
        def __init__(self, calls: int) -> None:
            super().__init__()
            self.norm, self.calls = trained(nn.BatchNorm1d(4)), calls
            self.net = nn.Sequential(nn.Conv1d(4, 4, 1), self.norm)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.net(x)
            return y + self.norm(x) if self.calls > 1 else y

    x = torch.randn(2, 4, 12)
    for calls, sample, reason in (
        (1, None, "hangs in 2 places"), (1, x, ""), (2, None, "hangs in 2 places"),
        (2, x, "is called 2 times"),
    ):  # fmt: skip
        model = Twice(calls).eval()
        folded, report = fold(model, sample)
        assert reason in report.layers[0].reason
        assert report.folded == (reason == "")
        torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-5)


def test_hooks_of_containers_and_a_replaced_forward_stand_between() -> None:
    norm, x = trained(nn.BatchNorm1d(4)), torch.randn(2, 4, 12)
    inner = nn.Sequential(nn.Conv1d(4, 4, 1))
    inner.register_forward_hook(lambda m, args, y: y.abs())
    blank = nn.Identity()
    blank.register_forward_hook(lambda m, args, y: y.abs())
    own: Any = nn.Conv1d(4, 4, 1)
    plain = own.forward
    own.forward = lambda x: plain(x).abs()
    changed: Any = copy.deepcopy(norm)
    norm_plain = changed.forward
    changed.forward = lambda x: norm_plain(x).abs()
    for layers in (
        (inner, norm), (nn.Conv1d(4, 4, 1), blank, norm), (own, norm),
        (nn.Conv1d(4, 4, 1), changed),
    ):  # fmt: skip
        model = nn.Sequential(*layers).eval()
        for sample in (x, None):
            same, report = fold(model, sample)
            assert report.folded == 0
            assert torch.equal(same(x), model(x))
    # Around a pair that belongs together a hook is in nobody's way.
    pair = nn.Sequential(nn.Conv1d(4, 4, 1), copy.deepcopy(norm))
    pair.register_forward_hook(lambda m, args, y: y.abs())
    model = nn.Sequential(pair, nn.ReLU()).eval()
    folded, report = fold(model, strict=True)
    assert report.folded == 1
    torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-5)


def test_a_norm_over_another_axis_than_the_outputs_of_the_layer_is_left_alone() -> None:
    for layer, shape in ((nn.Conv1d(4, 6, 1), (4, 6)), (nn.Linear(4, 6), (2, 6, 4))):
        model, x = nn.Sequential(layer, trained(nn.BatchNorm1d(6))).eval(), torch.randn(shape)
        same, report = fold(model, x)
        assert report.layers[0].reason.startswith("its channels are not those of")
        assert torch.equal(same(x), model(x))


def test_weights_that_share_memory_are_shared() -> None:
    one, two = nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 1)
    two.weight = nn.Parameter(one.weight.detach())
    model = nn.Sequential(one, trained(nn.BatchNorm1d(4)), nn.ReLU(), two).eval()
    x = torch.randn(2, 4, 12)
    expected = model(x)
    _, report = fold(model, inplace=True)
    assert "the weight of Conv1d is shared" in report.layers[0].reason
    assert torch.equal(model(x), expected)


def test_layers_that_are_used_twice_are_left_alone() -> None:
    conv, norm = nn.Conv1d(4, 4, 3, padding=1), trained(nn.BatchNorm1d(4))
    x = torch.randn(2, 4, 12)
    for model in (
        nn.Sequential(conv, norm, conv),
        nn.Sequential(conv, nn.ReLU(), conv, norm),
        nn.Sequential(norm, nn.ReLU(), norm, nn.Conv1d(4, 4, 3)),
    ):
        for sample in (x, None):
            same, report = fold(model.eval(), sample)
            assert report.folded == 0
            assert "times" in report.layers[0].reason
            assert torch.equal(same(x), model(x))
    tied = nn.Conv1d(4, 4, 3, padding=1)
    tied.weight = conv.weight
    _, report = fold(nn.Sequential(conv, norm, tied).eval())
    assert "the weight of Conv1d is shared" in report.layers[0].reason


REFUSED: list[Any] = [
    (lambda: nn.LayerNorm(12).eval(), "takes its statistics from the input"),
    (lambda: GroupNorm(2, 6).eval(), "takes its statistics from the input"),
    (lambda: nn.InstanceNorm1d(6, affine=True).eval(), "takes its statistics from the input"),
    (lambda: make_norm("rms", 6).eval(), "takes its statistics from the input"),
    (lambda: nn.BatchNorm1d(6), r"is in training mode; call model.eval\(\) first"),
    (lambda: nn.BatchNorm1d(6, track_running_stats=False).eval(), "has no running statistics"),
    (lambda: trained(BatchNorm1d(6, layout="NLC")), "its channels are not those of Conv1d"),
    (lambda: trained(nn.BatchNorm2d(6)), "not a norm over sequences"),
]


@pytest.mark.parametrize(
    ("build", "reason"), REFUSED, ids=["ln", "gn", "in", "rms", "train", "bare", "nlc", "2d"]
)
def test_what_cannot_be_folded_is_named_with_the_reason_or_raised(build: Any, reason: str) -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 3).eval(), build())
    before = copy.deepcopy(model.state_dict())
    _, report = fold(model)
    assert report.folded == 0
    with pytest.raises(ValueError, match=f"not all norms can be folded: 1: {reason}"):
        fold(model, strict=True, inplace=True)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert reason.replace("\\", "") in report.layers[0].reason


def test_computed_weights_and_hooks_are_left_alone() -> None:
    conv = parametrizations.weight_norm(nn.Conv1d(4, 6, 3))
    _, report = fold(nn.Sequential(conv, trained(nn.BatchNorm1d(6))).eval())
    assert "parametrization" in report.layers[0].reason
    hooked = nn.Conv1d(4, 6, 3)
    hooked.register_forward_hook(lambda m, args, y: y * 2)
    _, report = fold(nn.Sequential(hooked, trained(nn.BatchNorm1d(6))).eval())
    assert report.layers[0].reason.startswith("Conv1d has hooks")


def test_a_frozen_norm_of_ours_is_folded_in_training_mode() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 3), trained(BatchNorm1d(6, frozen=True)))
    model.train()
    x = torch.randn(2, 4, 12)
    folded, report = fold(model, strict=True)
    assert report.folded == 1
    torch.testing.assert_close(folded(x), model(x), rtol=0, atol=1e-5)


def test_residual_activation_and_padding_of_our_layers_stay() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(4, 4, 3, padding=1)
            self.norm = trained(BatchNorm1d(4, activation="relu"))

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            y: Tensor = self.norm(self.conv(x), lengths, residual=x)
            return y

    model, x, lengths = Block().eval(), torch.randn(2, 4, 9), torch.tensor([9, 5])
    folded, report = fold(model, (x, lengths), strict=True)
    torch.testing.assert_close(folded(x, lengths), model(x, lengths), rtol=0, atol=1e-5)
    assert (folded(x, lengths)[1, :, 5:] == 0).all()
    assert report.change is not None
    assert report.change.largest < 1e-5
    before = nn.Sequential(trained(BatchNorm1d(4, activation="relu")), nn.Conv1d(4, 4, 3)).eval()
    assert "applies 'relu' before" in fold(before)[1].layers[0].reason


def test_a_norm_that_adds_a_residual_is_not_folded_into_the_layer_after_it() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = trained(BatchNorm1d(4)), nn.Conv1d(4, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(self.norm(x, residual=2 * x))
            return y

    model, x = Block().eval(), torch.randn(2, 4, 9)
    same, report = fold(model, x)
    assert "takes more than one tensor" in report.layers[0].reason
    assert torch.equal(same(x), model(x))


def test_our_cnn_is_folded_whole() -> None:
    model = CNN("batch", blocks=3)
    for norm in model.norms:
        trained(norm)
    model.eval()
    x, lengths = torch.randn(3, 4, 128), torch.tensor([128, 100, 50])
    folded, report = fold(model, (x, lengths), strict=True)
    assert report.folded == 3
    assert report.change is not None
    assert report.change.largest <= 1e-5 * max(1.0, report.change.typical)
    assert report.change.flipped == 0
    assert "0 of 3 decisions flipped" in str(report)
    torch.testing.assert_close(folded(x, lengths), model(x, lengths), rtol=1e-5, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(st.sampled_from("cbrnxt"), min_size=2, max_size=8), seed=st.integers(0, 99))
def test_any_stack_computes_the_same_after_folding(kinds: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    build = {
        "c": lambda: nn.Conv1d(4, 4, 3, groups=2), "b": lambda: trained(nn.BatchNorm1d(4)),
        "n": lambda: trained(BatchNorm1d(4)), "x": lambda: nn.Conv1d(4, 4, 3, padding=1),
        "t": lambda: nn.ConvTranspose1d(4, 4, 3), "r": nn.ReLU,
    }  # fmt: skip
    model = nn.Sequential(nn.Sequential(*(build[k]() for k in kinds[:2])))
    model.extend([build[k]() for k in kinds[2:]])
    model.double().eval()
    x = torch.randn(2, 4, 30, dtype=torch.float64)
    expected = model(x)
    by_order, one = fold(model)
    by_sample, two = fold(model, x)
    for folded in (by_order, by_sample):
        torch.testing.assert_close(folded(x), expected, rtol=1e-9, atol=1e-9)
    assert [f.into for f in one.layers] == [f.into for f in two.layers]


def test_by_default_the_model_is_copied_and_in_place_weights_stay_the_same_objects() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 3), trained(nn.BatchNorm1d(6))).eval()
    x = torch.randn(2, 4, 12)
    expected, weight, bias = model(x), model[0].weight, model[0].bias
    fold(model)
    assert torch.equal(model(x), expected)
    same, _ = fold(model, inplace=True)
    assert same is model
    assert model[0].weight is weight
    assert model[0].bias is bias
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)


def test_a_bias_comes_only_where_it_is_needed_and_learns_if_the_weight_does() -> None:
    for learns in (True, False):
        model = nn.Sequential(nn.Conv1d(4, 6, 3, bias=False), trained(nn.BatchNorm1d(6))).eval()
        folded: Any = fold(model.requires_grad_(learns))[0]
        assert folded[0].bias.requires_grad is learns
    norm = trained(nn.BatchNorm1d(4))
    nn.init.zeros_(norm.running_mean)
    nn.init.zeros_(norm.bias)
    folded = fold(nn.Sequential(norm, nn.Linear(4, 6, bias=False)).eval(), strict=True)[0]
    assert folded[1].bias is None


def test_the_order_seen_on_a_sample_leaves_no_hooks_and_the_mode_as_it_was() -> None:
    model = nn.Sequential(nn.Conv1d(4, 6, 3), trained(nn.BatchNorm1d(6)), nn.Dropout())
    model[2].train()
    fold(model, torch.randn(2, 4, 12))
    assert [m.training for m in model] == [True, False, True]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
