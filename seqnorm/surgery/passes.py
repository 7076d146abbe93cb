"""Moments of the inputs of BatchNorms, in as many passes over the data as that takes."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seqnorm.moments import Moments
from seqnorm.surgery.feed import Feed, Stop, rows

__all__ = ["at_once", "layer_by_layer", "readable"]


def readable(feed: Feed, passes: int) -> None:
    """Refuse batches that can be read once where more is needed."""
    if passes > 1 and feed.once:
        raise ValueError(
            f"loader can be read once, and {passes} passes are needed; pass a list or a "
            "DataLoader, or exact=False and no labels"
        )


def layer_by_layer(
    model: nn.Module, feed: Feed, norms: dict[str, Any]
) -> tuple[dict[str, Moments], int]:
    """Each layer in its turn; the first pass also finds the order."""
    readable(feed, len(norms))
    calls: dict[str, int] = {}
    served: dict[str, int] = {}  # batches that call a layer
    latest: dict[str, Any] = {}
    found: dict[str, Moments] = {}
    current: str | None = None
    merged: Moments | None = None

    def see(name: str, x: Tensor, mask: Tensor | None, batch: Any) -> None:
        nonlocal current, merged
        if first:
            calls[name] = calls.get(name, 0) + 1
            if name not in latest or latest[name] is not batch:
                served[name] = served.get(name, 0) + 1
            latest[name] = batch
            current = current or name
        if name == current:
            part = rows(norms[name], x, mask).over(0)
            merged = part if merged is None else merged.merge(part)
            if not first and calls[name] == served[name] == batches:
                raise Stop  # called once a batch: what comes after it is not needed

    first = True
    batches = feed.run(model, norms, see)
    if current is None:
        raise ValueError("the model calls none of its BatchNorms on these data")
    order = list(calls)
    latest.clear()
    while True:
        assert merged is not None
        found[current] = merged
        _write(current, norms[current], merged, batches)
        first, merged = False, None
        if len(found) == len(order):
            return found, len(order)
        current = order[len(found)]
        feed.run(model, norms, see)


def at_once(model: nn.Module, feed: Feed, norms: dict[str, Any]) -> tuple[dict[str, Moments], int]:
    """All layers in one pass, normalizing by batch statistics."""
    found: dict[str, Moments] = {}

    def see(name: str, x: Tensor, mask: Tensor | None, batch: Any) -> None:
        part = rows(norms[name], x, mask).over(0)
        found[name] = found[name].merge(part) if name in found else part

    tracking = {name: norm.track_running_stats for name, norm in norms.items()}
    try:
        for norm in norms.values():
            # With both flags so, batch statistics are used and running ones left alone.
            norm.training, norm.track_running_stats = True, False
        batches = feed.run(model, norms, see)
    finally:
        for name, norm in norms.items():
            norm.track_running_stats = tracking[name]
    for name, moments in found.items():
        _write(name, norms[name], moments, batches)
    return found, 1


def _write(name: str, norm: Any, moments: Moments, batches: int) -> None:
    count = int(moments.count.min())
    if count < 2:
        raise ValueError(f"{name or 'the model'} sees {count} value(s) per channel; two are needed")
    if not (moments.mean.isfinite().all() and moments.m2.isfinite().all()):
        raise ValueError(f"the inputs of {name or 'the model'} hold NaN or infinity")
    norm.running_mean.copy_(moments.mean)
    norm.running_var.copy_(moments.var(correction=1))
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.fill_(batches)
