"""Both strands say the same: average a model's answer over them."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from seqnorm.models.base import SequenceModel
from seqnorm.models.padding import zero_padding


def reverse_complement(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Reverse complement of one-hot DNA (N, 4, L); padding stays at the end.

    Examples
    --------
    >>> x = torch.eye(4)[None, :, :3]  # ACG, one base of padding below
    >>> reverse_complement(x)[0].argmax(0).tolist()  # CGT
    [1, 2, 3]
    >>> reverse_complement(x, torch.tensor([2]))[0, :, :2].argmax(0).tolist()  # AC -> GT
    [2, 3]
    """
    # A, C, G, T stand so that turning the channels round complements them.
    if lengths is None:
        return x.flip(1, 2)
    last = lengths.to(x.device)[:, None] - 1
    index = (last - torch.arange(x.shape[-1], device=x.device)).clamp(min=0)
    turned = x.flip(1).gather(2, index[:, None, :].expand(-1, x.shape[1], -1))
    return zero_padding(turned, lengths)


class ReverseComplementAverage(nn.Module):
    """Mean of a model's logits on both strands.

    In training mode it passes the one strand through that it is given: windows are then shown
    on a random strand, which costs half as much.

    Parameters
    ----------
    model
        Takes ``(x, lengths=None)``, and has ``features`` of the same arguments if those are asked
        for.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of (N, 4, L)."""
        return self._over_strands(self.model, x, lengths)

    def features(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the model's head sees (N, F), averaged likewise: the same for both strands."""
        return self._over_strands(cast(SequenceModel, self.model).features, x, lengths)

    def _over_strands(
        self, answer: Callable[..., Tensor], x: Tensor, lengths: Tensor | None
    ) -> Tensor:
        given = answer(x, lengths)
        if self.training:
            return given
        return (given + answer(reverse_complement(x, lengths), lengths)) / 2
