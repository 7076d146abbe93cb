"""Run a model over a data set and look at the inputs of its BatchNorms."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seqnorm.carry import Carried, carry_lengths
from seqnorm.functional import valid_positions
from seqnorm.moments import Moments

__all__ = ["Feed", "Stop", "rows"]

See = Callable[[str, Tensor, Tensor | None, Any], None]
"""Called with the layer's name, its input, the mask of valid numbers, and the batch."""


class Stop(BaseException):
    """Raised to leave the rest of the model out for this batch; no error that a model catches."""


@dataclass(frozen=True)
class Feed:
    """Batches, and how to call a model with them.

    Attributes
    ----------
    loader : iterable
        Of batches.
    inputs : callable or None
        ``function(batch)`` gives the input or a tuple of arguments; None: the batch itself if it
        is a tensor, else its first element.
    lengths : callable or None
        ``function(batch)`` gives lengths, which are then carried through the model.
    layout : str
        Axes of the model's first input.
    """

    loader: Iterable[Any]
    inputs: Callable[[Any], Any] | None
    lengths: Callable[[Any], Tensor] | None
    layout: str

    @property
    def once(self) -> bool:
        """Whether the batches can be read a single time."""
        return iter(self.loader) is self.loader

    def run(self, model: nn.Module, layers: dict[str, Any], see: See) -> int:
        """Call the model with every batch; ``see`` is called before each of the layers.

        Returns
        -------
        int
            How many batches there were.

        Raises
        ------
        ValueError
            If there are none.
        """
        count = 0
        device = next((p.device for p in model.parameters()), None)
        for batch in self.loader:
            count += 1
            args = self._arguments(batch, device)
            lengths = None if self.lengths is None else self.lengths(batch)
            block = (
                nullcontext()
                if lengths is None
                else carry_lengths(model, lengths, layout=self.layout)
            )
            with ExitStack() as stack:
                carried = stack.enter_context(block)
                for name, layer in layers.items():
                    hook = layer.register_forward_pre_hook(
                        _hook(name, carried, batch, see), with_kwargs=True
                    )
                    stack.callback(hook.remove)
                try:
                    model(*args)
                except Stop:
                    continue
        if count == 0:
            raise ValueError("loader gives no batch")
        return count

    def _arguments(self, batch: Any, device: torch.device | None) -> tuple[Any, ...]:
        if self.inputs is not None:
            given = self.inputs(batch)
        else:
            given = batch[0] if isinstance(batch, (tuple, list)) else batch
        args = given if isinstance(given, tuple) else (given,)
        return tuple(a.to(device) if isinstance(a, Tensor) and device else a for a in args)


def _hook(name: str, carried: Carried | None, batch: Any, see: See) -> Callable[..., None]:
    def before(layer: _BatchNorm, args: Any, kwargs: Any) -> None:
        bound = inspect.signature(layer.forward).bind(*args, **kwargs).arguments
        x = next(value for value in bound.values() if isinstance(value, Tensor))
        see(name, x.detach(), _mask(layer, x, bound.get("lengths"), carried), batch)

    return before


def _mask(layer: Any, x: Tensor, lengths: Any, carried: Carried | None) -> Tensor | None:
    """True at numbers that count, broadcastable to ``x``; None where all do."""
    if x.dim() != 3:
        return None
    channel = channel_axis(layer, x)
    position = 3 - channel
    takes = "lengths" in inspect.signature(layer.forward).parameters
    if lengths is None and carried is not None and not takes:
        lengths = carried.of(x, position)
    valid = valid_positions(lengths, x.shape[0], x.shape[position], x.device)
    return None if valid is None else valid.unsqueeze(channel)


def channel_axis(layer: Any, x: Tensor) -> int:
    """Axis of the channels in the input of a BatchNorm."""
    return 2 if x.dim() == 3 and getattr(layer, "layout", "NCL") == "NLC" else 1


def rows(layer: Any, x: Tensor, mask: Tensor | None) -> Moments:
    """Moments ``(N, C)`` of each channel of each sample."""
    axes = [axis for axis in range(1, x.dim()) if axis != channel_axis(layer, x)]
    if axes:
        return Moments.of(x, axes, mask)
    wide = x.double() if x.device.type != "mps" else x
    return Moments(torch.ones_like(wide), wide, torch.zeros_like(wide))
