"""Four bases to a byte, the first in the highest bits, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PIECE = 1 << 15
# A byte times this is four copies of it, ten bits apart: two bits of each then stand at the
# beginning of a byte of their own. Four bytes of two bits times this have them side by side.
_FOUR_TIMES = np.uint32(1 << 30 | 1 << 20 | 1 << 10 | 1)


def pack(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pack values of two bits; what is lacking in the last byte of a row is 0.

    Parameters
    ----------
    values : ndarray of uint8, shape (N, L)
        0 to 3.

    Returns
    -------
    ndarray of uint8, shape (N, ceil(L / 4))

    Examples
    --------
    >>> pack(np.array([[0, 1, 2, 3, 3]], dtype=np.uint8)).tolist() == [[0b00_01_10_11, 0b11_000000]]
    True
    """
    rows, length = values.shape
    padded = np.zeros((rows, -(-length // 4) * 4), dtype=np.uint8)
    padded[:, :length] = values
    return ((padded.view("<u4") * _FOUR_TIMES) >> np.uint32(24)).astype(np.uint8)


def unpack(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give the values of two bits, the inverse of `pack`.

    Parameters
    ----------
    packed : ndarray of uint8, shape (..., K)
        Contiguous.

    Returns
    -------
    ndarray of uint8, shape (..., 4 * K)
        0 to 3.

    Examples
    --------
    >>> unpack(np.array([[0b00_01_10_11]], dtype=np.uint8)).tolist()
    [[0, 1, 2, 3]]
    """
    out = np.empty(packed.shape, dtype="<u4")
    flat, unpacked = packed.reshape(-1), out.reshape(-1)
    # In pieces that the cache holds.
    for lo in range(0, len(flat), _PIECE):
        piece = unpacked[lo : lo + _PIECE]
        np.multiply(flat[lo : lo + _PIECE], _FOUR_TIMES, out=piece, dtype=np.uint32)
        piece >>= np.uint32(6)
        piece &= np.uint32(0x03030303)
    return out.view(np.uint8)
