"""Edges counted, and random trails drawn and walked, for `data_tools.eulerian`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.kernels.library import loaded

_TOGETHER = 4
"""Trails that the library walks side by side."""


def count_edges(kmers: NDArray[Any], edges: NDArray[np.int64], numbers: int) -> NDArray[np.int32]:
    """Count the edges of graphs by their number.

    Parameters
    ----------
    kmers : ndarray of uint8 or uint16, shape (T, W)
        The edges of each graph by their number.
    edges : ndarray of int64, shape (T,)
        How many of a row count.
    numbers : int
        One more than the largest number.

    Returns
    -------
    ndarray of int32, shape (T, numbers)

    Raises
    ------
    RuntimeError
        If the library is not there, or a number is too large.

    Examples
    --------
    >>> from data_tools.kernels import available
    >>> if available():
    ...     found = count_edges(np.array([[1, 0, 1]], np.uint8), np.array([3]), 2)
    ...     assert found.tolist() == [[1, 2]]
    """
    library = loaded()
    if kmers.ndim != 2 or kmers.dtype not in (np.uint8, np.uint16):
        raise RuntimeError(f"expected bytes or pairs of them, (T, W), not {kmers.dtype}")
    kmers, edges = np.ascontiguousarray(kmers), np.ascontiguousarray(edges, np.int64)
    counts = np.empty((len(kmers), numbers), dtype=np.int32)
    shape = (*kmers.shape, numbers)
    tables = (edges.ctypes.data, counts.ctypes.data)
    if library.dt_count(kmers.ctypes.data, kmers.dtype.itemsize, *tables, *shape):
        raise RuntimeError("an edge has a number that is too large")
    return counts


def draw_trails(
    counts: NDArray[np.int32],
    edges: NDArray[np.int64],
    first: NDArray[np.int64],
    rows: NDArray[np.int64],
    exits: NDArray[np.uint8],
    keys: NDArray[np.uint64],
) -> NDArray[np.uint8]:
    """Put each vertex's edges in random order before its last exit, and walk.

    Parameters
    ----------
    counts : ndarray of int32, shape (T, V, 4)
        Edges of each graph by source and letter.
    edges, first : ndarray of int64, shape (T,)
        Edges of each graph, and where its trails begin.
    rows : ndarray of int64, shape (R,)
        Which graph a trail runs through.
    exits : ndarray of uint8, shape (R, V)
        Letter of each vertex's last exit, 4 for none.
    keys : ndarray of uint64, shape (R,)
        Of each trail's random numbers.

    Returns
    -------
    ndarray of uint8, shape (R, E)
        Letters of the steps, E the most edges; beyond a trail's end, 0.

    Raises
    ------
    RuntimeError
        If the library is not there, or the numbers do not make trails.
    """
    library = loaded()
    width = int(edges.max(initial=0))
    out = np.zeros((len(rows), width), dtype=np.uint8)
    graphs: list[NDArray[Any]] = [np.ascontiguousarray(counts, np.int32)]
    graphs += [np.ascontiguousarray(array, np.int64) for array in (edges, first)]
    trails: list[NDArray[Any]] = [np.ascontiguousarray(rows, np.int64)]
    trails += [np.ascontiguousarray(exits, np.uint8), np.ascontiguousarray(keys, np.uint64)]
    trails += [out, np.empty((_TOGETHER, width), dtype=np.uint8)]
    wrong = library.dt_trails(
        *[array.ctypes.data for array in graphs],
        counts.shape[1],
        *[array.ctypes.data for array in trails],
        *out.shape,
    )
    if wrong:
        raise RuntimeError("the edges of a trail do not fit its graph")
    return out
