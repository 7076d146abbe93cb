"""A Transformer for DNA: convolutional stem, rotary positions, scaled-dot-product attention.

References
----------
Vaswani et al. (2017), Attention is all you need, arXiv:1706.03762.
Xiong et al. (2020), pre-normalization, arXiv:2002.04745.
Su et al. (2021), rotary position embedding, arXiv:2104.09864.
Henry et al. (2020), query-key normalization, arXiv:2010.04245.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.functional import valid_positions
from seqnorm.layers import GroupNorm, InstanceNorm1d, RMSNorm
from seqnorm.models.base import SequenceModel
from seqnorm.models.options import check_dropout, check_odd, check_sizes
from seqnorm.models.padding import check_sequences, max_pool
from seqnorm.models.placement import Placement
from seqnorm.models.pooling import GlobalPool


def rotate(x: Tensor, base: float = 10_000.0) -> Tensor:
    """Rotary position embedding of (N, heads, L, width), width even.

    Pair ``i`` at position ``p`` is turned by ``p * base ** (-2 i / width)``, so that the product
    of two rotated vectors depends on their distance alone.
    """
    length, width = x.shape[-2:]
    wide = torch.promote_types(x.dtype, torch.float32)
    turns = base ** (-torch.arange(0, width, 2, device=x.device, dtype=wide) / width)
    angle = torch.arange(length, device=x.device, dtype=wide)[:, None] * turns
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions and optional query-key RMS normalization."""

    def __init__(self, width: int, heads: int, qk_norm: bool) -> None:
        super().__init__()
        self.heads = heads
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        head = width // heads
        self.query_norm = RMSNorm(head, layout="NLC") if qk_norm else None
        self.key_norm = RMSNorm(head, layout="NLC") if qk_norm else None

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend over (N, L, width); ``mask`` (N, L) is True at valid positions."""
        q, k, v = torch.unflatten(self.project(x), -1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.query_norm is not None and self.key_norm is not None:
            q = self.query_norm(q.flatten(0, 1)).view_as(q)
            k = self.key_norm(k.flatten(0, 1)).view_as(k)
        allowed = None
        if mask is not None:
            # Padded queries attend to themselves, so that no row of the softmax is empty.
            diagonal = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
            allowed = (mask[:, None, :] | diagonal)[:, None]
        y = F.scaled_dot_product_attention(rotate(q), rotate(k), v, attn_mask=allowed)
        merged: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return merged

    def extra_repr(self) -> str:
        """What the submodules do not show."""
        return f"heads={self.heads}"


class Block(nn.Module):
    """Pre-normalized attention and feed-forward layers, each with a residual connection."""

    def __init__(
        self, placement: Placement, width: int, heads: int, dropout: float, qk_norm: bool
    ) -> None:
        super().__init__()
        self.attention_norm = placement.later(width, "NLC")
        self.attention = Attention(width, heads, qk_norm)
        self.feed_norm = placement.later(width, "NLC")
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor | None, mask: Tensor | None) -> Tensor:
        """Map (N, L, width) to the same shape."""
        x = x + self.dropout(self.attention(self.attention_norm(x, lengths), mask))
        mixed: Tensor = x + self.dropout(self.feed(self.feed_norm(x, lengths)))
        return mixed


def _check_mean(final: nn.Module, pooling: str, norm: str) -> None:
    """Refuse to take the mean of what was just given a mean of 0: no sequence would differ."""
    alone = isinstance(final, GroupNorm) and final.num_groups == final.num_channels
    if pooling == "mean" and (alone or isinstance(final, InstanceNorm1d)):
        raise ValueError(
            f"norm {norm!r} before pooling 'mean' leaves nothing of a sequence: each channel has "
            "mean 0; choose another pooling, or put the norm @input or @first"
        )


class Transformer(SequenceModel):
    """Convolutional stem and max-pool, Transformer blocks, a global pool, a linear head.

    Parameters
    ----------
    norm
        Kind of normalization, and its place: ``@input``, on the bases alone; ``@first``, after
        the stem's convolution alone; ``@every`` or none, there, before every sub-layer and before
        the pool; ``@head``, before the pool alone. See `seqnorm.kinds.parse_choice`.
    width
        Features a position.
    depth
        Number of blocks.
    heads
        Attention heads; ``width`` must be a multiple of twice their number.
    kernel_size
        Width of the stem in bases. Odd.
    pool
        Bases a token.
    dropout
        Probability in every sub-layer and before the head.
    qk_norm
        Normalize queries and keys (RMS, learnt gain) before their product.
    outputs
        Logits a sequence.
    pooling
        One of `seqnorm.models.pooling.POOLINGS`.

    Raises
    ------
    ValueError
        For an option that cannot be; names it.

    Examples
    --------
    >>> model = Transformer(norm="layer", width=16, depth=1, heads=2)
    >>> model(torch.zeros(2, 4, 100), lengths=torch.tensor([100, 60])).shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        norm: str = "layer",
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        kernel_size: int = 19,
        pool: int = 8,
        dropout: float = 0.1,
        qk_norm: bool = False,
        outputs: int = 1,
        pooling: str = "max_mean",
    ) -> None:
        super().__init__()
        check_odd(kernel_size=kernel_size)
        check_sizes(width=width, depth=depth, heads=heads, pool=pool, outputs=outputs)
        check_dropout(dropout)
        if width % (2 * heads):
            raise ValueError(
                f"width must be a multiple of twice the heads, got width {width} and {heads} heads"
            )
        if not isinstance(qk_norm, bool):
            raise ValueError(f"qk_norm must be true or false, got {qk_norm!r}")
        self.pool = pool
        placement = Placement(norm)
        self.input_norm = placement.input()
        stem = nn.Conv1d(4, width, kernel_size, padding=kernel_size // 2)
        self.stem, self.stem_norm = placement.first(stem)
        self.blocks = nn.ModuleList(
            Block(placement, width, heads, dropout, qk_norm) for _ in range(depth)
        )
        self.final_norm = placement.later(width, "NLC", last=True)
        self.pooling = GlobalPool(pooling, width)
        _check_mean(self.final_norm, pooling, norm)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.pooling.features, outputs)

    def features(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head sees (N, F) of one-hot sequences (N, 4, L)."""
        check_sequences(x, lengths, shortest=self.pool)
        x = self.input_norm(x, lengths)
        x = F.gelu(self.stem_norm(self.stem(x), lengths))
        x, lengths = max_pool(x, self.pool, lengths)
        x = x.transpose(1, 2)
        mask = valid_positions(lengths, x.shape[0], x.shape[1], x.device)
        for block in self.blocks:
            x = block(x, lengths, mask)
        pooled: Tensor = self.pooling(self.final_norm(x, lengths).transpose(1, 2), lengths)
        return pooled

    def extra_repr(self) -> str:
        """What the submodules do not show."""
        return f"pool={self.pool}"
