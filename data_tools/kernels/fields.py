"""Fields of rows of text found and read, for `data_tools.formats.fields`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_tools.kernels.library import loaded

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


def plain(data: bytes) -> bool:
    r"""Whether this is ASCII with no control characters but tabs and line feeds.

    Examples
    --------
    >>> from data_tools.kernels import available
    >>> if available():
    ...     assert plain(b"a\tb\n") and not plain(b"a\r\n") and not plain(b"\xc3\xa4")
    """
    return not loaded().dt_unsound(data, len(data))


def find_fields(letters: Bytes, rows: int, columns: int) -> tuple[Ints, Ints] | None:
    r"""Where the fields of text lie, (columns, rows) each; None unless every row has them all.

    Parameters
    ----------
    letters : ndarray of uint8
        Whole lines of sound text, in which nothing but tabs lies below line feeds.
    rows, columns : int
        How many lines there are, and fields in each.

    Examples
    --------
    >>> from data_tools.kernels import available
    >>> if available():
    ...     found = find_fields(np.frombuffer(b"a\tbc\n", np.uint8), 1, 2)
    ...     assert [part.tolist() for part in found] == [[[0], [2]], [[1], [4]]]
    """
    starts, ends = (np.empty((columns, rows), dtype=np.int64) for _ in range(2))
    places = (starts.ctypes.data, ends.ctypes.data)
    wrong = loaded().dt_fields(letters.ctypes.data, len(letters), rows, columns, *places)
    return None if wrong else (starts, ends)


def integers(letters: Bytes, starts: Ints, ends: Ints, longest: int, signed: bool) -> Ints | None:
    """Integers of at most `longest` digits (16 or fewer); None unless all fields are such."""
    out = np.empty(len(starts), dtype=np.int64)
    places = (letters.ctypes.data, starts.ctypes.data, ends.ctypes.data, len(starts))
    return None if loaded().dt_integers(*places, longest, signed, out.ctypes.data) else out


def decimals(
    letters: Bytes, starts: Ints, ends: Ints
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Decimals of at most 15 digits, correctly rounded, and which fields are such."""
    out = np.empty(len(starts))
    known = np.empty(len(starts), dtype=np.bool_)
    places = (letters.ctypes.data, starts.ctypes.data, ends.ctypes.data, len(starts))
    loaded().dt_decimals(*places, out.ctypes.data, known.ctypes.data)
    return out, known


def joined(letters: Bytes, starts: Ints, ends: Ints) -> tuple[bytes, Ints]:
    """The fields one after the other, and where each begins and ends, (rows + 1)."""
    out = np.empty(int((ends - starts).sum()), dtype=np.uint8)
    bounds = np.empty(len(starts) + 1, dtype=np.int64)
    places = (letters.ctypes.data, starts.ctypes.data, ends.ctypes.data, len(starts))
    loaded().dt_joined(*places, out.ctypes.data, bounds.ctypes.data)
    return out.tobytes(), bounds
