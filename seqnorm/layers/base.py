"""What the norm layers share: the layout, the check of the input, the call of ``normalize``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from seqnorm.backends.plan import ACTIVATIONS, activate, hide
from seqnorm.backends.reference import affine
from seqnorm.functional import LAYOUTS, normalize, normalize_with_moments, valid_positions
from seqnorm.layers import private
from seqnorm.moments import Moments

Device = torch.device | str | int | None


class SequenceNorm(nn.Module):
    """What the layers share: the layout, the check of the input, the call of ``normalize``."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float | None
    layout: str
    activation: str | None

    def _set_up(self, layout: str, activation: str | None = None, bias: bool = True) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be 'NCL' or 'NLC', got {layout!r}")
        if activation is not None and activation not in ACTIVATIONS:
            raise ValueError(f"activation must be 'relu', 'gelu' or None, got {activation!r}")
        self.layout = layout
        self.activation = activation
        if not bias:
            self.register_parameter("bias", None)

    mixes_samples: ClassVar[bool] = False
    """Whether a sample's output depends on other samples of the batch in training."""

    def register_forward_hook(self, hook: Callable[..., Any], **options: Any) -> RemovableHandle:
        """Torch's; where Opacus hooks itself on, the layer is made ready for it."""
        if private.is_opacus(hook):
            private.attach(self, self.mixes_samples)
        return super().register_forward_hook(hook, **options)

    def _batch(self, x: Tensor, channels: int | None, absent: str = "L") -> Tensor:
        """Check the shape and add the axis that a two-axis input leaves out."""
        batch = x.unsqueeze(self.layout.index(absent)) if x.dim() == 2 else x
        if batch.dim() != 3:
            raise ValueError(f"expected an input of axes {self._axes}, got shape {tuple(x.shape)}")
        found = batch.shape[1 if self.layout == "NCL" else 2]
        if channels is not None and found != channels:
            raise ValueError(
                f"the layer was built for {channels} channels, got {found} in an input of shape "
                f"{tuple(x.shape)} read as {self._axes}; pass layout= if its axes are in another "
                "order"
            )
        return batch

    @property
    def _axes(self) -> str:
        return f"({', '.join(self.layout)})"

    def _valid(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        return valid_positions(lengths, x.shape[0], x.shape[self.layout.index("L")], x.device)

    def _over_channels(self, x: Tensor, valid: Tensor | None) -> Tensor | None:
        """Make lengths, or a mask, a mask that broadcasts against the input."""
        mask = self._valid(x, valid)
        return None if mask is None else mask.unsqueeze(self.layout.index("C"))

    def _over_positions(self, value: Tensor) -> Tensor:
        """Make ``(C,)`` or ``(N, C)`` broadcast against the input."""
        return value.unsqueeze(-1 if self.layout == "NCL" else -2)

    def _affine(
        self,
        z: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mask: Tensor | None,
        residual: Tensor | None,
    ) -> Tensor:
        """``activation(z * weight + bias + residual)`` by channel or by sample and channel.

        ``mask`` broadcasts against ``z``, whose padded positions hold finite values.
        """
        w, b = (
            None if value is None else self._over_positions(value.to(z.dtype))
            for value in (weight, bias)
        )
        y = affine(z, w, b)
        if residual is not None:
            y = y + hide(residual.reshape(z.shape).to(z.dtype), mask)
        return hide(activate(y, self.activation), mask)

    def _normalize(
        self,
        x: Tensor,
        over: str,
        lengths: Tensor | None,
        residual: Tensor | None,
        *,
        groups: int = 1,
        center: bool = True,
        eps: float | None = None,
        mean: Tensor | None = None,
        var: Tensor | None = None,
    ) -> Tensor:
        own = self.eps if eps is None else eps
        assert own is not None
        return normalize(
            x,
            over,
            lengths=lengths,
            groups=groups,
            center=center,
            weight=self.weight,
            bias=self.bias,
            eps=own,
            layout=self.layout,
            mean=mean,
            var=var,
            activation=self.activation,
            residual=None if residual is None else residual.reshape(x.shape),
        )

    def _with_moments(
        self, x: Tensor, over: str, lengths: Tensor | None, residual: Tensor | None
    ) -> tuple[Tensor, Moments]:
        assert self.eps is not None
        return normalize_with_moments(
            x,
            over,
            lengths=lengths,
            weight=self.weight,
            bias=self.bias,
            eps=self.eps,
            layout=self.layout,
            activation=self.activation,
            residual=None if residual is None else residual.reshape(x.shape),
        )

    def extra_repr(self) -> str:
        """Torch's, the layout, and the activation if there is one."""
        last = f"activation={self.activation}" if self.activation else ""
        return ", ".join(filter(None, (super().extra_repr(), f"layout={self.layout}", last)))


def one_size(shape: int | Sequence[int]) -> int:
    """The number of channels in torch's ``normalized_shape``."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if len(sizes) != 1:
        raise ValueError(
            f"normalized_shape must be the number of channels, got {shape!r}; to normalize over "
            "channels and positions use over='CL'"
        )
    return int(sizes[0])
