"""Where the lines of a FASTA record lie; of many short ones, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.encode import LETTERS
from data_tools.formats.byte_source import PlainBytes

_LINE_CHECKED = 1 << 16
_AHEAD = 1 << 16
_TAB, _NEWLINE, _RETURN, _SPACE = 9, 10, 13, 32

Ints = NDArray[np.intp]


class Record(NamedTuple):
    """The layout of one record. Offsets are in bytes of the uncompressed file."""

    name: str
    length: int
    offset: int
    width: int
    stride: int
    header: str

    @property
    def line_end(self) -> bytes:
        """What ends the lines of this record."""
        return b"\r\n" if self.stride - self.width == 2 else b"\n"

    def stands_in(self, read: Callable[[int, int], bytes]) -> bool:
        """Tell whether the header line and the first line are where this record says."""
        head = self.header.encode("latin-1")
        start = self.offset - len(head)
        before = b"\n" if start else b""
        if read(start - len(before), self.offset) != before + head:
            return False
        first_end = self.offset + min(self.width, self.length)
        # A chromosome on one line would be read whole: its line ends are checked at each read.
        if first_end - self.offset <= _LINE_CHECKED and read(self.offset, first_end).translate(
            None, LETTERS
        ):
            return False
        line_end = self.line_end if self.length > self.width else b""
        return read(first_end, first_end + len(line_end)) == line_end


def all_stand_in(source: PlainBytes, records: Iterable[Record]) -> bool:
    """Tell whether the header line and the first line of all records are where they say."""
    read = _Ahead(source).read
    return all(record.stands_in(read) for record in records)


class _Ahead:
    """Reads of a file from front to end, short ones out of what was read ahead."""

    def __init__(self, source: PlainBytes) -> None:
        self._source, self._start, self._held = source, 0, b""

    def read(self, start: int, stop: int) -> bytes:
        """Give the bytes from start to stop, all of them."""
        at = start - self._start
        if not 0 <= at <= stop - self._start <= len(self._held):
            self._held = self._source.read(start, max(stop, min(start + _AHEAD, self._source.size)))
            self._start, at = start, 0
        return self._held[at : at + stop - start]


def short_records(
    data: bytes,
    letters: NDArray[np.uint8],
    lines: tuple[Ints, Ints],
    heads: Ints,
    bases: Ints,
    returns: NDArray[np.bool_],
    base: int,
) -> list[Record]:
    """Give the records of a chunk but the last, which may go on; none unless all are sound.

    Parameters
    ----------
    data, letters
        A chunk whose lines of sequence hold legal letters only.
    lines : pair of ndarray of int, shape (L,)
        Where each of its lines starts and ends.
    heads : ndarray of int, shape (R,)
        Which lines are headers.
    bases, returns : ndarray, shape (L,)
        How many letters each line holds, and whether a carriage return ends it.
    base : int
        Where the chunk begins in the file.
    """
    ends, first, last = lines[1], heads[0], heads[-1]
    counts = np.diff(heads) - 1
    if not counts.all():
        return []
    body = np.ones(last - first, dtype=bool)
    body[heads[:-1] - first] = False
    sizes, cut = bases[first:last][body], returns[first:last][body]
    at = np.cumsum(counts) - counts
    widths, ends_cut = sizes[at], cut[at]
    # All lines of a record are as wide as its first, but the last, which may be shorter.
    shorter = np.repeat(widths, counts) - sizes
    finals = at + counts - 1
    odd = np.count_nonzero(shorter) - np.count_nonzero(shorter[finals])
    if odd or (shorter[finals] < 0).any() or not sizes.all():
        return []
    if (np.repeat(ends_cut, counts) != cut).any() or _has_control(letters, ends, returns):
        return []
    starts, stops = lines[0][heads[:-1]], ends[heads[:-1]]
    blanks = np.flatnonzero((letters == _SPACE) | (letters == _TAB))
    bound = np.append(blanks, len(data))[np.searchsorted(blanks, starts)]
    name_ends = np.minimum(bound, stops - returns[heads[:-1]])
    if (name_ends <= starts + 1).any():
        return []
    text = data.decode("latin-1")
    names = [text[a:b] for a, b in zip((starts + 1).tolist(), name_ends.tolist(), strict=True)]
    if not all(map(str.isascii, names)):
        return []
    headers = [text[a:b] for a, b in zip(starts.tolist(), (stops + 1).tolist(), strict=True)]
    columns = (np.add.reduceat(sizes, at), stops + 1 + base, widths, widths + 1 + ends_cut)
    return list(map(Record, names, *(column.tolist() for column in columns), headers))


def _has_control(letters: NDArray[np.uint8], ends: Ints, returns: NDArray[np.bool_]) -> bool:
    """Tell whether there is a control character other than tabs and line ends."""
    ordinary = np.count_nonzero(letters == _TAB) + len(ends) + np.count_nonzero(returns)
    return bool(np.count_nonzero(letters < _SPACE) != ordinary)
