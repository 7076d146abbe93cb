"""A small convolutional network for DNA: motif detectors, their combinations, a global pool."""

from torch import Tensor, nn
from torch.nn import functional as F

from seqnorm.layers import make_norm
from seqnorm.models.options import check_dropout, check_odd, check_sizes
from seqnorm.models.padding import check_sequences, global_pool, max_pool, zero_padding


class CNN(nn.Module):
    """Convolution, normalization, max-pool, ReLU, repeated; then a global pool and a linear head.

    Parameters
    ----------
    norm
        Kind of normalization after every convolution; see `seqnorm.make_norm`.
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
    ) -> None:
        super().__init__()
        check_odd(kernel_size=kernel_size, inner_kernel_size=inner_kernel_size)
        check_sizes(channels=channels, blocks=blocks, pool=pool, outputs=outputs)
        check_dropout(dropout)
        self.pool = pool
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        for block in range(blocks):
            inputs, size = (channels, inner_kernel_size) if block else (4, kernel_size)
            self.convs.append(nn.Conv1d(inputs, channels, size, padding=size // 2))
            self.norms.append(make_norm(norm, channels))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * channels, outputs)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits of one-hot sequences.

        Parameters
        ----------
        x
            Shape (N, 4, L).
        lengths
            Valid bases of each sequence, integers of shape (N,), where the batch is padded at
            the end.

        Returns
        -------
        Tensor
            Shape (N, outputs).

        Raises
        ------
        ValueError
            For another shape, or a sequence too short for the pooling.
        """
        last = len(self.convs) - 1
        check_sequences(x, lengths, shortest=self.pool**last)
        x = zero_padding(x, lengths)
        for block, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x), lengths)
            if block < last:
                # ReLU and the maximum commute, and pooled there is less to do for both.
                x, lengths = max_pool(x, self.pool, lengths)
            x = F.relu(x)
        logits: Tensor = self.head(self.dropout(global_pool(x, lengths)))
        return logits

    def extra_repr(self) -> str:
        """What the submodules do not show."""
        return f"pool={self.pool}"
