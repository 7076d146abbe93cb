"""Which handler a module gets."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from seqnorm.carry.attention import Attention, EncoderLayer
from seqnorm.carry.follow import Follow, follow
from seqnorm.carry.handlers import Checked, Follower, Handler, LeftAlone, Taker

__all__ = ["handler"]


def handler(name: str, module: nn.Module, rule: Any = Ellipsis) -> Handler:
    """The handler of a module; ``rule`` is the user's, None to leave it alone."""
    if rule is None:
        return LeftAlone(name, module)
    if rule is not Ellipsis:

        def after(lengths: Tensor) -> Tensor:
            left: Tensor = rule(module, lengths)
            return left

        return Follower(name, module, Follow(0.0, after))
    known_rule = follow(module)
    if known_rule is not None:
        return Follower(name, module, known_rule)
    if "lengths" in inspect.signature(module.forward).parameters:
        return Taker(name, module)
    if isinstance(module, nn.MultiheadAttention):
        return Attention(name, module)
    if isinstance(module, nn.TransformerEncoderLayer):
        return EncoderLayer(name, module)
    owner = Handler(name, module)
    if owner.leaf and type(module).forward.__module__.startswith("torch."):
        return Checked(name, module)
    return owner
