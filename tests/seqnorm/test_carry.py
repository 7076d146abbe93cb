import contextlib
import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from seqnorm import CNN, Transformer, WSConv1d, carry_lengths, make_norm
from seqnorm.carry.follow import Follow, follow
from seqnorm.layers import BatchNorm1d, GroupNorm, LayerNorm, NoNorm
from seqnorm.models import ReverseComplementAverage
from seqnorm.moments import Moments

C = 4


def garbage(x: Tensor, lengths: Tensor, value: float = torch.nan, axis: int = 2) -> Tensor:
    """Overwrite the padding."""
    at = torch.arange(x.shape[axis]) >= lengths[:, None]
    return x.masked_fill(at[:, None] if axis == 2 else at[..., None], value)


def alone(model: nn.Module, x: Tensor, lengths: Tensor) -> list[Tensor]:
    return [model(x[i : i + 1, :, :n]) for i, n in enumerate(lengths.tolist())]


def check(model: nn.Module, x: Tensor, lengths: Tensor, atol: float = 1e-10) -> None:
    """A padded batch has the outputs and the gradients of the sequences one by one."""
    x = x.detach().requires_grad_()
    expected = alone(model, x, lengths)
    inner = torch.Generator().manual_seed(1)
    weights = [torch.randn(y.shape, generator=inner, dtype=y.dtype) for y in expected]
    parameters = [x, *model.parameters()]
    total = sum((y * w).sum() for y, w in zip(expected, weights, strict=True))
    expected_grads = torch.autograd.grad(total, parameters, allow_unused=True)
    padded = garbage(x, lengths)
    padded.retain_grad()
    with carry_lengths(model, lengths) as carried:
        y = model(padded)
    scale = max(1.0, *(float(e.detach().abs().max()) for e in expected))
    for i, (row, w) in enumerate(zip(expected, weights, strict=True)):
        if y.dim() == 3:
            n = row.shape[2]
            assert carried.of(y)[i] == n
            assert (y[i, :, n:] == 0).all()
            torch.testing.assert_close(y[i : i + 1, :, :n], row, rtol=0, atol=atol * scale)
            weights[i] = F.pad(w, (0, y.shape[2] - n))
        else:
            torch.testing.assert_close(y[i : i + 1], row, rtol=0, atol=atol * scale)
    (y * torch.cat(weights)).sum().backward()
    assert padded.grad is not None
    assert (garbage(padded.grad, lengths, 0.0) == padded.grad).all()
    for p, grad in zip(parameters, expected_grads, strict=True):
        if grad is None:
            assert p.grad is None or (p.grad == 0).all()
        else:
            assert p.grad is not None
            size = max(1.0, float(grad.abs().max()))
            torch.testing.assert_close(p.grad, grad, rtol=0, atol=100 * atol * size)
        p.grad = None


# --- any stack of followed modules ---------------------------------------------------------


@st.composite
def layer(draw: st.DrawFn) -> nn.Module:
    kind = draw(
        st.sampled_from(
            ["conv", "same", "transposed", "max", "average", "power", "up", "pad", "norm", "act"]
        )
    )
    size, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    half, dilation = draw(st.integers(0, size // 2)), draw(st.integers(1, 2))
    flag, other = draw(st.booleans()), draw(st.booleans())
    groups = draw(st.sampled_from([1, 2]))
    if kind == "conv":
        padding = draw(st.sampled_from([half, 3, "valid"]))
        return nn.Conv1d(C, C, size, stride, padding, dilation, groups, flag)
    if kind == "same":
        return nn.Conv1d(C, C, size, padding="same", dilation=dilation)
    if kind == "transposed":
        extra = draw(st.integers(0, max(stride, dilation) - 1))
        return nn.ConvTranspose1d(C, C, size, stride, half, extra, groups, flag, dilation)
    if kind == "max":
        return nn.MaxPool1d(size, stride, half, dilation, ceil_mode=flag)
    if kind == "average":
        return nn.AvgPool1d(size, stride, half, ceil_mode=flag, count_include_pad=other)
    if kind == "power":
        return nn.LPPool1d(2.0, size, stride, ceil_mode=flag)
    if kind == "up":
        mode = draw(st.sampled_from(["nearest", "linear", "nearest-exact"]))
        return nn.Upsample(scale_factor=draw(st.sampled_from([2, 1.5, 3.0])), mode=mode)
    if kind == "pad":
        return nn.ConstantPad1d((half, stride), draw(st.sampled_from([0.0, 0.7])))
    if kind == "norm":
        name = draw(st.sampled_from(["layer", "layer_seq", "group:2", "instance", "rms", "none"]))
        return make_norm(name, C)
    return draw(st.sampled_from([nn.ReLU(), nn.GELU(), nn.Sigmoid(), nn.Softplus(), nn.ELU()]))


@st.composite
def stack(draw: st.DrawFn) -> nn.Sequential:
    layers = draw(st.lists(layer(), min_size=1, max_size=6))
    end = draw(st.sampled_from(["none", "average", "max", "bins"]))
    if end != "none":
        pool = {"average": nn.AdaptiveAvgPool1d(1), "max": nn.AdaptiveMaxPool1d(1)}
        bins: Any = draw(st.sampled_from([nn.AdaptiveAvgPool1d(3), nn.AdaptiveMaxPool1d(3)]))
        last = pool.get(end, bins)
        layers += [last, nn.Flatten(), nn.Linear(C * (3 if end == "bins" else 1), 2)]
    return nn.Sequential(*layers)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=300, deadline=None)
@given(
    model=stack(),
    lengths=st.lists(st.integers(2, 17), min_size=2, max_size=3),
    more=st.integers(0, 4),
    seed=st.integers(0, 99),
)
def test_any_stack_gives_a_padded_batch_the_numbers_of_the_sequences_one_by_one(
    model: nn.Sequential, lengths: list[int], more: int, seed: int
) -> None:
    torch.manual_seed(seed)
    for p in model.parameters():
        nn.init.normal_(p, 0, 0.5)
    x = torch.randn(len(lengths), C, max(lengths) + more, dtype=torch.float64)
    model.double()
    try:
        expected = alone(model, x, torch.tensor(lengths))
    except RuntimeError:  # torch finds a sequence too short
        assume(False)
    assume(all(y.isfinite().all() for y in expected))
    for p in model.parameters():
        p.grad = None
    check(model, x, torch.tensor(lengths), atol=1e-9)


def test_in_float32_the_numbers_agree_to_1e_5() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(C, C, 5, padding=2), make_norm("group:2", C), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(C, C, 3, padding="same"), make_norm("layer", C), nn.GELU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(C, 2),
    )  # fmt: skip
    check(model, torch.randn(4, C, 40), torch.tensor([40, 23, 8, 17]), atol=1e-5)


# --- each module ---------------------------------------------------------------------------

FOLLOWED: list[nn.Module] = [
    WSConv1d(C, C, 5, stride=2, padding=2),
    nn.Conv1d(C, C, 5, stride=2, padding=2),
    nn.Conv1d(C, C, 4, padding="same", dilation=2),
    nn.Conv1d(C, C, 3, padding="valid"),
    nn.Conv1d(C, C, 3, padding=0, padding_mode="reflect"),
    nn.ConvTranspose1d(C, C, 4, stride=3, padding=1, output_padding=2),
    nn.MaxPool1d(3, ceil_mode=True),
    nn.MaxPool1d(2, padding=1, dilation=2, stride=1),
    nn.AvgPool1d(3, padding=1),
    nn.AvgPool1d(3, padding=1, count_include_pad=False),
    nn.AvgPool1d(4, ceil_mode=True),
    nn.AvgPool1d(4, padding=2, ceil_mode=True, count_include_pad=False),
    nn.LPPool1d(3.0, 3, ceil_mode=True),
    nn.LPPool1d(float("inf"), 3, ceil_mode=True),
    nn.LPPool1d(float("-inf"), 3, ceil_mode=True),
    nn.LPPool1d(2.0, 3),
    nn.AdaptiveAvgPool1d(1),
    nn.AdaptiveMaxPool1d(4),
    nn.Upsample(scale_factor=2.5, mode="linear"),
    nn.ZeroPad1d((2, 1)),
]
EACH = pytest.mark.parametrize(
    "module", FOLLOWED, ids=[f"{type(m).__name__}-{i}" for i, m in enumerate(FOLLOWED)]
)


@EACH
@pytest.mark.parametrize("shift", [0.0, -5.0, 5.0])
def test_each_followed_module_sees_the_end_of_a_sequence_as_the_end_of_a_batch(
    module: nn.Module, shift: float
) -> None:
    # All values of one sign: a wrong filling shows in a maximum as in a mean.
    torch.manual_seed(1)
    module = copy.deepcopy(module).double()
    x = torch.randn(5, C, 19, dtype=torch.float64) + shift
    if isinstance(module, nn.LPPool1d):
        x = x.abs()
    check(module, x, torch.tensor([19, 18, 13, 7, 6]))


@EACH
def test_lengths_after_a_module_are_the_size_it_gives_a_sequence_of_that_length(
    module: nn.Module,
) -> None:
    rule = follow(module)
    assert isinstance(rule, Follow)
    lengths = torch.arange(7, 40)
    sizes = [module(torch.randn(1, C, n)).shape[2] for n in lengths.tolist()]
    if rule.after is None:
        assert len(set(sizes)) == 1
    else:
        assert rule.after(lengths).tolist() == sizes


def test_the_largest_value_of_a_pool_may_be_negative() -> None:
    x = torch.full((2, C, 6), -3.0)
    for pool in (nn.MaxPool1d(2), nn.AdaptiveMaxPool1d(1)):
        with carry_lengths(pool, torch.tensor([6, 3])):
            y = pool(garbage(x, torch.tensor([6, 3]), 9.0))
        assert y.max() <= 0
        assert y[1, 0, 0] == -3


def test_pools_that_return_indices_keep_them() -> None:
    model = nn.MaxPool1d(2, return_indices=True)
    x, lengths = torch.randn(2, C, 9), torch.tensor([9, 5])
    with carry_lengths(model, lengths) as carried:
        y, index = model(garbage(x, lengths, 1e9))
    assert torch.equal(index[1, :, :2], model(x[1, :, :5])[1])
    assert carried.of(y).tolist() == [4, 2]


def test_empty_sequences_stay_empty_and_pool_to_zero() -> None:
    model = nn.Sequential(nn.Conv1d(C, C, 3, padding=1), make_norm("layer", C), nn.MaxPool1d(2))
    lengths = torch.tensor([9, 0])
    with carry_lengths(model, lengths) as carried:
        y = model(garbage(torch.randn(2, C, 9), lengths))
    assert carried.of(y).tolist() == [4, 0]
    assert (y[1] == 0).all()
    for pool in (nn.AdaptiveAvgPool1d(2), nn.AdaptiveMaxPool1d(2)):
        with carry_lengths(pool, lengths):
            assert (pool(garbage(torch.randn(2, C, 9), lengths))[1] == 0).all()


# --- norms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["NCL", "NLC"])
def test_batch_norm_has_the_statistics_of_the_packed_positions(layout: str) -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv1d(C, C, 3, stride=2, padding=1), BatchNorm1d(C, layout=layout)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = conv, norm

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            y = self.norm(y if layout == "NCL" else y.transpose(1, 2))
            return y if layout == "NCL" else y.transpose(1, 2)

    model, x, lengths = Model(), torch.randn(3, C, 20) + 2, torch.tensor([20, 9, 4])
    values = torch.cat([conv(x[i : i + 1, :, :n]) for i, n in enumerate(lengths.tolist())], 2)
    packed = BatchNorm1d(C)
    expected = packed(values)
    with carry_lengths(model, lengths):
        y = model(garbage(x, lengths, 1e6))
    moments = Moments.of(values.detach(), (0, 2))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, 0.1 * moments.mean.float())
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * moments.var(1).float())
    torch.testing.assert_close(y[0], expected[0, :, :10], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(y[2, :, :2], expected[0, :, -2:], rtol=1e-5, atol=1e-5)


def test_lengths_that_the_call_gives_are_kept() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = NoNorm()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(x, torch.tensor([1]))
            return y

    block = Block()
    with carry_lengths(block, torch.tensor([4])):
        assert block(torch.ones(1, 1, 5)).flatten().tolist() == [1, 0, 0, 0, 0]


def test_lengths_given_as_none_are_filled_in() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = NoNorm()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(x + 1, None)
            return y

    block = Block()
    with carry_lengths(block, torch.tensor([2])) as carried:
        y = block(torch.ones(1, 1, 3))
        assert y.flatten().tolist() == [2, 2, 0]
        assert carried.of(y).tolist() == [2]


@pytest.mark.parametrize("kind", [CNN, Transformer])
@pytest.mark.parametrize("wrapped", [nn.Sequential, ReverseComplementAverage])
def test_models_that_take_lengths_get_them_and_look_after_their_inside(
    kind: Callable[..., nn.Module], wrapped: Callable[..., nn.Module]
) -> None:
    model = kind("layer")
    outer = wrapped(model).eval()
    x, lengths = torch.randn(2, 4, 64), torch.tensor([64, 41])
    with carry_lengths(outer, lengths):
        y = outer(garbage(x, lengths))
    single = torch.cat(alone(outer, x, lengths))
    torch.testing.assert_close(y, single, rtol=1e-4, atol=1e-5)


def test_a_padded_channels_last_model_and_tokens() -> None:
    norm = make_norm("layer_seq", C, "NLC").double()
    model = nn.Sequential(nn.Linear(C, C).double(), norm, nn.ReLU(), nn.Linear(C, 2).double())
    x, lengths = torch.randn(2, 7, C, dtype=torch.float64), torch.tensor([7, 3])
    with carry_lengths(model, lengths, layout="NLC") as carried:
        y = model(garbage(x, lengths, axis=1))
        assert carried.of(y).tolist() == [7, 3]
    torch.testing.assert_close(y[1:, :3], model(x[1:, :3]))
    assert (y[1, 3:] == 0).all()
    tokens = nn.Sequential(nn.Embedding(5, C), make_norm("layer_seq", C, "NLC"))
    ids = torch.randint(0, 5, (2, C))  # as many positions as features
    with carry_lengths(tokens, torch.tensor([C, 2]), layout="NL"):
        y = tokens(ids)
    torch.testing.assert_close(y[1:, :2], tokens(ids[1:, :2]))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_ignores_padded_keys(norm_first: bool, train: bool, batch_first: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv1d(4, 8, 3, padding=1)
            self.layer = nn.TransformerEncoderLayer(
                8, 2, 16, dropout=0.0, norm_first=norm_first, batch_first=batch_first
            )
            self.own = nn.MultiheadAttention(8, 2, batch_first=batch_first)
            self.pool = nn.AdaptiveAvgPool1d(1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            x = x.transpose(1, 2) if batch_first else x.permute(2, 0, 1)
            x = self.layer(x)
            mask = torch.zeros(x.shape[1 if batch_first else 0], x.shape[1 if batch_first else 0])
            x = self.own(x, x, x, attn_mask=mask.to(x.dtype), need_weights=False)[0]
            x = x.transpose(1, 2) if batch_first else x.permute(1, 2, 0)
            y: Tensor = self.pool(x)
            return y.flatten(1)

    torch.manual_seed(0)
    model = Model().double().train(train)
    x, lengths = torch.randn(3, 4, 12, dtype=torch.float64), torch.tensor([12, 7, 1])
    check(model, x, lengths)
    with torch.no_grad(), carry_lengths(model, lengths):
        y = model(garbage(x, lengths))
    torch.testing.assert_close(y, torch.cat(alone(model, x, lengths)))
    with carry_lengths(model, torch.tensor([12, 0, 5])):
        assert model(x).isfinite().all()


# --- refusals ------------------------------------------------------------------------------


class Own(nn.Module):
    """A forward of one's own around a convolution and what follows."""

    def __init__(self, body: Callable[[Tensor], Tensor], last: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv1d(C, C, 3, padding=1)
        self.body, self.last = body, last or NoNorm()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.body(self.conv(x)))
        return y


CONVERT = r"seqnorm\.convert\(model, to='same'\) first"
REFUSED: list[Any] = [
    (nn.BatchNorm1d(C), f"padded positions would get into its statistics; call {CONVERT}"),
    (nn.BatchNorm1d(C, track_running_stats=False).eval(), "statistics"),
    (nn.GroupNorm(2, C), CONVERT),
    (nn.InstanceNorm1d(C), CONVERT),
    (nn.LayerNorm([C, 12]), f"normalizes over padded positions; call {CONVERT}"),
    (nn.LayerNorm(12), "normalizes over padded positions"),
    (nn.Flatten(), "turns padded positions into features; pool them first"),
    (nn.Linear(12, 3), "mixes padded positions; pool them first"),
    (nn.Softmax(2), "normalizes over padded positions"),
    (nn.LSTM(12, 3), "recurrent layer .* pack the sequences"),
    (nn.GLU(), "gates .* set dim to the axis of channels"),
    (nn.Conv2d(1, 1, 3), "one-dimensional modules only"),
    (nn.ReflectionPad1d(1), "use nn.ConstantPad1d"),
    (nn.Conv1d(C, C, 3, padding=1, padding_mode="circular"), "use padding_mode='zeros'"),
    (nn.Upsample(size=20), "set scale_factor"),
    (nn.Upsample(scale_factor=2, mode="linear", align_corners=True), "align_corners=True"),
    (nn.Upsample(scale_factor=1.5, recompute_scale_factor=True), "recompute_scale_factor"),
    (nn.ConstantPad1d((0, -2), 0.0), "crops"),
    (nn.AdaptiveMaxPool1d(2, return_indices=True), "return_indices"),
    (nn.AdaptiveAvgPool1d(None), "output_size=None"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(
    ("module", "message"),
    REFUSED,
    ids=[f"{type(m).__name__}-{i}" for i, (m, _) in enumerate(REFUSED)],
)
@pytest.mark.parametrize("lengths", [[12, 5], [12, 12]])
def test_what_would_mix_padding_in_is_refused_whatever_the_lengths(
    module: nn.Module, message: str, lengths: list[int]
) -> None:
    model = nn.Sequential(nn.Conv1d(C, C, 3, padding=1), module)
    with (
        carry_lengths(model, torch.tensor(lengths)),
        pytest.raises(ValueError, match=f"^1 .*{message}"),
    ):
        model(torch.randn(2, C, 12))


@pytest.mark.parametrize(
    "body",
    [
        "x.mean(-1)",
        "torch.mean(x, dim=2, keepdim=True)",
        "F.relu(x).amax((-1,))",
        "x.transpose(1, 2).sum(1)",
        "x.max(2).values",
        "x.flip(-1)",
        "x.flip(1, 2)",
        "torch.flip(x, (1, 2))",
        "x.roll(1, 2)",
        "x.flatten(1)",
        "x.reshape(len(x), -1)",
        "x.reshape((len(x), -1))",
        "x.view(-1, C * 12)",
        "torch.softmax(x, -1)",
        "F.softmax(x[:, :, None], dim=-1)",
        "F.max_pool1d(x, 2)",
        "F.adaptive_avg_pool1d(x, 1)",
        "F.avg_pool1d(x + 1, 2)",
        "F.conv1d(x, torch.ones(1, C, 3))",
        "F.interpolate(x, scale_factor=2)",
        "F.instance_norm(x)",
        "F.group_norm(x, 2)",
        "F.batch_norm(x, None, None, training=True)",
        "F.layer_norm(x, x.shape[1:])",
        "F.normalize(x, dim=-1)",
        "x.topk(2).values",
        "x.topk(2, -1).values",
        "x.sort().values",
        "x.sort(-1, True).values",
        "torch.permute(x, (0, 2, 1)).sum(1)",
        "x.permute(0, 2, 1).mean(dim=1)",
        "torch.transpose(x, dim0=1, dim1=2).amax(dim=1)",
        "torch.cat([x, x], dim=1).mean(2)",
        "x.var((0, 2))",
        "x.std(2, False)",
        "x.unsqueeze(1).sum(3)",
        "x.softmax(dim=-1)",
        "F.conv_transpose1d(x, torch.ones(C, 1, 3))",
        "F.lp_pool1d(x.abs(), 2.0, 2)",
        "F.scaled_dot_product_attention(*[x.transpose(1, 2)] * 3, None)",
        "x.std(2)",
        "x.norm(2, -1)",
        "F.scaled_dot_product_attention(*[x.transpose(1, 2)] * 3)",
        "(x.transpose(1, 2) @ x).softmax(-1)",
        "F.rms_norm(x, (12,))",
        "F.glu(x)",
        "F.linear(x, torch.ones(3, 12))",
        "F.gumbel_softmax(x, dim=2)",
        "F.cosine_similarity(x, x, dim=-1)",
        "torch.linalg.norm(x, dim=-1)",
        "torch.linalg.vector_norm(x, 2, -1)",
        "(x * 2).nanmedian(-1).values",
        "x.mode().values",
        "x.count_nonzero(2)",
        "x.transpose(1, dim1=2).mean(1)",
        "x[..., -1]",
        "x[:, :, -1:]",
        "x.transpose(1, 2)[:, -1]",
        "x[:, None, :, -2]",
    ],
)  # fmt: skip
def test_operations_along_padded_positions_are_refused(body: str) -> None:
    model = nn.Sequential(nn.Identity(), Own(eval(f"lambda x: {body}")))
    with (
        carry_lengths(model, torch.tensor([12, 5])),
        pytest.raises(ValueError, match=r"^1 \(Own\): its forward calls .* along padded positions"),
    ):
        model(torch.randn(2, C, 12))


@pytest.mark.parametrize(
    "body",
    [
        "x.mean(1, keepdim=True) * x",
        "F.normalize(x)",
        "F.layer_norm(x.transpose(1, 2), (C,)).transpose(1, 2)",
        "torch.softmax(x, 1)",
        "x * (x.max() > -1e9)",
        "F.batch_norm(x, *torch.ones(2, C).to(x))",
        "torch.cat([x, x], 1)[:, ::2]",
        "torch.cat([x, x], dim=1).unflatten(1, (2, C)).mean(1)",
        "F.normalize(x, dim=1) + x.permute(0, 2, 1).sum(2)[:, None]",
        "x + x.sort(1).values + x.topk(1, 1).values + x.amax(dim=(1,), keepdim=True)",
        "x.transpose(1, 2).softmax(2).transpose(1, 2)",
        "F.linear(x.transpose(1, 2), torch.eye(C).to(x)).transpose(1, 2)",
        "F.relu(x) * x.unsqueeze(1).squeeze(1) - x.flip(1)",
        "x.unflatten(1, (2, 2)).flatten(1, 2)",
        "x * x[:, -1:] * x[:, [-1, 0]].sum(1)[:, None] * x[..., :1]",
        "x.transpose(1, 2)[..., -1][:, None] + x",
        "F.glu(torch.cat([x, x], 1), 1)",
        "x + F.cosine_similarity(x, x)[:, None] + torch.linalg.norm(x, dim=1, keepdim=True)",
        "F.pad(x, (0, 1))[..., :-1]",
    ],
)
@pytest.mark.parametrize("length", [12, C])
def test_operations_at_each_position_are_let_through(body: str, length: int) -> None:
    model = Own(eval(f"lambda x: {body}")).double()
    check(model, torch.randn(2, C, length, dtype=torch.float64), torch.tensor([length, 3]))


def lost(x: Tensor, to: str = "ncl") -> Tensor:
    """The same values as a tensor that is not recognized."""
    return torch.einsum(f"ncl->{to}", x)


@pytest.mark.parametrize("length", [12, C])
@pytest.mark.parametrize("last", ["linear", "layer", "rms"])
def test_where_a_tensor_is_not_recognized_the_last_axis_is_that_of_features_if_it_can_be(
    length: int, last: str
) -> None:
    build: Any = {"linear": lambda n: nn.Linear(n, n), "layer": nn.LayerNorm, "rms": nn.RMSNorm}

    class Model(nn.Module):
        def __init__(self, to: str) -> None:
            super().__init__()
            self.to, self.last = to, build[last](C)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = torch.einsum(f"{self.to}->ncl", self.last(lost(x, self.to)))
            return y

    x, lengths = torch.randn(2, C, length).double(), torch.tensor([length, 3])
    for to in ("nlc", "lnc"):
        model = Model(to).double()
        with carry_lengths(model, lengths):
            y = model(garbage(x, lengths))
        torch.testing.assert_close(y[1:, :, :3], model(x[1:, :, :3]))
    # As many sequences as positions do not make the first axis one of positions.
    wrong = nn.Sequential(Own(lost, build[last]))
    wrong[0].last = {"linear": nn.Linear(7, 7), "layer": nn.LayerNorm(7), "rms": nn.RMSNorm(7)}[
        last
    ]
    with (
        carry_lengths(wrong, torch.arange(1, 8)),
        pytest.raises(ValueError, match=r"^0\.last .*padded positions"),
    ):
        wrong(torch.randn(7, C, 7))


def test_a_softmax_module_over_keys_is_refused_and_a_flattening_of_nothing_is_not() -> None:
    weights = Own(lambda x: lost(x, "nlc") @ x, nn.Softmax(-1))
    with (
        carry_lengths(weights, torch.tensor([12, 5])),
        pytest.raises(ValueError, match=r"^last \(Softmax\).*normalizes over padded positions"),
    ):
        weights(torch.randn(2, C, 12))
    model = nn.Sequential(nn.Flatten(2), nn.Flatten(1, 1), nn.Softmax(1), nn.Unflatten(1, (1, C)))
    with carry_lengths(model, torch.tensor([12, 5])):
        model(torch.randn(2, C, 12))


def test_attention_with_a_mask_of_its_own_is_let_through() -> None:
    def body(x: Tensor) -> Tensor:
        q = x.transpose(1, 2)
        mask = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril()
        return F.scaled_dot_product_attention(q, q, q, mask).transpose(1, 2)

    model = Own(body).double()
    check(model, torch.randn(2, C, 12).double(), torch.tensor([12, 5]))


def test_a_mean_outside_the_model_is_nobodys_business() -> None:
    model = nn.Conv1d(C, C, 3, padding=1)
    with carry_lengths(model, torch.tensor([12, 5])):
        model(torch.randn(2, C, 12)).mean(-1).sum().backward()


def test_a_number_of_positions_from_nowhere_is_named_with_what_to_do() -> None:
    for body in (lambda x: x[..., ::2], lambda x: F.pad(x, (1, 0))):
        model = nn.Sequential(Own(body))
        with (
            carry_lengths(model, torch.tensor([12, 5])),
            pytest.raises(ValueError, match=r"^0\.last \(NoNorm\).*known for 12 only.*rules="),
        ):
            model(torch.randn(2, C, 12))


def test_two_ways_to_one_size_are_an_error_where_they_meet_and_only_there() -> None:
    down, up = nn.MaxPool1d(2), nn.Upsample(scale_factor=2)
    line = nn.Sequential(down, up, make_norm("layer", C)).double()
    x = torch.randn(2, C, 8, dtype=torch.float64)
    check(line, x, torch.tensor([8, 5]))  # 5 -> 2 -> 4: each tensor is known by itself

    class Skip(nn.Module):
        def __init__(self, join: Callable[[Tensor, Tensor], Tensor]) -> None:
            super().__init__()
            self.down, self.up, self.join = down, up, join
            self.norm = NoNorm()

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(self.join(x, self.up(self.down(x))))
            return y

    joins: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda a, b: a + b,
        lambda a, b: torch.cat([a, b], 1),
        lambda a, b: torch.stack([a, b]).sum(0),
    ]
    for join in joins:
        model = Skip(join)
        check(model, x, torch.tensor([8, 6]))
        with (
            carry_lengths(model, torch.tensor([8, 5])),
            pytest.raises(ValueError, match=r"two ways .*\[8, 5\] and \[8, 4\].*multiples"),
        ):
            model(x)


def test_a_sequence_too_short_for_a_window_is_named() -> None:
    model = nn.Sequential(nn.MaxPool1d(4), nn.Conv1d(C, C, 3))
    with (
        carry_lengths(model, torch.tensor([40, 11])),
        pytest.raises(ValueError, match=r"^1 \(Conv1d\): sequence 1 has 2 valid positions here"),
    ):
        model(torch.randn(2, C, 40))


def test_a_subclass_with_another_size_is_not_believed() -> None:
    class Causal(nn.Conv1d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.pad(x, (2, 0)))

    model = nn.Sequential(Causal(C, C, 3)).double()
    x, lengths = torch.randn(2, C, 9, dtype=torch.float64), torch.tensor([9, 4])
    with (
        carry_lengths(model, lengths),
        pytest.raises(ValueError, match="9 positions became 9, by its settings they become 7"),
    ):
        model(x)
    for key in ("0", Causal):
        with carry_lengths(model, lengths, rules={key: lambda module, n: n}) as carried:
            y = model(garbage(x, lengths))
        assert carried.of(y).tolist() == [9, 4]
        torch.testing.assert_close(y[1:, :, :4], model(x[1:, :, :4]))


def test_a_rule_of_none_leaves_a_module_alone() -> None:
    model = nn.Sequential(Own(lambda x: x.flip(-1)), nn.BatchNorm1d(C))
    with carry_lengths(model, torch.tensor([12, 5]), rules={"0": None, nn.BatchNorm1d: None}) as c:
        assert c.of(model(torch.randn(2, C, 12))).tolist() == [12, 5]


def test_torch_norms_that_mix_no_padding_are_let_through() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.pool = nn.LayerNorm(C), nn.AdaptiveAvgPool1d(1)
            self.last = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(C), nn.Linear(C, 2))

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.pool(self.norm(x.transpose(1, 2)).transpose(1, 2)))
            return y

    model = nn.Sequential(nn.BatchNorm1d(C).eval(), nn.InstanceNorm1d(C, track_running_stats=True))
    model = nn.Sequential(model.eval(), Head()).double()
    x, lengths = torch.randn(3, C, C, dtype=torch.float64), torch.tensor([C, 3, 1])
    with carry_lengths(model, lengths):
        assert model(garbage(x, lengths)).isfinite().all()  # batch statistics of (N, C)
    check(model.eval(), x, lengths)


# --- the block -----------------------------------------------------------------------------


def hooks(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._forward_hooks_always_called)
        for m in model.modules()
    )


def test_hooks_are_gone_after_the_block_and_after_an_error() -> None:
    model = nn.Sequential(nn.Conv1d(C, C, 3), nn.Flatten())
    x, lengths = torch.randn(2, C, 12), torch.tensor([12, 5])
    expected = model(x)
    with carry_lengths(model, lengths):
        assert hooks(model) > 0
    with pytest.raises(ValueError, match="features"), carry_lengths(model, lengths):
        model(x)
    assert hooks(model) == 0
    assert torch.equal(model(x), expected)
    with pytest.raises(ValueError, match="no submodule"):
        carry_lengths(model, lengths, rules={"2": None}).__enter__()
    assert hooks(model) == 0


def test_after_an_error_inside_the_block_the_next_call_starts_anew() -> None:
    model = nn.Sequential(nn.Conv1d(C, C, 5), NoNorm())
    with carry_lengths(model, torch.tensor([9, 7])) as carried:
        with pytest.raises(RuntimeError):
            model(torch.randn(2, C + 1, 12))
        with pytest.raises(ValueError, match=r"9 positions|exceeds"):
            model(torch.randn(2, C, 8))
        for length in (12, 9, 14):
            y = model(torch.randn(2, C, length))
            assert carried.of(y).tolist() == [5, 3]
            assert y.shape[2] == length - 4


def test_an_error_of_a_hook_that_the_model_catches_leaves_the_look_out_as_it_was() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.risky = nn.Conv1d(C, C, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            with contextlib.suppress(ZeroDivisionError):
                x = self.risky(x)
            return x if self.training else x.mean(-1)

    def fail(module: nn.Module, args: Any) -> None:
        raise ZeroDivisionError

    model, x = Careful(), torch.randn(2, C, 12)
    model.risky.register_forward_pre_hook(fail)
    with carry_lengths(model, torch.tensor([12, 5])) as carried:
        assert carried.of(model(x)).tolist() == [10, 3]
        with pytest.raises(ValueError, match="forward calls mean"):
            model.eval()(x)
        assert carried.of(model.train()(x)).tolist() == [10, 3]


def test_padding_of_outputs_by_name_is_0_too() -> None:
    class Named(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"probability": [x.sigmoid()], "size": 3}

    with carry_lengths(model := Named(), torch.tensor([4, 2])):
        y = model(torch.randn(2, C, 4))
    assert (y["probability"][0][1, :, 2:] == 0).all()
    assert (y["probability"][0][1, :, :2] > 0).all()
    assert y["size"] == 3


def test_a_bag_of_tokens_is_refused() -> None:
    model = nn.Sequential(nn.EmbeddingBag(5, C))
    with (
        carry_lengths(model, torch.tensor([6, 2]), layout="NL"),
        pytest.raises(ValueError, match=r"use nn\.Embedding"),
    ):
        model(torch.ones(2, 6, dtype=torch.long))


def test_blocks_can_be_nested_and_the_inner_one_holds() -> None:
    model = nn.Sequential(NoNorm(), nn.MaxPool1d(2))
    x = torch.ones(1, 1, 8)
    with carry_lengths(model, torch.tensor([8])):
        with carry_lengths(model, torch.tensor([4])) as inner:
            assert inner.of(model(x)).tolist() == [2]
            assert model(x).sum() == 2
        assert model(x).sum() == 4
        with carry_lengths(model[0], torch.tensor([2])):
            assert model[0](x).sum() == 2
        assert model(x).sum() == 4
    assert hooks(model) == 0


def test_a_module_called_by_itself_before_the_model_is_named() -> None:
    model = nn.Sequential(nn.Conv1d(C, C, 3), NoNorm())
    with (
        carry_lengths(model, torch.tensor([6])),
        pytest.raises(ValueError, match=r"^0 \(Conv1d\) is called by itself; .* call the model"),
    ):
        model[0](torch.randn(1, C, 8))


def test_checkpointing_computes_the_same_if_backward_is_inside_the_block() -> None:
    class Checkpointed(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            for part in self:
                x = checkpoint(part, x, use_reentrant=False)
            return x

    torch.manual_seed(0)
    parts = [
        nn.Sequential(nn.Conv1d(C, C, 3, padding=1), make_norm("layer_seq", C), nn.MaxPool1d(2))
        for _ in range(2)
    ]
    x, lengths = torch.randn(2, C, 20), torch.tensor([20, 11])
    grads = []
    for model in (nn.Sequential(*parts), Checkpointed(*parts)):
        with carry_lengths(model, lengths):
            model(garbage(x, lengths)).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
        model.zero_grad(set_to_none=True)
    for a, b in zip(*grads, strict=True):
        assert a is not None
        torch.testing.assert_close(a, b)


def test_a_model_with_hooks_is_collected_when_it_is_dropped() -> None:
    import weakref

    model = nn.Sequential(NoNorm())
    with carry_lengths(model, torch.tensor([2])):
        model(torch.ones(1, 1, 3))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_module_used_twice_is_followed_twice() -> None:
    pool = nn.MaxPool1d(2)
    model = nn.Sequential(pool, make_norm("layer", C), pool).double()
    check(model, torch.randn(2, C, 16, dtype=torch.float64), torch.tensor([16, 9]))


def test_a_convolution_of_ours_is_followed_in_either_layout() -> None:
    model = nn.Sequential(
        WSConv1d(C, C, 3, stride=2, layout="NLC"), make_norm("layer_seq", C, "NLC")
    ).double()
    x, lengths = torch.randn(2, 11, C, dtype=torch.float64), torch.tensor([11, 6])
    with carry_lengths(model, lengths, layout="NLC") as carried:
        y = model(garbage(x, lengths, axis=1))
    assert carried.of(y).tolist() == [5, 2]
    torch.testing.assert_close(y[1:, :2], model(x[1:, :6]))


def test_further_inputs_of_the_model_are_cleaned_too() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lift = nn.Linear(C, C)
            self.norm = LayerNorm(C, over="CL", layout="NLC")

        def forward(self, x: Tensor, *, track: Tensor) -> Tensor:
            y: Tensor = self.norm(self.lift(x) + track)
            return y

    model = Two()
    x, track, lengths = torch.randn(2, 6, C), torch.randn(2, 6, C), torch.tensor([6, 2])
    with carry_lengths(model, lengths, layout="NLC"):
        y = model(garbage(x, lengths, axis=1), track=garbage(track, lengths, axis=1))
    y.sum().backward()
    assert model.lift.weight.grad is not None
    assert model.lift.weight.grad.isfinite().all()
    torch.testing.assert_close(y[1:, :2], model(x[1:, :2], track=track[1:, :2]))


def test_masks_are_taken_if_they_have_no_hole() -> None:
    model = GroupNorm(2, C)
    x, lengths = torch.randn(2, C, 6), torch.tensor([6, 2])
    mask = torch.arange(6) < lengths[:, None]
    with carry_lengths(model, mask):
        assert torch.equal(model(x), model(x, lengths))
    mask[1, 4] = True
    with (
        pytest.raises(ValueError, match="mask of sequence 1 has a hole"),
        carry_lengths(model, mask),
    ):
        pass


@pytest.mark.parametrize(
    ("lengths", "shape", "message"),
    [
        (torch.tensor([6.0]), (1, C, 6), "integers"),
        (torch.tensor([[6]]), (1, C, 6), "integers"),
        (torch.tensor([-1]), (1, C, 6), "negative"),
        ([6], (1, C, 6), "must be a tensor"),
        (torch.tensor([7]), (1, C, 6), r"lengths\[0\] = 7 exceeds the 6 positions"),
        (torch.tensor([6]), (2, C, 6), "and 1 sequences"),
        (torch.tensor([6]), (1, 6), r"axes \(N, C, L\)"),
    ],
)
def test_wrong_lengths_are_named(lengths: Any, shape: tuple[int, ...], message: str) -> None:
    model = nn.Sequential(NoNorm())
    with pytest.raises(ValueError, match=message), carry_lengths(model, lengths):
        model(torch.randn(shape))


def test_a_batch_axis_that_means_something_else_is_named() -> None:
    for model in (
        Own(lambda x: x.reshape(-1, 2, 12), make_norm("layer", 2)),
        Own(lambda x: torch.cat([x, x]), make_norm("layer", C)),
    ):
        with (
            carry_lengths(model, torch.tensor([12, 5])),
            pytest.raises(ValueError, match=r"2 sequences of lengths on axis 0"),
        ):
            model(torch.randn(2, C, 12))


@pytest.mark.parametrize("length", [12, C])
@pytest.mark.parametrize("layout", ["NCL", "NLC"])
def test_modules_of_others_that_take_lengths_get_those_of_their_input(
    length: int, layout: str
) -> None:
    class Recorder(nn.Module):
        def forward(self, x: Tensor, scale: float = 1.0, lengths: Tensor | None = None) -> Tensor:
            seen.append(None if lengths is None else lengths.tolist())
            return x * scale

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.pool = nn.Linear(C, C), nn.AdaptiveAvgPool1d(1)
            self.take, self.pairs = Recorder(), nn.MaxPool1d(2)

        def forward(self, x: Tensor) -> Tensor:
            ncl = x if layout == "NCL" else x.transpose(1, 2)
            nlc = x if layout == "NLC" else x.transpose(1, 2)
            self.take(self.first(nlc), lengths=None)
            self.take(lost(nlc), 2.0)
            self.take(lost(ncl), 2.0, None)
            self.take(lost(self.pairs(ncl)))
            pooled = self.pool(ncl)
            self.take(pooled)
            self.take(pooled.flatten(1))
            y: Tensor = self.take(pooled.flatten(1), 1.0, torch.tensor([7]))
            return y

    seen: list[Any] = []
    model, lengths = Model(), torch.tensor([length, 3])
    x = torch.randn((2, C, length) if layout == "NCL" else (2, length, C))
    with carry_lengths(model, lengths, layout=layout):
        model(x)
    full = [length, 3]
    assert seen == [full, full, full, [length // 2, 1], None, None, [7]]
