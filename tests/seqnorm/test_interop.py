"""Our norms inside other people's tools, beside torch's own where there is a twin."""

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqnorm import carry_lengths, deep_lift_rules
from seqnorm.kinds import NORM_KINDS
from seqnorm.layers import (
    BatchNorm1d,
    DynamicTanh,
    GhostBatchNorm1d,
    GroupNorm,
    InstanceNorm1d,
    LayerNorm,
    RMSNorm,
    make_norm,
)

C, L = 8, 20
KINDS = pytest.mark.parametrize("kind", NORM_KINDS)
PER_SAMPLE = pytest.mark.parametrize(
    "norm",
    [
        GroupNorm(2, C),
        LayerNorm(C),
        LayerNorm(C, over="CL"),
        RMSNorm(C),
        InstanceNorm1d(C, affine=True),
        DynamicTanh(C),
    ],
    ids=["group", "layer", "layer_seq", "rms", "instance", "tanh"],
)


def sequences(n: int = 4, channels: int = C) -> Tensor:
    return torch.randn((n, channels, L), generator=torch.Generator().manual_seed(n))


class Net(nn.Module):
    """Convolution, norm with lengths, pooled sum."""

    def __init__(self, norm: nn.Module, by_keyword: bool = True) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv1d(4, C, 5, padding=2), norm, nn.Linear(C, 1)
        self.by_keyword = by_keyword

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        h = self.conv(x)
        h = self.norm(h, lengths=lengths) if self.by_keyword else self.norm(h, lengths)
        # A sum over all positions: what padding holds would count, if it held anything.
        y: Tensor = self.head(torch.tanh(h).sum(2))
        return y


# --- Opacus -----------------------------------------------------------------------------------


def per_sample(net: Net, x: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
    """Gradients of each sequence on its own."""
    found: dict[str, list[Tensor]] = {}
    for i in range(len(x)):
        net.zero_grad()
        net(x[i : i + 1], None if lengths is None else lengths[i : i + 1]).sum().backward()
        for name, p in net.named_parameters():
            assert p.grad is not None
            found.setdefault(name, []).append(p.grad.clone())
    net.zero_grad()
    return {name: torch.stack(values) for name, values in found.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["none", "keyword", "position", "mask"])
@PER_SAMPLE
def test_opacus_gets_the_gradients_of_single_samples_with_and_without_masks(
    norm: nn.Module, how: str
) -> None:
    opacus = pytest.importorskip("opacus.grad_sample")
    net = Net(copy.deepcopy(norm), by_keyword=how != "position").train()
    x = sequences(5, 4)
    lengths = None if how == "none" else torch.tensor([L, 13, 7, 2, 0])
    if how == "mask":
        lengths = torch.arange(L) < lengths[:, None] if lengths is not None else None
    expected = per_sample(net, x, lengths)
    wrapped = opacus.GradSampleModule(net, loss_reduction="sum")
    wrapped(x, lengths).sum().backward()
    for name, p in net.named_parameters():
        torch.testing.assert_close(p.grad_sample, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_opacus_sees_lengths_that_are_carried_into_a_model() -> None:
    opacus = pytest.importorskip("opacus.grad_sample")
    net = nn.Sequential(nn.Conv1d(4, C, 5, padding=2), GroupNorm(2, C), nn.Tanh())
    x, lengths = sequences(3, 4), torch.tensor([L, 9, 4])
    expected = []
    for i in range(3):
        net.zero_grad()
        with carry_lengths(net, lengths[i : i + 1]):
            net(x[i : i + 1]).sum().backward()
        expected.append(net[1].weight.grad.clone())
    net.zero_grad()
    wrapped = opacus.GradSampleModule(net, loss_reduction="sum")
    with carry_lengths(net, lengths):
        wrapped(x).sum().backward()
    torch.testing.assert_close(
        net[1].weight.grad_sample, torch.stack(expected), rtol=1e-4, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "norm",
    [
        BatchNorm1d(C),
        BatchNorm1d(C, track_running_stats=False),
        GhostBatchNorm1d(C, ghost_size=2, track_running_stats=False),
    ],
    ids=["batch", "bufferless", "ghost"],
)
def test_opacus_is_refused_norms_that_mix_samples(norm: nn.Module) -> None:
    opacus = pytest.importorskip("opacus.grad_sample")
    with pytest.raises((ValueError, NotImplementedError), match=r"depend on the others|buffers"):
        opacus.GradSampleModule(Net(copy.deepcopy(norm)))


@pytest.mark.filterwarnings("ignore")
def test_a_private_training_step_runs() -> None:
    opacus = pytest.importorskip("opacus")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, C, 3, padding=1), LayerNorm(C), nn.Flatten())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(sequences(8, 4)), 4)
    private, optimizer, data = opacus.PrivacyEngine().make_private(
        module=model, optimizer=optimizer, data_loader=data, noise_multiplier=1.0,
        max_grad_norm=1.0,
    )  # fmt: skip
    before = model[1].weight.detach().clone()
    for (x,) in data:
        optimizer.zero_grad()
        private(x).square().mean().backward()
        optimizer.step()
    assert not torch.equal(model[1].weight, before)


# --- attribution ------------------------------------------------------------------------------


def explained(norm: nn.Module | None) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv1d(4, C, 5, padding=2), norm, nn.ReLU(), nn.Flatten(), nn.Linear(C * L, 1)]
    return nn.Sequential(*(layer for layer in layers if layer is not None)).eval()


def one_hot(n: int, seed: int = 0) -> Tensor:
    letters = torch.randint(0, 4, (n, L), generator=torch.Generator().manual_seed(seed))
    return nn.functional.one_hot(letters, 4).transpose(1, 2).float()


def settled(norm: nn.Module) -> nn.Module:
    """Running statistics that are not the initial ones."""
    norm.train()
    norm(sequences(16) * 2 + 1)
    return norm.eval()


@pytest.mark.filterwarnings("ignore")
@KINDS
def test_integrated_gradients_of_captum_sum_to_the_difference(kind: str) -> None:
    attribution = pytest.importorskip("captum.attr")
    model = explained(settled(make_norm(kind, C)))
    x, baseline = one_hot(3), one_hot(3, seed=1)
    found = attribution.IntegratedGradients(model).attribute(
        x, baseline, n_steps=600, method="gausslegendre"
    )
    gap = (model(x) - model(baseline)).squeeze(1)
    torch.testing.assert_close(found.sum((1, 2)).float(), gap, rtol=1e-2, atol=1e-2)


def gap_of_captum(model: nn.Module) -> float:
    attribution = pytest.importorskip("captum.attr")
    x, baseline = one_hot(3), one_hot(3, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, delta = attribution.DeepLift(model).attribute(x, baseline, return_convergence_delta=True)
    return float(delta.detach().abs().max())


def gap_of_tangermeme(model: nn.Module, rules: Any = None) -> float:
    deep_lift_shap = pytest.importorskip("tangermeme.deep_lift_shap")
    x, baseline = one_hot(3), one_hot(3, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = deep_lift_shap.deep_lift_shap(
            model, x, references=baseline[:, None], device="cpu", hypothetical=False,
            warning_threshold=1e9, raw_outputs=True, additional_nonlinear_ops=rules,
        )  # fmt: skip
    # Multipliers times the difference to the reference.
    total = (found[:, 0] * (x - baseline)).sum((1, 2))
    return float((total - (model(x) - model(baseline)).squeeze(1)).abs().max().detach())


TWINS: Any = {
    "batch": (lambda: BatchNorm1d(C), lambda: nn.BatchNorm1d(C)),
    "group": (lambda: GroupNorm(2, C), lambda: nn.GroupNorm(2, C)),
    "instance": (
        lambda: InstanceNorm1d(C, affine=True),
        lambda: nn.InstanceNorm1d(C, affine=True),
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("tool", [gap_of_captum, gap_of_tangermeme], ids=["captum", "tangermeme"])
def test_deep_lift_through_ours_is_as_exact_as_through_torchs(tool: Any, kind: str) -> None:
    ours, theirs = (explained(settled(build())) for build in TWINS[kind])
    ours.load_state_dict(theirs.state_dict())
    a, b = tool(ours), tool(theirs)
    assert a == pytest.approx(b, rel=1e-2, abs=1e-3)
    if kind == "batch":  # an affine map in eval: the sum is the difference
        assert a < 1e-3


class Swap(nn.Module):
    """Channels last, or first."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


RULED: Any = {
    **{kind: lambda kind=kind: settled(make_norm(kind, C)) for kind in NORM_KINDS},
    "layer-activated": lambda: LayerNorm(C, activation="gelu"),
    "layer-last": lambda: nn.Sequential(Swap(), LayerNorm(C, layout="NLC"), Swap()),
    "torch-group": lambda: nn.GroupNorm(2, C),
    "torch-instance": lambda: nn.InstanceNorm1d(C, affine=True),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", RULED)
def test_with_our_rules_tangermemes_deep_lift_sums_to_the_difference(kind: str) -> None:
    torch.manual_seed(1)
    norm = RULED[kind]()
    for p in norm.parameters():
        p.data.add_(torch.randn_like(p) / 3)
    assert gap_of_tangermeme(explained(norm), deep_lift_rules()) < 1e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(LayerNorm(C, layout="NLC"), nn.LayerNorm(C)), (RMSNorm(C, layout="NLC"), nn.RMSNorm(C))],
    ids=["layer", "rms"],
)
def test_our_rules_give_the_attributions_that_tangermeme_gives_torchs_layers(
    ours: nn.Module, theirs: nn.Module
) -> None:
    deep_lift_shap = pytest.importorskip("tangermeme.deep_lift_shap")
    found = []
    for norm in (ours, theirs):
        model = explained(nn.Sequential(Swap(), norm, Swap()))
        found.append(
            deep_lift_shap.deep_lift_shap(
                model, one_hot(3), references=one_hot(3, seed=1)[:, None], device="cpu",
                additional_nonlinear_ops=deep_lift_rules(),
            )
        )  # fmt: skip
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


# --- graphs and processes ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("padded", [False, True])
@KINDS
def test_onnxruntime_gives_the_same_numbers(kind: str, padded: bool, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model = Net(settled(make_norm(kind, C))).eval()
    x, lengths = sequences(3, 4), torch.tensor([L, 9, 3])
    args = (x, lengths) if padded else (x,)
    path = tmp_path / "model.onnx"
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.onnx.export(
        model, args, path, dynamo=True, dynamic_shapes=tuple({0: batch} for _ in args),
        verbose=False,
    )  # fmt: skip
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    for n in (3, 2):
        feed = {name: value[:n].numpy() for name, value in zip(names, args, strict=True)}
        expected = model(*(value[:n] for value in args)).detach()
        got = torch.from_numpy(session.run(None, feed)[0])
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def _ddp_worker(rank: int, kind: str, store: str, queue: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank,
                                         world_size=2)  # fmt: skip
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(Net(make_norm(kind, C)))
    x, lengths = sequences(6, 4), torch.tensor([L, 9, 3, 20, 1, 5])
    half = slice(3 * rank, 3 * rank + 3)
    model(x[half], lengths[half]).sum().backward()
    if rank == 0:
        queue.put({name: p.grad.tolist() for name, p in model.module.named_parameters()})
    # A process that ends before the other, or with torch's reducer alive, aborts now and then, with
    # torch's own layers too.
    torch.distributed.barrier()
    del model
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("kind", ["layer", "group:2"])
def test_two_processes_of_ddp_share_the_gradient_of_the_whole_batch(
    kind: str, tmp_path: Path
) -> None:
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    torch.multiprocessing.spawn(
        _ddp_worker, (kind, str(tmp_path / "store"), queue), nprocs=2, join=True
    )
    found = queue.get()
    torch.manual_seed(0)
    net = Net(make_norm(kind, C))
    net(sequences(6, 4), torch.tensor([L, 9, 3, 20, 1, 5])).sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(torch.tensor(found[name]) * 2, p.grad, rtol=1e-4, atol=1e-5)
