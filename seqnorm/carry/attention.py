"""Attention of torch, which calls lengths a mask of keys."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from seqnorm.carry.handlers import Call, Handler, hand_on
from seqnorm.carry.known import Known, fill, valid

__all__ = ["Attention", "EncoderLayer"]


class Attention(Handler):
    """Attention of torch: padded keys are left out."""

    watched = False
    words: tuple[str, ...] = ("query", "key", "value")
    mask, other = "key_padding_mask", "attn_mask"
    enters = False

    def __init__(self, name: str, module: Any) -> None:
        super().__init__(name, module)
        self.signature = inspect.signature(module.forward)
        batch_first = getattr(module, "self_attn", module).batch_first
        self.axis, self.batch_axis = (1, 0) if batch_first else (0, 1)

    def before(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Give it the mask of keys, unless the call does, and zeros for padding."""
        bound = self.signature.bind_partial(*args, **kwargs)
        given = bound.arguments
        found: dict[int, Tensor] = {}
        for word in self.words:
            x = given.get(word)
            if x is None or x.dim() != 3 or x.is_nested:
                return args, kwargs
            if id(x) not in found:
                lengths = known.find(x, self.axis, self.name, self.batch_axis)
                filled = fill(x, self.axis, lengths, 0.0, self.batch_axis)
                known.note(filled, self.axis, lengths)
                found[id(x)] = filled
            given[word] = found[id(x)]
        key = given[self.words[min(1, len(self.words) - 1)]]
        lengths = known.find(key, self.axis, self.name, self.batch_axis)
        if given.get(self.mask) is None and lengths is not None:
            given[self.mask] = self._ignore(key, lengths, given.get(self.other))
        return bound.args, bound.kwargs

    def _ignore(self, key: Tensor, lengths: Tensor, other: Tensor | None) -> Tensor:
        # An empty sequence attends to its first position: no row of the softmax may be empty.
        length, keep = key.shape[self.axis], lengths.clamp_min(1)
        ignore = ~valid(key.new_empty(len(keep), length), 1, keep)
        if other is None or not other.is_floating_point():
            return ignore
        return torch.zeros_like(ignore, dtype=other.dtype).masked_fill(ignore, -torch.inf)

    def after(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> Any:
        """Hand on the lengths of the queries."""
        query = self.signature.bind_partial(*args, **kwargs).arguments[self.words[0]]
        hand_on(known, query, y[0] if isinstance(y, tuple) else y)
        return y


class EncoderLayer(Attention):
    """The same for a layer of a Transformer, whose own modules have handlers too."""

    words = ("src",)
    mask, other = "src_key_padding_mask", "src_mask"
    enters = True
