"""Lengths of padded sequences for every layer of a model, without a change to its forward."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seqnorm.carry.choose import handler
from seqnorm.carry.handlers import Handler, tensors
from seqnorm.carry.known import Known, Positions, fill
from seqnorm.carry.watch import Watch

__all__ = ["Carried", "carry_lengths"]

Rules = Mapping[str | type[nn.Module], Callable[[nn.Module, Tensor], Tensor] | None]
_LAYOUTS = ("NCL", "NLC", "NL")
_blocks: weakref.WeakKeyDictionary[nn.Module, list[Carried]] = weakref.WeakKeyDictionary()


@contextmanager
def carry_lengths(
    model: nn.Module,
    lengths: Tensor,
    *,
    layout: str = "NCL",
    rules: Rules | None = None,
) -> Iterator[Carried]:
    """Carry the lengths of padded sequences through a model that does not know of them.

    Inside the block a padded batch gives the numbers of the sequences one by one: norms get
    ``lengths``, strides and pools change them, attention ignores padded keys, convolutions and
    pools see at the end of a sequence what they would see at the end of the batch. The model's
    output, where it still has positions, is 0 at padded ones, and padded positions get gradient
    0.

    Parameters
    ----------
    model : torch.nn.Module
        Gets hooks, which are taken off at the end of the block, also after an error.
    lengths : Tensor
        Integers ``(N,)``, the valid positions at the start of each sequence; or booleans
        ``(N, L)`` that are True up to there.
    layout : {"NCL", "NLC", "NL"}
        Axes of the model's first input; ``"NL"`` for tokens.
    rules : mapping, optional
        From a type or the name of a submodule to ``function(module, lengths) -> lengths``, for
        modules of your own that change the number of positions of ``(N, C, L)`` and want zeros
        in the padding; or to None, to leave the module and what is in it alone.

    Yields
    ------
    Carried
        Its method ``of(y)`` gives the lengths of an output.

    Raises
    ------
    ValueError
        When the model runs: where padding would get into the numbers, where the number of
        positions changes in a way that cannot be followed, where a sequence is too short for a
        window. The message names the module and the remedy.

    Notes
    -----
    What happens to a module depends on its kind:

    - convolution, transposed convolution, max-, average-, power- and adaptive pool over one
      dimension, upsampling by a factor, constant padding: followed;
    - it takes ``lengths`` (all norms and models of this package): it gets them, unless the call
      gives them already, and looks after what is in it by itself;
    - attention (``nn.MultiheadAttention``, ``nn.TransformerEncoderLayer``): gets
      ``key_padding_mask`` unless there is one;
    - torch's own BatchNorm, InstanceNorm, GroupNorm over padding, ``nn.Flatten`` and
      ``nn.Linear`` over positions, recurrent layers and the like: refused;
    - in any other module, operations along positions such as ``x.mean(-1)``, ``x.flip(-1)`` or
      ``x[..., -1]`` are refused, as far as they can be recognized (matrix products are not): by
      the tensor while modules and elementwise operations hand it on, by the size of the axis
      afterwards.

    Two ways through a model that lead to one number of positions with different lengths are an
    error where they meet. Blocks can be nested; the inner one holds for the modules of both. With
    activation checkpointing, call ``backward`` inside the block. Not for several threads, and
    not under ``torch.compile``.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Conv1d(4, 8, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2))
    >>> x, lengths = torch.randn(2, 4, 20), torch.tensor([20, 11])
    >>> with carry_lengths(model, lengths) as carried:
    ...     y = model(x)
    >>> carried.of(y).tolist()
    [10, 5]
    >>> torch.allclose(y[1:, :, :5], model(x[1:, :, :11]), atol=1e-6)
    True
    """
    carried = Carried(model, lengths, layout, rules or {})
    try:
        carried.attach()
        with carried.watch:
            yield carried
    finally:
        carried.detach()


class Carried:
    """The lengths inside a block of :func:`carry_lengths`."""

    def __init__(self, model: nn.Module, lengths: Tensor, layout: str, rules: Rules) -> None:
        if layout not in _LAYOUTS:
            raise ValueError(f"layout must be 'NCL', 'NLC' or 'NL', got {layout!r}")
        names = dict(model.named_modules())
        for key in rules:
            if isinstance(key, str) and key not in names:
                raise ValueError(f"rules name {key!r}, which is no submodule of the model")
        self._model = model
        self._lengths = _integers(lengths)
        self._layout = layout
        self._rules = rules
        self._known = Known(len(self._lengths))
        self._running: list[Handler] = []
        self._hooks: list[Any] = []
        self._modules: list[nn.Module] = []
        self.watch = Watch(self._watched, lambda: self._running[-1].name)

    def of(self, x: Tensor, axis: int | None = None) -> Tensor:
        """Lengths of a tensor that came out of the model or one of its modules.

        Parameters
        ----------
        x : Tensor
            From the last call of the model in this block.
        axis : int, optional
            That of positions: the number of positions then helps where the tensor itself is not
            recognized.

        Returns
        -------
        Tensor
            Integers ``(N,)`` on the device of ``x``.

        Raises
        ------
        ValueError
            If the tensor is not known.
        """
        noted = self._known.of(x)
        if axis is not None:
            noted = Positions(axis, self._known.find(x, axis, "Carried.of"))
        if noted is None:
            raise ValueError(
                f"the lengths of this tensor of shape {tuple(x.shape)} are not known: it did not "
                "come out of the last call of the model in this block with its positions kept"
            )
        if noted.lengths is None:
            return torch.full((x.shape[0],), x.shape[noted.axis], device=x.device)
        return noted.lengths.to(x.device)

    def attach(self) -> None:
        """Put hooks on the modules."""
        self._visit("", self._model, set())

    def detach(self) -> None:
        """Take all hooks off."""
        for hook in self._hooks:
            hook.remove()
        for module in self._modules:
            _blocks[module].remove(self)
        self._hooks.clear()
        self._modules.clear()

    def _visit(self, name: str, module: nn.Module, seen: set[int]) -> None:
        if id(module) in seen:
            return
        seen.add(id(module))
        own = handler(name, module, self._rules.get(name, self._rules.get(type(module), ...)))
        _blocks.setdefault(module, []).append(self)
        self._modules.append(module)
        on_call, on_return = module.register_forward_pre_hook, module.register_forward_hook
        self._hooks += [
            on_call(lambda m, args, kwargs: self._before(own, args, kwargs), with_kwargs=True),
            on_return(lambda m, *call: self._after(own, *call), with_kwargs=True),
            # Also after an error, so that the next call starts anew.
            on_return(lambda m, *call: self._leave(own), with_kwargs=True, always_call=True),
        ]
        if own.enters:
            for child_name, child in module.named_children():
                self._visit(f"{name}.{child_name}" if name else child_name, child, seen)

    def _watched(self) -> Known | None:
        return self._known if self._running and self._running[-1].watched else None

    def _outer(self, own: Handler) -> bool:
        """Whether the module belongs to a block inside this one as well."""
        return _blocks[own.module][-1] is not self

    def _before(self, own: Handler, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._outer(own):
            return None
        first = own.module is self._model and not self._running
        self._running.append(own)
        if first:
            args, kwargs = self._begin(own, args, kwargs)
        return own.before(self._known, args, kwargs)

    def _after(self, own: Handler, args: tuple[Any, ...], kwargs: dict[str, Any], y: Any) -> Any:
        if self._outer(own):
            return None
        y = own.after(self._known, args, kwargs, y)
        return self._end(y) if len(self._running) == 1 else y

    def _leave(self, own: Handler) -> None:
        # An earlier hook of the user's may have failed before this module got onto the stack.
        if not self._outer(own) and self._running and self._running[-1] is own:
            self._running.pop()

    def _begin(self, own: Handler, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Forget the last call; look at the input and zero its padding."""
        x = next(tensors(args, kwargs), None)
        axis, batch = self._layout.index("L"), len(self._lengths)
        if x is None or x.dim() != len(self._layout) or x.shape[0] != batch:
            shape = "no tensor" if x is None else f"shape {tuple(x.shape)}"
            raise ValueError(
                f"{own.name}: expected a first input of axes ({', '.join(self._layout)}) and "
                f"{batch} sequences, as lengths has, got {shape}; layout= names its axes"
            )
        if self._lengths.numel() and int(self._lengths.max()) > x.shape[axis]:
            row = int(self._lengths.argmax())
            raise ValueError(
                f"lengths[{row}] = {int(self._lengths[row])} exceeds the {x.shape[axis]} "
                f"positions of an input of shape {tuple(x.shape)}; layout= names its axes"
            )
        self._known = Known(batch)
        size = x.shape[axis]

        def clean(value: Any) -> Any:
            alike = isinstance(value, Tensor) and value.dim() == len(self._layout)
            if not alike or (value.shape[0], value.shape[axis]) != (batch, size):
                return value
            if value.is_floating_point():
                value = fill(value, axis, self._lengths, 0.0)
            self._known.note(value, axis, self._lengths)
            return value

        return tuple(map(clean, args)), {key: clean(value) for key, value in kwargs.items()}

    def _end(self, y: Any) -> Any:
        """Zero the padding of what the model returns."""
        if type(y) in (tuple, list):
            return type(y)(self._end(part) for part in y)
        if type(y) is dict:
            return {key: self._end(part) for key, part in y.items()}
        noted = self._known.of(y) if isinstance(y, Tensor) else None
        if noted is None or not y.is_floating_point():
            return y
        zeroed: Tensor = fill(y, noted.axis, noted.lengths, 0.0)
        self._known.note(zeroed, noted.axis, noted.lengths)
        return zeroed


def _integers(lengths: Tensor) -> Tensor:
    """Integers ``(N,)`` on the CPU, where looking at values needs no synchronization."""
    if not isinstance(lengths, Tensor):
        raise ValueError(f"lengths must be a tensor, got {type(lengths).__name__}")
    lengths = lengths.detach().cpu()
    if lengths.dtype == torch.bool and lengths.dim() == 2:
        counts = lengths.sum(1)
        if not torch.equal(lengths, torch.arange(lengths.shape[1]) < counts[:, None]):
            row = int((lengths[:, 1:] & ~lengths[:, :-1]).any(1).nonzero()[0])
            raise ValueError(
                f"the mask of sequence {row} has a hole: valid positions must be the first ones"
            )
        return counts
    if lengths.dim() != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(
            "lengths must hold integers (N,) or booleans (N, L), got "
            f"{lengths.dtype} of shape {tuple(lengths.shape)}"
        )
    if (lengths < 0).any():
        raise ValueError(f"lengths must not be negative, got {int(lengths.min())}")
    return lengths.long()
