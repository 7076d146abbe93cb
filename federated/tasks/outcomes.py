"""What rows of a table say in the end, 0 or 1 or a time to an event: its loss and measures."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from seqnorm.metrics import Scored, auroc, average_precision

__all__ = ["Label", "Outcome", "Survival", "c_index", "cox_loss", "ranking"]

_ONCE = np.ones((1, 1))  # every row counts once: no resample


class Outcome(Protocol):
    """How scores (N,) are held against what was seen (N, 1) or (N, 2)."""

    @property
    def metrics(self) -> tuple[str, ...]: ...  # noqa: D102

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Mean loss over the rows."""
        ...

    def measures(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        """Each of the metrics; NaN for one that the rows do not allow."""
        ...


class Label:
    """0 or 1, by logistic regression; a score is a logit, and above 0 the row counts as 1."""

    metrics = ("accuracy", "auroc")

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Mean binary cross-entropy of logits (N,) and labels (N, 1)."""
        return F.binary_cross_entropy_with_logits(scores, target[:, 0].to(scores.dtype))

    def measures(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        """Accuracy, and AUROC where both labels occur."""
        right = ((scores > 0) == (target[:, 0] == 1)).double().mean().item()
        return {"accuracy": right, "auroc": ranking(scores, target[:, 0])[1]}


def ranking(scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """Average precision and AUROC of scores (N,) and labels 0 and 1 (N,).

    Returns
    -------
    tuple of float
        Both NaN where all labels are equal.

    Examples
    --------
    >>> ranking(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, 0.0, 0.0]))
    (1.0, 1.0)
    """
    known = labels.numpy().astype(np.int64)
    if not 0 < known.sum() < len(known):
        return math.nan, math.nan
    gc, one_block = np.zeros(len(known)), np.zeros(len(known), dtype=np.int64)
    scored = Scored(scores.numpy().astype(np.float64), known, gc, one_block)
    return float(average_precision(scored, _ONCE)[0]), float(auroc(scored, _ONCE)[0])


class Survival:
    """Time to an event or to the end of follow-up, by Cox regression; a score is a log hazard."""

    metrics = ("c_index",)

    def loss(self, scores: Tensor, target: Tensor) -> Tensor:
        """Cox's loss of log hazards (N,) and times and events (N, 2)."""
        return cox_loss(scores, target[:, 0], target[:, 1])

    def measures(self, scores: Tensor, target: Tensor) -> dict[str, float]:
        """Harrell's C."""
        return {"c_index": c_index(scores.numpy(), target[:, 0].numpy(), target[:, 1].numpy())}


def cox_loss(scores: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """Negative log partial likelihood of Cox's model, over the number of rows.

    ``-1/N sum_{i: event_i = 1} (s_i - log sum_{j: t_j >= t_i} exp s_j)``, ties by Breslow (1974):
    each event of a tied time is held against all rows that are then still at risk.

    Parameters
    ----------
    scores : Tensor
        Log hazard ratios s, shape (N,).
    time : Tensor
        Of event or of the end of follow-up, shape (N,).
    event : Tensor
        1 for an event, 0 for a censored row, shape (N,).

    Returns
    -------
    Tensor
        0 where no row has an event. Of shape ().

    Notes
    -----
    The risk sets are those of the rows handed in, so the loss of batches is not that of the whole.
    It is over N, not over the number of events, so that a batch with one event does not weigh as
    much as one with ten.

    References
    ----------
    Cox (1972), J. R. Stat. Soc. B 34, 187-220. Breslow (1974), Biometrics 30, 89-99.

    Examples
    --------
    >>> cox_loss(torch.zeros(2), torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0]))  # log(2) / 2
    tensor(0.3466)
    """
    order = torch.argsort(time, descending=True, stable=True)
    scores, time, event = scores[order], time[order], event[order]
    # Rows at risk are those up to the last one of the same time.
    last = torch.searchsorted(-time.contiguous(), -time.contiguous(), right=True) - 1
    at_risk = torch.logcumsumexp(scores, dim=0)[last]
    return ((at_risk - scores) * event.to(scores.dtype)).sum() / len(scores)


def c_index(risk: ArrayLike, time: ArrayLike, event: ArrayLike) -> float:
    """Harrell's concordance index: how often of two rows the one at higher risk fails first.

    Two rows are compared if the one of the shorter time has an event; of equal times, if one has
    an event and the other, censored, has outlived it. Equal risks count one half.

    Parameters
    ----------
    risk : array_like, shape (N,)
        The higher, the sooner.
    time : array_like, shape (N,)
    event : array_like, shape (N,)
        1 for an event, 0 for a censored row.

    Returns
    -------
    float
        NaN where no two rows can be compared, or a risk is not finite.

    References
    ----------
    Harrell, Lee & Mark (1996), Statistics in Medicine 15, 361-387.

    Examples
    --------
    >>> c_index([3, 1, 2], time=[1, 2, 3], event=[1, 1, 0])
    0.6666666666666666
    """
    s, t, died = (np.asarray(v, dtype=np.float64) for v in (risk, time, event))
    if not np.isfinite(s).all():
        return math.nan
    pairs, halves = 0, 0
    for i in np.flatnonzero(died == 1):
        later = s[(t > t[i]) | ((t == t[i]) & (died != 1))]
        pairs += len(later)
        # Whole numbers: the sum is exact, in any order.
        halves += 2 * int((later < s[i]).sum()) + int((later == s[i]).sum())
    return halves / (2 * pairs) if pairs else math.nan
