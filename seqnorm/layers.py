"""Normalization layers for sequences, each in the place of its ``torch.nn`` twin.

Every layer is a subclass of its twin: the constructor's arguments and defaults, the keys of its
``state_dict`` and the loading of old ones, and ``isinstance`` tests in training code carry over.
What is added is ``layout=``, and ``lengths=`` in the call: integers ``(N,)`` or booleans
``(N, L)``. Padded positions have no influence, come out 0 and get gradient 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqnorm.functional import (
    LAYOUTS,
    concrete,
    normalize,
    normalize_with_moments,
    valid_positions,
)
from seqnorm.kinds import parse_norm
from seqnorm.moments import Moments

__all__ = [
    "BatchNorm1d",
    "GroupNorm",
    "InstanceNorm1d",
    "LayerNorm",
    "NoNorm",
    "RMSNorm",
    "make_norm",
]

Device = torch.device | str | int | None


class _Sequences(nn.Module):
    """What the layers share: the layout, the check of the input, the call of ``normalize``."""

    weight: Tensor | None
    bias: Tensor | None
    eps: float | None
    layout: str

    def _set_up(self, layout: str, bias: bool = True) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be 'NCL' or 'NLC', got {layout!r}")
        self.layout = layout
        if not bias:
            self.register_parameter("bias", None)

    def _batch(self, x: Tensor, channels: int | None, absent: str = "L") -> Tensor:
        """Check the shape and add the axis that a two-axis input leaves out."""
        batch = x.unsqueeze(self.layout.index(absent)) if x.dim() == 2 else x
        axes = f"({', '.join(self.layout)})"
        if batch.dim() != 3:
            raise ValueError(f"expected an input of axes {axes}, got shape {tuple(x.shape)}")
        found = batch.shape[self.layout.index("C")]
        if channels is not None and found != channels:
            raise ValueError(
                f"the layer was built for {channels} channels, got {found} in an input of shape "
                f"{tuple(x.shape)} read as {axes}; pass layout= if its axes are in another order"
            )
        return batch

    def _valid(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        return valid_positions(lengths, x.shape[0], x.shape[self.layout.index("L")], x.device)

    def _normalize(self, x: Tensor, over: str, lengths: Tensor | None, **options: Any) -> Tensor:
        given = {"eps": self.eps, "layout": self.layout} | options
        if "bias" not in given:
            given["bias"] = self.bias
        return normalize(x, over, lengths=lengths, weight=self.weight, **given)

    def _with_moments(self, x: Tensor, over: str, lengths: Tensor | None) -> tuple[Tensor, Moments]:
        assert self.eps is not None
        return normalize_with_moments(
            x,
            over,
            lengths=lengths,
            weight=self.weight,
            bias=self.bias,
            eps=self.eps,
            layout=self.layout,
        )

    def extra_repr(self) -> str:
        """Torch's, and the layout."""
        return ", ".join(filter(None, (super().extra_repr(), f"layout={self.layout}")))


def _single(shape: int | Sequence[int]) -> int:
    """The number of channels in torch's ``normalized_shape``."""
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if len(sizes) != 1:
        raise ValueError(
            f"normalized_shape must be the number of channels, got {shape!r}; to normalize over "
            "channels and positions use over='CL'"
        )
    return int(sizes[0])


class BatchNorm1d(_Sequences, nn.BatchNorm1d):  # type: ignore[misc]
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
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self._set_up(layout, bias)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize ``x``.

        Parameters
        ----------
        x : Tensor
            ``(N, C, L)``, or ``(N, L, C)`` if the layout says so, or ``(N, C)``.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``.

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
            return self._normalize(batch, "NL", valid, **stored).reshape(x.shape)
        self._check_count(batch, valid)
        if not (known and self.training and self.track_running_stats):
            return self._normalize(batch, "NL", valid).reshape(x.shape)
        y, moments = self._with_moments(batch, "NL", valid)
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


class InstanceNorm1d(_Sequences, nn.InstanceNorm1d):  # type: ignore[misc]
    """Normalize each channel of each sequence over its valid positions (Ulyanov et al. 2016).

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, device, dtype, bias
        As for :class:`torch.nn.InstanceNorm1d`. Running statistics average those of the
        sequences; sequences of no valid position (for the variance: of fewer than two) are left
        out.
    layout : {"NCL", "NLC"}
        Order of the input's axes.

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
    ) -> None:
        super().__init__(num_features, eps, 0.1, affine, track_running_stats, device, dtype)
        self.momentum = momentum
        self._set_up(layout, bias)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize ``x``.

        Parameters
        ----------
        x : Tensor
            ``(N, C, L)``, or ``(N, L, C)`` if the layout says so; without the axis N for one
            sequence.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``; N is 1 for one sequence.
        """
        batch = self._batch(x, self.num_features, absent="N")
        if self.running_mean is None or not (self.training or self.track_running_stats):
            return self._normalize(batch, "L", lengths).reshape(x.shape)
        if not self.training:
            stored = {"mean": self.running_mean, "var": self.running_var}
            return self._normalize(batch, "L", lengths, **stored).reshape(x.shape)
        y, moments = self._with_moments(batch, "L", lengths)
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


class GroupNorm(_Sequences, nn.GroupNorm):  # type: ignore[misc]
    """Normalize groups of channels of each sequence over its valid positions (Wu & He 2018).

    Parameters
    ----------
    num_groups, num_channels, eps, affine, device, dtype, bias
        As for :class:`torch.nn.GroupNorm`.
    layout : {"NCL", "NLC"}
        Order of the input's axes.

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
    ) -> None:
        super().__init__(num_groups, num_channels, eps, affine, device, dtype)
        self._set_up(layout, bias)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize ``x``: ``(N, C, L)``, ``(N, L, C)`` by layout, or ``(N, C)``."""
        batch = self._batch(x, self.num_channels)
        return self._normalize(batch, "CL", lengths, groups=self.num_groups).reshape(x.shape)


class LayerNorm(_Sequences, nn.LayerNorm):  # type: ignore[misc]
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
    ) -> None:
        channels = _single(normalized_shape)
        super().__init__(channels, eps, elementwise_affine, bias, device, dtype)
        if over not in ("C", "CL"):
            raise ValueError(
                f"over must be 'C' (each position) or 'CL' (each sequence), got {over!r}"
            )
        self.over = over
        self._set_up(layout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize ``x``: ``(N, C, L)``, ``(N, L, C)`` by layout, or ``(N, C)``."""
        batch = self._batch(x, self.normalized_shape[0])
        return self._normalize(batch, self.over, lengths).reshape(x.shape)

    def extra_repr(self) -> str:
        """Torch's, the layout and the axes."""
        return f"{super().extra_repr()}, over={self.over}"


class RMSNorm(_Sequences, nn.RMSNorm):  # type: ignore[misc]
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

    References
    ----------
    arXiv:1910.07467

    Examples
    --------
    >>> import torch
    >>> RMSNorm(2)(torch.tensor([[[3.0], [3.0]]])).flatten().tolist()
    [1.0, 1.0]
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        layout: str = "NCL",
    ) -> None:
        super().__init__(_single(normalized_shape), eps, elementwise_affine, device, dtype)
        self._set_up(layout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Normalize ``x``: ``(N, C, L)``, ``(N, L, C)`` by layout, or ``(N, C)``."""
        eps = self.eps
        if eps is None:
            eps = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
        batch = self._batch(x, self.normalized_shape[0])
        options = {"center": False, "bias": None, "eps": eps}
        return self._normalize(batch, "C", lengths, **options).reshape(x.shape)


class NoNorm(_Sequences):
    """Leave values as they are, but zero the padding: the control in a comparison of norms.

    Parameters
    ----------
    layout : {"NCL", "NLC"}
        Order of the input's axes.

    Examples
    --------
    >>> import torch
    >>> NoNorm()(torch.ones(1, 1, 3), lengths=torch.tensor([2]))
    tensor([[[1., 1., 0.]]])
    """

    def __init__(self, *, layout: str = "NCL") -> None:
        super().__init__()
        self._set_up(layout)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return ``x``, ``(N, C, L)``, ``(N, L, C)`` by layout, or ``(N, C)``, padding zeroed."""
        batch = self._batch(x, None)
        valid = self._valid(batch, lengths)
        if valid is None:
            return x
        valid = valid.unsqueeze(self.layout.index("C"))
        return torch.where(valid, batch, 0).reshape(x.shape)


def make_norm(kind: str, channels: int, layout: str = "NCL") -> nn.Module:
    """Build a norm by name; all but ``"none"`` are affine and add 1e-5, so that they compare.

    Parameters
    ----------
    kind : str
        See :func:`seqnorm.kinds.parse_norm`.
    channels : int
        Channels of the input.
    layout : {"NCL", "NLC"}
        Order of the input's axes.

    Returns
    -------
    torch.nn.Module
        Called as ``norm(x, lengths=None)``.

    Raises
    ------
    ValueError
        As :func:`seqnorm.kinds.parse_norm`.

    Examples
    --------
    >>> norm = make_norm("group:2", channels=4, layout="NLC")
    >>> type(norm).__name__, norm.num_groups, norm.layout
    ('GroupNorm', 2, 'NLC')
    """
    name, groups = parse_norm(kind, channels)
    if groups is not None:
        return GroupNorm(groups, channels, layout=layout)
    builders: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: BatchNorm1d(channels, layout=layout),
        "layer": lambda: LayerNorm(channels, layout=layout),
        "layer_seq": lambda: LayerNorm(channels, over="CL", layout=layout),
        "instance": lambda: InstanceNorm1d(channels, affine=True, layout=layout),
        "rms": lambda: RMSNorm(channels, eps=1e-5, layout=layout),
        "none": lambda: NoNorm(layout=layout),
    }
    return builders[name]()
