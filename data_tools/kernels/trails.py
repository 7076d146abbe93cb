"""Edges counted and trails walked, for `data_tools.eulerian`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.kernels.library import loaded


def count_edges(
    kmers: NDArray[Any], edges: NDArray[np.int64], numbers: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Count the edges of graphs by their number, and find one of each.

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
    counts, slots : ndarray of int32, shape (T, numbers)
        How often each occurs, and where in its row the last one stands (0 if there is none).

    Raises
    ------
    RuntimeError
        If the library is not there, or a number is too large.

    Examples
    --------
    >>> from data_tools.kernels import available
    >>> if available():
    ...     found = count_edges(np.array([[1, 0, 1]], np.uint8), np.array([3]), 2)
    ...     assert [part.tolist() for part in found] == [[[1, 2]], [[1, 2]]]
    """
    library = loaded()
    _check_types(kmers)
    kmers, edges = np.ascontiguousarray(kmers), np.ascontiguousarray(edges, np.int64)
    counts, slots = (np.empty((len(kmers), numbers), dtype=np.int32) for _ in range(2))
    tables = [array.ctypes.data for array in (edges, counts, slots)]
    shape = (*kmers.shape, numbers)
    if library.dt_count(kmers.ctypes.data, kmers.dtype.itemsize, *tables, *shape):
        raise RuntimeError("an edge has a number that is too large")
    return counts, slots


def _check_types(small: NDArray[Any]) -> None:
    if small.ndim != 2 or small.dtype not in (np.uint8, np.uint16):
        raise RuntimeError(f"expected bytes or pairs of them, (R, W), not {small.dtype}")


def walk(
    order: NDArray[Any],
    starts: NDArray[np.int32],
    graph: NDArray[np.int64],
    first: NDArray[np.int64],
    edges: NDArray[np.int64],
) -> NDArray[Any]:
    """Walk many trails, each vertex's edges taken in their order; see `data_tools.eulerian`.

    Parameters
    ----------
    order : ndarray of uint8 or uint16, shape (R, W)
        Targets of the edges of each trail, by source, in the order in which they are taken.
    starts : ndarray of int32, shape (T, V)
        Where in its row the edges out of a vertex begin.
    graph : ndarray of int64, shape (R,)
        Which graph a trail runs through.
    first : ndarray of int64, shape (T,)
        Where each graph's trails begin.
    edges : ndarray of int64, shape (R,)
        How many edges a trail takes.

    Returns
    -------
    ndarray, shape (R, W)
        Vertices after the first; beyond a trail's end, 0.

    Raises
    ------
    RuntimeError
        If the library is not there, or an edge lies outside its row.
    """
    library = loaded()
    _check_types(order)
    out = np.zeros_like(order, order="C")
    order, starts = np.ascontiguousarray(order), np.ascontiguousarray(starts, np.int32)
    long = [np.ascontiguousarray(array, np.int64) for array in (graph, first, edges)]
    every: list[NDArray[Any]] = [starts, *long, out]
    tables = [array.ctypes.data for array in every]
    shape = (*order.shape, starts.shape[1])
    if library.dt_walk(order.ctypes.data, order.dtype.itemsize, *tables, *shape):
        raise RuntimeError("the edges of a trail do not fit its graph")
    return out
