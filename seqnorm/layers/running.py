"""Layers that may keep running statistics: BatchNorm1d and InstanceNorm1d."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnorm.functional import concrete
from seqnorm.layers.base import Device, SequenceNorm
from seqnorm.moments import Moments


class BatchNorm1d(SequenceNorm, nn.BatchNorm1d):  # type: ignore[misc]
    """Normalize each channel over the batch and the valid positions (Ioffe & Szegedy 2015).

    Running statistics count valid positions only; the running variance is the unbiased one, with
    the number of valid positions as its count.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        As for :class:`torch.nn.BatchNorm1d`. ``momentum=None`` keeps the plain average of all
        batches seen.
    layout : {"NCL", "NLC"}
        Order of the input's axes.
    activation : {"relu", "gelu"}, optional
        What follows the affine map, and the residual if there is one, in the same pass.

    References
    ----------
    arXiv:1502.03167

    Examples
    --------
    >>> import torch
    >>> norm = BatchNorm1d(4)
    >>> y = norm(torch.randn(2, 4, 10), lengths=torch.tensor([10, 6]))
    >>> y[1, :, 6:].abs().max().item()
    0.0
    """

    def __init__(
        self,
        num_features: int,
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
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self._set_up(layout, activation, bias)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Normalize ``x``.

        Parameters
        ----------
        x : Tensor
            ``(N, C, L)``, or ``(N, L, C)`` if the layout says so, or ``(N, C)``.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``.
        residual : Tensor, optional
            Of the shape of ``x``: added before the activation.

        Raises
        ------
        ValueError
            If batch statistics are wanted of fewer than two values per channel.
        """
        batch = self._batch(x, self.num_features)
        valid = self._valid(batch, lengths)
        known = self.running_mean is not None and self.running_var is not None
        if known and not self.training:
            stored = {"mean": self.running_mean, "var": self.running_var}
            return self._normalize(batch, "NL", valid, residual, **stored).reshape(x.shape)
        self._check_count(batch, valid)
        if not (known and self.training and self.track_running_stats):
            return self._normalize(batch, "NL", valid, residual).reshape(x.shape)
        y, moments = self._with_moments(batch, "NL", valid, residual)
        self._track(moments)
        return y.reshape(x.shape)

    def _check_count(self, x: Tensor, valid: Tensor | None) -> None:
        positions = x.shape[0] * x.shape[self.layout.index("L")]
        count = positions if valid is None else concrete(valid.sum())
        if count is not None and count < 2:
            raise ValueError(
                "Expected more than 1 value per channel when training, got "
                f"{count} valid of {positions} positions (input shape {tuple(x.shape)}); "
                "use a larger batch, or eval() to normalize with running statistics"
            )

    @torch.no_grad()
    def _track(self, moments: Moments) -> None:
        """Move the running statistics towards those of a batch; a batch of one says nothing."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        known = moments.count > 1
        for running, seen in (
            (self.running_mean, moments.mean),
            (self.running_var, moments.var(correction=1)),
        ):
            wide = running.to(seen.dtype)
            running.copy_(torch.where(known, wide + weight * (seen - wide), wide))


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
            return self._normalize(batch, "L", lengths, residual).reshape(x.shape)
        if not self.training:
            stored = {"mean": self.running_mean, "var": self.running_var}
            return self._normalize(batch, "L", lengths, residual, **stored).reshape(x.shape)
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
