"""Norms whose affine map comes from elsewhere: FiLM from a vector, AdaIN from another sequence."""

from __future__ import annotations

from torch import Tensor, nn

from seqnorm.backends.plan import compute_dtype, hide
from seqnorm.functional import concrete, normalize
from seqnorm.layers.base import SequenceNorm
from seqnorm.layers.factory import make_norm
from seqnorm.moments import Moments


class FiLM(SequenceNorm):
    """A norm whose weight and bias are linear functions of a condition (Perez et al. 2018).

    The condition may be an embedding of the cell type, the species or the assay. At the beginning
    the output does not depend on it: the weight is 1 and the bias 0.

    Parameters
    ----------
    num_features : int
        C.
    condition_features : int
        K, the size of the condition.
    norm : str
        Kind of norm, as for :func:`seqnorm.make_norm`; ``"none"`` is the bare affine map.
    layout : {"NCL", "NLC"}
        Order of the input's axes.
    activation : {"relu", "gelu"}, optional
        What follows the affine map, and the residual if there is one.

    Attributes
    ----------
    norm : torch.nn.Module
        The norm, without an affine map of its own.
    linear : torch.nn.Linear
        From the condition to C changes of the weight and C of the bias.

    References
    ----------
    arXiv:1709.07871

    Examples
    --------
    >>> import torch
    >>> film = FiLM(4, condition_features=3, norm="layer")
    >>> film(torch.randn(2, 4, 10), condition=torch.randn(2, 3)).shape
    torch.Size([2, 4, 10])
    """

    def __init__(
        self,
        num_features: int,
        condition_features: int,
        norm: str = "batch",
        *,
        layout: str = "NCL",
        activation: str | None = None,
    ) -> None:
        super().__init__()
        self._set_up(layout, activation)
        self.num_features = num_features
        self.norm = make_norm(norm, num_features, layout, affine=False)
        self.linear = nn.Linear(condition_features, 2 * num_features)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the affine map the identity for every condition."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        residual: Tensor | None = None,
        *,
        condition: Tensor,
    ) -> Tensor:
        """Normalize ``x`` and apply the affine map of its condition.

        Parameters
        ----------
        x : Tensor
            ``(N, C, L)``, or ``(N, L, C)`` if the layout says so, or ``(N, C)``.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``.
        residual : Tensor, optional
            Of the shape of ``x``: added before the activation.
        condition : Tensor
            ``(N, K)``, one vector for each sequence.

        Raises
        ------
        ValueError
            If a shape is wrong.
        """
        batch = self._batch(x, self.num_features)
        expected = (batch.shape[0], self.linear.in_features)
        if tuple(condition.shape) != expected:
            raise ValueError(
                f"condition must have shape {expected}, one vector for each sequence, "
                f"got {tuple(condition.shape)}"
            )
        valid = self._valid(batch, lengths)
        z = self.norm(batch.to(compute_dtype(x)), valid)
        change, bias = self.linear(condition).to(z.dtype).chunk(2, dim=-1)
        y = self._affine(z, 1 + change, bias, self._over_channels(batch, valid), residual)
        return y.to(x.dtype).reshape(x.shape)


class AdaIN(SequenceNorm):
    """InstanceNorm whose output has the statistics of another sequence (Huang & Belongie 2017).

    Each channel of each sequence gets mean and standard deviation of the same channel of a style
    sequence, or given ones. There is nothing to learn.

    Parameters
    ----------
    eps : float
        Added to both variances, so that a sequence in its own style comes out as it is.
    layout : {"NCL", "NLC"}
        Order of the axes of the input and of the style.
    activation : {"relu", "gelu"}, optional
        What follows, and the residual if there is one.

    References
    ----------
    arXiv:1703.06868

    Examples
    --------
    >>> import torch
    >>> x, style = torch.randn(2, 4, 10), 3 * torch.randn(2, 4, 50) + 7
    >>> y = AdaIN()(x, style=style)
    >>> torch.allclose(y.mean(2), style.mean(2), atol=1e-4)
    True
    """

    eps: float

    def __init__(
        self, eps: float = 1e-5, *, layout: str = "NCL", activation: str | None = None
    ) -> None:
        super().__init__()
        self._set_up(layout, activation)
        self.eps = eps

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        residual: Tensor | None = None,
        *,
        style: Tensor | None = None,
        style_lengths: Tensor | None = None,
        statistics: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Give ``x`` the statistics of a style.

        Parameters
        ----------
        x : Tensor
            ``(N, C, L)``, or ``(N, L, C)`` if the layout says so.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``.
        residual : Tensor, optional
            Of the shape of ``x``: added before the activation.
        style : Tensor, optional
            As ``x``, but for its own L. Gradients flow to it.
        style_lengths : Tensor, optional
            As ``lengths``, of the style.
        statistics : tuple of Tensor, optional
            Mean and standard deviation, each ``(N, C)``, in place of a style.

        Raises
        ------
        ValueError
            If there is not exactly one of ``style`` and ``statistics``, a shape is wrong, or the
            style of a sequence has no valid position (not seen while a graph is traced).
        """
        batch = self._batch(x, None)
        valid = self._valid(batch, lengths)
        if (style is None) == (statistics is None):
            raise ValueError("pass either style= or statistics=(mean, std)")
        wanted = (batch.shape[0], batch.shape[self.layout.index("C")])
        if style is not None:
            mean, std = self._of_style(style, style_lengths, wanted)
        elif statistics is not None:
            mean, std = self._given(statistics, wanted)
        wide = batch.to(compute_dtype(x))
        z = normalize(wide, "L", lengths=valid, eps=self.eps, layout=self.layout)
        y = self._affine(z, std, mean, self._over_channels(batch, valid), residual)
        return y.to(x.dtype).reshape(x.shape)

    def _of_style(
        self, style: Tensor, lengths: Tensor | None, wanted: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation ``(N, C)`` of the valid positions of a style."""
        axis = self.layout.index("L")
        found = [size for i, size in enumerate(style.shape) if i != axis]
        if style.dim() != 3 or tuple(found) != wanted:
            raise ValueError(
                f"style must be of axes ({', '.join(self.layout)}) with N={wanted[0]} and "
                f"C={wanted[1]} as the input, got shape {tuple(style.shape)}"
            )
        mask = self._over_channels(style, lengths)
        wide = style.to(compute_dtype(style))
        moments = Moments.of(wide.detach(), axis, mask)
        empty = (moments.count < 1).any(1)
        if concrete(empty.sum()):
            row = int(empty.nonzero()[0])
            raise ValueError(f"style[{row}] has no valid position; give one of at least one")
        # Of values around 0, so that no digits are lost; what is subtracted has no gradient.
        shift, count = moments.mean.to(wide.dtype), moments.count.clamp_min(1).to(wide.dtype)
        centered = hide(wide - self._over_positions(shift), mask)
        delta = centered.sum(axis) / count
        var = (centered.square().sum(axis) / count - delta.square()).clamp_min(0)
        return shift + delta, (var + self.eps).sqrt()

    def _given(
        self, statistics: tuple[Tensor, Tensor], wanted: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        mean, std = statistics
        for name, value in (("mean", mean), ("std", std)):
            if tuple(value.shape) != wanted:
                raise ValueError(
                    f"the {name} in statistics must have shape {wanted}, one value for each "
                    f"channel of each sequence, got {tuple(value.shape)}"
                )
        return mean, std

    def extra_repr(self) -> str:
        """Of what the layer was built."""
        return f"eps={self.eps}, {super().extra_repr()}"
