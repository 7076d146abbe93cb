"""Scan windows for motifs on both strands.

A site's score is the sum of its log-odds (bits with the matrices of `data_tools.motifs`); an
ambiguous base scores as the worst base of its column.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.encode import AMBIGUOUS, as_codes
from data_tools.errors import InputError

Floats = NDArray[np.float32]

_FLOATS_AT_A_TIME = 1 << 24


class Sites(NamedTuple):
    """The best site of each motif in each window, arrays of shape (N, M).

    Attributes
    ----------
    score : numpy.ndarray of float32
        Sum of the log-odds.
    start : numpy.ndarray of int64
        Offset of its leftmost base in the window; of equal scores the first, + before -.
    reverse : numpy.ndarray of bool
        Whether it lies on the reverse strand.
    """

    score: Floats
    start: NDArray[np.int64]
    reverse: NDArray[np.bool_]


def scan(codes: NDArray[np.integer], matrices: Sequence[Floats]) -> Sites:
    """Find the best site of each of many motifs, on either strand of each window.

    All motifs are scanned together as one matrix product.

    Parameters
    ----------
    codes : ndarray of codes, shape (N, L)
        From `data_tools.encode` or `data_tools.window_codes`.
    matrices : sequence of ndarray, each of shape (4, K), 1 <= K <= L
        Log-odds; widths may differ.

    Returns
    -------
    Sites
        Scores may differ from `best_match` by rounding: the order of additions is another.

    Raises
    ------
    InputError
        For other shapes, a window shorter than a motif, or codes outside 0 to 4.

    Examples
    --------
    >>> weights = np.array([[1, -1], [-1, 1], [-1, -1], [-1, -1]], dtype=np.float32)
    >>> found = scan(np.array([[2, 2, 0, 1], [2, 3, 2, 2]], dtype=np.uint8), [weights])
    >>> found.score.tolist(), found.start.tolist(), found.reverse.tolist()
    ([[2.0], [2.0]], [[2], [0]], [[False], [True]])
    """
    windows = as_codes(codes)
    if windows.ndim != 2:
        raise InputError(f"codes have shape (N, L), got {windows.shape}")
    if not len(matrices):
        raise InputError("no motif to scan for: give at least one")
    for matrix in matrices:
        _check(windows, matrix)
    widths = np.array([matrix.shape[1] for matrix in matrices])
    weights, floor = _filters(matrices, int(widths.max()))
    count, length = windows.shape
    shape = (count, len(matrices))
    sites = Sites(np.empty(shape, np.float32), np.empty(shape, np.int64), np.empty(shape, np.bool_))
    starts = length - int(widths.min()) + 1
    rows = max(1, _FLOATS_AT_A_TIME // (starts * max(weights.shape)))
    # How far a motif may start; later starts would reach past the window.
    late = np.arange(starts)[:, None] > length - widths
    for first in range(0, count, rows):
        part = windows[first : first + rows]
        scores = _scores(part, weights, starts).reshape(len(part), starts, 2, len(matrices))
        scores += floor
        scores.transpose(0, 2, 1, 3)[:, :, late] = -np.inf
        flat = scores.reshape(len(part), 2 * starts, len(matrices))
        best = flat.argmax(axis=1)
        here = slice(first, first + len(part))
        sites.score[here] = np.take_along_axis(flat, best[:, None], axis=1)[:, 0]
        sites.start[here], sites.reverse[here] = best // 2, best % 2 == 1
    return sites


def _filters(matrices: Sequence[Floats], width: int) -> tuple[Floats, Floats]:
    """Weights above the worst base of each column, (4 * width, 2 M), and the sums of the worst."""
    weights = np.zeros((2, len(matrices), width, 4), dtype=np.float32)
    floor = np.empty(len(matrices), dtype=np.float32)
    for i, matrix in enumerate(matrices):
        worst = matrix.min(axis=0)
        above = (matrix - worst).T
        weights[0, i, : len(above)] = above
        # The reverse strand is the same scan with the matrix turned round and complemented.
        weights[1, i, : len(above)] = above[::-1, ::-1]
        floor[i] = worst.sum()
    return weights.reshape(2 * len(matrices), 4 * width).T.copy(), floor


def _scores(codes: NDArray[np.uint8], weights: Floats, starts: int) -> Floats:
    """Scores above the floor of every start, (n * starts, 2 M)."""
    width = len(weights) // 4
    padded = np.full((len(codes), starts + width - 1), AMBIGUOUS, dtype=np.uint8)
    padded[:, : codes.shape[1]] = codes[:, : padded.shape[1]]
    hot = (padded[:, :, None] == np.arange(4, dtype=np.uint8)).astype(np.float32)
    # One-hot with the base last: the bases of a site are neighbours in memory.
    flat = hot.reshape(len(codes), -1)
    views = np.lib.stride_tricks.sliding_window_view(flat, 4 * width, axis=1)[:, ::4]
    scores: Floats = np.ascontiguousarray(views).reshape(-1, 4 * width) @ weights
    return scores


def _check(codes: NDArray[np.uint8], log_odds: Floats) -> None:
    if log_odds.ndim != 2 or log_odds.shape[0] != 4 or log_odds.shape[1] == 0:
        raise InputError(f"log-odds have shape (4, K) with K >= 1, got {log_odds.shape}")
    if codes.shape[1] < log_odds.shape[1]:
        raise InputError(
            f"a window of {codes.shape[1]} bases is shorter than the motif of "
            f"{log_odds.shape[1]}; use wider windows"
        )


def best_match(codes: NDArray[np.uint8], log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Score of the best site on either strand of each window.

    Parameters
    ----------
    codes
        Base codes of shape (N, L) or (L,); an ambiguous base (4) scores as the worst base of its
        column.
    log_odds
        Matrix of shape (4, K), 1 <= K <= L.

    Returns
    -------
    numpy.ndarray
        Shape (N,), in bits.

    Raises
    ------
    InputError
        For other shapes, a window shorter than the motif, or codes outside 0 to 4.

    Examples
    --------
    >>> weights = np.array([[1, -1], [-1, 1], [-1, -1], [-1, -1]], dtype=np.float32)
    >>> best_match(np.array([[2, 0, 1, 3], [2, 2, 3, 3], [2, 2, 2, 0]], dtype=np.uint8), weights)
    array([2., 2., 0.], dtype=float32)
    """
    codes = np.atleast_2d(as_codes(codes))
    if codes.ndim != 2:
        raise InputError(f"codes have shape (N, L), got {codes.shape}")
    _check(codes, log_odds)
    extended = np.vstack([log_odds, log_odds.min(axis=0)])
    # The reverse strand is the same scan with the matrix turned round and complemented.
    reverse = np.vstack([log_odds[::-1, ::-1], extended[4:, ::-1]])
    best = np.empty(len(codes), dtype=np.float32)
    rows = max(1, 4_000_000 // codes.shape[1])
    for first in range(0, len(codes), rows):
        part = codes[first : first + rows]
        best[first : first + rows] = np.maximum(_scan(part, extended), _scan(part, reverse))
    return best


def _scan(codes: NDArray[np.uint8], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    positions = codes.shape[1] - weights.shape[1] + 1
    score = np.zeros((len(codes), positions), dtype=np.float32)
    for k in range(weights.shape[1]):
        score += weights[:, k][codes[:, k : k + positions]]
    best: NDArray[np.float32] = score.max(axis=1)
    return best
