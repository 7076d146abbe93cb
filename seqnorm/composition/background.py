"""What a sequence is made of: frequencies of bases, and of their succession.

Pairs of neighbours are closed: the ends of the runs of known bases are joined with their starts,
each with each, at a weight that lets every run have one successor. Then every base is left as
often as it is entered, and the base frequencies are exactly stationary under the transitions:
there is no start distribution to choose, no linear system to solve and no chain that drains into
one base. In ``n`` bases it adds one pair for each run.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqnorm.backends.plan import hide
from seqnorm.functional import concrete, valid_positions
from seqnorm.moments import wide_dtype

__all__ = [
    "Background",
    "background_of",
    "chain",
    "check_bases",
    "check_order",
    "frequencies",
    "local_frequencies",
]

SLACK = 1e-3


class Background(NamedTuple):
    """What is expected of a sequence whose order is forgotten.

    Attributes
    ----------
    frequencies : Tensor
        ``(N, 4)``, of A, C, G, T among the known bases; ``(N, 4, P)`` where each of P positions
        has its own. Zeros where no base is known.
    transitions : Tensor or None
        ``(N, 4, 4)``, row a the frequencies of what follows base a; a row of zeros for a base
        that does not occur. The frequencies are stationary under them. None: bases are
        independent.
    """

    frequencies: Tensor
    transitions: Tensor | None = None


def background_of(
    x: Tensor, *, order: int = 0, lengths: Tensor | None = None, pseudocount: float = 0.0
) -> Background:
    """Take the composition of each sequence.

    Parameters
    ----------
    x : Tensor
        ``(N, 4, L)``, one-hot; columns of zeros are unknown bases.
    order : {0, 1}
        0: base frequencies; 1: also the transitions between neighbours.
    lengths : Tensor, optional
        Integers ``(N,)`` or booleans ``(N, L)``, as for :func:`seqnorm.normalize`.
    pseudocount : float
        Of order 1: this many pairs of independent bases, at the frequencies of the sequence, are
        added to the pairs that are counted. Frequencies stay as they are. It matters where there
        are few pairs: with 16 kinds, a sequence of 100 bases sees each kind but six times.

    Returns
    -------
    Background
        In float64, or float32 on a device without it.

    Raises
    ------
    ValueError
        For what cannot be, in one line.

    Examples
    --------
    >>> import torch
    >>> x = torch.eye(4)[[0, 1, 0, 1, 0, 1]].T[None]  # ACACAC
    >>> frequencies, transitions = background_of(x, order=1)
    >>> frequencies.tolist(), transitions[0, 0].tolist()
    ([[0.5, 0.5, 0.0, 0.0]], [0.0, 1.0, 0.0, 0.0])
    """
    check_order(order, None, pseudocount)
    if x.dim() != 3 or x.shape[1] != 4:
        raise ValueError(f"expected one-hot sequences of shape (N, 4, L), got {tuple(x.shape)}")
    valid = valid_positions(lengths, x.shape[0], x.shape[2], x.device)
    bases = hide(x, None if valid is None else valid[:, None])
    check_bases(bases)
    return Background(frequencies(bases), chain(bases, pseudocount) if order else None)


def check_order(order: int, window: int | None, pseudocount: float) -> None:
    """Refuse orders that do not exist and options that do not go together."""
    if order not in (0, 1):
        raise ValueError(f"order must be 0 (bases) or 1 (dinucleotides), got {order!r}")
    if order == 1 and window is not None:
        raise ValueError(
            "order=1 has no window=: covariances of all pairs of taps at every position would "
            "cost many times the convolution; use order=0 with window=, or cut the input into "
            "pieces and score them with order=1"
        )
    if not pseudocount >= 0:
        raise ValueError(f"pseudocount must be 0 or more, got {pseudocount}")
    if pseudocount and order == 0:
        raise ValueError(f"pseudocount={pseudocount} is of pairs: it needs order=1")


def check_bases(bases: Tensor) -> None:
    """Refuse numbers that are no bases; not while a graph is traced, when none can be seen."""
    good = (bases >= -SLACK).all(1) & (bases.sum(1) <= 1 + SLACK)
    if concrete((~good).sum()):
        row, position = (~good).nonzero()[0].tolist()
        column = [round(v, 3) for v in bases[row, :, position].tolist()]
        raise ValueError(
            f"position {position} of sequence {row} holds {column}; expected one-hot bases, "
            "zeros where unknown (or mixtures, numbers of 0 and more that sum to at most 1)"
        )


def _wide(bases: Tensor) -> Tensor:
    return bases.to(wide_dtype(bases.device))


def _over(total: Tensor, count: Tensor) -> Tensor:
    """Divide, but 0 / 0 is 0."""
    return total / torch.where(count > 0, count, 1)


def frequencies(bases: Tensor) -> Tensor:
    """``(N, 4)`` from ``(N, 4, L)``; counts are exact, so the bits depend on no order of sums."""
    counts = _wide(bases).sum(2)
    return _over(counts, counts.sum(1, keepdim=True))


def local_frequencies(bases: Tensor, window: int, first: int, stride: int, count: int) -> Tensor:
    """``(N, 4, P)``: of the bases in a window centred at ``first``, ``first + stride``, ...

    At the ends of the sequence the window is cut off. Differences of running counts.
    """
    length = bases.shape[2]
    running = torch.nn.functional.pad(_wide(bases).cumsum(2), (1, 0))
    low = first - (window - 1) // 2 + stride * torch.arange(count, device=bases.device)
    ends = running[..., (low + window).clamp(0, length)]
    counts = ends - running[..., low.clamp(0, length)]
    return _over(counts, counts.sum(1, keepdim=True))


def chain(bases: Tensor, pseudocount: float) -> Tensor:
    """Transitions ``(N, 4, 4)`` under which :func:`frequencies` are stationary."""
    x = _wide(bases)
    counts = x.sum(2)
    pairs = x[..., :-1] @ x[..., 1:].transpose(1, 2)
    ends, starts = counts - pairs.sum(2), counts - pairs.sum(1)
    runs = ends.sum(1)[:, None, None]
    closed = pairs + _over(ends[:, :, None] * starts[:, None], runs)
    if pseudocount:
        f = frequencies(bases)
        closed = closed + pseudocount * f[:, :, None] * f[:, None]
    return _over(closed, closed.sum(2, keepdim=True))
