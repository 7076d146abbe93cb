"""Four bases to a byte, the first in the highest bits, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PIECE = 1 << 16


def unpacking(bases: bytes) -> NDArray[np.uint32]:
    """Give the table from a packed byte to four bytes.

    Parameters
    ----------
    bases : bytes of length 4
        What stands for the values 0, 1, 2 and 3 of two bits.

    Returns
    -------
    ndarray of uint32, shape (256,)

    Examples
    --------
    >>> unpacking(b"ACGT")[0b00_01_10_11].tobytes()
    b'ACGT'
    """
    values = (np.arange(256)[:, None] >> np.array([6, 4, 2, 0])) & 3
    table: NDArray[np.uint32] = np.frombuffer(bases, dtype=np.uint8)[values].view(np.uint32)
    return table.ravel()


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
    # Shifts each of the four bytes to its place in the highest, and nothing else there.
    product = padded.view("<u4") * np.uint32(1 << 30 | 1 << 20 | 1 << 10 | 1)
    return (product >> np.uint32(24)).astype(np.uint8)


def unpack(packed: NDArray[np.uint8], table: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Unpack bytes through a table of `unpacking`.

    Parameters
    ----------
    packed : ndarray of uint8, shape (..., K)
        Contiguous.
    table : ndarray of uint32, shape (256,)

    Returns
    -------
    ndarray of uint8, shape (..., 4 * K)

    Examples
    --------
    >>> unpack(np.array([[0b00_01_10_11]], dtype=np.uint8), unpacking(b"ACGT")).tobytes()
    b'ACGT'
    """
    out = np.empty(packed.shape, dtype=np.uint32)
    flat, unpacked = packed.reshape(-1), out.reshape(-1)
    # In pieces: an array that is an index takes eight bytes per element on the way.
    for lo in range(0, len(flat), _PIECE):
        np.take(table, flat[lo : lo + _PIECE], out=unpacked[lo : lo + _PIECE], mode="clip")
    return out.view(np.uint8)
