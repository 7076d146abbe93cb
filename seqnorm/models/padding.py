"""Padding inside a model: refuse what cannot be, zero it, follow it through pooling.

Lengths are integers of shape (N,), or None where nothing is padded.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.functional import concrete, valid_positions


def check_sequences(x: Tensor, lengths: Tensor | None, shortest: int) -> None:
    """Refuse what a model cannot give an answer for.

    Parameters
    ----------
    x
        To be of shape (N, 4, L).
    lengths
        To be None or integers of shape (N,).
    shortest
        Fewest bases of which pooling leaves something.

    Raises
    ------
    ValueError
        Names the shape, or the sequence and its length. Values of ``lengths`` are not checked
        while a graph is traced.

    Examples
    --------
    >>> check_sequences(torch.zeros(2, 4, 9), torch.tensor([9, 3]), shortest=4)
    Traceback (most recent call last):
    ...
    ValueError: sequence 1 has 3 bases, the model needs at least 4; leave it out or pool less
    """
    if x.dim() != 3 or x.shape[1] != 4:
        raise ValueError(f"expected one-hot sequences of shape (N, 4, L), got {tuple(x.shape)}")
    if x.shape[2] < shortest:
        raise ValueError(
            f"sequences have {x.shape[2]} bases, the model needs at least {shortest}; "
            "give longer ones or pool less"
        )
    if lengths is None:
        return
    if isinstance(lengths, Tensor) and lengths.dtype == torch.bool:
        raise ValueError("lengths must hold integers (N,), not a mask; pass mask.sum(1)")
    valid_positions(lengths, x.shape[0], x.shape[2])
    short = lengths < shortest
    if concrete(short.sum()):
        row = int(short.nonzero()[0])
        raise ValueError(
            f"sequence {row} has {int(lengths[row])} bases, the model needs at least {shortest}; "
            "leave it out or pool less"
        )


def zero_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Zero the padded positions of (N, C, L), so that a convolution sees its own zero padding."""
    mask = valid_positions(lengths, x.shape[0], x.shape[2], x.device)
    return x if mask is None else torch.where(mask[:, None], x, 0.0)


class ZeroPadding(nn.Module):
    """`zero_padding` as a module, called as a norm is: what stands where no norm does."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Zero the padded positions of (N, C, L)."""
        return zero_padding(x, lengths)


def max_pool(x: Tensor, size: int, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Max-pool (N, C, L) with windows of ``size`` side by side; lengths follow.

    A rest shorter than ``size`` is dropped, of every sequence as if it were alone.
    """
    pooled = F.max_pool1d(x, size)
    if lengths is None:
        return pooled, None
    shorter = lengths // size
    return zero_padding(pooled, shorter), shorter
