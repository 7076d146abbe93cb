import copy
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqnorm import (
    CNN,
    BatchNorm1d,
    GhostBatchNorm1d,
    GroupNorm,
    InstanceNorm1d,
    LayerNorm,
    NoNorm,
    RMSNorm,
    convert,
    leak_report,
)
from seqnorm.influence import LARGEST

N, C, L = 4, 6, 10


def reach(module: nn.Module, x: Tensor, mode: str = "train", **options: Any) -> tuple[Any, ...]:
    """How many other samples, positions and channels one output depends on."""
    report = leak_report(module, x, modes=[mode], **options)
    return tuple(report.row(mode, axis).others for axis in ("sample", "position", "channel"))


# The definition of each norm: which other samples, positions, channels share its statistics.
NORMS: list[Any] = [
    (BatchNorm1d(C), (N - 1, L - 1, 0), (0, 0, 0)),
    (GhostBatchNorm1d(C, ghost_size=2), (1, L - 1, 0), (0, 0, 0)),
    (BatchNorm1d(C, frozen=True), (0, 0, 0), (0, 0, 0)),
    (InstanceNorm1d(C), (0, L - 1, 0), (0, L - 1, 0)),
    (LayerNorm(C), (0, 0, C - 1), (0, 0, C - 1)),
    (LayerNorm(C, over="CL"), (0, L - 1, C - 1), (0, L - 1, C - 1)),
    (GroupNorm(2, C), (0, L - 1, C // 2 - 1), (0, L - 1, C // 2 - 1)),
    (RMSNorm(C), (0, 0, C - 1), (0, 0, C - 1)),
    (NoNorm(), (0, 0, 0), (0, 0, 0)),
    (nn.BatchNorm1d(C), (N - 1, L - 1, 0), (0, 0, 0)),
    (nn.InstanceNorm1d(C), (0, L - 1, 0), (0, L - 1, 0)),
    (nn.GroupNorm(3, C), (0, L - 1, C // 3 - 1), (0, L - 1, C // 3 - 1)),
]


@pytest.mark.parametrize(
    ("norm", "train", "evaluation"), NORMS, ids=[f"{type(n[0]).__name__}-{i}" for i, n in
                                                 enumerate(NORMS)]
)  # fmt: skip
def test_each_norm_leaks_along_the_axes_it_normalizes_over_and_no_other(
    norm: nn.Module, train: tuple[int, ...], evaluation: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(N, C, L)
    report = leak_report(norm, x)
    for mode, expected in (("train", train), ("eval", evaluation)):
        for axis, count, of in zip(
            ("sample", "position", "channel"), expected, (N - 1, L - 1, C - 1), strict=True
        ):
            row = report.row(mode, axis)
            assert (row.others, row.of, row.reaches_others) == (count, of, count > 0)
            assert (row.strongest > 0) == (count > 0)
    assert report.exact


def test_the_other_layout_is_read_by_its_name() -> None:
    x = torch.randn(N, L, C)
    assert reach(LayerNorm(C, layout="NLC"), x, layout="NLC") == (0, 0, C - 1)
    assert reach(nn.LayerNorm(C), x, layout="NLC") == (0, 0, C - 1)
    assert reach(InstanceNorm1d(C, layout="NLC"), x, layout="NLC") == (0, L - 1, 0)


def test_derivatives_are_those_of_the_formula() -> None:
    # d y_i / d x_j of (x - mean) / std at j != i is -(1 + y_i y_j) / (n std).
    x = torch.randn(2, 1, 5, dtype=torch.float64)
    report = leak_report(InstanceNorm1d(1, eps=0.0), x, points=1, modes=["eval"])
    y = (x - x.mean(2, keepdim=True)) / x.std(2, correction=0, keepdim=True)
    slopes = (1 + y.transpose(1, 2) * y).abs() / (5 * x.std(2, correction=0, keepdim=True))
    slopes.diagonal(dim1=1, dim2=2).zero_()
    assert report.row("eval", "position").strongest == pytest.approx(float(slopes.max()))


@pytest.mark.parametrize(
    ("size", "dilation", "layers"), [(1, 1, 1), (5, 1, 1), (3, 2, 1), (3, 1, 3), (5, 2, 2)]
)
def test_the_span_of_convolutions_is_their_receptive_field(
    size: int, dilation: int, layers: int
) -> None:
    convs = [
        nn.Conv1d(2, 2, size, padding=dilation * (size // 2), dilation=dilation)
        for _ in range(layers)
    ]
    model = nn.Sequential(*[m for conv in convs for m in (conv, nn.ReLU())])
    row = leak_report(model, torch.randn(2, 2, 40)).row("eval", "position")
    field = 1 + layers * dilation * (size - 1)
    assert (row.span, row.distance) == (field, field // 2)
    assert row.others == layers * (size - 1)


def test_of_strided_layers_the_span_is_told_and_no_distance() -> None:
    model = nn.Sequential(nn.Conv1d(2, 3, 5, stride=2), nn.MaxPool1d(2))
    report = leak_report(model, torch.randn(2, 2, 41), points=30)
    row = report.row("eval", "position")
    assert (row.span, row.distance, row.of) == (7, None, 40)
    # A maximum has the derivative of one position; two random points may have two.
    assert report.row("eval", "channel").others == 1


def test_a_model_without_positions_in_its_output_is_told_by_what_an_answer_depends_on() -> None:
    torch.manual_seed(0)
    model = CNN("batch", channels=4, blocks=1)
    report = leak_report(model, torch.randn(3, 4, 24))
    assert report.row("train", "sample").others == 2
    assert report.row("eval", "sample").others == 0
    position = report.row("eval", "position")
    assert (position.others, position.span, position.distance) == (23, 24, None)
    for kind in ("instance", "layer", "group:2"):
        norms, _ = convert(model, kind)
        assert not leak_report(norms, torch.randn(3, 4, 24)).row("train", "sample").reaches_others


@pytest.mark.parametrize("kind", ["layer", "batch", "group:2", "instance"])
def test_padding_influences_nothing_in_models_that_know_of_it(kind: str) -> None:
    x, lengths = torch.randn(3, 4, 24), torch.tensor([24, 17, 20])
    padded = leak_report(CNN(kind, channels=4, blocks=1), x, lengths)
    for mode in ("train", "eval"):
        row = padded.row(mode, "padding")
        assert (row.reaches_others, row.others, row.of, row.strongest) == (False, 0, 11, 0.0)
    plain = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), GroupNorm(2, 4), nn.MaxPool1d(2))
    assert not leak_report(plain, x, lengths).row("eval", "padding").reaches_others


def test_padding_that_gets_in_is_seen() -> None:
    class Deaf(nn.Module):
        def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
            return x.mean(2)

    x, lengths = torch.randn(2, 4, 8), torch.tensor([8, 5])
    row = leak_report(Deaf(), x, lengths).row("eval", "padding")
    assert (row.reaches_others, row.others, row.of) == (True, 3, 3)
    assert row.strongest == pytest.approx(1 / 8)


def test_large_inputs_are_probed_and_the_answers_are_the_same() -> None:
    torch.manual_seed(0)
    length = 96
    x = torch.randn(N, C, length)
    assert x.numel() > LARGEST
    for norm, others in (
        (BatchNorm1d(C), (N - 1, length - 1, 0)),
        (InstanceNorm1d(C), (0, length - 1, 0)),
        (LayerNorm(C), (0, 0, C - 1)),
        (GroupNorm(2, C), (0, length - 1, C // 2 - 1)),
    ):
        report = leak_report(norm, x, modes=["train"])
        assert not report.exact
        assert "sums of outputs" in str(report)
        found = [report.row("train", axis).others for axis in ("sample", "position", "channel")]
        assert tuple(found) == others
    conv = nn.Conv1d(C, C, 5, padding=2)
    row = leak_report(conv, x).row("eval", "position")
    assert (row.span, row.distance, row.others) == (5, 2, 4)


def test_one_point_may_be_blind_where_more_are_not() -> None:
    class Off(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.relu(x.mean(0, keepdim=True) - 0.2)

    x = torch.linspace(-1, 1, 2 * C * L).view(2, C, L)
    x[1] = -x[0]
    assert not leak_report(Off(), x, points=1).row("eval", "sample").reaches_others
    assert leak_report(Off(), x, points=4).row("eval", "sample").reaches_others


def test_nothing_of_the_model_or_of_the_random_numbers_is_changed() -> None:
    model = nn.Sequential(nn.Conv1d(C, C, 3, padding=1), nn.BatchNorm1d(C), nn.Dropout())
    model[1].eval()
    model(torch.randn(N, C, L)).sum().backward()
    x = torch.randn(N, C, L)
    state, grads = copy.deepcopy(model.state_dict()), [p.grad for p in model.parameters()]
    copies = [None if g is None else g.clone() for g in grads]
    random = torch.get_rng_state()
    first = leak_report(model, x)
    assert torch.equal(torch.get_rng_state(), random)
    torch.randn(3)
    assert leak_report(model, x) == first
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
        assert value.dtype == state[name].dtype
    for p, grad, before in zip(model.parameters(), grads, copies, strict=True):
        assert p.grad is grad
        assert before is not None
        assert torch.equal(p.grad, before)
    assert [m.training for m in model] == [True, False, True]
    assert x.grad is None


def test_the_report_reads_as_a_table_and_as_a_frame() -> None:
    report = leak_report(BatchNorm1d(C), torch.randn(N, C, L))
    lines = str(report).splitlines()
    assert lines[0].split() == [
        "mode", "axis", "reaches", "others", "others", "of", "distance", "span", "strongest"
    ]  # fmt: skip
    assert lines[1].split()[:5] == ["train", "sample", "yes", "3", "3"]
    assert lines[4].split()[:5] == ["eval", "sample", "no", "0", "3"]
    assert "at 3 points" in lines[-1]
    frame = report.to_frame()
    assert list(frame.columns[:3]) == ["mode", "axis", "reaches_others"]
    assert len(frame) == 6
    with pytest.raises(KeyError, match="'padding'"):
        report.row("eval", "padding")


def test_pandas_is_loaded_by_the_frame_alone() -> None:
    code = (
        "import sys, torch, seqnorm\n"
        "r = seqnorm.leak_report(seqnorm.LayerNorm(2), torch.randn(2, 2, 3))\n"
        "assert 'pandas' not in sys.modules\n"
        "r.to_frame()\n"
        "assert 'pandas' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_constant_and_one_sample_inputs() -> None:
    zero = leak_report(NoNorm(), torch.zeros(1, C, L))
    assert (zero.row("eval", "sample").of, zero.row("eval", "sample").others) == (0, 0)

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x))

    assert leak_report(Constant(), torch.ones(2, C, L)).row("eval", "sample").others == 0
    flat = leak_report(nn.BatchNorm1d(C), torch.randn(N, C), modes=["train"])
    assert [(r.axis, r.others) for r in flat.rows] == [("sample", N - 1), ("channel", 0)]


def test_what_probes_say_of_the_strongest_derivative_is_never_too_much() -> None:
    class Average(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2), keepdim=True).expand_as(x)

    length = LARGEST // 4
    report = leak_report(Average(), torch.randn(2, 4, length), modes=["eval"], points=1)
    assert not report.exact
    assert 0 < report.row("eval", "position").strongest <= 1 / (4 * length)


def test_rounding_is_no_influence() -> None:
    class Fourier(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kernel = torch.fft.rfft(torch.tensor([1.0, 0.5, 0.25], dtype=x.dtype), L)
            return torch.fft.irfft(torch.fft.rfft(x) * kernel, L)

    x = torch.randn(2, 2, L)
    assert reach(Fourier(), x) == (0, 2, 0)


def test_inference_mode_around_it_changes_nothing() -> None:
    with torch.inference_mode():
        x, model = torch.randn(N, C, L), nn.BatchNorm1d(C)
        assert reach(model, x) == (N - 1, L - 1, 0)


def test_derivatives_that_are_not_finite_are_no_answer() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / x.std()

    missing = torch.randn(N, C, L)
    missing[0, 0, 0] = torch.nan
    for model, x in ((Scaled(), torch.ones(N, C, L)), (nn.BatchNorm1d(C), missing)):
        with pytest.raises(ValueError, match="derivatives at x are not finite"):
            leak_report(model, x)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.zeros(2, C, L, dtype=torch.long), {}, "floating point .* embedding"),
        (torch.zeros(C), {}, "two or three axes"),
        (torch.zeros(2, C, L), {"layout": "LNC"}, "layout must be"),
        (torch.zeros(2, C, L), {"modes": ["fit"]}, r"'train' and 'eval', got 3 and \['fit'\]"),
        (torch.zeros(2, C, L), {"points": 0}, "points must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(x: Tensor, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        leak_report(NoNorm(), x, **options)


def test_an_output_without_samples_is_named() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x.sum()

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return x, x

    for model, got in ((Sum(), r"shape \(\)"), (Two(), "tuple")):
        with pytest.raises(ValueError, match=f"4 samples on its first axis, got {got}"):
            leak_report(model, torch.randn(N, C, L))
