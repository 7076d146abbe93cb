"""Scores of windows: from a model, or as they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import InputError
from data_tools.windows import window_codes_in_parts

if TYPE_CHECKING:
    from data_tools.genome import Genome


def scores_of(
    predict: Callable[..., Any] | Iterable[float],
    table: pd.DataFrame,
    genome: Genome | None,
    batch_size: int,
) -> NDArray[np.float64]:
    """One finite score a window, from a model or as given."""
    if not callable(predict):
        found = np.asarray(predict if hasattr(predict, "__len__") else list(predict), np.float64)
    elif genome is None:
        raise InputError("a model needs the bases of the windows: give the genome")
    else:
        found = _predicted(predict, table, genome, batch_size)
    if found.shape != (len(table),):
        raise InputError(
            f"scores have shape {found.shape}, the windows are {len(table)}: give one score each"
        )
    wrong = ~np.isfinite(found)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"the score of window {row} is {found[row]}: scores are finite numbers")
    return found


def _predicted(
    predict: Callable[..., Any], table: pd.DataFrame, genome: Genome, batch_size: int
) -> NDArray[np.float64]:
    """Call the model a batch at a time; memory is that of one part of the codes."""
    import torch

    from seqnorm.batches import one_hot

    parts = []
    was_training = isinstance(predict, torch.nn.Module) and predict.training
    if isinstance(predict, torch.nn.Module):
        predict.eval()
    try:
        with torch.no_grad():
            for codes in window_codes_in_parts(genome, table):
                for first in range(0, len(codes), batch_size):
                    batch = one_hot(torch.from_numpy(codes[first : first + batch_size]))
                    parts.append(_call(predict, batch))
    finally:
        if was_training:
            predict.train()  # type: ignore[attr-defined]
    return np.concatenate(parts)


def _call(predict: Callable[..., Any], batch: Any) -> NDArray[np.float64]:
    import torch

    if isinstance(predict, torch.nn.Module):
        place = next(predict.parameters(), torch.empty(0)).device
        given = predict(batch.to(place))
    else:
        given = predict(batch.numpy())
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu().numpy()
    scores = np.asarray(given, dtype=np.float64)
    if scores.shape not in ((len(batch),), (len(batch), 1)):
        raise InputError(
            f"the model gives shape {scores.shape} for {len(batch)} windows: it must give one "
            "score each; wrap it to choose one"
        )
    return scores.reshape(-1)


def scale_of(scores: NDArray[np.float64]) -> Literal["probability", "logit"]:
    """What scores are taken for where nobody says."""
    return "probability" if ((scores >= 0) & (scores <= 1)).all() else "logit"
