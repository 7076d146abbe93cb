"""InstanceNorm1d: statistics of each channel of each sequence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnorm.layers.base import Device, SequenceNorm
from seqnorm.moments import Moments


class InstanceNorm1d(SequenceNorm, nn.InstanceNorm1d):  # type: ignore[misc]
    """Normalize each channel of each sequence over its valid positions (Ulyanov et al. 2016).

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        As for :class:`torch.nn.InstanceNorm1d`. Running statistics average those of the
        sequences; sequences of no valid position (for the variance: of fewer than two) are left
        out.
    layout : {"NCL", "NLC"}
        Order of the input's axes.
    activation : {"relu", "gelu"}, optional
        What follows the affine map, and the residual if there is one, in the same pass.

    References
    ----------
    arXiv:1607.08022

    Examples
    --------
    >>> import torch
    >>> InstanceNorm1d(4)(torch.randn(2, 4, 10) + 7).mean(dim=2).abs().max().item() < 1e-5
    True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        layout: str = "NCL",
        activation: str | None = None,
    ) -> None:
        super().__init__(num_features, eps, 0.1, affine, track_running_stats, device, dtype)
        self.momentum = momentum
        self._set_up(layout, activation, bias)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Normalize ``x``.

        Parameters
        ----------
        x : Tensor
            ``(N, C, L)``, or ``(N, L, C)`` if the layout says so; without the axis N for one
            sequence.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``; N is 1 for one sequence.
        residual : Tensor, optional
            Of the shape of ``x``: added before the activation.
        """
        batch = self._batch(x, self.num_features, absent="N")
        if self.running_mean is None or not (self.training or self.track_running_stats):
            y = self._normalize(batch, "L", lengths, residual)
            return y if batch is x else y.reshape(x.shape)
        if not self.training:
            mean, var = self.running_mean, self.running_var
            y = self._normalize(batch, "L", lengths, residual, mean=mean, var=var)
            return y.reshape(x.shape)
        y, moments = self._with_moments(batch, "L", lengths, residual)
        self._track(moments)
        return y.reshape(x.shape)

    @torch.no_grad()
    def _track(self, moments: Moments) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        for running, seen, enough in (
            (self.running_mean, moments.mean, moments.count > 0),
            (self.running_var, moments.var(correction=1), moments.count > 1),
        ):
            wide = running.to(seen.dtype)
            average = torch.where(enough, seen, 0).sum(0) / enough.sum(0).clamp_min(1)
            # Like torch, which has no cumulative average here: None leaves them as they are.
            moved = wide + (self.momentum or 0.0) * (average - wide)
            running.copy_(torch.where(enough.any(0), moved, wide))
