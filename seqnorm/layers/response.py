"""FilterResponseNorm1d: no mean, no batch, and a learned threshold as the activation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqnorm.backends.plan import compute_dtype, hide
from seqnorm.layers.base import Device, SequenceNorm

LEAST_EPS = 1e-6


class FilterResponseNorm1d(SequenceNorm):
    """Divide each channel of each sequence by its root mean square (Singh & Krishnan 2020).

    ``max(x / sqrt(mean(x**2) + eps) * weight + bias + residual, tau)``, with the mean over the
    valid positions. The threshold ``tau`` is learned and takes the place of a ReLU, which it is
    at the beginning.

    Parameters
    ----------
    num_features : int
        C.
    eps : float
        Added to the mean square.
    learn_eps : bool
        Learn it for each channel, as ``1e-6 + abs(eps)`` from where ``eps`` says; the paper
        advises so, and a start of 1e-4, where sequences have a single position.
    device, dtype
        Of the parameters.
    layout : {"NCL", "NLC"}
        Order of the input's axes.

    Attributes
    ----------
    weight, bias, tau : torch.nn.Parameter
        ``(C,)``.
    learned_eps : torch.nn.Parameter or None
        ``(C,)``.

    References
    ----------
    arXiv:1911.09737

    Examples
    --------
    >>> import torch
    >>> FilterResponseNorm1d(1)(torch.tensor([[[3.0, -3.0, 3.0]]])).round(decimals=3).tolist()
    [[[1.0, 0.0, 1.0]]]
    """

    eps: float
    tau: nn.Parameter
    learned_eps: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        learn_eps: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        layout: str = "NCL",
    ) -> None:
        super().__init__()
        self._set_up(layout)
        self.num_features = num_features
        self.eps = eps
        for name in ("weight", "bias", "tau", "learned_eps"):
            value = torch.empty(num_features, device=device, dtype=dtype)
            used = learn_eps or name != "learned_eps"
            self.register_parameter(name, nn.Parameter(value) if used else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias and threshold 0, epsilon as given."""
        starts = {"weight": 1.0, "learned_eps": self.eps}
        for name, parameter in self.named_parameters():
            nn.init.constant_(parameter, starts.get(name, 0.0))

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
            Of the shape of ``x``: added before the threshold.
        """
        batch = self._batch(x, self.num_features)
        valid = self._valid(batch, lengths)
        mask = self._over_channels(batch, valid)
        if self.learned_eps is None:
            # A group for each channel: the positions of one channel of one sequence.
            groups = self.num_features
            y = self._normalize(batch, "CL", valid, residual, groups=groups, center=False)
        else:
            z = self._with_learned_eps(hide(batch.to(compute_dtype(x)), mask), mask)
            y = self._affine(z, self.weight, self.bias, mask, residual)
        y = hide(torch.maximum(y, self._over_positions(self.tau.to(y.dtype))), mask)
        return y.to(x.dtype).reshape(x.shape)

    def _with_learned_eps(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Divide by ``sqrt(mean(x**2) + eps)``; padding is 0."""
        assert self.learned_eps is not None
        axis = self.layout.index("L")
        total = x.square().sum(axis, keepdim=True)
        if mask is None:
            mean = total / max(x.shape[axis], 1)
        else:
            mean = total / mask.sum(axis, keepdim=True).clamp_min(1)
        eps = LEAST_EPS + self.learned_eps.to(x.dtype).abs()
        return x * torch.rsqrt(mean + self._over_positions(eps))

    def extra_repr(self) -> str:
        """Of what the layer was built."""
        learned = ", learn_eps=True" if self.learned_eps is not None else ""
        return f"{self.num_features}, eps={self.eps}{learned}, {super().extra_repr()}"
