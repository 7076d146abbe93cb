"""Scores of windows, and what the model's head saw; also with statistics adapted to them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seqnorm.batches import LabelledWindows
from seqnorm.holdout.windows import VALIDATION, WindowSet, picked
from seqnorm.models import ReverseComplementAverage
from seqnorm.surgery import recalibrate
from seqnorm.training import Precision, batch_size_for, predict

Floats = NDArray[np.float32]


def tensors_of(windows: WindowSet) -> LabelledWindows:
    """Window set as the tensors that `seqnorm.training` takes."""
    labels = windows.table["label"].to_numpy(dtype=np.float32)
    return LabelledWindows(
        torch.from_numpy(windows.codes), torch.from_numpy(labels), windows.margin
    )


def select(windows: WindowSet, part: str) -> WindowSet:
    """Windows of one part."""
    return picked(windows, np.flatnonzero((windows.table["part"] == part).to_numpy()))


def scores_of(
    model: ReverseComplementAverage, windows: WindowSet, precision: Precision
) -> tuple[Floats, Floats]:
    """Logits (N,), and the mean over both strands of what the head saw, (N, F)."""
    seen: list[Tensor] = []

    def note(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(given[0].detach().float().cpu())

    head = model.model.get_submodule("head")
    hook = head.register_forward_pre_hook(note)
    try:
        logits = predict(model, tensors_of(windows), precision=precision)
    finally:
        hook.remove()
    # A batch passes the head twice: as given, and as its reverse complement.
    features = [(given + other) / 2 for given, other in zip(seen[::2], seen[1::2], strict=True)]
    return logits, torch.cat(features).numpy()


def adapted_scores(
    model: ReverseComplementAverage, windows: WindowSet, precision: Precision
) -> tuple[Floats, Floats]:
    """The same after BatchNorm's statistics were measured, without labels, on each part.

    Adaptive batch normalization (Li et al. 2016, arXiv:1603.04779). The validation windows, on
    which thresholds stand, are a part like each test chromosome: a threshold is one of scores that
    were made alike, else it is another rate of false alarms even where nothing has shifted.
    """
    table = windows.table
    part = np.where(table["part"] == VALIDATION, "", table["chrom"])
    device = next(model.parameters()).device
    found: list[tuple[NDArray[np.int64], Floats, Floats]] = []
    for name in dict.fromkeys(part.tolist()):
        rows = np.flatnonzero(part == name)
        mine = picked(windows, rows)
        batches = tensors_of(mine).in_order(batch_size_for(device), device)
        own, _ = recalibrate(model, [x for x, _ in batches])
        assert isinstance(own, ReverseComplementAverage)
        found.append((rows, *scores_of(own, mine, precision)))
    rows, logits, features = (np.concatenate(parts) for parts in zip(*found, strict=True))
    back = np.argsort(rows)
    return logits[back], features[back]
