"""Batches of several clients as one, for a model that is run over all of them at once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import seqnorm

__all__ = ["alike", "for_stacks", "joined"]


def alike(batches: Mapping[int, Any]) -> list[list[int]]:
    """Keys of the batches that can be stacked together, each form where it first occurs.

    Examples
    --------
    >>> alike({0: torch.ones(2), 1: torch.ones(3), 4: torch.zeros(2)})
    [[0, 4], [1]]
    """
    groups: dict[Any, list[int]] = {}
    for key, batch in batches.items():
        groups.setdefault(_form_of(batch), []).append(key)
    return list(groups.values())


def _form_of(batch: Any) -> Any:
    """What batches must have in common to be stacked: structure, shapes and types."""
    leaves, form = pytree.tree_flatten(batch)
    return str(form), tuple(
        (tuple(leaf.shape), leaf.dtype) if isinstance(leaf, Tensor) else repr(leaf)
        for leaf in leaves
    )


def joined(batches: Sequence[Any]) -> tuple[Any, Any]:
    """Batches of one form as one batch with an axis of clients, and where that axis is.

    Examples
    --------
    >>> batch, axes = joined([(torch.ones(2, 3), "a"), (torch.zeros(2, 3), "a")])
    >>> batch[0].shape, batch[1], axes
    (torch.Size([2, 2, 3]), 'a', (0, None))
    """
    leaves = [pytree.tree_leaves(batch) for batch in batches]
    form = pytree.tree_structure(batches[0])
    columns = [
        torch.stack(column) if isinstance(column[0], Tensor) else column[0]
        for column in zip(*leaves, strict=True)
    ]
    axes = [0 if isinstance(column, Tensor) else None for column in columns]
    return pytree.tree_unflatten(columns, form), pytree.tree_unflatten(axes, form)


@contextmanager
def for_stacks() -> Iterator[None]:
    """Run norms as plain operations: the native kernels would be called client by client."""
    with warnings.catch_warnings(), seqnorm.backend("reference"):
        warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
        yield
