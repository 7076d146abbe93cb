"""Padding inside a model: zero it, follow it through pooling, leave it out of global pools.

Lengths are integers of shape (N,), or None where nothing is padded.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def valid_positions(lengths: Tensor, size: int) -> Tensor:
    """Mask of shape (N, size): True at valid positions.

    Examples
    --------
    >>> valid_positions(torch.tensor([1, 2]), 2).tolist()
    [[True, False], [True, True]]
    """
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def zero_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero the padded positions of (N, C, L), so that a convolution sees its own zero padding."""
    if lengths is None:
        return x
    return torch.where(valid_positions(lengths, x.shape[-1])[:, None], x, 0.0)


def max_pool(x: Tensor, size: int, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Max-pool (N, C, L) with windows of ``size`` side by side; lengths follow.

    A rest shorter than ``size`` is dropped, of every sequence as if it were alone.
    """
    pooled = F.max_pool1d(x, size)
    if lengths is None:
        return pooled, None
    shorter = lengths // size
    return zero_padding(pooled, shorter), shorter


def global_pool(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Maximum and mean of (N, C, L) over the valid positions, as (N, 2 C).

    A sequence without a valid position gives zeros.
    """
    if lengths is None:
        return torch.cat([x.amax(-1), x.mean(-1)], dim=1)
    mask = valid_positions(lengths, x.shape[-1])[:, None]
    lowest = torch.finfo(x.dtype).min
    largest = torch.where(mask, x, lowest).amax(-1)
    largest = torch.where(lengths[:, None] > 0, largest, 0.0)
    mean = torch.where(mask, x, 0.0).sum(-1) / lengths.clamp(min=1)[:, None].to(x.dtype)
    return torch.cat([largest, mean], dim=1)
