"""Moments ``(count, mean, m2)`` of sets of numbers, and their exact merge.

Which numbers share a mean and a variance is all that tells one normalization from another:

=====================================================  =======================================
operation                                              moments are shared over
=====================================================  =======================================
InstanceNorm                                           the positions of one channel of one
                                                       sequence (a *row*): no merge
GroupNorm                                              rows of one group of channels
LayerNorm over a sequence (``over="CL"``)              all rows of one sequence
LayerNorm over channels (``over="C"``), RMSNorm        all channels at one position
BatchNorm                                              rows of one channel over the batch
synchronized BatchNorm                                 ... and over the ranks
ghost BatchNorm, accumulation, precise BatchNorm       ... over chunks
adapted BatchNorm (AdaBN)                              ... over the unlabelled target
federated BatchNorm                                    ... over the clients
ComBat                                                 the samples of one assay batch
=====================================================  =======================================

Source: Chan, Golub & LeVeque (1979), "Updating formulae and a pairwise algorithm for computing
sample variances", Stanford STAN-CS-79-773.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Moments", "wide_dtype"]


def wide_dtype(device: torch.device) -> torch.dtype:
    """The type in which moments are held: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of one or many sets of numbers.

    Parameters
    ----------
    count : Tensor
        How many numbers each set holds; broadcastable to ``mean``. Zero is allowed.
    mean : Tensor
        Mean of each set; finite (0) where the set is empty.
    m2 : Tensor
        Sum of squared deviations from the mean, of the shape of ``mean``.

    Notes
    -----
    All three are float64 when made by :meth:`of` (counts are exact up to 2**53).

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[1.0, 2.0, 3.0, 10.0]])
    >>> left, right = Moments.of(x[:, :3], dim=1), Moments.of(x[:, 3:], dim=1)
    >>> both = left.merge(right)
    >>> both.mean.item(), both.var().item()
    (4.0, 12.5)
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    @classmethod
    def of(cls, x: Tensor, dim: int | Sequence[int], mask: Tensor | None = None) -> Moments:
        """Take the moments of ``x`` along ``dim``, which disappears from the shape.

        Parameters
        ----------
        x : Tensor
            Any shape and real type.
        dim : int or sequence of int
            The axes that share one mean and variance.
        mask : Tensor of bool, optional
            Broadcastable to ``x``; True where a number counts. What lies elsewhere, NaN
            included, has no influence.

        Returns
        -------
        Moments
        """
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
        x = x.to(wide_dtype(x.device))
        if mask is not None and mask.dtype != torch.bool:
            raise ValueError(f"mask must be boolean, got {mask.dtype}; pass mask.bool()")
        valid = torch.ones_like(x, dtype=torch.bool) if mask is None else mask.expand_as(x)
        count = valid.sum(dims, keepdim=True).to(x.dtype)
        mean = torch.where(valid, x, 0).sum(dims, keepdim=True) / count.clamp_min(1)
        m2 = torch.where(valid, x - mean, 0).square().sum(dims)
        return cls(count.squeeze(dims), mean.squeeze(dims), m2)

    def merge(self, other: Moments) -> Moments:
        """Moments of the union of two disjoint sets.

        Parameters
        ----------
        other : Moments
            Of a shape that broadcasts with this one.

        Returns
        -------
        Moments
            As if taken from the concatenated numbers; an empty set changes nothing.
        """
        count = self.count + other.count
        gap = other.mean - self.mean
        share = other.count / torch.where(count > 0, count, 1)
        mean = self.mean + gap * share
        m2 = self.m2 + other.m2 + gap.square() * self.count * share
        return Moments(count, mean, m2)

    @classmethod
    def merge_all(cls, parts: Sequence[Moments]) -> Moments:
        """Moments of the union of many disjoint sets of one shape, e.g. chunks or clients.

        Raises
        ------
        ValueError
            If ``parts`` is empty: the shape of the result would be unknown.
        """
        if not parts:
            raise ValueError("no moments to merge: pass at least one Moments")
        counts = [part.count.expand_as(part.mean) for part in parts]
        stacked = cls(
            torch.stack(counts),
            torch.stack([part.mean for part in parts]),
            torch.stack([part.m2 for part in parts]),
        )
        return stacked.over(0)

    def over(self, dim: int | Sequence[int]) -> Moments:
        """Merge along axes, e.g. rows ``(N, C)`` into channels ``(C,)`` with ``over(0)``.

        Returns
        -------
        Moments
            Without the axes ``dim``.
        """
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
        counts = self.count.expand_as(self.mean)
        total = counts.sum(dims, keepdim=True)
        share = counts / torch.where(total > 0, total, 1)
        mean = (share * self.mean).sum(dims, keepdim=True)
        # The squared gaps are taken from the merged mean, so nothing cancels.
        between = (counts * (self.mean - mean).square()).sum(dims)
        return Moments(total.squeeze(dims), mean.squeeze(dims), self.m2.sum(dims) + between)

    def transposed(self) -> Moments:
        """The same with the last two axes of the shape exchanged."""
        return Moments(*(t.transpose(-1, -2) for t in (self.count, self.mean, self.m2)))

    def var(self, correction: int = 0) -> Tensor:
        """Variance of each set.

        Parameters
        ----------
        correction : int
            0 divides by the count (what normalizes a batch), 1 by the count less one (what
            running statistics keep).

        Returns
        -------
        Tensor
            NaN where the count does not exceed ``correction``: the variance is undefined.
        """
        freedom = self.count - correction
        return self.m2 / torch.where(freedom > 0, freedom, torch.nan)
