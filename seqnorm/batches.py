"""Labelled windows as tensors: one byte a base at rest, one-hot a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


def one_hot(codes: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Expand base codes on the device where they lie.

    Parameters
    ----------
    codes
        Integer codes of shape (N, L): A, C, G, T = 0..3, anything else ambiguous.
    dtype
        Of the result.

    Returns
    -------
    Tensor
        Shape (N, 4, L); an ambiguous base is a column of zeros.

    Raises
    ------
    ValueError
        For codes that are not two-dimensional.

    Examples
    --------
    >>> one_hot(torch.tensor([[0, 3, 4]], dtype=torch.uint8))[0].T.tolist()
    [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]
    """
    if codes.ndim != 2:
        raise ValueError(f"codes must have shape (N, L), got {tuple(codes.shape)}")
    bases = torch.arange(4, dtype=codes.dtype, device=codes.device)
    return (codes[:, None, :] == bases[None, :, None]).to(dtype)


@dataclass(frozen=True, eq=False)
class EpochDraw:
    """What chance decides of one training epoch: a function of seed and epoch alone.

    It is drawn at once for all windows, so that whoever needs some of them, a worker or a whole
    epoch, finds the same.

    Attributes
    ----------
    order : Tensor
        int64 of shape (N,): the windows as they are shown.
    shift : Tensor
        int64 of shape (N,): of each window, where in its margins it begins, 0 to 2 * margin.
    reverse : Tensor
        bool of shape (N,): whether it is shown as its reverse complement.
    """

    order: Tensor
    shift: Tensor
    reverse: Tensor

    @classmethod
    def of(cls, count: int, margin: int, seed: int, epoch: int) -> "EpochDraw":
        """Draw for ``count`` windows."""
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        return cls(
            torch.randperm(count, generator=generator),
            torch.randint(0, 2 * margin + 1, (count,), generator=generator),
            torch.rand(count, generator=generator) < 0.5,
        )

    def applied(
        self, codes: Tensor, index: Tensor, width: int, device: torch.device | str = "cpu"
    ) -> Tensor:
        """Show the windows at an index, given by their codes, as drawn.

        Parameters
        ----------
        codes
            uint8 of shape (n, width + 2 * margin), of the windows at ``index``.
        index
            int64 of shape (n,).
        width
            Width of a window without its margins.
        device
            Of the result.

        Returns
        -------
        Tensor
            One-hot of shape (n, 4, width).
        """
        shifted = codes.gather(1, self.shift[index, None] + torch.arange(width))
        x = one_hot(shifted.to(device))
        flip = self.reverse[index].to(device)
        # A, C, G, T stand so that turning both axes round is the reverse complement.
        return torch.where(flip[:, None, None], x.flip(1, 2), x)


@dataclass(frozen=True, eq=False)
class LabelledWindows:
    """Windows of equal width with binary labels.

    Attributes
    ----------
    codes : Tensor
        uint8 codes of shape (N, width + 2 * margin).
    labels : Tensor
        float32 of shape (N,), 0 or 1.
    margin : int
        Bases on both sides of a window that are kept for jitter.

    Raises
    ------
    ValueError
        For a wrong shape or type, or a margin that leaves no window.
    """

    codes: Tensor
    labels: Tensor
    margin: int = 0

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or self.codes.dtype != torch.uint8:
            raise ValueError(
                "codes must be uint8 of shape (N, width + 2 * margin), got "
                f"{self.codes.dtype} of shape {tuple(self.codes.shape)}"
            )
        if self.labels.ndim != 1 or self.labels.dtype != torch.float32:
            raise ValueError(
                f"labels must be float32 of shape (N,), got {self.labels.dtype} of shape "
                f"{tuple(self.labels.shape)}; pass labels.float().flatten()"
            )
        if len(self.codes) != len(self.labels):
            raise ValueError(
                f"{len(self.codes)} windows but {len(self.labels)} labels; give one label each"
            )
        if self.margin < 0 or self.width < 1:
            raise ValueError(
                f"codes of {self.codes.shape[1]} bases hold no window with a margin of "
                f"{self.margin} on both sides"
            )

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def width(self) -> int:
        """Width of a window in bases, without the margins."""
        return self.codes.shape[1] - 2 * self.margin

    def shuffled(
        self, batch_size: int, seed: int, epoch: int, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one training epoch: shuffled, jittered, on a random strand.

        Order, shift and strand of a window depend on seed, epoch, its index and the number of
        windows alone, so that two models trained with one seed see the same batches. The last,
        smaller batch is kept unless it holds a single window, whose batch statistics would be
        those of one sequence.

        Yields
        ------
        one_hot : Tensor
            Shape (n, 4, width).
        labels : Tensor
            Shape (n,).

        Raises
        ------
        ValueError
            For a batch size below 1.
        """
        _check_batch_size(batch_size)
        draw = EpochDraw.of(len(self), self.margin, seed, epoch)
        for first in range(0, len(self), batch_size):
            index = draw.order[first : first + batch_size]
            if len(index) == 1 < batch_size and len(self) > 1:
                return
            x = draw.applied(self.codes[index], index, self.width, device)
            yield x, self.labels[index].to(device)

    def in_order(
        self, batch_size: int, device: torch.device | str = "cpu"
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in the order of the table, unshifted, on the given strand."""
        _check_batch_size(batch_size)
        centre = slice(self.margin, self.margin + self.width)
        for first in range(0, len(self), batch_size):
            part = slice(first, first + batch_size)
            yield one_hot(self.codes[part, centre].to(device)), self.labels[part].to(device)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"the batch size must be at least 1, not {batch_size}")
