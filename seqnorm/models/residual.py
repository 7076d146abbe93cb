"""A dilated residual network for DNA: motif detectors, then blocks that look ever further.

References
----------
Avsec et al. (2021), BPNet: base-resolution models of transcription-factor binding, Nature
Genetics 53, 354-366, doi:10.1038/s41588-021-00782-6, whose trunk this is.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.models.base import SequenceModel
from seqnorm.models.options import check_dropout, check_odd, check_sizes
from seqnorm.models.padding import check_sequences
from seqnorm.models.placement import Placement
from seqnorm.models.pooling import GlobalPool


class ResidualCNN(SequenceModel):
    """A convolution, residual blocks of doubling dilation, a global pool and a linear head.

    ``x = x + relu(norm(conv(x)))`` in block i = 1, 2, ..., whose taps lie ``2 ** i`` bases apart;
    every base keeps its position until the pool. With the defaults a position sees 143 bases.

    Parameters
    ----------
    norm
        Kind of normalization, and its place: ``@input``, on the bases alone; ``@first``, after
        the first convolution alone; ``@every`` or none, after every convolution and on the sum
        of all before the pool; ``@head``, on that sum alone. See `seqnorm.kinds.parse_choice`.
    channels
        Filters of every convolution.
    kernel_size
        Width of the first convolution in bases: a motif and some context. Odd.
    inner_kernel_size
        Taps of the dilated convolutions. Odd.
    blocks
        Number of residual blocks.
    dropout
        Probability before the head, and nowhere else.
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
    >>> import torch
    >>> model = ResidualCNN(norm="layer", channels=8, blocks=3)
    >>> model(torch.zeros(2, 4, 100), lengths=torch.tensor([100, 60])).shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        norm: str = "batch",
        channels: int = 32,
        kernel_size: int = 19,
        inner_kernel_size: int = 3,
        blocks: int = 5,
        dropout: float = 0.0,
        outputs: int = 1,
        pooling: str = "max_mean",
    ) -> None:
        super().__init__()
        check_odd(kernel_size=kernel_size, inner_kernel_size=inner_kernel_size)
        check_sizes(channels=channels, blocks=blocks, outputs=outputs)
        check_dropout(dropout)
        placement = Placement(norm)
        self.input_norm = placement.input()
        stem = nn.Conv1d(4, channels, kernel_size, padding=kernel_size // 2)
        self.stem, self.stem_norm = placement.first(stem)
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for block in range(1, blocks + 1):
            options = {"dilation": 2**block, "padding": inner_kernel_size // 2 * 2**block}
            self.convs.append(nn.Conv1d(channels, channels, inner_kernel_size, **options))
            self.norms.append(placement.later(channels))
        self.final_norm = placement.later(channels, last=True)
        self.pooling = GlobalPool(pooling, channels)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.pooling.features, outputs)

    def features(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head sees (N, F) of one-hot sequences (N, 4, L)."""
        check_sequences(x, lengths, shortest=1)
        x = self.input_norm(x, lengths)
        # Every norm leaves the padding zero, so a convolution sees there what lies beyond the end.
        x = F.relu(self.stem_norm(self.stem(x), lengths))
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + F.relu(norm(conv(x), lengths))
        pooled: Tensor = self.pooling(F.relu(self.final_norm(x, lengths)), lengths)
        return pooled
