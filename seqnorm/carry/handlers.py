"""What is done before and after a module runs, by the kind of module."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from seqnorm.carry.follow import Follow
from seqnorm.carry.known import Known, fill
from seqnorm.carry.refuse import refusal
from seqnorm.layers.base import SequenceNorm

__all__ = ["Checked", "Follower", "Handler", "LeftAlone", "Taker", "hand_on", "tensors"]

Call = tuple[tuple[Any, ...], dict[str, Any]]


class Handler:
    """A module of another kind: only its operations are watched.

    Attributes
    ----------
    name : str
        Of the module, for messages.
    watched : bool
        Whether operations in its own forward are looked at.
    enters : bool
        Whether the modules in it have handlers too.
    """

    watched = True
    enters = True

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name = f"{name or 'the model'} ({type(module).__name__})"
        self.module = module
        self.leaf = not any(True for _ in module.children())

    def before(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Look at the arguments; return those to call with."""
        return args, kwargs

    def after(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> Any:
        """Look at the result; return the one to hand on."""
        if self.leaf:
            hand_on(known, next(tensors(args, kwargs), None), y)
        return y


class LeftAlone(Handler):
    """Nothing is done, by the user's rule."""

    watched = False
    enters = False

    def after(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> Any:
        """Hand on lengths if the size is kept."""
        hand_on(known, next(tensors(args, kwargs), None), y)
        return y


class Checked(Handler):
    """A module of torch that is no container: refused where it mixes padding in."""

    watched = False

    def before(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Refuse a tensor with padding."""
        for x in tensors(args, kwargs):
            reason = refusal(self.module, x, known)
            if reason:
                raise ValueError(f"{self.name} on a tensor of shape {tuple(x.shape)}: {reason}")
        return args, kwargs


class Taker(Handler):
    """A module whose forward takes ``lengths``; it looks after what is in it."""

    watched = False
    enters = False

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__(name, module)
        self.signature = inspect.signature(module.forward)

    def before(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Give it the lengths, unless the call does."""
        bound = self.signature.bind_partial(*args, **kwargs)
        x = next(tensors(args, kwargs), None)
        if bound.arguments.get("lengths") is not None or x is None:
            return args, kwargs
        axis = self._axis(known, x)
        lengths = None if axis is None else known.find(x, axis, self.name)
        if lengths is not None:
            # Our norms look at the values; on the CPU that needs no synchronization.
            on_cpu = isinstance(self.module, SequenceNorm)
            bound.arguments["lengths"] = lengths if on_cpu else lengths.to(x.device)
        return bound.args, bound.kwargs

    def _axis(self, known: Known, x: Tensor) -> int | None:
        layout, noted = getattr(self.module, "layout", None), known.of(x)
        if x.dim() == 3 and layout in ("NCL", "NLC"):
            return int(layout.index("L"))
        if noted is not None:
            return noted.axis
        if x.dim() != 3:
            return None  # (N, C): no positions
        return 1 if known.has(x.shape[1]) and not known.has(x.shape[2]) else 2

    def after(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> Any:
        """Hand on lengths if the size is kept."""
        x = next(tensors(args, kwargs), None)
        axis = None if x is None else self._axis(known, x)
        if x is not None and axis is not None and known.of(x) is None and known.has(x.shape[axis]):
            known.note(x, axis, known.find(x, axis, self.name))  # by its size until now
        hand_on(known, x, y)
        return y


class Follower(Handler):
    """A module over windows of positions, followed by its formula."""

    watched = False
    enters = False

    def __init__(self, name: str, module: nn.Module, rule: Follow | str) -> None:
        super().__init__(name, module)
        self.rule = rule
        self.axis = 1 if getattr(module, "layout", "NCL") == "NLC" else 2

    def before(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """Put into the padding what the module puts beyond the end."""
        if isinstance(self.rule, str):
            raise ValueError(f"{self.name}: {self.rule}")
        x = next(tensors(args, kwargs), None)
        if x is None or x.dim() != 3:
            shape = None if x is None else tuple(x.shape)
            raise ValueError(
                f"{self.name}: expected an input of three axes, the first of them that of the "
                f"sequences, got shape {shape}"
            )
        transposed = isinstance(self.module, nn.ConvTranspose1d)
        if transposed and (kwargs.get("output_size") is not None or len(args) > 1):
            raise ValueError(
                f"{self.name}: output_size depends on the padding; set output_padding instead"
            )
        lengths = known.find(x, self.axis, self.name)
        filled = fill(x, self.axis, lengths, self.rule.fill)
        known.note(filled, self.axis, lengths)
        if args:
            return (filled, *args[1:]), kwargs
        return args, {key: filled if value is x else value for key, value in kwargs.items()}

    def after(self, known: Known, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> Any:
        """Correct the output, zero its padding and note its lengths."""
        assert isinstance(self.rule, Follow)
        x = next(tensors(args, kwargs))
        lengths = known.find(x, self.axis, self.name)
        main = y[0] if isinstance(y, tuple) else y
        left = self._lengths(x, main, lengths)
        if lengths is not None and self.rule.correct is not None:
            main = self.rule.correct(x, main, lengths)
        main = fill(main, self.axis, left, 0.0)
        known.note(main, self.axis, left)
        return (main, *y[1:]) if isinstance(y, tuple) else main

    def _lengths(self, x: Tensor, y: Tensor, lengths: Tensor | None) -> Tensor | None:
        assert isinstance(self.rule, Follow)
        if self.rule.after is None:
            return None
        expected = int(self.rule.after(torch.tensor([x.shape[self.axis]])))
        if expected != y.shape[self.axis]:
            raise ValueError(
                f"{self.name}: {x.shape[self.axis]} positions became {y.shape[self.axis]}, by its "
                f"settings they become {expected}; its forward is its own, so tell its rule by "
                "rules={type or name: function} or give it a `lengths` argument"
            )
        if lengths is None:
            return None
        left = self.rule.after(lengths).to(lengths.dtype)
        short = (lengths > 0) & (left < 1)
        if short.any():
            row = int(short.nonzero()[0])
            raise ValueError(
                f"{self.name}: sequence {row} has {int(lengths[row])} valid positions here, too "
                "few for one window; leave it out, or pool less before"
            )
        return torch.where(lengths > 0, left, 0)


def tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    """Tensors among the arguments of a call, in their order."""
    yield from (x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))


def hand_on(known: Known, x: Tensor | None, y: Any) -> None:
    """What comes out of a module that keeps the positions has the lengths of what went in."""
    noted = None if x is None else known.of(x)
    if noted is None or x is None or not isinstance(y, Tensor) or known.of(y) is not None:
        return
    if y.dim() >= x.dim() and y.shape[noted.axis] == x.shape[noted.axis]:
        known.note(y, noted.axis, noted.lengths)
