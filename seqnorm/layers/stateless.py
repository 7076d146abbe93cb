"""Layers that take their statistics from each sequence: GroupNorm, LayerNorm, RMSNorm, none."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seqnorm.backends.plan import hide
from seqnorm.layers.base import Device, SequenceNorm, one_size


class GroupNorm(SequenceNorm, nn.GroupNorm):  # type: ignore[misc]
    """Normalize groups of channels of each sequence over its valid positions (Wu & He 2018).

    Parameters
    ----------
    num_groups, num_channels, eps, affine, device, dtype, bias
        As for :class:`torch.nn.GroupNorm`.
    layout : {"NCL", "NLC"}
        Order of the input's axes.
    activation : {"relu", "gelu"}, optional
        What follows the affine map, and the residual if there is one, in the same pass.

    References
    ----------
    arXiv:1803.08494

    Examples
    --------
    >>> import torch
    >>> GroupNorm(2, 4)(torch.randn(3, 4, 10)).shape
    torch.Size([3, 4, 10])
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        layout: str = "NCL",
        activation: str | None = None,
    ) -> None:
        super().__init__(num_groups, num_channels, eps, affine, device, dtype)
        self._set_up(layout, activation, bias)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Normalize ``x``: ``(N, C, L)``, ``(N, L, C)`` by layout, or ``(N, C)``."""
        batch = self._batch(x, self.num_channels)
        y = self._normalize(batch, "CL", lengths, residual, groups=self.num_groups)
        return y if batch is x else y.reshape(x.shape)


class LayerNorm(SequenceNorm, nn.LayerNorm):  # type: ignore[misc]
    """Layer normalization, one of the two that the literature calls so (Ba et al. 2016).

    Parameters
    ----------
    normalized_shape : int
        Number of channels (a sequence of one int is taken too, as by torch).
    eps, elementwise_affine, bias, device, dtype
        As for :class:`torch.nn.LayerNorm`; weight and bias have shape ``(C,)``.
    over : {"C", "CL"}
        ``"C"``: each position over its channels, as in Transformers and as
        :class:`torch.nn.LayerNorm`. ``"CL"``: each sequence over channels and positions, as
        GroupNorm with one group.
    layout : {"NCL", "NLC"}
        Order of the input's axes; ``"NLC"`` is where :class:`torch.nn.LayerNorm` is at home.
    activation : {"relu", "gelu"}, optional
        What follows the affine map, and the residual if there is one, in the same pass.

    References
    ----------
    arXiv:1607.06450

    Examples
    --------
    >>> import torch
    >>> LayerNorm(4)(torch.randn(3, 4, 10)).mean(dim=1).abs().max().item() < 1e-5
    True
    >>> LayerNorm(4, over="CL")(torch.randn(3, 4, 10)).mean(dim=(1, 2)).abs().max().item() < 1e-5
    True
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        over: str = "C",
        layout: str = "NCL",
        activation: str | None = None,
    ) -> None:
        channels = one_size(normalized_shape)
        super().__init__(channels, eps, elementwise_affine, bias, device, dtype)
        if over not in ("C", "CL"):
            raise ValueError(
                f"over must be 'C' (each position) or 'CL' (each sequence), got {over!r}"
            )
        self.over = over
        self._set_up(layout, activation)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Normalize ``x``: ``(N, C, L)``, ``(N, L, C)`` by layout, or ``(N, C)``."""
        batch = self._batch(x, self.normalized_shape[0])
        y = self._normalize(batch, self.over, lengths, residual)
        return y if batch is x else y.reshape(x.shape)

    def extra_repr(self) -> str:
        """Torch's, the layout and the axes."""
        return f"{super().extra_repr()}, over={self.over}"


class RMSNorm(SequenceNorm, nn.RMSNorm):  # type: ignore[misc]
    """Divide each position by the root mean square of its channels (Zhang & Sennrich 2019).

    Parameters
    ----------
    normalized_shape : int
        Number of channels (a sequence of one int is taken too, as by torch).
    eps : float, optional
        None is the machine epsilon of the type computed in: float32's for narrower inputs.
    elementwise_affine, device, dtype
        As for :class:`torch.nn.RMSNorm`.
    layout : {"NCL", "NLC"}
        Order of the input's axes.
    activation : {"relu", "gelu"}, optional
        What follows the affine map, and the residual if there is one, in the same pass.

    References
    ----------
    arXiv:1910.07467

    Examples
    --------
    >>> import torch
    >>> RMSNorm(2)(torch.tensor([[[3.0], [3.0]]])).flatten().tolist()
    [1.0, 1.0]
    """

    bias = None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        layout: str = "NCL",
        activation: str | None = None,
    ) -> None:
        super().__init__(one_size(normalized_shape), eps, elementwise_affine, device, dtype)
        self._set_up(layout, activation)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Normalize ``x``: ``(N, C, L)``, ``(N, L, C)`` by layout, or ``(N, C)``."""
        eps = self.eps
        if eps is None:
            eps = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
        batch = self._batch(x, self.normalized_shape[0])
        y = self._normalize(batch, "C", lengths, residual, center=False, eps=eps)
        return y if batch is x else y.reshape(x.shape)


class NoNorm(SequenceNorm):
    """Leave values as they are, but zero the padding: the control in a comparison of norms.

    Parameters
    ----------
    layout : {"NCL", "NLC"}
        Order of the input's axes.
    activation : {"relu", "gelu"}, optional
        What follows the residual, if there is one.

    Examples
    --------
    >>> import torch
    >>> NoNorm()(torch.ones(1, 1, 3), lengths=torch.tensor([2]))
    tensor([[[1., 1., 0.]]])
    """

    def __init__(self, *, layout: str = "NCL", activation: str | None = None) -> None:
        super().__init__()
        self._set_up(layout, activation)

    def forward(
        self, x: Tensor, lengths: Tensor | None = None, residual: Tensor | None = None
    ) -> Tensor:
        """Return ``x``, ``(N, C, L)``, ``(N, L, C)`` by layout, or ``(N, C)``, padding zeroed."""
        batch = self._batch(x, None)
        mask = self._over_channels(batch, lengths)
        y = self._affine(hide(batch, mask), None, None, mask, residual)
        return x if y is x else y.reshape(x.shape)
