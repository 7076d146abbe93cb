"""A small convolutional network for DNA: motif detectors, their combinations, a global pool."""

from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.models.base import SequenceModel
from seqnorm.models.options import check_dropout, check_odd, check_sizes
from seqnorm.models.padding import check_sequences, max_pool
from seqnorm.models.placement import Placement
from seqnorm.models.pooling import GlobalPool


class CNN(SequenceModel):
    """Convolution, normalization, max-pool, ReLU, repeated; then a global pool and a linear head.

    Parameters
    ----------
    norm
        Kind of normalization, and its place: ``@input``, on the bases alone; ``@first``, after
        the first convolution alone; ``@every`` or none, after every convolution; ``@head``, after
        the last one alone. See `seqnorm.kinds.parse_choice`.
    channels
        Filters of every convolution.
    kernel_size
        Width of the first convolution in bases: a motif and some context. Odd.
    inner_kernel_size
        Width of the later convolutions. Odd.
    blocks
        Number of convolutions.
    pool
        Max-pooling between blocks.
    dropout
        Probability before the head. Never before a normalization layer: its noise would enter the
        statistics (Li et al. 2019, arXiv:1801.05134) and handicap some norms more than others.
    outputs
        Logits a sequence.
    pooling
        One of `seqnorm.models.pooling.POOLINGS`.

    Raises
    ------
    ValueError
        For an option that cannot be; names it.

    Notes
    -----
    Normalization layers draw nothing at initialization, so models built under one seed have the
    same convolution and head weights whatever their ``norm``.

    Examples
    --------
    >>> import torch
    >>> model = CNN(norm="layer", channels=8)
    >>> model(torch.zeros(2, 4, 100), lengths=torch.tensor([100, 60])).shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        norm: str = "batch",
        channels: int = 32,
        kernel_size: int = 19,
        inner_kernel_size: int = 7,
        blocks: int = 2,
        pool: int = 4,
        dropout: float = 0.0,
        outputs: int = 1,
        pooling: str = "max_mean",
    ) -> None:
        super().__init__()
        check_odd(kernel_size=kernel_size, inner_kernel_size=inner_kernel_size)
        check_sizes(channels=channels, blocks=blocks, pool=pool, outputs=outputs)
        check_dropout(dropout)
        self.pool = pool
        placement = Placement(norm)
        self.input_norm = placement.input()
        first = nn.Conv1d(4, channels, kernel_size, padding=kernel_size // 2)
        conv, first_norm = placement.first(first, last=blocks == 1)
        self.convs = nn.ModuleList([conv])
        self.norms = nn.ModuleList([first_norm])
        for block in range(1, blocks):
            size = inner_kernel_size
            self.convs.append(nn.Conv1d(channels, channels, size, padding=size // 2))
            self.norms.append(placement.later(channels, last=block == blocks - 1))
        self.pooling = GlobalPool(pooling, channels)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(self.pooling.features, outputs)

    def features(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """What the head sees (N, F) of one-hot sequences (N, 4, L)."""
        last = len(self.convs) - 1
        check_sequences(x, lengths, shortest=self.pool**last)
        x = self.input_norm(x, lengths)
        for block, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x), lengths)
            if block < last:
                # ReLU and the maximum commute, and pooled there is less to do for both.
                x, lengths = max_pool(x, self.pool, lengths)
            x = F.relu(x)
        pooled: Tensor = self.pooling(x, lengths)
        return pooled

    def extra_repr(self) -> str:
        """What the submodules do not show."""
        return f"pool={self.pool}"
