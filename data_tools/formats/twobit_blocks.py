"""The sorted stretches of a 2bit record that are N, or soft-masked.

A human genome has five million of them. They stay in the file; what is held is the start of every
thousandth, so that a read finds its page by bisection, and the whole of a short table.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_tools.formats.byte_source import PlainBytes

if TYPE_CHECKING:
    from hashlib import _Hash

_PAGE = 1 << 10
_CHECKED = _PAGE << 6


class Blocks:
    """A table of starts, then of sizes, each four bytes.

    Parameters
    ----------
    place : int
        Where the table begins in the file.
    count : int
        How many blocks there are.
    order : {"<", ">"}
        The byte order of the file.
    """

    __slots__ = ("_firsts", "_kept", "_order", "_place", "count")

    def __init__(self, place: int, count: int, order: str) -> None:
        self._place, self.count, self._order = place, count, order
        self._firsts = array("q")
        self._kept: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def first_fault(self, source: PlainBytes, length: int, digest: _Hash | None) -> str:
        """Read the whole table: give what is wrong with it, or nothing; must be called first.

        Parameters
        ----------
        source : PlainBytes
            The file.
        length : int
            Bases of the record, beyond which no block may reach.
        digest : hash, optional
            Takes in the table.
        """
        firsts, reach = array("q"), 0
        for number in range(0, self.count, _CHECKED):
            starts, ends = self._read(source, number, min(number + _CHECKED, self.count), digest)
            wrong = (starts < np.append(reach, ends[:-1])) | (ends <= starts) | (ends > length)
            if wrong.any():
                i = int(wrong.argmax())
                return (
                    f"block {number + i + 1} ({starts[i]}-{ends[i]}) is empty, reaches past the "
                    f"end ({length}) or does not lie after the one before it"
                )
            firsts.extend(starts[::_PAGE].tolist())
            reach = int(ends[-1])
            if self.count <= _PAGE:
                self._kept = starts, ends
        # At once, since another thread may look for it.
        self._firsts = firsts
        return ""

    def within(self, source: PlainBytes, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Give the parts of a stretch that are in blocks, counted from the start of the stretch."""
        first = max(0, bisect_right(self._firsts, start) - 1)
        for page in range(first, bisect_left(self._firsts, end)):
            number = page * _PAGE
            starts, ends = self._kept or self._read(
                source, number, min(number + _PAGE, self.count), None
            )
            # Bisection of a thousand plain numbers is quicker than a call of NumPy.
            begin, stop = starts.data, ends.data
            for at in range(bisect_right(stop, start), bisect_left(begin, end)):
                yield max(begin[at] - start, 0), min(stop[at], end) - start

    def _read(
        self, source: PlainBytes, number: int, stop: int, digest: _Hash | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Give starts and ends of the blocks from this number on."""
        columns = []
        for place in (self._place, self._place + 4 * self.count):
            raw = source.read(place + 4 * number, place + 4 * stop)
            if digest is not None:
                digest.update(raw)
            columns.append(np.frombuffer(raw, dtype=self._order + "u4").astype(np.int64))
        starts, sizes = columns
        return starts, starts + sizes
