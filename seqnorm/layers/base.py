"""What the norm layers share: the layout, the check of the input, the call of ``normalize``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqnorm.functional import LAYOUTS, normalize, normalize_with_moments, valid_positions
from seqnorm.moments import Moments

Device = torch.device | str | int | None


class SequenceNorm(nn.Module):
    """What the layers share: the layout, the check of the input, the call of ``normalize``."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float | None
    layout: str

    def _set_up(self, layout: str, bias: bool = True) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be 'NCL' or 'NLC', got {layout!r}")
        self.layout = layout
        if not bias:
            self.register_parameter("bias", None)

    def _batch(self, x: Tensor, channels: int | None, absent: str = "L") -> Tensor:
        """Check the shape and add the axis that a two-axis input leaves out."""
        batch = x.unsqueeze(self.layout.index(absent)) if x.dim() == 2 else x
        axes = f"({', '.join(self.layout)})"
        if batch.dim() != 3:
            raise ValueError(f"expected an input of axes {axes}, got shape {tuple(x.shape)}")
        found = batch.shape[self.layout.index("C")]
        if channels is not None and found != channels:
            raise ValueError(
                f"the layer was built for {channels} channels, got {found} in an input of shape "
                f"{tuple(x.shape)} read as {axes}; pass layout= if its axes are in another order"
            )
        return batch

    def _valid(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        return valid_positions(lengths, x.shape[0], x.shape[self.layout.index("L")], x.device)

    def _normalize(self, x: Tensor, over: str, lengths: Tensor | None, **options: Any) -> Tensor:
        given = {"eps": self.eps, "layout": self.layout} | options
        if "bias" not in given:
            given["bias"] = self.bias
        return normalize(x, over, lengths=lengths, weight=self.weight, **given)

    def _with_moments(self, x: Tensor, over: str, lengths: Tensor | None) -> tuple[Tensor, Moments]:
        assert self.eps is not None
        return normalize_with_moments(
            x,
            over,
            lengths=lengths,
            weight=self.weight,
            bias=self.bias,
            eps=self.eps,
            layout=self.layout,
        )

    def extra_repr(self) -> str:
        """Torch's, and the layout."""
        return ", ".join(filter(None, (super().extra_repr(), f"layout={self.layout}")))


def one_size(shape: int | Sequence[int]) -> int:
    """The number of channels in torch's ``normalized_shape``."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if len(sizes) != 1:
        raise ValueError(
            f"normalized_shape must be the number of channels, got {shape!r}; to normalize over "
            "channels and positions use over='CL'"
        )
    return int(sizes[0])
