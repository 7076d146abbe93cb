"""Shuffles of DNA that keep the exact count of every k-mer, uniform over all such sequences.

A background of dinucleotide shuffles has the base composition, the CpG content and the nearest
neighbours of its sequences, and none of their motifs. See `data_tools.eulerian` for how they are
drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_tools.counter_random import Words, child_keys
from data_tools.encode import AMBIGUOUS, Codes, as_codes
from data_tools.errors import InputError
from data_tools.eulerian import Graphs, graphs, random_trails

IntArray = NDArray[np.int64]

LONGEST_WORD = 6
"""Largest k: the graph of a sequence has 4 ** (k - 1) vertices."""

_BLOCK = 1 << 22
"""Bases, or vertices, of trails that are drawn together: some 100 MB of working memory."""


def kmer_shuffle(
    codes: NDArray[np.integer[Any]],
    k: int = 2,
    count: int = 1,
    seed: int = 0,
    streams: ArrayLike | None = None,
) -> Codes:
    """Shuffle sequences so that every k-mer occurs exactly as often as before.

    Each result is uniform over all distinct sequences with the same k-mer counts, hence the same
    counts of all shorter words but for those at the ends, and the same first and last k-1
    letters.

    Parameters
    ----------
    codes : ndarray of codes, shape (N, L)
        Ambiguous bases (4) stay in place, and each stretch between them is shuffled for itself,
        so that k-mers are counted within stretches. Pad shorter sequences with 4.
    k : int, default 2
        Length of the words, 1 to 6: 1 keeps the bases, 2 the dinucleotides, 3 the trinucleotides.
    count : int, default 1
        Shuffles of each sequence, drawn independently.
    seed : int, default 0
        Of the draw.
    streams : array of int, shape (N,), optional
        Numbers, 0 or more, that name the sequences' random streams; 0, 1, ... unless given. A
        shuffle depends on seed, k, its sequence, its stream and its number alone, so that
        neither the other sequences nor ``count`` move it.

    Returns
    -------
    ndarray of uint8, shape (N, count, L)
        Beyond it, memory stays within some 100 MB, or some 10 bytes a base of the longest
        stretch where that is more (30 where there are no compiled loops).

    Raises
    ------
    InputError
        For other shapes or values.

    Notes
    -----
    A sequence may come back unchanged, above all a short or repetitive one, of which few others
    or none have the same counts: a shuffle that avoided that would not be uniform.

    References
    ----------
    Altschul & Erickson (1985), Mol. Biol. Evol. 2, 526-538.

    Examples
    --------
    >>> from data_tools.encode import decode, encode
    >>> shuffled = kmer_shuffle(encode("ACGATTACAGGCATNNACGGTCA")[None], seed=2)
    >>> decode(shuffled[0, 0])
    'ACAGGCATTACGATNNACGGTCA'
    """
    checked = as_codes(codes)
    if checked.ndim != 2:
        raise InputError(f"codes have shape (N, L), got {checked.shape}")
    check_numbers(k, count, seed)
    root = np.array([seed], dtype=np.uint64)
    keys = child_keys(root, _checked_streams(streams, len(checked)))
    out = np.repeat(checked[:, None], count, axis=1)
    sequence, start, length = _stretches(checked, k)
    for lo, hi in _blocks(length, k):
        _shuffle_stretches(checked, out, (sequence[lo:hi], start[lo:hi], length[lo:hi]), k, keys)
    return out


def check_numbers(k: int, count: int, seed: int) -> None:
    """Raise `InputError` unless these are what `kmer_shuffle` takes."""
    if not 1 <= k <= LONGEST_WORD:
        raise InputError(f"k must be 1 to {LONGEST_WORD}, not {k}")
    if count < 1:
        raise InputError(f"the number of shuffles must be at least 1, not {count}")
    if not 0 <= seed < 1 << 64:
        raise InputError(f"the seed must be 0 or more and below 2**64, not {seed}")


def _checked_streams(streams: ArrayLike | None, number: int) -> NDArray[np.integer[Any]]:
    array = np.arange(number) if streams is None else np.asarray(streams)
    if array.shape != (number,) or array.dtype.kind not in "iu":
        raise InputError(
            f"streams are integers of shape ({number},), one a sequence, got {array.dtype} of "
            f"shape {array.shape}"
        )
    if array.size and array.min() < 0:
        raise InputError(f"streams must be 0 or more, not {array.min()}")
    return array


def _stretches(codes: Codes, k: int) -> tuple[IntArray, IntArray, IntArray]:
    """Sequence, start and length of the stretches without N, the longest first.

    Those of one length and start follow each other. Stretches that have but one order are left
    out.
    """
    fence = np.zeros((len(codes), codes.shape[1] + 1), dtype=np.bool_)
    np.less(codes, AMBIGUOUS, out=fence[:, :-1])
    # Each sequence ends with a fence, so that starts and ends take turns.
    change = np.flatnonzero(np.diff(fence.ravel(), prepend=False))
    sequence, start = np.divmod(change[::2], fence.shape[1])
    length = change[1::2] - change[::2]
    order = np.lexsort((sequence, start, -length))
    order = order[length[order] > max(k, 1)]
    return sequence[order], start[order], length[order]


def _blocks(length: IntArray, k: int) -> Iterator[tuple[int, int]]:
    """Runs of stretches whose graphs are held together."""
    lo = 0
    while lo < len(length):
        hi = lo + max(1, _BLOCK // max(int(length[lo]), 4**k))
        yield lo, min(hi, len(length))
        lo = hi


def _shuffle_stretches(
    codes: Codes, out: Codes, places: tuple[IntArray, IntArray, IntArray], k: int, keys: Words
) -> None:
    """Write all shuffles of these stretches into out."""
    sequence, start, length = places
    letters = np.zeros((len(length), int(length[0])), dtype=np.uint8)
    for lo, hi, begin, size in _alike(start, length):
        letters[lo:hi, :size] = codes[sequence[lo:hi], begin : begin + size]
    graph = graphs(letters, length, k)
    count = out.shape[1]
    step = max(1, _BLOCK // (max(int(length[0]), 4**k) * len(length)))
    for first in range(0, count, step):
        numbers = np.arange(first, min(first + step, count))
        own = child_keys(child_keys(keys[sequence], start)[:, None], numbers)
        trails = _trails(graph, own)
        for lo, hi, begin, size in _alike(start, length):
            stretch = slice(begin + k - 1, begin + size)
            out[sequence[lo:hi, None], numbers, stretch] = trails[lo:hi, :, : size - k + 1]


def _trails(graph: Graphs, keys: Words) -> Codes:
    """Letters of the trails with these keys (T, S), as (T, S, E)."""
    rows = np.repeat(np.arange(len(keys)), keys.shape[1])
    return random_trails(graph, rows, keys.ravel()).reshape(*keys.shape, -1)


def _alike(start: IntArray, length: IntArray) -> Iterator[tuple[int, int, int, int]]:
    """Runs (lo, hi) of stretches of one start and length, with both."""
    differ = (np.diff(start) != 0) | (np.diff(length) != 0)
    cuts = [0, *(np.flatnonzero(differ) + 1).tolist(), len(start)]
    for lo, hi in pairwise(cuts):
        yield lo, hi, int(start[lo]), int(length[lo])
