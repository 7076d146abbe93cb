import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import seqnorm
from seqnorm import (
    BatchNorm1d,
    DynamicTanh,
    FiLM,
    GroupNorm,
    InstanceNorm1d,
    LayerNorm,
    NoNorm,
    RMSNorm,
    SyncBatchNorm,
    Transformer,
    convert,
    freeze,
    make_norm,
    unfreeze,
)
from seqnorm.moments import Moments
from seqnorm.surgery.change import answers, compare

C, L = 8, 40


def filled(module: Any) -> Any:
    """Random weights and statistics, none of them neutral."""
    with torch.no_grad():
        for name, value in (*module.named_parameters(), *module.named_buffers()):
            if name.endswith("var"):
                value.copy_(torch.rand_like(value) * 3 + 0.2)
            elif value.is_floating_point():
                value.copy_(torch.randn_like(value))
    return module


def with_statistics(norm: Any, n: int = 3) -> Tensor:
    """Sequences each of which has exactly the running statistics of a norm."""
    x = torch.randn(n, C, L, dtype=torch.float64)
    x = (x - x.mean(2, keepdim=True)) / x.std(2, correction=0, keepdim=True)
    return x * norm.running_var[:, None].sqrt() + norm.running_mean[:, None]


# --- twins ---------------------------------------------------------------------------------

TWINS = [
    (nn.BatchNorm1d(C), BatchNorm1d),
    (nn.BatchNorm1d(C, 1e-3, None, affine=False), BatchNorm1d),
    (nn.BatchNorm1d(C, track_running_stats=False), BatchNorm1d),
    (nn.InstanceNorm1d(C), InstanceNorm1d),
    (nn.InstanceNorm1d(C, 1e-3, 0.2, affine=True, track_running_stats=True), InstanceNorm1d),
    (nn.GroupNorm(2, C), GroupNorm),
    (nn.GroupNorm(4, C, affine=False), GroupNorm),
    (nn.LayerNorm(C), LayerNorm),
    (nn.LayerNorm(C, bias=False), LayerNorm),
    (nn.LayerNorm(C, elementwise_affine=False), LayerNorm),
    (nn.RMSNorm(C), RMSNorm),
    (nn.RMSNorm(C, eps=1e-3), RMSNorm),
]


@pytest.mark.parametrize(
    ("norm", "kind"), TWINS, ids=[f"{type(n).__name__}-{i}" for i, (n, _) in enumerate(TWINS)]
)
@pytest.mark.parametrize("training", [True, False])
def test_the_twin_keeps_every_bit_of_state_and_computes_the_same(
    norm: Any, kind: Any, training: bool
) -> None:
    norm = filled(copy.deepcopy(norm)).train(training)
    last = isinstance(norm, (nn.LayerNorm, nn.RMSNorm))
    x = torch.randn((3, L, C) if last else (3, C, L)) * 3 + 1
    twin, report = convert(norm, "same")
    assert type(twin) is kind
    assert report.replaced == 1
    assert twin.training is training
    assert list(twin.state_dict()) == list(norm.state_dict())
    for name, value in norm.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name])
    fresh = kind(C, layout="NLC") if last else kind(*([2] if kind is GroupNorm else []), C)
    assert vars(twin).keys() == vars(fresh).keys()
    for key in ("eps", "momentum", "affine", "track_running_stats", "elementwise_affine"):
        assert getattr(twin, key, None) == getattr(norm, key, None)
    torch.testing.assert_close(twin(x), norm(x), rtol=1e-5, atol=1e-5)
    for name, value in norm.state_dict().items():  # after a step of tracking
        torch.testing.assert_close(value, twin.state_dict()[name], rtol=1e-5, atol=1e-5)
    repr(pickle.loads(pickle.dumps(twin)))


def test_twins_take_lengths_in_the_place_of_their_likes() -> None:
    model = nn.Sequential(nn.Conv1d(4, C, 3, padding=1), nn.BatchNorm1d(C), nn.GroupNorm(2, C))
    new, _ = convert(filled(model).eval(), "same")
    x, lengths = torch.randn(2, 4, L), torch.tensor([L, 9])
    with seqnorm.carry_lengths(new, lengths):
        y = new(x)
    torch.testing.assert_close(y[1:, :, :9], model(x[1:, :, :9]), rtol=1e-5, atol=1e-5)


def test_ours_stay_as_they_are_when_made_the_same() -> None:
    norm = BatchNorm1d(C)
    same, report = convert(norm, "same", inplace=True)
    assert same is norm
    assert (report.replaced, report.layers[0].note) == (0, "is ours")


# --- the beginning of another norm ---------------------------------------------------------


@pytest.mark.parametrize("kind", ["instance", "group:2", "layer_seq"])
@pytest.mark.parametrize("affine", [True, False])
def test_on_sequences_with_the_running_statistics_the_function_is_the_same(
    kind: str, affine: bool
) -> None:
    torch.manual_seed(0)
    norm = filled(nn.BatchNorm1d(C, eps=1e-2, affine=affine)).double().eval()
    x = with_statistics(norm)
    new, report = convert(norm, kind, sample=x)
    torch.testing.assert_close(new(x), norm(x), rtol=1e-9, atol=1e-9)
    assert report.change is not None
    assert report.change.largest < 1e-9
    assert report.layers[0].note == "running statistics folded in"
    plain, worse = convert(norm, kind, sample=x, start="copy")
    if affine and kind != "instance":
        assert worse.change is not None
        assert worse.change.largest > 0.1
    if affine:
        assert torch.equal(plain.weight, norm.weight)


def test_on_positions_with_the_merged_statistics_layer_and_rms_norm_are_the_same_function() -> None:
    torch.manual_seed(0)
    norm: Any = filled(nn.BatchNorm1d(C)).double().eval()
    mean, var = norm.running_mean, norm.running_var
    z = torch.randn(2, C, L, dtype=torch.float64)
    z = (z - z.mean(1, keepdim=True)) / z.std(1, correction=0, keepdim=True)
    merged = Moments(torch.ones_like(mean), mean, var).over(0)
    x = z * merged.var().sqrt() + merged.mean
    torch.testing.assert_close(convert(norm, "layer")[0](x), norm(x), rtol=1e-9, atol=1e-9)
    square = (var + mean.square()).mean()
    x = torch.randn(2, C, L, dtype=torch.float64)
    x = x / x.square().mean(1, keepdim=True).sqrt() * square.sqrt()
    nn.init.zeros_(norm.running_mean)
    nn.init.zeros_(norm.bias)
    norm.running_var.fill_(square)
    torch.testing.assert_close(convert(norm, "rms")[0](x), norm(x), rtol=1e-9, atol=1e-9)


def changes(kind: Any, seed: int) -> tuple[float, float, float]:
    """Squared change with statistics folded in, with copied weights, with the best there are."""
    torch.manual_seed(seed)
    # Channels that depend on each other, with means and scales of their own.
    mix = torch.randn(C, C, dtype=torch.float64) + 2 * torch.eye(C)
    x = torch.einsum("dc,ncl->ndl", mix, torch.randn(64, C, 200, dtype=torch.float64))
    x = x + 3 * torch.randn(C, 1, dtype=torch.float64)
    norm: Any = nn.BatchNorm1d(C, momentum=None).double()
    norm(x)
    norm.weight.data, norm.bias.data = torch.randn(2, C, dtype=torch.float64)
    wanted = norm.eval()(x).detach()
    folded, copied = (convert(norm, kind, start=s)[0](x).detach() for s in ("statistics", "copy"))
    bare = GroupNorm(2, C, affine=False) if callable(kind) else make_norm(kind, C, affine=False)
    z, y = bare.double()(x), wanted
    if not callable(kind) and kind != "rms":  # which have no bias
        z, y = (v - v.mean((0, 2), keepdim=True) for v in (z, y))
    best = y - z * (z * y).sum((0, 2), keepdim=True) / z.square().sum((0, 2), keepdim=True)
    gaps = (folded - wanted, copied - wanted, best)
    return tuple(float(gap.square().mean()) for gap in gaps)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kind", "near", "gain"),
    [
        ("instance", 1.01, 1.01),
        ("group:2", 1.01, 0.1),
        ("layer_seq", 1.01, 0.1),
        ("layer", 1.25, 0.7),
        ("rms", 1.1, 0.7),
        (lambda channels, layout: GroupNorm(2, channels, bias=False), 1.02, 0.9),
    ],
    ids=["instance", "group", "layer_seq", "layer", "rms", "no-bias"],
)
def test_folding_statistics_in_changes_little_more_than_the_best_fit_and_less_than_copying(
    kind: Any, near: float, gain: float
) -> None:
    draws = [changes(kind, seed) for seed in range(6)]
    folded, copied, best = (sum(column) for column in zip(*draws, strict=True))
    assert best <= folded <= near * best
    assert folded <= gain * copied


def test_dead_channels_begin_finite() -> None:
    norm: Any = nn.BatchNorm1d(C)
    norm.running_var.zero_()
    for kind in ("rms", "layer", "instance", "group:2"):
        new, _ = convert(norm, kind)
        assert all(p.isfinite().all() for p in new.parameters())


def test_weights_of_layers_without_statistics_are_copied() -> None:
    for old, kind in (
        (filled(nn.GroupNorm(2, C)), "instance"),
        (filled(nn.LayerNorm(C)), "rms"),
        (filled(nn.InstanceNorm1d(C, affine=True)), "batch"),
        (filled(RMSNorm(C)), "layer"),
    ):
        new: Any
        new, report = convert(old, kind)
        assert torch.equal(new.weight, old.weight)
        if isinstance(old, RMSNorm):
            assert (new.bias == 0).all()
        elif kind == "rms":
            assert report.layers[0].note == "bias dropped"
        else:
            assert torch.equal(new.bias, old.bias)
    note = convert(nn.GroupNorm(2, C), "batch")[1].layers[0].note
    assert note == "no running statistics yet: call recalibrate before eval"


def test_what_has_no_room_in_the_new_layer_is_named() -> None:
    norm = filled(nn.BatchNorm1d(C))
    _, report = convert(norm, "none")
    assert report.layers[0].note == "running statistics dropped; weight dropped; bias dropped"
    assert convert(norm, "rms")[1].layers[0].note == "running statistics folded in; bias dropped"


def test_running_statistics_go_on_in_another_batch_norm() -> None:
    norm = filled(nn.BatchNorm1d(C, 1e-3, 0.3)).eval()
    new: Any
    new, _ = convert(norm, lambda c, layout: seqnorm.GhostBatchNorm1d(c, ghost_size=2))
    assert isinstance(new, seqnorm.GhostBatchNorm1d)
    x = torch.randn(4, C, L)
    torch.testing.assert_close(new(x), norm(x), rtol=1e-5, atol=1e-5)
    assert (new.eps, new.momentum) == (1e-3, 0.3)


def test_a_plain_average_of_batches_goes_on_with_its_count() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(C, momentum=None)
    batches = torch.randn(4, 6, C, L).unbind()
    for x in batches[:3]:
        norm(x)
    new: Any = convert(norm, "batch")[0]
    for one in (norm, new):
        one(batches[3])
    assert int(new.num_batches_tracked) == 4
    torch.testing.assert_close(new.running_mean, norm.running_mean)
    torch.testing.assert_close(new.running_var, norm.running_var)


@pytest.mark.parametrize("kind", ["group:2", "instance", "layer"])
def test_norms_that_share_weights_begin_as_if_each_had_its_own(kind: str) -> None:
    model = nn.Sequential(*(filled(nn.BatchNorm1d(C)) for _ in range(3))).eval()
    model[1].weight, model[2].bias = model[0].weight, model[0].bias
    model[0].weight.requires_grad_(False)
    apart = nn.Sequential(*map(copy.deepcopy, model))
    x = torch.randn(3, C, L)
    new, report = convert(model, kind)
    torch.testing.assert_close(new(x), convert(apart, kind)[0](x))
    assert "weight is shared no more" in report.layers[1].note
    assert [layer.weight.requires_grad for layer in new] == [False, False, True]
    kept, report = convert(model, "group:2", only=lambda name, module: name == "0", inplace=True)
    torch.testing.assert_close(kept[1:](x), apart[1:](x))
    # Nothing has to change where weights are taken over as they are.
    pair = nn.Sequential(nn.BatchNorm1d(C), nn.BatchNorm1d(C))
    pair[1].weight = pair[0].weight
    for to, start in ((kind, "copy"), ("batch", "statistics")):
        tied: Any = convert(pair, to, start=start)[0]
        assert tied[0].weight is tied[1].weight


# --- where a norm stands -------------------------------------------------------------------


class Net(nn.Module):
    """Norms in both layouts, one of them at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, C, 3, padding=1)
        self.norm = nn.BatchNorm1d(C)
        self.again = self.norm
        self.blocks = nn.ModuleList([nn.Sequential(nn.LayerNorm(C), nn.Linear(C, C))])
        self.head = nn.Linear(C, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.again(self.conv(x))).transpose(1, 2)
        for block in self.blocks:
            x = x + block(x)
        y: Tensor = self.head(x.mean(1))
        return y


def test_all_norms_of_a_model_are_replaced_in_their_layouts_on_a_copy() -> None:
    torch.manual_seed(0)
    model = filled(Net()).eval()
    model.norm.train()
    x = torch.randn(16, 4, L)
    expected = answers(model, x)
    new: Any
    new, report = convert(model, "group:4", sample=x)
    assert isinstance(new.norm, GroupNorm)
    assert new.norm is new.again
    assert (new.norm.layout, new.blocks[0][0].layout) == ("NCL", "NLC")
    assert [r.name for r in report.layers] == ["norm", "blocks.0.0"]
    assert (new.norm.training, new.blocks[0][0].training) == (True, False)
    assert torch.equal(answers(model, x), expected)
    assert model.norm.training
    got = answers(new, x)
    assert report.change is not None
    assert report.change.largest == pytest.approx(float((got - expected).abs().max()))
    assert report.change.flipped == int((got.argmax(1) != expected.argmax(1)).sum())
    assert report.change.decisions == 16
    text = str(report)
    assert "norm        torch BatchNorm1d(8)  GroupNorm(4, 8)" in text
    assert "2 of 2 norms replaced" in text
    assert "of 16 decisions flipped" in text


def test_in_place_the_parameters_stay_the_same_objects() -> None:
    for to in ("same", "group:2"):
        model = filled(Net())
        parameters = dict(model.named_parameters())
        same, _ = convert(model, to, inplace=True)
        assert same is model
        for name, value in same.named_parameters():
            assert value is parameters[name]


def test_only_some_norms_are_replaced() -> None:
    new: Any
    new, report = convert(Net(), "rms", only=lambda name, module: name.startswith("blocks"))
    assert isinstance(new.norm, nn.BatchNorm1d)
    assert isinstance(new.blocks[0][0], RMSNorm)
    assert [r.note for r in report.layers] == ["left out by `only`", ""]
    assert "kept" in str(report)


def test_type_device_eps_and_what_learns_are_kept() -> None:
    norm = filled(nn.BatchNorm1d(C, eps=1e-2)).double()
    norm.weight.requires_grad_(False)
    norm.bias.requires_grad_(False)
    new: Any
    for kind in ("group:2", "layer", "instance", "rms", "batch"):
        new, _ = convert(norm, kind)
        assert new.eps == 1e-2
        assert all(p.dtype == torch.float64 and not p.requires_grad for p in new.parameters())
    for p in convert(filled(nn.LayerNorm(C, bias=False)).requires_grad_(False), "group:2")[
        0
    ].parameters():
        assert not p.requires_grad
    assert all(p.requires_grad for p in convert(nn.InstanceNorm1d(C), "group:2")[0].parameters())
    bare, _ = convert(nn.BatchNorm1d(C, affine=False).half(), "group:2")
    assert all(p.dtype == torch.float16 and p.requires_grad for p in bare.parameters())


def test_activation_and_freezing_of_our_layers_are_kept() -> None:
    old = BatchNorm1d(C, activation="gelu", frozen=True, layout="NLC")
    new: Any
    new, _ = convert(old, "group:2")
    assert (new.activation, new.layout) == ("gelu", "NLC")
    again: Any = convert(old, "batch")[0]
    assert again.frozen
    x = torch.randn(4, C, L)
    for to in ("same", "batch", lambda channels, layout: nn.BatchNorm1d(channels)):
        frozen: Any = convert(freeze(nn.Sequential(filled(nn.BatchNorm1d(C))), affine=True), to)[0]
        assert unfreeze(copy.deepcopy(frozen))[0].training
        before = copy.deepcopy(frozen.state_dict())
        frozen.train()(x)
        assert all(torch.equal(v, before[k]) for k, v in frozen.state_dict().items())
        unfreeze(frozen)(x)
        assert all(p.requires_grad for p in frozen.parameters())
        assert not torch.equal(frozen[0].running_mean, before["0.running_mean"])
    with pytest.raises(ValueError, match="applies 'gelu' itself, and Identity has no room"):
        convert(old, lambda channels, layout: nn.Identity())


def test_any_function_may_build_the_layer() -> None:
    seen = []

    def build(channels: int, layout: str) -> nn.Module:
        seen.append((channels, layout))
        return DynamicTanh(channels, layout=layout)

    new: Any
    new, _ = convert(filled(Net()), build)
    assert seen == [(C, "NCL"), (C, "NLC")]
    assert isinstance(new.norm, DynamicTanh)


LAZY = "has no shape before its first call; call the model once before"


class Last(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def parametrized() -> nn.Module:
    norm = nn.LayerNorm(C)
    parametrize.register_parametrization(norm, "weight", nn.Softplus())
    return norm


@pytest.mark.parametrize(
    ("module", "note"),
    [
        (nn.LazyInstanceNorm1d(affine=True), LAZY),
        (nn.LayerNorm([C, L]), "normalizes over 2 axes, with a weight for each position"),
        (Last(C), "Last has a forward of its own; replace it by hand"),
        (nn.BatchNorm2d(C), "not a norm over sequences"),
        (nn.LazyBatchNorm1d(), "has no shape before its first call; call the model once before"),
        (nn.LocalResponseNorm(2), "not a norm over sequences"),
        (FiLM(C, 3, "group:2"), "has a form of its own; replace it by hand"),
        (NoNorm(), "has a form of its own; replace it by hand"),
        (parametrized(), "has parametrizations; remove them first"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_norms_that_cannot_be_replaced_are_kept_and_named(module: nn.Module, note: str) -> None:
    model = nn.Sequential(module)
    for to in ("same", "layer"):
        new, report = convert(model, to, inplace=True)
        assert new[0] is module
        assert [(r.after, r.note) for r in report.layers] == [("", note)]


def test_torchs_synchronized_norm_has_a_converter_of_its_own() -> None:
    norm = filled(nn.SyncBatchNorm(C))
    assert convert(norm, "same")[1].layers[0].note == "call seqnorm.convert_sync_batchnorm"
    assert isinstance(convert(norm, "batch")[0], BatchNorm1d)
    assert isinstance(convert(SyncBatchNorm(C), "layer")[0], LayerNorm)


def test_norms_inside_layers_of_ours_are_part_of_them() -> None:
    model = Transformer("layer", width=16, depth=1, heads=2, qk_norm=True)
    _, report = convert(model, "rms")
    assert "blocks.0.attention.query_norm" in [r.name for r in report.layers]
    domains = nn.Sequential(seqnorm.DomainBatchNorm1d(C, 2))
    new, report = convert(domains, "layer")
    assert isinstance(new[0], seqnorm.DomainBatchNorm1d)
    assert isinstance(new[0].domains[0], BatchNorm1d)
    assert report.replaced == 0


@pytest.mark.parametrize("kind", ["group:2", "rms", "same"])
def test_torchs_transformer_calls_the_new_norms_in_evaluation_too(kind: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(C, 2, 16, dropout=0.0, batch_first=True)
    model: Any = nn.TransformerEncoder(layer, 2)
    new: Any
    new, report = convert(filled(model).eval(), kind)
    assert report.replaced == 4
    x, pad = torch.randn(2, 6, C), torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    with torch.no_grad():
        fast, called = new(x, src_key_padding_mask=pad), []
        for module in new.layers:
            module.norm1.register_forward_hook(lambda m, a, y: called.append(m))
        slow = new(x, src_key_padding_mask=pad)
    torch.testing.assert_close(fast, slow)
    assert len(called) == 2


@pytest.mark.parametrize("name", ["layers.0.norm2", "layers.1.norm1", "layers.1.norm2"])
def test_torchs_transformer_runs_with_some_of_its_norms_replaced(name: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(C, 2, 16, dropout=0.0, batch_first=True)
    model = filled(nn.TransformerEncoder(layer, 2)).eval()
    x, pad = torch.randn(2, 6, C), torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
    new, report = convert(model, "rms", only=lambda where, module: where == name)
    assert report.replaced == 1
    slow = copy.deepcopy(new).requires_grad_()
    with torch.no_grad():
        fast = new(x, src_key_padding_mask=pad)
    torch.testing.assert_close(fast[~pad], slow(x, src_key_padding_mask=pad)[~pad])


# --- errors and reports --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("bacth", "did you mean 'batch'"),
        ("group:3", "^norm: norm 'group:3' does not divide 8 channels"),
        (3, "to must be a kind of norm, 'same' or a function, got 3"),
        (lambda channels, layout: 1, "`to` gave int, not a module"),
    ],
    ids=["typo", "groups", "number", "function"],
)
def test_a_wrong_target_is_refused_before_anything_is_changed(to: Any, message: str) -> None:
    model = Net()
    with pytest.raises(ValueError, match=message):
        convert(model, to, inplace=True)
    assert isinstance(model.norm, nn.BatchNorm1d)
    with pytest.raises(ValueError, match="start must be"):
        convert(model, "layer", start="zero")


def test_answers_are_taken_in_evaluation_and_modes_come_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(C), nn.Dropout())
    model[2].eval()
    x = torch.randn(2, C, L)
    assert torch.equal(answers(model, x), answers(model, x))
    assert torch.equal(answers(model, (x,)), answers(model, [x]))
    assert [m.training for m in model.modules()] == [True, True, True, False]
    assert model[1].num_batches_tracked == 0
    assert torch.is_grad_enabled()
    with pytest.raises(ValueError, match="not finite on sample"):
        answers(model, x * torch.nan)
    with pytest.raises(ValueError, match="gives tuple, a tensor of logits"):
        answers(nn.LSTM(C, 2), x.transpose(1, 2))


def test_decisions_are_signs_of_one_output_and_the_largest_of_several() -> None:
    one = compare(torch.tensor([[1.0], [-1.0], [0.5]]), torch.tensor([[2.0], [1.0], [-0.5]]))
    assert (one.largest, one.typical, one.flipped, one.decisions) == (2.0, 1.0, 2, 3)
    flat = compare(torch.tensor([1.0, -1.0]), torch.tensor([1.0, -3.0]))
    assert (flat.flipped, flat.share) == (0, 0.0)
    many = compare(torch.tensor([[1.0, 2.0], [5.0, 3.0]]), torch.tensor([[3.0, 2.0], [5.0, 3.0]]))
    assert (many.flipped, many.decisions, many.share) == (1, 2, 0.5)
    zero = compare(torch.tensor([0.0, 0.0]), torch.tensor([-1.0, 1.0]))
    assert zero.flipped == 1  # at 0 the decision is no
    assert compare(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 2.0])).flipped == 1
    none = compare(torch.zeros(0, 1), torch.zeros(0, 1))
    assert (none.largest, none.typical, none.share) == (0.0, 0.0, 0.0)
    track = compare(torch.zeros(2, 3, 7), torch.zeros(2, 3, 7))
    assert track.decisions == 14
