"""Merge the running statistics of several BatchNorms into those of all their data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from seqnorm.moments import Moments

__all__ = ["merge_batchnorm"]


def merge_batchnorm(
    states: Sequence[Mapping[str, Tensor]], counts: Sequence[float]
) -> dict[str, Tensor]:
    """Merge BatchNorm statistics of several clients, sites or chunks of data.

    With ``n_i`` values behind mean ``m_i`` and unbiased variance ``v_i``, the merged mean is
    ``m = sum(n_i m_i) / n`` and the merged variance
    ``[sum((n_i - 1) v_i) + sum(n_i (m_i - m)**2)] / (n - 1)``. Averaging the variances leaves the
    second sum out, the variance between clients (Chan et al. 1979).

    Parameters
    ----------
    states : sequence of mappings
        ``state_dict`` of a BatchNorm, or of whole models: everything named ``running_mean`` and
        ``running_var``, ``(C,)``, with the same prefix belongs together. Other entries, such as
        weights, are no moments and are left out.
    counts : sequence of float
        Values per channel behind the running variance of each state: sequences times valid
        positions. They matter as weights, and by the ``- 1``; where layers see different numbers
        of positions, those of the first layer weigh the others well if pooling is the same
        everywhere.

    Returns
    -------
    dict of str to Tensor
        ``running_mean``, ``running_var`` and, where all states have it, ``num_batches_tracked``
        (the sum), of the types of the first state.

    Raises
    ------
    ValueError
        For states that do not match each other or the counts, a count below 1, or statistics that
        are negative or not finite; names the state.

    Notes
    -----
    Exact if each state holds the mean and the unbiased variance of ``counts[i]`` values, as
    :func:`seqnorm.recalibrate` leaves them, or one batch under ``momentum=None`` or
    ``momentum=1``. Of averages over several batches the mean is exact for batches of one size
    under ``momentum=None``; the variance then lacks that between the batches of a client. Under
    another momentum both are those of a client's last batches, and so is what is merged.

    References
    ----------
    Chan, Golub & LeVeque (1979), Stanford STAN-CS-79-773.

    Examples
    --------
    >>> a, b = torch.tensor([[1.0], [3.0]]), torch.tensor([[10.0], [12.0], [14.0]])
    >>> states = [{"running_mean": x.mean(0), "running_var": x.var(0)} for x in (a, b)]
    >>> merged = merge_batchnorm(states, counts=[2, 3])
    >>> merged["running_mean"].item(), merged["running_var"].item()
    (8.0, 32.5)
    >>> torch.cat([a, b]).var(0).item()
    32.5
    """
    if not states or len(states) != len(counts):
        raise ValueError(
            f"one count for each state is needed, got {len(states)} states and {len(counts)} counts"
        )
    for i, count in enumerate(counts):
        if not 1 <= count < float("inf"):
            raise ValueError(f"counts[{i}] = {count}: at least 1 value is behind a state")
    prefixes = [k.removesuffix("running_mean") for k in states[0] if _last(k) == "running_mean"]
    for i, state in enumerate(states):
        own = [k.removesuffix("running_mean") for k in state if _last(k) == "running_mean"]
        if sorted(own) != sorted(prefixes) or not own:
            raise ValueError(
                f"states[{i}] has running_mean for {sorted(own)}, the first for {sorted(prefixes)}"
            )
    merged: dict[str, Tensor] = {}
    for prefix in prefixes:
        parts = [
            _moments(state, prefix, count, i)
            for i, (state, count) in enumerate(zip(states, counts, strict=True))
        ]
        if len({part.mean.shape for part in parts}) > 1:
            raise ValueError(f"{prefix}running_mean differs in shape between states")
        whole, first = Moments.merge_all(parts), states[0]
        merged[f"{prefix}running_mean"] = whole.mean.to(first[f"{prefix}running_mean"])
        merged[f"{prefix}running_var"] = _unbiased(whole).to(first[f"{prefix}running_var"])
        tracked = [state.get(f"{prefix}num_batches_tracked") for state in states]
        known = [value.cpu() for value in tracked if value is not None]
        if len(known) == len(states):
            merged[f"{prefix}num_batches_tracked"] = torch.stack(known).sum().to(known[0].dtype)
    return merged


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _unbiased(whole: Moments) -> Tensor:
    """A single value in all has no variance; its state says 0 as well."""
    return torch.where(whole.count > 1, whole.var(correction=1), 0)


def _moments(state: Mapping[str, Tensor], prefix: str, count: float, i: int) -> Moments:
    mean, var = (state.get(f"{prefix}{name}") for name in ("running_mean", "running_var"))
    if mean is None or var is None or mean.shape != var.shape:
        raise ValueError(f"states[{i}] has no {prefix}running_var of the shape of running_mean")
    mean, var = mean.detach().cpu().double(), var.detach().cpu().double()
    if not (mean.isfinite().all() and var.isfinite().all() and (var >= 0).all()):
        raise ValueError(
            f"states[{i}]: {prefix}running_mean or running_var is not finite, or a variance is "
            "negative; was it averaged by an optimizer?"
        )
    return Moments(torch.full_like(mean, count), mean, var * (count - 1))
