"""How much of a move of statistics comes from classes that are rarer or more frequent.

With classes ``k`` the mean of a layer's inputs is ``sum(t_k m_k)``, its shares times its class
means. Between a source with mean ``M`` and shares ``s_k`` and a target it moves by

``sum(t_k m_k) - M  =  [sum(t_k m_k) - sum(s_k m_k)]  +  [sum(s_k m_k) - M]``

the first bracket because of the shares alone, the second within classes; likewise for the
variance, whose reweighted form is the exact merge of the classes' moments (Chan et al. 1979) with
counts changed to the source's shares. This is the decomposition of Kitagawa (1955), Components of
a difference between two rates, JASA 50, with the target's class means.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seqnorm.moments import Moments
from seqnorm.surgery.feed import Feed, rows

__all__ = ["Shift", "prevalence_shift", "warn"]

LIMIT = 0.1


@dataclass(frozen=True)
class Shift:
    """What classes' shares do to the statistics of one layer.

    Attributes
    ----------
    name : str
        Where the layer is.
    moved : float
        How far the mean moves, in the source's standard deviations (root mean square over
        channels).
    by_prevalence : float
        How far it moves because of the shares alone.
    std_factor : float
        By what the shares alone multiply the standard deviation (geometric mean over channels).
    missing : tuple of int
        Classes of the source that the target does not have: their part is not known.
    """

    name: str
    moved: float
    by_prevalence: float
    std_factor: float
    missing: tuple[int, ...]


def prevalence_shift(
    model: nn.Module,
    feed: Feed,
    norms: dict[str, Any],
    labels: Callable[[Any], Tensor],
    source: Mapping[int, float] | Tensor,
) -> list[Shift]:
    """Measure :class:`Shift` for every layer in one pass, with the model as it is.

    Parameters
    ----------
    model, feed, norms
        As in :func:`seqnorm.recalibrate`.
    labels : callable
        ``function(batch)`` gives the classes, integers ``(N,)``.
    source : mapping or Tensor
        Share of each class behind the present statistics, or the labels there.

    Returns
    -------
    list of Shift
    """
    shares = _shares(source)
    found: dict[str, dict[int, list[Moments]]] = {name: {} for name in norms}
    sequences: dict[int, int] = {}

    counted: str | None = None  # the layer at whose calls sequences are counted

    def see(name: str, x: Tensor, mask: Tensor | None, batch: Any) -> None:
        nonlocal counted
        counted = counted or name
        classes = _classes(labels(batch))
        if len(classes) != x.shape[0]:
            raise ValueError(
                f"labels has {len(classes)} classes for a batch of {x.shape[0]} at {name}"
            )
        moments = rows(norms[name], x, mask)
        count = moments.count.expand_as(moments.mean)
        for k in sorted(set(classes.tolist())):
            own = (classes == k).to(x.device)
            part = Moments(count[own], moments.mean[own], moments.m2[own]).over(0)
            found[name].setdefault(k, []).append(part)
            if name == counted:
                sequences[k] = sequences.get(k, 0) + int(own.sum())

    feed.run(model, norms, see)
    return [
        _shift(name, norms[name], {k: Moments.merge_all(v) for k, v in parts.items()},
               sequences, shares)
        for name, parts in found.items() if parts
    ]  # fmt: skip


def _shift(
    name: str,
    norm: Any,
    classes: dict[int, Moments],
    sequences: dict[int, int],
    shares: dict[int, float],
) -> Shift:
    total = sum(sequences.values())
    known = sum(share for k, share in shares.items() if k in classes)
    target = Moments.merge_all(list(classes.values()))
    # A class counts as if it had the source's share of the sequences.
    weights = {
        k: shares.get(k, 0.0) / known * total / sequences[k] if known else 1.0 for k in classes
    }
    source = Moments.merge_all(
        [Moments(m.count * weights[k], m.mean, m.m2 * weights[k]) for k, m in classes.items()]
    )
    old = norm.running_mean.to(target.mean)
    spread = norm.running_var.to(target.mean) + norm.eps
    factor = ((target.var() + norm.eps) / (source.var() + norm.eps)).log().mean() / 2
    missing = tuple(sorted(k for k, share in shares.items() if share > 0 and k not in classes))
    return Shift(
        name,
        _size(target.mean - old, spread),
        _size(target.mean - source.mean, spread),
        float(factor.exp()),
        missing,
    )


def _size(gap: Tensor, var: Tensor) -> float:
    return float((gap.square() / var).mean().sqrt())


def warn(shifts: list[Shift]) -> None:
    """Warn of the layer that the shares move most, if they move it much."""
    if not shifts:
        return
    if shifts[0].missing:
        classes = ", ".join(map(str, shifts[0].missing))
        warnings.warn(
            f"class {classes} of the source does not occur in the target: statistics are moved by "
            "the classes' shares, by how much cannot be told; draw the target with all classes",
            UserWarning,
            stacklevel=3,
        )
        return
    worst = max(shifts, key=lambda s: max(s.by_prevalence, abs(s.std_factor - 1)))
    if worst.by_prevalence > LIMIT or abs(worst.std_factor - 1) > LIMIT:
        warnings.warn(
            f"{worst.name or 'the model'}: the classes' shares differ between source and target, "
            f"and alone move the mean by {worst.by_prevalence:.2g} standard deviations (all in "
            f"all it moves by {worst.moved:.2g}) and multiply the standard deviation by "
            f"{worst.std_factor:.2g}; draw the target so that its classes have the source's "
            "shares, or recalibration takes away what tells classes apart",
            UserWarning,
            stacklevel=3,
        )


def _classes(labels: Tensor) -> Tensor:
    labels = labels.detach().cpu().flatten()
    if labels.is_floating_point() and not torch.equal(labels, labels.round()):
        raise ValueError("labels must be classes (integers), got fractions")
    return labels.long()


def _shares(source: Mapping[int, float] | Tensor) -> dict[int, float]:
    if isinstance(source, Tensor):
        counts = Counter(_classes(source).tolist())
        return {k: count / counts.total() for k, count in counts.items()}
    total = sum(source.values())
    if not source or min(source.values()) < 0 or not 0.999 < total < 1.001:
        raise ValueError(f"source_prevalence must be shares that sum to 1, got {dict(source)}")
    return {int(k): float(share) for k, share in source.items()}
