"""WSConv1d: a convolution whose filters are standardized, in place of its output."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from seqnorm.backends.plan import hide
from seqnorm.functional import LAYOUTS, normalize, valid_positions


class WSConv1d(nn.Conv1d):
    """A convolution whose filters have mean 0 and variance 1 (Qiao et al. 2019).

    The weights are standardized over the inputs of each filter, at every call: what is learned
    and stored is what :class:`torch.nn.Conv1d` would store. It is meant to stand before a
    GroupNorm, which it brings near to BatchNorm at small batches.

    Parameters
    ----------
    *args, **kwargs
        As for :class:`torch.nn.Conv1d`.
    eps : float
        Added to the variance of a filter.
    layout : {"NCL", "NLC"}
        Order of the axes of input and output; ``"NLC"`` costs two transpositions.

    References
    ----------
    arXiv:1903.10520

    Examples
    --------
    >>> import torch
    >>> conv = WSConv1d(4, 8, 5, padding="same")
    >>> conv(torch.ones(1, 4, 20), lengths=torch.tensor([12])).shape
    torch.Size([1, 8, 20])
    >>> conv.standardized().mean(dim=(1, 2)).abs().max().item() < 1e-6
    True
    """

    def __init__(self, *args: Any, eps: float = 1e-5, layout: str = "NCL", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if layout not in LAYOUTS:
            raise ValueError(f"layout must be 'NCL' or 'NLC', got {layout!r}")
        if self.weight[0].numel() < 2:
            raise ValueError(
                f"a filter of shape {tuple(self.weight[0].shape)} has one weight, which has no "
                "variance; use a wider kernel, or torch.nn.Conv1d"
            )
        self.eps = eps
        self.layout = layout

    def standardized(self) -> Tensor:
        """The weights that are used, of the shape of ``weight``; gradients flow through."""
        # To normalize, a filter is a channel and its weights are positions.
        filters = self.weight.flatten(1).unsqueeze(0)
        return normalize(filters, "L", eps=self.eps).view(self.weight.shape)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Convolve ``x`` with standardized filters.

        Parameters
        ----------
        x : Tensor
            ``(N, C, L)``, or ``(N, L, C)`` if the layout says so; without the axis N for one
            sequence.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``; N is 1 for one sequence. Padding is zeroed
            beforehand, so that each sequence sees the convolution's own zeros at its end.

        Returns
        -------
        Tensor
            As from :class:`torch.nn.Conv1d`. If it has as many positions as ``x``, as with
            ``padding="same"``, the padded ones are 0; otherwise their number is another, and so
            are the lengths.

        Raises
        ------
        ValueError
            If ``lengths`` meet a ``padding_mode`` that looks at the end of the row, which is not
            the end of the sequence.
        """
        if lengths is not None and self.padding_mode != "zeros":
            raise ValueError(
                f"lengths need padding_mode='zeros', got {self.padding_mode!r}, which would take "
                "padded positions for the sequence"
            )
        batch = x if x.dim() == 3 else x.unsqueeze(0)
        ncl = batch if self.layout == "NCL" else batch.transpose(1, 2)
        valid = valid_positions(lengths, ncl.shape[0], ncl.shape[2], x.device)
        mask = None if valid is None else valid[:, None]
        y: Tensor = self._conv_forward(hide(ncl, mask), self.standardized(), self.bias)
        if y.shape[2] == ncl.shape[2]:
            y = hide(y, mask)
        y = y if self.layout == "NCL" else y.transpose(1, 2)
        return y if x.dim() == 3 else y.squeeze(0)

    def extra_repr(self) -> str:
        """Torch's, and the layout."""
        return f"{super().extra_repr()}, layout={self.layout}"  # type: ignore[no-untyped-call]
