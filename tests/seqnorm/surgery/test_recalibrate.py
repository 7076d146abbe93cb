import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset

from seqnorm import (
    CNN,
    BatchNorm1d,
    DomainBatchNorm1d,
    convert,
    freeze,
    recalibrate,
)

C, L = 4, 12


def stacked(norm: Any = nn.BatchNorm1d) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(C, 6, 3), norm(6), nn.ReLU(), nn.Conv1d(6, 5, 3), norm(5), nn.ReLU(),
        nn.Conv1d(5, 3, 3), norm(3),
    )  # fmt: skip


def data(n: int = 20) -> Tensor:
    """Sequences that differ in mean and scale, so that batches do."""
    torch.manual_seed(1)
    return torch.randn(n, C, L) * torch.rand(n, C, 1) * 3 + torch.randn(n, C, 1) * 2


def one_batch(model: nn.Sequential, x: Tensor) -> nn.Sequential:
    """Statistics as one training batch with all data and momentum 1 leaves them, in float64."""
    model = copy.deepcopy(model).double()
    for m in model:
        if isinstance(m, nn.BatchNorm1d):
            m.momentum = 1.0
    model.train()(x.double())
    return model


def assert_same_statistics(
    a: nn.Module, b: nn.Module, rtol: float = 1e-4, atol: float = 1e-5
) -> None:
    ours, theirs = dict(a.named_buffers()), dict(b.named_buffers())
    for name, value in theirs.items():
        if "num_batches" not in name:
            torch.testing.assert_close(ours[name].double(), value.double(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, BatchNorm1d], ids=["torch", "ours"])
@pytest.mark.parametrize("batch", [1, 3, 20])
def test_statistics_are_those_of_all_data_in_one_batch_whatever_the_batch_size(
    norm: Any, batch: int
) -> None:
    # With the statistics of all data, evaluation is what training on one batch computes; the
    # unbiased variance, in the place of the biased one, is all that differs.
    model, x = stacked(norm), data()
    new, report = recalibrate(model, x.split(batch))
    reference = copy.deepcopy(model).double()
    z: Tensor = x.double()
    with torch.no_grad():
        for layer in reference:
            if isinstance(layer, nn.BatchNorm1d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.copy_(z.mean((0, 2)))
                layer.running_var.copy_(z.var((0, 2)))
            z = layer.eval()(z)
    assert_same_statistics(new, reference)
    assert_same_statistics(new, one_batch(model, x), rtol=0.02, atol=1e-3)
    assert new[1].num_batches_tracked == -(-20 // batch)
    assert report.passes == 3
    assert [r.values for r in report.layers] == [200, 160, 120]


def test_torchs_update_bn_loses_the_variance_between_batches_and_this_does_not() -> None:
    x = data(50) + torch.randn(50, C, 1) * 5
    truth = x.var((0, 2))
    norm, theirs = nn.BatchNorm1d(C), nn.BatchNorm1d(C)
    exact, _ = recalibrate(norm, x.split(1))
    update_bn(x.split(1), theirs)
    assert theirs.running_var is not None
    assert (theirs.running_var / truth).max() < 0.3
    torch.testing.assert_close(exact.running_var, truth, rtol=1e-5, atol=0)
    points = torch.randn(100, C)
    single, _ = recalibrate(nn.BatchNorm1d(C), points.split(1))  # one value a batch
    torch.testing.assert_close(single.running_var, points.var(0), rtol=1e-5, atol=0)


def test_stacked_layers_do_not_depend_on_the_batches_in_exact_mode_but_do_in_one_pass() -> None:
    model, x = stacked(), data()
    small, large = (recalibrate(model, x.split(n))[0] for n in (2, 20))
    assert_same_statistics(small, large)
    (quick, report), (quick_large, _) = (
        recalibrate(model, x.split(n), exact=False) for n in (2, 20)
    )
    assert report.passes == 1
    torch.testing.assert_close(quick[1].running_var, large[1].running_var, rtol=1e-5, atol=0)
    assert (quick[7].running_var / large[7].running_var - 1).abs().max() > 0.05
    assert_same_statistics(quick_large, one_batch(model, x))
    assert [m.track_running_stats for m in quick if isinstance(m, nn.BatchNorm1d)] == [True] * 3


class Branches(nn.Module):
    """Norms called in another order than they are registered, one twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first, self.unused = (nn.BatchNorm1d(C) for _ in range(3))
        self.shared = nn.BatchNorm1d(C)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.shared(x) + self.shared(2 * x + 1)
        z: Tensor = self.last(torch.relu(y))
        return z


def test_layers_come_in_the_order_of_their_calls_and_all_calls_of_one_count() -> None:
    model, x = Branches(), data()
    new: Any
    new, report = recalibrate(model, x.split(3))
    notes = {r.name: (r.values, r.note) for r in report.layers}
    assert notes == {
        "last": (240, ""), "first": (240, ""), "unused": (0, "is not called"), "shared": (480, ""),
    }  # fmt: skip
    new.eval()
    with torch.no_grad():
        first = new.first(x)
        both = torch.cat([first, 2 * first + 1])
        z = torch.relu(new.shared(first) + new.shared(2 * first + 1))
    torch.testing.assert_close(new.shared.running_mean, both.mean((0, 2)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(new.shared.running_var, both.var((0, 2)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(new.last.running_var, z.var((0, 2)), rtol=1e-4, atol=1e-5)


def test_a_layer_that_some_batches_call_often_and_others_not_at_all_is_counted_whole() -> None:
    class Often(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.often = nn.BatchNorm1d(C), nn.BatchNorm1d(C)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.first(x)
            for shift in range(len(x) - 1):
                y = y + 0 * self.often(x + shift)
            return y

    batches = [torch.randn(3, C, L), torch.randn(1, C, L)]
    both = torch.cat([batches[0], batches[0] + 1])
    new: Any = recalibrate(Often(), batches)[0]
    torch.testing.assert_close(new.often.running_mean, both.mean((0, 2)))
    torch.testing.assert_close(new.often.running_var, both.var((0, 2)))


def test_a_model_that_catches_errors_does_not_catch_the_end_of_a_pass() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.BatchNorm1d(C), nn.BatchNorm1d(C)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.first(x)
            try:
                y = self.second(y)
            except Exception:
                calls.append("caught")
            return y

    calls: list[str] = []
    recalibrate(Careful(), data().split(5))
    assert not calls


def test_a_pass_goes_no_further_than_its_layer() -> None:
    model, calls = stacked(), []
    for i in (0, 3, 6):
        model[i].register_forward_hook(lambda m, args, y, i=i: calls.append(i))
    recalibrate(model, data().split(5), inplace=True)
    # 4 batches: all of the model once, up to the second norm, up to the third.
    assert [calls.count(i) for i in (0, 3, 6)] == [12, 12, 8]


@pytest.mark.parametrize(
    ("norm", "shape", "axes"),
    [
        (BatchNorm1d(C, layout="NLC"), (6, L, C), (0, 1)),
        (BatchNorm1d(C), (6, C), (0,)),
        (nn.BatchNorm1d(C), (2, C), (0,)),
        (nn.BatchNorm2d(C), (6, C, 5, 3), (0, 2, 3)),
    ],
    ids=["nlc", "flat", "two-values", "image"],
)
def test_inputs_of_every_shape_are_counted_by_channel(
    norm: Any, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    x = torch.randn(shape) * 2 + 1
    new: Any
    new, report = recalibrate(norm, x.split(1))
    torch.testing.assert_close(new.running_mean, x.mean(axes))
    torch.testing.assert_close(new.running_var, x.var(axes))
    assert report.layers[0].values == x.numel() // C


def test_a_model_that_calls_no_norm_is_named() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(C)

        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match="calls none of its BatchNorms on these data"):
        recalibrate(Idle(), [data()])


@pytest.mark.parametrize("kind", ["cnn", "twins", "torch"])
def test_padding_is_not_counted(kind: str) -> None:
    torch.manual_seed(0)
    model: Any = CNN("batch", blocks=2, channels=6)
    if kind != "cnn":
        model = nn.Sequential(
            nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2),
            nn.Conv1d(6, 6, 3), nn.BatchNorm1d(6), nn.AdaptiveAvgPool1d(1),
        )  # fmt: skip
        model = convert(model, "same")[0] if kind == "twins" else model
    sequences = [torch.randn(1, 4, n) * n / 20 for n in (40, 33, 25, 64, 9, 50)]
    alone, _ = recalibrate(model, sequences)
    batches = []
    for part in (sequences[:4], sequences[4:]):
        lengths = torch.tensor([s.shape[2] for s in part])
        x = torch.full((len(part), 4, 64), torch.nan)
        for i, s in enumerate(part):
            x[i, :, : s.shape[2]] = s[0]
        batches.append((x, lengths))
    padded, report = recalibrate(model, batches, lengths=lambda batch: batch[1])
    assert_same_statistics(padded, alone)
    if kind != "cnn":
        assert [r.values for r in report.layers] == [221, sum((n // 2 - 2) for n in
                                                              (40, 33, 25, 64, 9, 50))]  # fmt: skip


def test_batches_may_be_of_any_form() -> None:
    x, y = data(), torch.zeros(20)
    expected, _ = recalibrate(nn.BatchNorm1d(C), [x])
    loader = DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True)
    for batches, inputs in (
        (loader, None),
        ([[x, y]], None),
        ([{"x": x}], lambda batch: batch["x"]),
        ([{"x": x}], lambda batch: (batch["x"],)),
    ):
        new, _ = recalibrate(nn.BatchNorm1d(C), batches, inputs=inputs)
        assert_same_statistics(new, expected)


def test_a_domain_norm_gets_the_statistics_of_each_domain() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = DomainBatchNorm1d(C, 2)

        def forward(self, x: Tensor, domain: Tensor) -> Tensor:
            y: Tensor = self.norm(x, domain=domain)
            return y

    x, domain = data(), torch.arange(20) % 2
    new: Any
    new, _ = recalibrate(Model(), [(x, domain)], inputs=lambda batch: batch)
    for d in (0, 1):
        norm = new.norm.domains[d]
        torch.testing.assert_close(norm.running_var, x[domain == d].var((0, 2)))


def test_the_report_tells_how_far_statistics_moved() -> None:
    model, x = nn.Sequential(nn.BatchNorm1d(C)), data(200)
    source, _ = recalibrate(model, [x])
    _, same = recalibrate(source, [x])
    assert same.layers[0].mean_moved == pytest.approx(0, abs=1e-6)
    assert same.layers[0].std_factor == pytest.approx(1)
    std = x.std((0, 2))
    _, moved = recalibrate(source, [x * 2 - x.mean((0, 2))[:, None] + 3 * std[:, None]])
    assert moved.layers[0].mean_moved == pytest.approx(3, rel=1e-4)
    assert moved.layers[0].std_factor == pytest.approx(2, rel=1e-4)
    assert "0        2400" in str(moved)
    assert str(moved).endswith("passes over the data: 1")


def test_by_default_a_copy_is_changed_and_modes_stay() -> None:
    model = stacked()
    model[2].eval()
    state = copy.deepcopy(model.state_dict())
    new, _ = recalibrate(model, [data()])
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert [m.training for m in new] == [m.training for m in model]
    same, _ = recalibrate(model, [data()], inplace=True)
    assert same is model
    assert_same_statistics(model, new)
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert torch.is_grad_enabled()


def test_dropout_is_off_and_nothing_is_learned() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(C))
    x = data()
    new, _ = recalibrate(model, [x])
    torch.testing.assert_close(new[1].running_var, x.var((0, 2)))
    assert all(p.grad is None for p in new.parameters())


def test_frozen_layers_and_those_without_statistics_are_left_alone() -> None:
    model = nn.Sequential(
        freeze(BatchNorm1d(C)), freeze(nn.BatchNorm1d(C)),
        nn.BatchNorm1d(C, track_running_stats=False), nn.BatchNorm1d(C),
    )  # fmt: skip
    new, report = recalibrate(model, [data()])
    assert [r.note for r in report.layers] == [
        "is frozen", "is frozen", "has no running statistics", "",
    ]  # fmt: skip
    assert new[0].num_batches_tracked == new[1].num_batches_tracked == 0
    with pytest.raises(ValueError, match="no BatchNorm with running statistics"):
        recalibrate(model[:3], [data()])


def once(batches: Any) -> Iterator[Any]:
    yield from batches


def test_data_that_can_be_read_once_serve_one_pass_alone() -> None:
    x = data()
    new, _ = recalibrate(nn.BatchNorm1d(C), once(x.split(4)))
    torch.testing.assert_close(new.running_var, x.var((0, 2)), rtol=1e-5, atol=0)
    recalibrate(stacked(), once(x.split(4)), exact=False)
    with pytest.raises(ValueError, match="read once, and 3 passes are needed; pass a list"):
        recalibrate(stacked(), once(x.split(4)))
    with pytest.raises(ValueError, match="read once, and 2 passes"):
        recalibrate(
            nn.BatchNorm1d(C), once([x]), labels=lambda b: torch.zeros(20), source_prevalence={0: 1}
        )


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "loader gives no batch"),
        ([torch.full((2, C, L), torch.nan)], "inputs of 1 hold NaN or infinity"),
        ([torch.ones(1, C, 3)], r"1 sees 1 value\(s\) per channel"),
    ],
    ids=["none", "nan", "one"],
)
@pytest.mark.parametrize("exact", [True, False])
def test_after_an_error_a_model_in_place_has_its_old_statistics(
    batches: list[Tensor], message: str, exact: bool
) -> None:
    model = stacked()[:2]
    state = copy.deepcopy(model.state_dict())
    if not exact and "value" in message:
        message = "Expected more than 1 value"  # batch statistics are torch's to refuse
    with pytest.raises(ValueError, match=message):
        recalibrate(model, batches, inplace=True, exact=exact)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    later = [data(), torch.full((2, C, L), torch.inf)]
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        recalibrate(model, later, inplace=True, exact=exact)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


# --- shares of classes ---------------------------------------------------------------------


def classes(positive: int, negative: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two classes two standard deviations apart."""
    g = torch.Generator().manual_seed(seed)
    y = torch.cat([torch.ones(positive), torch.zeros(negative)])
    x = torch.randn(len(y), C, L, generator=g) + 2 * y[:, None, None]
    return x, y


LABELS = {"labels": lambda batch: batch[1]}


def test_a_change_of_the_classes_shares_is_warned_of_with_its_size() -> None:
    source, _ = recalibrate(nn.BatchNorm1d(C), [classes(500, 500, 0)])
    target = classes(100, 900, 1)
    # From .5 to .1 of a class 2 away: the mean moves by .8 of a standard deviation of sqrt(2),
    # and the variance from 1 + .25 * 4 to 1 + .09 * 4.
    with pytest.warns(UserWarning, match="the classes' shares differ .* by 0.57 .*by 0.82; draw"):
        _, report = recalibrate(source, [target], source_prevalence={0: 0.5, 1: 0.5}, **LABELS)
    assert report.passes == 2
    assert report.layers[0].mean_moved == pytest.approx(0.57, abs=0.02)
    with pytest.warns(UserWarning, match="by 0.57"):
        recalibrate(source, [target], source_prevalence=classes(500, 500, 0)[1], **LABELS)


def test_a_move_within_classes_is_not_warned_of() -> None:
    source, _ = recalibrate(nn.BatchNorm1d(C), [classes(500, 500, 0)])
    x, y = classes(50, 50, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, report = recalibrate(source, [(x + 5, y)], source_prevalence={0: 0.5, 1: 0.5}, **LABELS)
        assert report.layers[0].mean_moved == pytest.approx(5 / 2**0.5, rel=0.05)
        # Other shares of classes that do not differ move nothing.
        flat = torch.randn(200, C, L)
        plain, _ = recalibrate(nn.BatchNorm1d(C), [flat])
        recalibrate(
            plain, [(flat, torch.arange(200) < 20)], source_prevalence={0: 0.5, 1: 0.5}, **LABELS
        )


def test_the_two_parts_of_a_move_add_up() -> None:
    from seqnorm.surgery.feed import Feed
    from seqnorm.surgery.prevalence import prevalence_shift

    source, _ = recalibrate(nn.BatchNorm1d(C), [classes(500, 500, 0)])
    x, y = classes(100, 900, 1)
    x = x + 0.5 * y[:, None, None] + 1
    feed = Feed([(x, y)], None, None, "NCL")
    model = nn.Sequential(source).eval()
    (shift,) = prevalence_shift(model, feed, {"0": source}, lambda b: b[1], {0: 0.5, 1: 0.5})
    means = torch.stack([x[y == k].double().mean((0, 2)) for k in (0, 1)])
    by_shares = torch.tensor([0.9 - 0.5, 0.1 - 0.5], dtype=torch.float64) @ means
    within = means.mean(0) - source.running_mean
    sd = (source.running_var + source.eps).sqrt()
    assert shift.by_prevalence == pytest.approx(float((by_shares / sd).square().mean().sqrt()))
    total = (by_shares + within) / sd
    assert shift.moved == pytest.approx(float(total.square().mean().sqrt()))
    half = torch.cat([x[y == 1], x[y == 0][:100]]).double()  # 100 of each
    reweighted = (means[0] + means[1]) / 2
    spread = torch.stack([x[y == k].double().var((0, 2), correction=0) for k in (0, 1)]).mean(0)
    spread = spread + (means - reweighted).square().mean(0) + source.eps
    now = x.double().var((0, 2), correction=0) + source.eps
    assert shift.std_factor == pytest.approx(float((now / spread).log().mean().div(2).exp()))
    assert len(half) == 200


def test_classes_of_unequal_lengths_are_weighed_by_sequences() -> None:
    # Shares are of sequences; a class of long ones gives more values.
    x, y = classes(50, 50, 1)
    lengths = torch.where(y == 1, L, 3)
    pad = torch.arange(L) >= lengths[:, None]
    batch = (x.masked_fill(pad[:, None], torch.nan), y, lengths)
    options: Any = {"lengths": lambda b: b[2], **LABELS}
    source, _ = recalibrate(nn.BatchNorm1d(C), [batch], lengths=options["lengths"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recalibrate(source, [batch], source_prevalence={0: 0.5, 1: 0.5}, **options)


def test_shares_are_counted_where_the_first_layer_is_never_called() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.norm = nn.BatchNorm1d(C), nn.BatchNorm1d(C)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(x)
            return y

    source, _ = recalibrate(Unused(), [classes(500, 500, 0)])
    with pytest.warns(UserWarning, match="norm: the classes' shares differ .* by 0.57"):
        recalibrate(source, [classes(100, 900, 1)], source_prevalence={0: 0.5, 1: 0.5}, **LABELS)


def test_a_class_that_the_target_lacks_is_named() -> None:
    source, _ = recalibrate(nn.BatchNorm1d(C), [classes(500, 500, 0)])
    with pytest.warns(UserWarning, match="class 1 of the source does not occur in the target"):
        recalibrate(source, [classes(0, 90, 1)], source_prevalence={0: 0.5, 1: 0.5}, **LABELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": LABELS["labels"]}, "go together"),
        ({"source_prevalence": {0: 1.0}}, "go together"),
        ({"source_prevalence": {0: 0.5, 1: 0.6}, **LABELS}, "sum to 1"),
        ({"source_prevalence": {}, **LABELS}, "sum to 1"),
        (
            {"source_prevalence": {0: 1.0}, "labels": lambda b: torch.zeros(3)},
            "labels has 3 classes for a batch of 4",
        ),
        (
            {"source_prevalence": {0: 1.0}, "labels": lambda b: torch.full((4,), 0.5)},
            "got fractions",
        ),
    ],
    ids=["labels", "shares", "sum", "empty", "number", "fractions"],
)
def test_wrong_labels_are_named(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recalibrate(nn.BatchNorm1d(C), [classes(2, 2, 0)], **options)
