"""Random numbers that are a function of where they are used: ``(key, counter) -> 64 bits``.

A generator with a state gives each sequence its numbers in the order of the calls; a hash of the
sequence's own key and a counter gives them in any order, for thousands of sequences at once, and
adding a sequence moves nobody else's.

References
----------
Steele, Lea & Flood (2014), Fast splittable pseudorandom number generators. OOPSLA '14 (SplitMix64:
a counter times a constant, mixed by Stafford's variant 13 of MurmurHash3's finalizer).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def words(keys: Words, counters: Words) -> Words:
    """Random 64-bit words, one for each pair of a key and a counter.

    Parameters
    ----------
    keys, counters : ndarray of uint64
        Of shapes that broadcast to that of the result.

    Returns
    -------
    ndarray of uint64

    Examples
    --------
    >>> zero = np.zeros(1, dtype=np.uint64)
    >>> [hex(int(word)) for word in words(zero, np.arange(2, dtype=np.uint64))]
    ['0xe220a8397b1dcdaf', '0x6e789e6aa1b965f4']
    """
    # At least one dimension: NumPy warns of overflow in scalars, and overflow is meant.
    state = (np.atleast_1d(counters) + np.uint64(1)) * _GAMMA + np.atleast_1d(keys)
    spare = np.empty_like(state)
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        np.right_shift(state, np.uint64(shift), out=spare)
        np.bitwise_xor(state, spare, out=state)
        np.multiply(state, factor, out=state)
    np.right_shift(state, np.uint64(31), out=spare)
    np.bitwise_xor(state, spare, out=state)
    return state


def uniforms(keys: Words, counters: Words) -> NDArray[np.float64]:
    """Random numbers of [0, 1), multiples of 2**-53, one for each pair of a key and a counter.

    Examples
    --------
    >>> drawn = uniforms(np.zeros(1, dtype=np.uint64), np.arange(10_000, dtype=np.uint64))
    >>> bool(0 <= drawn.min() and drawn.max() < 1 and abs(drawn.mean() - 0.5) < 0.01)
    True
    """
    result: NDArray[np.float64] = (words(keys, counters) >> np.uint64(11)).astype(
        np.float64
    ) * 2.0**-53
    return result


def child_keys(keys: Words, labels: ArrayLike) -> Words:
    """Keys of the streams that a label opens below each key.

    Parameters
    ----------
    keys : ndarray of uint64
        Keys of the parents.
    labels : array of integers of at least 0
        Which child; keys and labels broadcast.

    Returns
    -------
    ndarray of uint64

    Examples
    --------
    >>> parents = np.arange(100, dtype=np.uint64)
    >>> len(np.unique(child_keys(parents[:, None], [0, 1])))
    200
    """
    # Mixed twice, so that a child's first word is not its parent's word at another counter.
    once = words(keys, np.asarray(labels).astype(np.uint64))
    return words(~once, np.zeros(1, dtype=np.uint64))
