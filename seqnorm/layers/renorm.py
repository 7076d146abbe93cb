"""BatchRenorm1d: BatchNorm whose training sees what evaluation will do."""

from __future__ import annotations

import torch
from torch import Tensor

from seqnorm.backends.plan import compute_dtype
from seqnorm.functional import normalize_with_moments
from seqnorm.layers.base import Device
from seqnorm.layers.batch import BatchNorm1d
from seqnorm.moments import Moments


class BatchRenorm1d(BatchNorm1d):
    """BatchNorm corrected towards the running statistics in training (Ioffe 2017).

    With the batch's mean ``m`` and standard deviation ``s``, and the running ones ``M`` and
    ``S``, the output is ``(x - m) / s * r + d`` before the affine map, where ``r = s / S`` is
    clipped to ``[1 / r_max, r_max]`` and ``d = (m - M) / S`` to ``[-d_max, d_max]``; no gradient
    goes through ``r`` and ``d``. Where nothing is clipped, that is what evaluation computes.

    Parameters
    ----------
    num_features, eps, momentum, affine, device, dtype, bias
        As for :class:`torch.nn.BatchNorm1d`, whose ``state_dict`` fits.
    r_max, d_max : float
        Bounds of the correction; ``(1, 0)`` is BatchNorm. They may be set at any time: the paper
        begins with ``(1, 0)`` and goes up to ``(3, 5)``, the defaults, once the running
        statistics have settled.
    layout, activation, frozen, on_single
        As for :class:`BatchNorm1d`.

    References
    ----------
    arXiv:1702.03275

    Examples
    --------
    >>> import torch
    >>> norm = BatchRenorm1d(4, r_max=1, d_max=0)
    >>> x = torch.randn(2, 4, 10)
    >>> torch.allclose(norm(x), BatchNorm1d(4)(x), atol=1e-6)
    True
    >>> norm.r_max, norm.d_max = 3, 5  # later in training
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        r_max: float = 3.0,
        d_max: float = 5.0,
        bias: bool = True,
        layout: str = "NCL",
        activation: str | None = None,
        frozen: bool = False,
        on_single: str = "error",
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, True, device, dtype, bias=bias,
            layout=layout, activation=activation, frozen=frozen, on_single=on_single,
        )  # fmt: skip
        if not r_max >= 1:
            raise ValueError(f"r_max must be at least 1, which is no correction, got {r_max}")
        if not d_max >= 0:
            raise ValueError(f"d_max must be at least 0, which is no correction, got {d_max}")
        self.r_max = r_max
        self.d_max = d_max

    def _standardize(
        self, x: Tensor, valid: Tensor | None, residual: Tensor | None
    ) -> tuple[Tensor, Moments]:
        wide = x.to(compute_dtype(x))
        z, moments = normalize_with_moments(
            wide, "NL", lengths=valid, eps=self.eps, layout=self.layout
        )
        r, d = self._corrections(moments)
        # (z * r + d) * weight + bias, as one affine map.
        weight, bias = r, d
        if self.weight is not None:
            weight, bias = r * self.weight, d * self.weight
        if self.bias is not None:
            bias = bias + self.bias
        y = self._affine(z, weight, bias, self._over_channels(x, valid), residual)
        return y.to(x.dtype), moments

    def _corrections(self, moments: Moments) -> tuple[Tensor, Tensor]:
        """``r`` and ``d`` of the paper, ``(C,)``, outside the graph of derivatives."""
        assert self.running_mean is not None
        assert self.running_var is not None
        # A batch without a valid value has no variance; its r must be finite all the same.
        var = moments.m2 / moments.count.clamp_min(1)
        running = (self.running_var.to(var.dtype) + self.eps).sqrt()
        r = (var + self.eps).sqrt() / running
        d = (moments.mean - self.running_mean.to(var.dtype)) / running
        return r.clamp(1 / self.r_max, self.r_max), d.clamp(-self.d_max, self.d_max)

    def extra_repr(self) -> str:
        """As of BatchNorm1d, and the bounds."""
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"
