"""QKNorm: queries and keys of attention, normalized in each head."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqnorm.functional import normalize, valid_positions
from seqnorm.layers.base import Device

KINDS = ("rms", "layer", "l2")


class QKNorm(nn.Module):
    """Normalize queries and keys over the channels of each head, so that logits stay bounded.

    Parameters
    ----------
    head_dim : int
        D, the channels of a head.
    kind : {"rms", "layer", "l2"}
        ``"rms"`` and ``"layer"``: RMSNorm or LayerNorm with a learned weight for queries and one
        for keys (Dehghani et al. 2023), shared by the heads; attention divides the product by
        ``sqrt(D)`` as ever. ``"l2"``: unit length, times one learned number (Henry et al. 2020);
        attention must not divide: pass ``scale=1.0`` to
        :func:`torch.nn.functional.scaled_dot_product_attention`.
    eps : float
        Added to the mean square or the variance over D.
    scale : float, optional
        Where the learned number of ``"l2"`` begins. None is ``sqrt(D)``, with which the logits of
        independent queries and keys have variance 1; the paper takes ``log2(n**2 - n)`` for
        sequences of length n.
    device, dtype
        Of the parameters.

    Attributes
    ----------
    query_weight, key_weight : torch.nn.Parameter
        ``(D,)``; not with ``"l2"``.
    scale : torch.nn.Parameter
        ``()``; with ``"l2"`` alone. The queries carry it.

    References
    ----------
    arXiv:2010.04245, arXiv:2302.05442

    Examples
    --------
    >>> import torch
    >>> q, k = QKNorm(16)(torch.randn(2, 4, 10, 16), torch.randn(2, 4, 10, 16))
    >>> q.square().mean(-1).sub(1).abs().max().item() < 1e-3
    True
    """

    query_weight: Tensor | None
    key_weight: Tensor | None
    scale: nn.Parameter | None

    def __init__(
        self,
        head_dim: int,
        kind: str = "rms",
        eps: float = 1e-6,
        scale: float | None = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {kind!r}")
        if scale is not None and kind != "l2":
            raise ValueError(f"scale={scale} needs kind='l2', got kind={kind!r}")
        self.head_dim = head_dim
        self.kind = kind
        self.eps = eps
        self.start = head_dim**0.5 if scale is None else scale
        kw: Any = {"device": device, "dtype": dtype}
        for name in ("query_weight", "key_weight"):
            weight = None if kind == "l2" else nn.Parameter(torch.empty(head_dim, **kw))
            self.register_parameter(name, weight)
        number = nn.Parameter(torch.empty((), **kw)) if kind == "l2" else None
        self.register_parameter("scale", number)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Put the weights to 1 and the scale to where it began."""
        for name, parameter in self.named_parameters():
            nn.init.constant_(parameter, self.start if name == "scale" else 1.0)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        lengths: Tensor | None = None,
        key_lengths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Normalize queries and keys.

        Parameters
        ----------
        query, key : Tensor
            ``(N, heads, L, D)``; the keys may have another L, and fewer heads.
        lengths : Tensor, optional
            Integers ``(N,)`` or booleans ``(N, L)``: valid positions of the queries, and of the
            keys too where ``key_lengths`` is None.
        key_lengths : Tensor, optional
            Valid positions of the keys, where they come from another sequence.

        Returns
        -------
        query, key : Tensor
            Of the shapes and types they came in; padded positions are 0.

        Raises
        ------
        ValueError
            If a shape or a length is wrong.
        """
        key_lengths = lengths if key_lengths is None else key_lengths
        q_weight, k_weight = self.query_weight, self.key_weight
        if self.scale is not None:
            # normalize divides by the root mean square, which is the length over sqrt(D).
            unit = self.scale.new_full((self.head_dim,), self.head_dim**-0.5)
            q_weight, k_weight = self.scale * unit, unit
        q = self._normalize(query, "query", lengths, q_weight)
        return q, self._normalize(key, "key", key_lengths, k_weight)

    def _normalize(
        self, x: Tensor, name: str, lengths: Tensor | None, weight: Tensor | None
    ) -> Tensor:
        if x.dim() != 4 or x.shape[3] != self.head_dim:
            raise ValueError(
                f"{name} must have shape (N, heads, L, {self.head_dim}), got {tuple(x.shape)}; "
                "is head_dim the channels of one head?"
            )
        batch, heads, length, _ = x.shape
        valid = valid_positions(lengths, batch, length, x.device)
        y = normalize(
            x.flatten(0, 1),
            "C",
            lengths=None if valid is None else valid.repeat_interleave(heads, dim=0),
            center=self.kind == "layer",
            weight=weight,
            eps=self.eps,
            layout="NLC",
        )
        return y.view(x.shape)

    def extra_repr(self) -> str:
        """Of what the layer was built."""
        return f"{self.head_dim}, kind={self.kind}, eps={self.eps}"
