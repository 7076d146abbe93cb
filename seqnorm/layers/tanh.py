"""DynamicTanh: a bounded map in the place of a norm, without any statistics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqnorm.backends.plan import compute_dtype, hide
from seqnorm.layers.base import Device, SequenceNorm


class DynamicTanh(SequenceNorm):
    """``tanh(alpha * x) * weight + bias``, to stand where a LayerNorm stood (Zhu et al. 2025).

    Parameters
    ----------
    num_features : int
        C.
    alpha : float
        Where the learned slope begins.
    affine : bool
        Whether weight and bias are learned.
    device, dtype
        Of the parameters.
    bias : bool
        False leaves the bias out.
    layout : {"NCL", "NLC"}
        Order of the input's axes.
    activation : {"relu", "gelu"}, optional
        What follows the affine map, and the residual if there is one.

    Attributes
    ----------
    alpha : torch.nn.Parameter
        ``(1,)``; one slope for all channels.
    weight, bias : torch.nn.Parameter or None
        ``(C,)``.

    References
    ----------
    arXiv:2503.10622

    Examples
    --------
    >>> import torch
    >>> DynamicTanh(1)(torch.tensor([[[0.0, 2.0, 100.0]]])).round(decimals=3).tolist()
    [[[0.0, 0.7620000243186951, 1.0]]]
    """

    def __init__(
        self,
        num_features: int,
        alpha: float = 0.5,
        affine: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        layout: str = "NCL",
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.start = alpha
        kw: Any = {"device": device, "dtype": dtype}
        self.alpha = nn.Parameter(torch.empty(1, **kw))
        for name in ("weight", "bias"):
            value = nn.Parameter(torch.empty(num_features, **kw)) if affine else None
            self.register_parameter(name, value)
        self._set_up(layout, activation, bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Slope as given, weight 1, bias 0."""
        starts = {"alpha": self.start, "weight": 1.0}
        for name, parameter in self.named_parameters():
            nn.init.constant_(parameter, starts.get(name, 0.0))

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Bound ``x``.

        Parameters
        ----------
        x : Tensor
            ``(N, C, L)``, or ``(N, L, C)`` if the layout says so, or ``(N, C)``.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``.
        residual : Tensor, optional
            Of the shape of ``x``: added before the activation.
        """
        batch = self._batch(x, self.num_features)
        mask = self._over_channels(batch, lengths)
        z = hide(batch.to(compute_dtype(x)), mask)
        # One for each channel: the bits of a sum over everything would depend on the threads.
        alpha = self.alpha.to(z.dtype).expand(self.num_features)
        z = torch.tanh(self._over_positions(alpha) * z)
        y = self._affine(z, self.weight, self.bias, mask, residual)
        return y.to(x.dtype).reshape(x.shape)

    def extra_repr(self) -> str:
        """Of what the layer was built."""
        return f"{self.num_features}, alpha={self.start}, {super().extra_repr()}"
