"""BatchNorm1d: statistics over the batch, running ones for evaluation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnorm.backends.plan import compute_dtype, hide
from seqnorm.functional import checked_lengths, concrete
from seqnorm.layers.base import Device, SequenceNorm
from seqnorm.moments import Moments

ON_SINGLE = ("error", "running", "identity")


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
    frozen : bool
        Normalize with the running statistics, and leave them as they are, also in ``train()``.
        May be set later: ``norm.frozen = True``. Weight and bias go on learning.
    on_single : {"error", "running", "identity"}
        What to do where a batch has fewer than two valid values per channel, which have no
        variance: raise; normalize with the running statistics; or leave the values as they are
        and apply the affine map. Such a batch leaves the running statistics alone.

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

    eps: float
    frozen: bool
    on_single: str

    mixes_samples = True

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
        frozen: bool = False,
        on_single: str = "error",
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self._set_up(layout, activation, bias)
        if on_single not in ON_SINGLE:
            valid = ", ".join(map(repr, ON_SINGLE))
            raise ValueError(f"on_single must be one of {valid}, got {on_single!r}")
        if not track_running_stats and (frozen or on_single == "running"):
            need = "frozen=True" if frozen else "on_single='running'"
            raise ValueError(f"{need} needs running statistics; pass track_running_stats=True")
        self.frozen = frozen
        self.on_single = on_single

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
            If batch statistics are wanted of fewer than two values per channel, unless
            ``on_single`` says what to do then. Not seen while a graph is traced.
        """
        batch = self._batch(x, self.num_features)
        length = batch.shape[2 if self.layout == "NCL" else 1]
        valid = checked_lengths(lengths, batch.shape[0], length, batch.device)
        known = self.running_mean is not None and self.running_var is not None
        if self.frozen or (known and not self.training):
            return self._with_running(batch, valid, residual).reshape(x.shape)
        count = self._count(batch, valid)
        y, moments = self._with_batch(batch, valid, residual, count)
        if known and self.training and self.track_running_stats:
            self._track(moments, certain=count is not None and count > 1)
        return y if batch is x else y.reshape(x.shape)

    def _with_running(self, x: Tensor, valid: Tensor | None, residual: Tensor | None) -> Tensor:
        if self.running_mean is None or self.running_var is None:
            raise ValueError(
                "the layer has no running statistics to normalize with; build it with "
                "track_running_stats=True, or set frozen=False"
            )
        mean, var = self.running_mean, self.running_var
        return self._normalize(x, "NL", valid, residual, mean=mean, var=var)

    def _count(self, x: Tensor, valid: Tensor | None) -> int | None:
        """Valid positions of the batch, or None where values cannot be looked at."""
        if valid is None:
            return x.shape[0] * x.shape[2 if self.layout == "NCL" else 1]
        return concrete(valid.sum())

    def _with_batch(
        self, x: Tensor, valid: Tensor | None, residual: Tensor | None, count: int | None
    ) -> tuple[Tensor, Moments]:
        """Normalize by the batch's own statistics, and tell them."""
        positions = x.shape[0] * x.shape[self.layout.index("L")]
        # An empty batch, unlike one of padding alone, is no mistake: torch lets it pass too.
        few = positions and count is not None and count < 2
        if few and self._too_few(count, f"of {positions} positions (input shape {tuple(x.shape)})"):
            return self._without_batch(x, valid, residual), self._moments(x, valid)
        y, moments = self._standardize(x, valid, residual)
        if count is None and self.on_single != "error":
            # The count cannot be looked at while a graph is traced: compute both and choose.
            y = torch.where((moments.count < 2).any(), self._without_batch(x, valid, residual), y)
        return y, moments

    def _standardize(
        self, x: Tensor, valid: Tensor | None, residual: Tensor | None
    ) -> tuple[Tensor, Moments]:
        return self._with_moments(x, "NL", valid, residual)

    def _without_batch(self, x: Tensor, valid: Tensor | None, residual: Tensor | None) -> Tensor:
        """What ``on_single`` puts in the place of statistics that do not exist."""
        if self.on_single == "running":
            return self._with_running(x, valid, residual)
        mask = self._over_channels(x, valid)
        z = hide(x.to(compute_dtype(x)), mask)
        return self._affine(z, self.weight, self.bias, mask, residual).to(x.dtype)

    def _moments(self, x: Tensor, valid: Tensor | None) -> Moments:
        axes = (0, self.layout.index("L"))
        return Moments.of(x.detach(), axes, self._over_channels(x, valid))

    def _too_few(self, count: int | None, where: str) -> bool:
        """Whether a channel has fewer than two values; raise where that is an error."""
        if count is None or count > 1:
            return False
        if self.on_single != "error":
            return True
        raise ValueError(
            f"Expected more than 1 value per channel when training, got {count} valid {where}; "
            "use a larger batch, eval() or frozen=True to normalize with running statistics, "
            "or on_single='running' or 'identity'"
        )

    @torch.no_grad()
    def _track(self, moments: Moments, certain: bool = False) -> None:
        """Move the running statistics towards those of a batch; a batch of one says nothing.

        ``certain``: that the batch holds more is known without a look at the counts.
        """
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        # For a small batch every operation here counts, so none is made that has no effect.
        known = None if certain else moments.count > 1
        self.num_batches_tracked.add_(1 if known is None else known.any())
        weight = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        var = moments.var(correction=1) if known is not None else moments.m2 / (moments.count - 1)
        for running, seen in ((self.running_mean, moments.mean), (self.running_var, var)):
            if known is None and running.dtype == compute_dtype(running):
                running.lerp_(seen.to(running.dtype), weight)
                continue
            wide = running.to(seen.dtype)
            moved = wide + weight * (seen - wide)
            running.copy_(moved if known is None else torch.where(known, moved, wide))

    def extra_repr(self) -> str:
        """Torch's, the layout, and what differs from the defaults."""
        frozen = "frozen=True" if self.frozen else ""
        single = f"on_single={self.on_single}" if self.on_single != "error" else ""
        return ", ".join(filter(None, (super().extra_repr(), frozen, single)))
