import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from data_tools.encode import encode
from seqnorm.batches import LabelledWindows, one_hot
from seqnorm.checkpoint import CheckpointError, save_checkpoint
from seqnorm.models import build_model
from seqnorm.resume import fingerprint
from seqnorm.training import (
    History,
    TrainingConfig,
    autocast,
    fit,
    learning_rate_at,
    make_optimizer,
    negative_loss,
    predict,
    resolve_device,
    train_epoch,
)

SMALL: dict[str, dict[str, Any]] = {
    "cnn": {"channels": 8, "kernel_size": 9, "inner_kernel_size": 3},
    "transformer": {"width": 8, "heads": 2, "depth": 1, "kernel_size": 9, "pool": 4},
}
CONFIG = TrainingConfig(epochs=4, batch_size=16, device="cpu", seed=7)
Weights = dict[str, Tensor]


def planted(count: int, seed: int, margin: int = 3, width: int = 50) -> LabelledWindows:
    """Random windows; every other one holds a motif, on either strand."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, (count, width + 2 * margin), dtype=np.uint8)
    motifs = [encode("TGACTCAGC"), encode("GCTGAGTCA")]
    for i in range(0, count, 2):
        at = rng.integers(2 * margin, width - 9)
        codes[i, at : at + 9] = motifs[rng.integers(2)]
    labels = (np.arange(count) % 2 == 0).astype(np.float32)
    return LabelledWindows(torch.from_numpy(codes), torch.from_numpy(labels), margin)


TRAIN, VALIDATION = planted(49, seed=1), planted(24, seed=2)


def small(name: str = "cnn", norm: str = "batch", seed: int = 0, **options: Any) -> nn.Module:
    return build_model(name, norm, seed, **SMALL[name], **options)


def weights(model: nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_bits(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(
        a[name].numpy().tobytes() == b[name].numpy().tobytes() for name in b
    )


class Stopped(Exception):  # noqa: N818
    """Raised by the tests to stop a run."""


def stop_at(epoch: int) -> Callable[[int, dict[str, float]], None]:
    def on_epoch(number: int, entry: dict[str, float]) -> None:
        if number == epoch:
            raise Stopped

    return on_epoch


class Line(nn.Module):
    """The smallest model: one logit from the composition, of shape (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 1)
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.line.bias)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.line(x.mean(-1))[:, 0]
        return logits


# --- learning ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_a_planted_motif_is_learnt(name: str) -> None:
    train, validation = planted(600, seed=3), planted(200, seed=4)
    model = small(name, "layer", dropout=0.0)
    config = TrainingConfig(learning_rate=0.02, epochs=12, batch_size=32, device="cpu")
    history = fit(model, train, validation, config)
    assert roc_auc_score(validation.labels, predict(model, validation)) > 0.9
    assert history.finished
    assert not history.diverged
    assert history.epochs[-1]["train_loss"] < history.epochs[0]["train_loss"]


def test_the_history_tells_the_losses_and_the_score_of_every_epoch() -> None:
    model = small()
    history = fit(model, TRAIN, VALIDATION, CONFIG, score=lambda y, z: -float(np.std(z)))
    logits = predict(model, VALIDATION)
    best = history.epochs[history.best_epoch]
    assert len(history.epochs) == CONFIG.epochs
    assert best["validation_score"] == history.best_score == -float(np.std(logits))
    assert best["validation_loss"] == -negative_loss(VALIDATION.labels.numpy(), logits)
    assert history.best_score == max(entry["validation_score"] for entry in history.epochs)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_the_same_seed_gives_the_same_bits_and_another_gives_others(precision: Any) -> None:
    def trained(seed: int) -> tuple[Weights, History]:
        model = small(dropout=0.2)
        config = replace(CONFIG, epochs=2, seed=seed, precision=precision)
        history = fit(model, TRAIN, VALIDATION, config)
        return weights(model), history

    first, history = trained(7)
    torch.manual_seed(31)
    second, again = trained(7)
    other, _ = trained(8)
    assert same_bits(first, second)
    assert history == again
    assert all(math.isfinite(entry["train_loss"]) for entry in history.epochs)
    assert not any(first[k].equal(other[k]) for k in first if k.endswith("weight"))


def test_training_and_prediction_leave_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    model = small(dropout=0.2)
    fit(model, TRAIN, VALIDATION, replace(CONFIG, epochs=1))
    predict(model, VALIDATION)
    assert torch.get_rng_state().equal(before)


def test_two_models_trained_with_one_seed_see_the_same_batches() -> None:
    def seen(model: nn.Module) -> list[Tensor]:
        batches: list[Tensor] = []

        def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module.training:
                batches.append(inputs[0])

        model.register_forward_pre_hook(keep)
        fit(model, TRAIN, VALIDATION, replace(CONFIG, epochs=2))
        return batches

    first, second = seen(small(norm="batch", dropout=0.3)), seen(small("transformer", "none"))
    assert len(first) == 6
    assert all(a.equal(b) for a, b in zip(first, second, strict=True))


def test_a_model_may_share_weights_and_give_one_axis(tmp_path: Path) -> None:
    class Tied(Line):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Linear(4, 1)
            self.other.weight = self.line.weight

    def stopped_and_resumed(folder: Path) -> Weights:
        with pytest.raises(Stopped):
            fit(Tied(), TRAIN, VALIDATION, CONFIG, checkpoint=folder, on_epoch=stop_at(1))
        torch.manual_seed(0)
        model = Tied()
        fit(model, TRAIN, VALIDATION, CONFIG, checkpoint=folder)
        return weights(model)

    torch.manual_seed(0)
    model = Tied()
    fit(model, TRAIN, VALIDATION, CONFIG)
    torch.manual_seed(0)
    assert same_bits(stopped_and_resumed(tmp_path / "c"), weights(model))


# --- the loss, the schedule, the decay -----------------------------------------------------


@pytest.mark.parametrize(("count", "batch_size"), [(9, 4), (9, 5), (8, 3), (9, 1), (1, 4), (2, 8)])
def test_the_training_loss_is_the_mean_over_the_windows_shown(count: int, batch_size: int) -> None:
    data = planted(count, seed=5)
    model = Line()
    nn.init.normal_(model.line.weight, generator=torch.Generator().manual_seed(0))
    config = replace(CONFIG, batch_size=batch_size, learning_rate=1e-30, weight_decay=0.0)
    batches = list(data.shuffled(batch_size, config.seed, 0))
    x, y = (torch.cat(part) for part in zip(*batches, strict=True))
    with torch.no_grad():
        expected = F.binary_cross_entropy_with_logits(model(x), y).item()
    optimizer = make_optimizer(model, config)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    loss = train_epoch(model, data, optimizer, scaler, config, 0)
    assert loss == pytest.approx(expected, abs=1e-6)
    assert loss > 0.1


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_a_single_window_can_be_trained_and_validated_on(name: str, norm: str) -> None:
    one = planted(1, seed=5)
    model = small(name, norm)
    before = weights(model)
    history = fit(model, one, one, replace(CONFIG, epochs=1))
    assert len(history.epochs) == 1
    assert not history.diverged
    assert not same_bits(weights(model), before)
    assert predict(model, one).shape == (1,)


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    config = TrainingConfig(learning_rate=2.0, warmup=0.25)
    rates = [learning_rate_at(step, 40, config) for step in range(40)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[10] == 2.0
    assert rates[25] == pytest.approx(1.0)
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[10:]))
    cosine = [1 + math.cos(math.pi * step / 30) for step in range(30)]
    assert rates[10:] == pytest.approx(cosine)
    assert learning_rate_at(40, 40, config) == 0.0


@pytest.mark.parametrize(
    ("warmup", "total", "expected"),
    [(0.0, 4, [1.0, 1.0, 0.75, 0.25]), (1.0, 4, [0.25, 0.5, 0.75, 1.0]), (0.1, 1, [1.0])],
)
def test_a_schedule_may_be_all_or_nothing_but_warm_up(
    warmup: float, total: int, expected: list[float]
) -> None:
    config = TrainingConfig(learning_rate=1.0, warmup=warmup)
    assert [learning_rate_at(i, total, config) for i in range(total)] == pytest.approx(expected)


def test_every_step_takes_its_rate_from_the_schedule() -> None:
    model = small()
    optimizer = make_optimizer(model, CONFIG)
    rates: list[list[float]] = []
    optimizer.register_step_pre_hook(
        lambda opt, args, kwargs: rates.append([group["lr"] for group in opt.param_groups])
    )
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for epoch in range(CONFIG.epochs):
        train_epoch(model, TRAIN, optimizer, scaler, CONFIG, epoch)
    # 49 windows by 16 are four steps, of which the last would hold one window.
    total = 4 * CONFIG.epochs
    steps = [step for step in range(total) if step % 4 < 3]
    assert rates == [[learning_rate_at(step, total, CONFIG)] * 2 for step in steps]


@pytest.mark.parametrize("name", SMALL)
def test_weights_of_kernels_and_matrices_alone_decay(name: str) -> None:
    model = small(name, "layer")
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    decayed, exempt = make_optimizer(model, CONFIG).param_groups
    assert decayed["weight_decay"] == CONFIG.weight_decay
    assert exempt["weight_decay"] == 0.0
    matrices = {names[id(parameter)] for parameter in decayed["params"]}
    others = {names[id(parameter)] for parameter in exempt["params"]}
    assert matrices | others == set(names.values())
    assert not matrices & others
    assert all(key.endswith("weight") and "norm" not in key for key in matrices)
    assert all(key.endswith("bias") or "norm" in key for key in others)


def test_frozen_weights_stay_as_they_are() -> None:
    model = small()
    frozen = next(model.parameters()).requires_grad_(False)
    before = frozen.clone()
    fit(model, TRAIN, VALIDATION, replace(CONFIG, epochs=1))
    assert frozen.equal(before)


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_gradients_are_clipped_to_the_norm_asked_for(precision: Any) -> None:
    def change(clip: float) -> float:
        model = Line()
        config = TrainingConfig(
            learning_rate=1.0, epochs=1, batch_size=64, warmup=0.0, clip=clip, precision=precision
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        scaler = torch.amp.GradScaler("cpu", enabled=precision == "float16")
        data = LabelledWindows(TRAIN.codes, torch.ones(len(TRAIN)), TRAIN.margin)
        train_epoch(model, data, optimizer, scaler, config, 0)
        # One step of plain gradient descent at rate 1, from zero.
        return math.sqrt(sum(float(p.detach().square().sum()) for p in model.parameters()))

    assert change(0.01) == pytest.approx(0.01, rel=1e-3)
    assert change(math.inf) == change(100.0) > 0.1


# --- stopping and going on -----------------------------------------------------------------


def calm(labels: Any, logits: Any) -> float:
    return -float(np.abs(logits).max())


def bold(labels: Any, logits: Any) -> float:
    return float(np.abs(logits).max())


# Scores that fall as training goes on, so that the best weights are not the last.
FALLING = {"cnn": calm, "transformer": bold}


def uninterrupted(name: str, precision: Any) -> tuple[Weights, History, bytes]:
    model = small(name, dropout=0.2)
    config = replace(CONFIG, precision=precision)
    history = fit(model, TRAIN, VALIDATION, config, score=FALLING[name])
    assert len(history.epochs) == CONFIG.epochs
    assert history.best_epoch < CONFIG.epochs - 1
    return weights(model), history, predict(model, VALIDATION).tobytes()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", SMALL)
def test_a_run_stopped_after_any_epoch_goes_on_with_the_same_bits(
    tmp_path: Path, name: str, precision: Any
) -> None:
    expected = uninterrupted(name, precision)
    config = replace(CONFIG, precision=precision)
    for epoch in range(CONFIG.epochs):
        folder = tmp_path / str(epoch)
        stopped = small(name, dropout=0.2)
        with pytest.raises(Stopped):
            fit(
                stopped,
                TRAIN,
                VALIDATION,
                config,
                score=FALLING[name],
                checkpoint=folder,
                on_epoch=stop_at(epoch),
            )
        # Nothing but the checkpoint may matter: other weights, another global generator.
        torch.manual_seed(epoch)
        model = small(name, seed=99, dropout=0.2)
        later: list[int] = []
        history = fit(
            model,
            TRAIN,
            VALIDATION,
            config,
            score=FALLING[name],
            checkpoint=folder,
            on_epoch=lambda number, entry, later=later: later.append(number),
        )
        assert later == list(range(epoch + 1, CONFIG.epochs))
        assert same_bits(weights(model), expected[0])
        assert history == expected[1]
        assert predict(model, VALIDATION).tobytes() == expected[2]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_run_on_a_gpu_goes_on_where_it_was_stopped(tmp_path: Path, precision: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    config = replace(CONFIG, precision=precision, device="cuda")
    whole = small()
    expected = fit(whole, TRAIN, VALIDATION, config)
    with pytest.raises(Stopped):
        fit(
            small(), TRAIN, VALIDATION, config, checkpoint=tmp_path / precision, on_epoch=stop_at(1)
        )
    again = small(seed=99)
    history = fit(again, TRAIN, VALIDATION, config, checkpoint=tmp_path / precision)
    assert history.best_epoch == expected.best_epoch
    assert predict(again, VALIDATION) == pytest.approx(predict(whole, VALIDATION), abs=1e-3)


def test_a_run_stopped_after_every_epoch_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    expected = uninterrupted("cnn", "float32")
    for epoch in range(CONFIG.epochs):
        with pytest.raises(Stopped):
            fit(
                small(dropout=0.2),
                TRAIN,
                VALIDATION,
                CONFIG,
                score=calm,
                checkpoint=tmp_path,
                on_epoch=stop_at(epoch),
            )
    model = small(dropout=0.2)
    history = fit(model, TRAIN, VALIDATION, CONFIG, score=calm, checkpoint=tmp_path)
    assert (same_bits(weights(model), expected[0]), history) == (True, expected[1])


def test_a_run_stopped_inside_an_epoch_takes_that_epoch_again(tmp_path: Path) -> None:
    expected = uninterrupted("cnn", "float32")
    steps = itertools.count()

    def interrupt(module: nn.Module, inputs: Any) -> None:
        if module.training and next(steps) == 7:
            raise KeyboardInterrupt

    model = small(dropout=0.2)
    hook = model.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(model, TRAIN, VALIDATION, CONFIG, score=calm, checkpoint=tmp_path)
    hook.remove()
    history = fit(model, TRAIN, VALIDATION, CONFIG, score=calm, checkpoint=tmp_path)
    assert same_bits(weights(model), expected[0])
    assert history == expected[1]


def kill_own_process_at(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    counter = itertools.count(1)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if next(counter) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return wrapped


def train_until_killed(where: str, call: int, folder: Path) -> None:
    """In a process of its own: kill it at the n-th call of a function."""
    model = small(dropout=0.2)
    if where == "forward":
        model.forward = kill_own_process_at(model.forward, call)  # type: ignore[method-assign]
    else:
        setattr(os, where, kill_own_process_at(getattr(os, where), call))
    fit(model, TRAIN, VALIDATION, CONFIG, score=calm, checkpoint=folder)


# An epoch has three training and one validation batch, and a save four syncs and two renames.
KILLS = [("forward", 3), ("forward", 6), ("fsync", 5), ("fsync", 7), ("replace", 4), ("fsync", 8)]
DRIVER = """
import os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import test_training
for number, (where, call) in enumerate(test_training.KILLS):
    child = os.fork()
    if child == 0:
        try:
            test_training.train_until_killed(where, call, Path(sys.argv[2]) / str(number))
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_killed_anywhere_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    expected = uninterrupted("cnn", "float32")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(Path(__file__).parent), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(-signal.SIGKILL)] * len(KILLS)
    left = [len(list((tmp_path / str(i)).glob("*.json"))) for i in range(len(KILLS))]
    assert left == [0, 1, 1, 1, 1, 1]
    for number in range(len(KILLS)):
        folder = tmp_path / str(number)
        model = small(seed=99 if left[number] else 0, dropout=0.2)
        history = fit(model, TRAIN, VALIDATION, CONFIG, score=calm, checkpoint=folder)
        assert same_bits(weights(model), expected[0]), KILLS[number]
        assert history == expected[1]
        assert len(list(folder.iterdir())) == 2


def test_the_scale_of_float16_gradients_goes_on_where_it_was(tmp_path: Path) -> None:
    class Steep(Line):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1000

    config = replace(CONFIG, precision="float16", epochs=3)
    whole = Steep()
    history = fit(whole, TRAIN, VALIDATION, config)
    with pytest.raises(Stopped):
        fit(Steep(), TRAIN, VALIDATION, config, checkpoint=tmp_path, on_epoch=stop_at(0))
    scale = json.loads((tmp_path / "state.json").read_text())["state"]["scaler"]["scale"]
    assert scale < torch.amp.GradScaler("cpu").get_scale()
    model = Steep()
    assert fit(model, TRAIN, VALIDATION, config, checkpoint=tmp_path) == history
    assert same_bits(weights(model), weights(whole))


def test_a_finished_run_is_read_and_not_trained_again(tmp_path: Path) -> None:
    first = small()
    history = fit(first, TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    second = small(seed=99)
    second.register_forward_pre_hook(lambda module, inputs: pytest.fail("called"))
    assert fit(second, TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path) == history
    assert same_bits(weights(second), weights(first))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert not second.training


def test_scores_of_any_number_type_can_be_kept(tmp_path: Path) -> None:
    history = fit(
        Line(), TRAIN, VALIDATION, CONFIG, score=lambda y, z: np.float32(0.1), checkpoint=tmp_path
    )
    assert fit(Line(), TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path) == history


# --- checkpoints that are refused ----------------------------------------------------------


def layered() -> nn.Module:
    return small(norm="layer")


OTHERS: list[Any] = [
    pytest.param(layered, TRAIN, replace(CONFIG, learning_rate=0.1), "learning_rate", id="rate"),
    pytest.param(layered, TRAIN, replace(CONFIG, epochs=9, seed=1), "epochs, seed", id="two"),
    pytest.param(lambda: small(norm="layer_seq"), TRAIN, CONFIG, "model", id="norm"),
    pytest.param(lambda: small(norm="layer", pool=2), TRAIN, CONFIG, "model", id="pool"),
    pytest.param(lambda: small("transformer", "layer"), TRAIN, CONFIG, "model", id="architecture"),
    pytest.param(layered, planted(49, seed=9), CONFIG, "training windows", id="codes"),
    pytest.param(
        layered,
        LabelledWindows(TRAIN.codes, 1 - TRAIN.labels, TRAIN.margin),
        CONFIG,
        "training windows",
        id="labels",
    ),
    pytest.param(
        layered,
        LabelledWindows(TRAIN.codes, TRAIN.labels, 2),
        CONFIG,
        "training windows",
        id="margin",
    ),
]


@pytest.mark.parametrize(("build", "train", "config", "said"), OTHERS)
def test_a_checkpoint_of_another_run_is_refused_and_changes_nothing(
    tmp_path: Path,
    build: Callable[[], nn.Module],
    train: LabelledWindows,
    config: TrainingConfig,
    said: str,
) -> None:
    fit(layered(), TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path)
    model = build()
    before = weights(model)
    with pytest.raises(CheckpointError, match=rf"other settings \({said}\); use another folder"):
        fit(model, train, VALIDATION, config, checkpoint=tmp_path)
    assert same_bits(weights(model), before)


def test_norms_whose_weights_have_the_same_names_and_shapes_are_told_apart() -> None:
    shapes = [{k: v.shape for k, v in weights(small(norm=n)).items()} for n in ("layer", "group:8")]
    assert shapes[0] == shapes[1]
    prints = [fingerprint(small(norm=n), TRAIN, VALIDATION) for n in ("layer", "group:8")]
    assert prints[0]["model"] != prints[1]["model"]
    assert fingerprint(small(seed=1), TRAIN, TRAIN) == fingerprint(small(seed=2), TRAIN, TRAIN)


def test_a_checkpoint_with_other_validation_windows_is_refused(tmp_path: Path) -> None:
    fit(small(), TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="validation windows"):
        fit(small(), TRAIN, TRAIN, CONFIG, checkpoint=tmp_path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        fit(small(), TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path, on_epoch=stop_at(1))
    tensors, state = next(tmp_path.glob("tensors-*")), tmp_path / "state.json"
    raw = tensors.read_bytes()
    tensors.write_bytes(raw[:-4] + bytes(4))
    with pytest.raises(CheckpointError, match="content differs from its checksum"):
        fit(small(), TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path)
    tensors.write_bytes(raw)
    whole = state.read_text()
    state.write_text(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        fit(small(), TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path)
    state.write_text(whole)
    assert fit(small(), TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path).finished


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, {"a": torch.zeros(1)}, {"epoch": 3})
    with pytest.raises(CheckpointError, match="no checkpoint of a training run"):
        fit(small(), TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path)


# --- the best epoch ------------------------------------------------------------------------


def scripted(scores: list[float]) -> Callable[[Any, Any], float]:
    left = iter(scores)
    return lambda labels, logits: next(left)


@pytest.mark.parametrize(
    ("scores", "patience", "epochs", "best"),
    [
        ([0.1, 0.5, 0.4, 0.3], 2, 4, 1),
        ([0.5, 0.5, 0.5], 2, 3, 0),
        ([0.1, 0.2, 0.1, 0.3, 0.2, 0.2], 2, 6, 3),
        ([0.3, 0.2], 1, 2, 0),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 1, 8, 7),
        ([-math.inf, -5.0, -6.0, -7.0], 2, 4, 1),
    ],
    ids=str,
)
def test_training_stops_early_and_keeps_the_weights_of_the_best_epoch(
    scores: list[float], patience: int, epochs: int, best: int
) -> None:
    model = small()
    after: list[Weights] = []
    history = fit(
        model,
        TRAIN,
        VALIDATION,
        replace(CONFIG, epochs=8, patience=patience),
        score=scripted(scores),
        on_epoch=lambda number, entry: after.append(weights(model)),
    )
    assert len(history.epochs) == len(after) == epochs
    assert (history.best_epoch, history.best_score) == (best, scores[best])
    assert history.finished
    assert not history.diverged
    assert same_bits(weights(model), after[best])
    assert not any(same_bits(after[best], other) for i, other in enumerate(after) if i != best)


def test_where_no_epoch_has_a_score_the_first_weights_are_kept(tmp_path: Path) -> None:
    model = small()
    before = weights(model)
    history = fit(
        model, TRAIN, VALIDATION, CONFIG, score=lambda y, z: -math.inf, checkpoint=tmp_path
    )
    assert (history.best_epoch, history.best_score) == (-1, -math.inf)
    assert same_bits(weights(model), before)
    assert fit(model, TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path) == history


def test_the_model_is_left_in_evaluation_mode() -> None:
    model = small(dropout=0.5)
    fit(model, TRAIN, VALIDATION, CONFIG)
    assert not any(module.training for module in model.modules())


# --- divergence ----------------------------------------------------------------------------


def test_a_huge_learning_rate_is_told_as_divergence_and_leaves_the_first_weights(
    tmp_path: Path,
) -> None:
    model = small()
    before = weights(model)
    called: list[int] = []
    history = fit(
        model,
        TRAIN,
        VALIDATION,
        replace(CONFIG, learning_rate=1e30),
        checkpoint=tmp_path,
        on_epoch=lambda number, entry: called.append(number),
    )
    assert history.diverged
    assert history.finished
    assert (history.epochs, history.best_epoch, called) == ([], -1, [])
    assert same_bits(weights(model), before)
    assert not model.training
    json.loads((tmp_path / "state.json").read_text(), parse_constant=pytest.fail)
    again = fit(model, TRAIN, VALIDATION, replace(CONFIG, learning_rate=1e30), checkpoint=tmp_path)
    assert again == history


def test_infinite_labels_are_told_as_divergence() -> None:
    model = small()
    before = weights(model)
    endless = LabelledWindows(TRAIN.codes, torch.full((len(TRAIN),), math.inf), TRAIN.margin)
    history = fit(model, endless, VALIDATION, CONFIG)
    assert history.diverged
    assert same_bits(weights(model), before)


def test_a_run_that_diverges_later_keeps_its_best_weights(tmp_path: Path) -> None:
    model = small()
    after: list[Weights] = []

    def poison(epoch: int, entry: dict[str, float]) -> None:
        after.append(weights(model))
        if epoch == 1:
            nn.init.constant_(next(model.parameters()), math.nan)

    history = fit(
        model,
        TRAIN,
        VALIDATION,
        CONFIG,
        score=scripted([0.2, 0.1]),
        checkpoint=tmp_path,
        on_epoch=poison,
    )
    assert history.diverged
    assert (len(history.epochs), history.best_epoch) == (2, 0)
    assert same_bits(weights(model), after[0])
    resumed = small(seed=99)
    assert fit(resumed, TRAIN, VALIDATION, CONFIG, checkpoint=tmp_path) == history
    assert same_bits(weights(resumed), after[0])


def test_logits_that_are_not_finite_after_the_last_step_are_told_as_divergence() -> None:
    model = small(norm="none")
    before = weights(model)
    config = replace(CONFIG, epochs=1, batch_size=64, learning_rate=1e30, warmup=0.0)
    history = fit(model, TRAIN, VALIDATION, config, score=lambda y, z: 1.0)
    assert history.diverged
    assert history.best_epoch == -1
    assert same_bits(weights(model), before)


# --- prediction ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_predictions_do_not_depend_on_the_batch_size(name: str) -> None:
    model = small(name)
    expected = predict(model, TRAIN)
    assert expected.dtype == np.float32
    assert expected.shape == (49,)
    for batch_size in (1, 7, 48, 1000):
        found = predict(model, TRAIN, batch_size=batch_size)
        assert np.abs(found - expected).max() < 1e-6
    assert predict(model, TRAIN).tobytes() == expected.tobytes()


def test_predictions_are_those_of_the_model_in_evaluation_mode() -> None:
    model = small(dropout=0.5).train()
    logits = predict(model, TRAIN)
    x = one_hot(TRAIN.codes[:, TRAIN.margin : -TRAIN.margin])
    with torch.no_grad():
        assert np.abs(model.eval()(x)[:, 0].numpy() - logits).max() < 1e-6


def test_predictions_at_low_precision_are_near_and_float32() -> None:
    model = small()
    expected = predict(model, TRAIN)
    for precision in ("bfloat16", "float16"):
        found = predict(model, TRAIN, precision=precision)  # type: ignore[arg-type]
        assert found.dtype == np.float32
        assert 0 < np.abs(found - expected).max() < 0.05


def test_no_windows_give_no_logits() -> None:
    none = LabelledWindows(TRAIN.codes[:0], TRAIN.labels[:0], TRAIN.margin)
    assert predict(small(), none).shape == (0,)
    assert predict(small(), none).dtype == np.float32


# --- errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("learning_rate", 0.0, "positive and finite"),
        ("learning_rate", math.nan, "positive and finite"),
        ("learning_rate", math.inf, "positive and finite"),
        ("epochs", 0, "a whole number of at least 1"),
        ("epochs", 2.5, "a whole number of at least 1"),
        ("batch_size", 0, "a whole number of at least 1"),
        ("batch_size", True, "a whole number of at least 1"),
        ("weight_decay", -0.1, "0 or more"),
        ("warmup", 1.1, "a fraction"),
        ("warmup", math.nan, "a fraction"),
        ("patience", 0, "a whole number of at least 1"),
        ("clip", 0.0, "positive"),
        ("precision", "bf16", "one of float32, bfloat16, float16, got 'bf16'"),
        ("seed", -1, "a whole number below"),
        ("seed", 2**43, "a whole number below"),
        ("seed", 0.5, "a whole number below"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name: str, value: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be {rule}"):
        replace(CONFIG, **{name: value})


def test_the_largest_seed_can_be_used() -> None:
    config = replace(CONFIG, seed=2**43 - 1, epochs=1)
    assert fit(Line(), TRAIN, VALIDATION, config).finished


@pytest.mark.parametrize("part", ["training", "validation"])
def test_an_empty_set_of_windows_is_refused(part: str) -> None:
    none = LabelledWindows(TRAIN.codes[:0], TRAIN.labels[:0], TRAIN.margin)
    given = (none, VALIDATION) if part == "training" else (TRAIN, none)
    with pytest.raises(ValueError, match=f"there are no {part} windows"):
        fit(small(), *given, CONFIG)


def test_a_model_of_several_logits_is_refused() -> None:
    model = small(outputs=2)
    with pytest.raises(ValueError, match=r"the model gave \(16, 2\) for 16 windows; .* one logit"):
        fit(model, TRAIN, VALIDATION, CONFIG)
    with pytest.raises(ValueError, match=r"the model gave \(49, 2\) for 49 windows"):
        predict(model, TRAIN)


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="validation score is not a number"):
        fit(Line(), TRAIN, VALIDATION, CONFIG, score=lambda y, z: math.nan)


def test_an_unknown_precision_of_predictions_is_refused() -> None:
    with pytest.raises(ValueError, match=r"precision must be one of .* got 'half'"):
        predict(Line(), TRAIN, precision="half")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="precision must be one of"):
        autocast(torch.device("cpu"), "bf16")  # type: ignore[arg-type]


def test_a_device_is_resolved_or_refused() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="abacus"):
        resolve_device("abacus")
    with pytest.raises(ValueError, match="cuda:99"):
        resolve_device("cuda:99")
