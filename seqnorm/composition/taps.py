"""Where the taps of a filter fall: windows of a sequence, ends, lengths of the output."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional as F

from seqnorm.functional import checked_lengths

__all__ = ["Taps"]


@dataclasses.dataclass(frozen=True)
class Taps:
    """Where the taps of a filter fall on a sequence."""

    size: int
    stride: int
    dilation: int
    left: int
    right: int

    @classmethod
    def of(cls, size: int, padding: str | int, stride: int = 1, dilation: int = 1) -> Taps:
        """Read torch's ``padding``, ``stride`` and ``dilation``."""
        if stride < 1 or dilation < 1:
            raise ValueError(
                f"stride and dilation must be 1 or more, got stride={stride}, dilation={dilation}"
            )
        if padding == "same":
            if stride != 1:
                raise ValueError(f"padding='same' needs stride=1, got stride={stride}")
            total = dilation * (size - 1)
            return cls(size, stride, dilation, total // 2, total - total // 2)
        number = 0 if padding == "valid" else padding
        if not isinstance(number, int) or number < 0:
            raise ValueError(
                f"padding must be 'same', 'valid' or a number of 0 or more, got {padding!r}"
            )
        return cls(size, stride, dilation, number, number)

    @property
    def span(self) -> int:
        """Bases from the first tap to the last, both counted."""
        return self.dilation * (self.size - 1) + 1

    def outputs(self, length: int) -> int:
        """How many positions come out."""
        return max(0, (length + self.left + self.right - self.span) // self.stride + 1)

    def inside(self, length: int) -> tuple[int, int]:
        """Half-open range of the outputs all of whose taps fall into the sequence."""
        return -(-self.left // self.stride), (length + self.left - self.span) // self.stride + 1

    def windows(self, x: Tensor) -> Tensor:
        """``(N, C, L)`` to ``(N, C, K, P)``: what each tap sees; zeros beyond the ends."""
        padded = F.pad(x, (self.left, self.right))
        reach = (self.outputs(x.shape[2]) - 1) * self.stride + 1
        starts = range(0, self.span, self.dilation)
        return torch.stack([padded[..., i : i + reach : self.stride] for i in starts], 2)

    def valid(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Mask ``(N, 1, P)`` of the outputs of which a sequence alone would have as many."""
        n, length = x.shape[0], x.shape[2]
        count = self.outputs(length)
        given = checked_lengths(lengths, n, length, x.device)
        if given is None:
            return None
        if given.dtype == torch.bool:
            if count != length:
                raise ValueError(
                    f"a mask of the input's {length} positions does not say which of {count} "
                    "outputs are valid; use padding='same', or integer lengths"
                )
            return given[:, None]
        room = given + self.left + self.right - self.span
        alone = torch.where(given > 0, room // self.stride + 1, 0)
        return (torch.arange(count, device=x.device) < alone[:, None])[:, None]
