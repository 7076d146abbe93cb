"""Lines of letters as codes, and windows gathered from codes, for `data_tools.genome`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_tools.kernels.library import loaded

Bytes = NDArray[np.uint8]


def line_codes(
    raw: bytes, column: int, width: int, line_end: bytes, table: bytes, count: int
) -> Bytes | None:
    r"""Codes of letters that stand in lines; None unless lines end just where they should.

    Parameters
    ----------
    raw : bytes
        Text that begins in ``column`` of a line of ``width`` letters.
    column, width : int
    line_end : bytes
        What stands between two lines.
    table : bytes
        Code of each letter by its number, above 4 for an illegal one.
    count : int
        How many letters there must be.

    Examples
    --------
    >>> from data_tools.encode import CODE_TABLE
    >>> from data_tools.kernels import available
    >>> if available():
    ...     assert line_codes(b"AC\nGTn", 2, 4, b"\n", CODE_TABLE, 5).tolist() == [0, 1, 2, 3, 4]
    ...     assert line_codes(b"ACGTn", 2, 4, b"\n", CODE_TABLE, 5) is None
    """
    letters, ends = np.frombuffer(raw, np.uint8), np.frombuffer(line_end, np.uint8)
    codes, out = np.frombuffer(table, np.uint8), np.empty(count, dtype=np.uint8)
    places = (letters.ctypes.data, len(raw), column, width, ends.ctypes.data, len(line_end))
    wrong = loaded().dt_codes(*places, codes.ctypes.data, out.ctypes.data, count)
    return None if wrong else out


def gather(codes: Bytes, offsets: NDArray[np.int64], out: Bytes, rows: NDArray[np.int64]) -> None:
    """Copy the windows at these offsets of the codes into these rows of ``out`` (N, width).

    Raises
    ------
    RuntimeError
        If the library is not there, or a window or row lies outside.
    """
    offsets, rows = (np.ascontiguousarray(array, np.int64) for array in (offsets, rows))
    if not (out.flags.c_contiguous and codes.flags.c_contiguous and len(offsets) == len(rows)):
        raise RuntimeError("arrays must be contiguous, with one row for each offset")
    places = (codes.ctypes.data, len(codes), offsets.ctypes.data, rows.ctypes.data, len(rows))
    if loaded().dt_gather(*places, out.shape[1], out.ctypes.data, len(out)):
        raise RuntimeError("a window or a row lies outside its array")
