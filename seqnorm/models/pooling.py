"""One vector for a sequence: pool its positions, leaving padding out.

References
----------
Ilse et al. (2018), attention-based pooling, arXiv:1802.04712; here the score of a position is
linear in its channels, without the hidden layer.
"""

import difflib

import torch
from torch import Tensor, nn

from seqnorm.functional import valid_positions
from seqnorm.models.padding import zero_padding

POOLINGS = ("max_mean", "max", "mean", "attention")
"""What `GlobalPool` makes of the positions of a channel."""


def maximum(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Maximum of (N, C, L) over the valid positions; 0 where there is none.

    Examples
    --------
    >>> maximum(torch.tensor([[[-3.0, -1.0, 5.0]]]), torch.tensor([2]))
    tensor([[-1.]])
    """
    mask = valid_positions(lengths, x.shape[0], x.shape[2], x.device)
    if mask is None or lengths is None:
        return x.amax(-1)
    largest = torch.where(mask[:, None], x, torch.finfo(x.dtype).min).amax(-1)
    return torch.where(lengths.to(x.device)[:, None] > 0, largest, 0.0)


def average(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean of (N, C, L) over the valid positions; 0 where there is none.

    Examples
    --------
    >>> average(torch.tensor([[[-3.0, -1.0, 5.0]]]), torch.tensor([2]))
    tensor([[-2.]])
    """
    if lengths is None:
        return x.mean(-1)
    # Half precision holds neither the sum of a long sequence nor every length.
    total = zero_padding(x, lengths).sum(-1, dtype=_wide(x))
    return (total / lengths.to(x.device)[:, None].clamp(min=1)).to(x.dtype)


def attend(x: Tensor, scores: Tensor, lengths: Tensor | None) -> Tensor:
    """Mean of (N, C, L) by a softmax of scores (N, L) over the valid positions; else 0.

    Examples
    --------
    >>> x, even = torch.tensor([[[0.0, 2.0, 9.0]]]), torch.zeros(1, 3)
    >>> attend(x, even, torch.tensor([2]))
    tensor([[1.]])
    >>> attend(x, even + torch.tensor([0.0, 50.0, 0.0]), torch.tensor([2]))
    tensor([[2.]])
    """
    scores = scores.to(_wide(x))
    mask = valid_positions(lengths, x.shape[0], x.shape[2], x.device)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weighted = zero_padding(x, lengths) * scores.softmax(-1)[:, None]
    return weighted.sum(-1).to(x.dtype)


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class GlobalPool(nn.Module):
    """Pool (N, C, L) over the valid positions, to (N, `features`).

    Parameters
    ----------
    kind
        One of `POOLINGS`: ``"max_mean"`` puts the mean behind the maximum; ``"attention"`` is
        the mean by a softmax over positions of one learnt score.
    channels
        C.

    Raises
    ------
    ValueError
        For another kind; names those that exist.

    Examples
    --------
    >>> pool = GlobalPool("max_mean", channels=1)
    >>> pool(torch.tensor([[[1.0, 3.0]]])), pool.features
    (tensor([[3., 2.]]), 2)
    """

    def __init__(self, kind: str, channels: int) -> None:
        super().__init__()
        if kind not in POOLINGS:
            close = difflib.get_close_matches(str(kind), POOLINGS, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ValueError(f"no pooling {kind!r}; {hint}Valid: {', '.join(POOLINGS)}")
        self.kind = kind
        self.features = 2 * channels if kind == "max_mean" else channels
        if kind == "attention":
            # A bias would shift all scores alike, which a softmax does not see.
            self.score = nn.Linear(channels, 1, bias=False)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Pool; a sequence without a valid position gives zeros."""
        if self.kind == "attention":
            x = zero_padding(x, lengths)
            return attend(x, self.score(x.transpose(1, 2)).squeeze(-1), lengths)
        parts = [maximum(x, lengths)] if self.kind in ("max", "max_mean") else []
        if self.kind in ("mean", "max_mean"):
            parts.append(average(x, lengths))
        return torch.cat(parts, dim=1)

    def extra_repr(self) -> str:
        """What the submodules do not show."""
        return self.kind
