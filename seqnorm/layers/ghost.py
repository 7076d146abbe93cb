"""GhostBatchNorm1d: the statistics of small virtual batches inside a large one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seqnorm.layers.base import Device
from seqnorm.layers.batch import BatchNorm1d
from seqnorm.moments import Moments


class GhostBatchNorm1d(BatchNorm1d):
    """BatchNorm by virtual batches of ``ghost_size`` sequences (Hoffer et al. 2017).

    In training a large batch is normalized as if it came in small ones, whose noise is said to
    help generalization. The batch is cut in the order of its sequences; those that are left over
    join the last virtual batch, so that none is smaller than the others. Running statistics are
    those of the whole batch, merged exactly, with the variance between virtual batches.

    Parameters
    ----------
    num_features : int
        C.
    ghost_size : int
        Sequences of a virtual batch. A batch of fewer than twice as many is one virtual batch.
    eps, momentum, affine, track_running_stats, device, dtype, bias
        As for :class:`torch.nn.BatchNorm1d`.
    layout, activation, frozen, on_single
        As for :class:`BatchNorm1d`; ``on_single`` is about each virtual batch.

    References
    ----------
    arXiv:1705.08741

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(8, 4, 10)
    >>> norm = GhostBatchNorm1d(4, ghost_size=2)
    >>> torch.equal(norm(x)[2:4], BatchNorm1d(4)(x[2:4]))
    True
    """

    def __init__(
        self,
        num_features: int,
        ghost_size: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        layout: str = "NCL",
        activation: str | None = None,
        frozen: bool = False,
        on_single: str = "error",
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias,
            layout=layout, activation=activation, frozen=frozen, on_single=on_single,
        )  # fmt: skip
        if ghost_size < 1:
            raise ValueError(f"ghost_size must be at least 1 sequence, got {ghost_size}")
        self.ghost_size = ghost_size

    def _with_batch(
        self, x: Tensor, valid: Tensor | None, residual: Tensor | None, count: int | None
    ) -> tuple[Tensor, Moments]:
        sizes = self._sizes(x.shape[0])
        last = None if residual is None else residual.reshape(x.shape)
        pieces = zip(*(_pieces(value, sizes) for value in (x, valid, last)), strict=True)
        batch_norm = super()._with_batch
        parts = [batch_norm(part, ok, more, self._count(part, ok)) for part, ok, more in pieces]
        return torch.cat([y for y, _ in parts]), Moments.merge_all([m for _, m in parts])

    def _sizes(self, batch: int) -> list[int]:
        """Sequences of each virtual batch."""
        count = max(batch // self.ghost_size, 1)
        return [*[self.ghost_size] * (count - 1), batch - self.ghost_size * (count - 1)]

    def extra_repr(self) -> str:
        """As of BatchNorm1d, and the size of virtual batches."""
        return f"{super().extra_repr()}, ghost_size={self.ghost_size}"


def _pieces(value: Tensor | None, sizes: list[int]) -> Sequence[Any]:
    return [None] * len(sizes) if value is None else torch.split(value, sizes)
