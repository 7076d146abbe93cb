"""How fast a model can be trained here: the bare loop, and what training makes of it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from seqnorm.holdout.design import Cell
from seqnorm.holdout.scores import tensors_of
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.trial import Trial, batch_size_of, model_of, precision_of
from seqnorm.holdout.windows import VALIDATION, WindowSet
from seqnorm.training import autocast, resolve_device

__all__ = ["BareLoop", "Throughput", "bare_loop", "throughput_line"]

_SECONDS = 0.2
_PASSES = 8


@dataclass(frozen=True)
class BareLoop:
    """What a model needs on one batch that lies ready: no windows, optimizer, or checkpoints.

    Attributes
    ----------
    training, validation : int
        Windows of an epoch.
    step : float
        Seconds of a forward and a backward pass, a training window.
    forward : float
        Seconds of a forward pass, a validation window.
    """

    training: int
    validation: int
    step: float
    forward: float

    @property
    def epoch(self) -> float:
        """Seconds of an epoch of nothing else."""
        return self.training * self.step + self.validation * self.forward


def bare_loop(spec: Spec, trial: Trial, training: WindowSet, evaluation: WindowSet) -> BareLoop:
    """Measure the bare loop of a trial's model on a batch of its windows; a second at the most.

    It changes nothing that a trial depends on.
    """
    device = resolve_device(spec.training.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = model_of(spec, trial).to(device)
        size = batch_size_of(spec.training)
        x, y = next(tensors_of(training).in_order(size, device))

        def forward() -> Tensor:
            with autocast(device, precision_of(spec.training)):
                logits: Tensor = model(x)
            return logits.float().reshape(len(x))

        def both() -> None:
            loss = F.binary_cross_entropy_with_logits(forward(), y)
            model.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)

        model.train()
        step = _seconds(both, device)
        model.eval()
        with torch.no_grad():
            passed = _seconds(forward, device)
    validation = int((evaluation.table["part"] == VALIDATION).sum())
    return BareLoop(len(training.table), validation, step / len(x), passed / len(x))


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    """Median seconds of a call, once it is warm."""
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 2 or (len(times) < _PASSES and time.perf_counter() - began < _SECONDS):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    # The first call makes what the others find.
    return median(times[1:])


@dataclass
class Throughput:
    """Training windows a second of every trial that this session trained, and of its bare loop.

    The bare loop is measured right before the trial: a machine is not as fast a minute later.
    """

    bare: dict[Trial, BareLoop] = field(default_factory=dict)
    trained: dict[Trial, float] = field(default_factory=dict)

    def note(self, trial: Trial, windows: int, seconds: float) -> None:
        """Note the windows that a trial saw in this session, checkpoints included in the time."""
        if trial in self.bare and seconds > 0 and windows > 0:
            self.trained[trial] = windows / seconds

    def of_trials(self) -> dict[str, float]:
        """Windows a second by the names of the trials."""
        return {trial.id: round(rate, 1) for trial, rate in self.trained.items()}

    def of_cells(self) -> list[dict[str, Any]]:
        """A row a cell: windows a second of training and bare, and the share of bare work.

        ``share_bare`` is the time that passes over the training windows, forward and backward, and
        over the validation windows, forward, need in a bare loop, of the time of training. All are
        medians over the cell's trials.
        """
        rows = []
        for cell, trials in self._by_cell().items():
            loops = [self.bare[trial] for trial in trials]
            rates = [self.trained[trial] for trial in trials]
            shares = [
                rate * loop.epoch / loop.training for rate, loop in zip(rates, loops, strict=True)
            ]
            rows.append(
                cell._asdict()
                | {
                    "training_windows": round(median(loop.training for loop in loops)),
                    "windows_per_second": round(median(rates), 1),
                    "bare_windows_per_second": round(median(1 / loop.step for loop in loops), 1),
                    "share_bare": round(median(shares), 3),
                }
            )
        return rows

    def _by_cell(self) -> dict[Cell, list[Trial]]:
        cells: dict[Cell, list[Trial]] = {}
        for trial in self.trained:
            cells.setdefault(trial.cell, []).append(trial)
        return cells


def throughput_line(cells: Sequence[Mapping[str, Any]]) -> str:
    """What `Throughput.of_cells` says, in a line.

    Examples
    --------
    >>> row = {"windows_per_second": 750.0, "bare_windows_per_second": 1250.0, "share_bare": 0.9}
    >>> throughput_line([row, row | {"windows_per_second": 500.0, "share_bare": 0.8}])
    'trained on 500-750 windows/s a worker; bare loops of the models would take 80-90 % of the time'
    """
    rates, shares = ([row[key] for row in cells] for key in ("windows_per_second", "share_bare"))
    return (
        f"trained on {_range(rates)} windows/s a worker; bare loops of the models would take "
        f"{_range([100 * share for share in shares])} % of the time"
    )


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low}-{high}"
