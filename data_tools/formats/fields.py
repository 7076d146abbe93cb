"""The fields of many rows of text at once, as numbers and strings, without a loop over rows.

Every method gives exactly what stands in the text or None, which says that this quick way cannot
vouch for it: the caller then reads row by row, which is slow and words the error.

Eight digits are turned into a number in a handful of operations on one 64-bit word, the idea
behind https://lemire.me/blog/2022/01/21/swar-explained-parsing-eight-digits/, here on arrays of
words.
"""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools import kernels
from data_tools.formats.text import Block
from data_tools.formats.values import INTEGER_DIGITS
from data_tools.kernels import fields as compiled

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_PAD = 16
_NEWLINE, _DOT, _MINUS, _PLUS, _ZERO = 10, 46, 45, 43, 48
_LONGEST_WORD = 64
_EXACT_DIGITS = 15
_U = np.uint64
_ALL = _U(0xFFFFFFFFFFFFFFFF)
_TENS = 10.0 ** np.arange(16)
# For a dot in byte k of a word: k at bits 61 - 8 k, and what the digits behind it count.
_PLACES = _U(sum(k << (61 - 8 * k) for k in range(8)))
_SCALES = np.append(10.0 ** np.arange(7, -1, -1), 1.0)
# Pairs of digits, then pairs of pairs, then both halves.
_STEPS = (
    (_U(10), _U(8), _U(0x00FF00FF00FF00FF)),
    (_U(100), _U(16), _U(0x0000FFFF0000FFFF)),
    (_U(10_000), _U(32), _U(0x00000000FFFFFFFF)),
)


def data_rows(block: Block, skip: tuple[bytes, ...]) -> tuple[bytes, Ints]:
    r"""Give the lines that are neither empty nor begin with one of ``skip``, and their numbers.

    Examples
    --------
    >>> data_rows(Block(1, b"#head\na\t1\n\nb\t2\n"), (b"#",))
    (b'a\t1\nb\t2\n', array([2, 4]))
    """
    letters = np.frombuffer(block.data, dtype=np.uint8)
    ends = np.flatnonzero(letters == _NEWLINE)
    starts = np.concatenate([[0], ends[:-1] + 1])
    first = letters[starts]
    out = first == _NEWLINE
    for word in skip:
        begin = first == word[0]
        if len(word) > 1:
            rows = np.flatnonzero(begin).tolist()
            begin[rows] = [block.data.startswith(word, start) for start in starts[begin].tolist()]
        out |= begin
    numbers = np.arange(block.first, block.first + len(ends), dtype=np.int64)
    if not out.any():
        return block.data, numbers
    kept = letters[np.repeat(~out, ends - starts + 1)]
    return kept.tobytes(), numbers[~out]


class Fields:
    """Where the fields of rows of equal length lie.

    Parameters
    ----------
    data : bytes
        Whole lines, each with ``count`` fields separated by tabs.
    starts, ends : numpy.ndarray
        Shape (count, rows): where each field lies.
    """

    def __init__(self, data: bytes, starts: Ints, ends: Ints) -> None:
        self.data, self.starts, self.ends = data, starts, ends
        self.letters = np.frombuffer(data, dtype=np.uint8)

    @classmethod
    def of(cls, data: bytes, count: int) -> Fields | None:
        """Find the fields; None unless every row has ``count`` of them."""
        letters = np.frombuffer(data, dtype=np.uint8)
        lines = int(np.count_nonzero(letters == _NEWLINE))
        if not lines:
            return None
        if kernels.available():
            found = compiled.find_fields(letters, lines, count)
            return None if found is None else cls(data, *found)
        # In sound text nothing else lies below the two.
        breaks = np.flatnonzero(letters <= _NEWLINE)
        if len(breaks) != lines * count:
            return None
        # A column each lies together in memory.
        ends = np.ascontiguousarray(breaks.reshape(-1, count).T)
        if not (letters[ends[-1]] == _NEWLINE).all():
            return None
        starts = np.empty_like(ends)
        starts[1:] = ends[:-1] + 1
        starts[0, 0] = 0
        starts[0, 1:] = ends[-1, :-1] + 1
        return cls(data, starts, ends)

    def any_begins(self, words: tuple[bytes, ...]) -> bool:
        """Tell whether a row may begin with one of these words."""
        starts = self.starts[0]
        first = self.letters[starts]
        return any(
            self.data.startswith(word, place)
            for word in words
            for place in starts[first == word[0]].tolist()
        )

    @cached_property
    def _dots(self) -> Ints:
        """Where the dots are, and one behind the end."""
        return np.append(np.flatnonzero(self.letters == _DOT), len(self.letters))

    @cached_property
    def _padded(self) -> NDArray[np.uint8]:
        """The letters with room on both sides."""
        return np.pad(self.letters, _PAD)

    def _words(self, places: Ints) -> Words:
        """Give the eight bytes from each place on, as one number."""
        padded = self._padded
        words: Words = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
        return words[places + _PAD]

    def integers(self, column: int, *, signed: bool = False) -> Ints | None:
        """Give a column of integers of at most 13 digits, below 0 only if ``signed``."""
        starts, ends = self.starts[column], self.ends[column]
        if kernels.available():
            return compiled.integers(self.letters, starts, ends, INTEGER_DIGITS, signed)
        minus = self.letters[starts] == _MINUS if signed else np.zeros(len(starts), dtype=bool)
        lengths = ends - starts - minus
        if lengths.min() < 1 or lengths.max() > INTEGER_DIGITS:
            return None
        values = self._digits(ends, lengths)
        if values is None or not minus.any():
            return values
        return np.where(minus, -values, values)

    def _digits(self, ends: Ints, lengths: Ints) -> Ints | None:
        """Give the number that the 0 to 16 digits before each end make; 0 for none."""
        longest = int(lengths.max())
        inside = lengths if longest <= 8 else np.minimum(lengths, 8)
        values = _eight_digits(self._words(ends - 8), inside)
        if values is None:
            return None
        for digit in range(8, longest):
            there = lengths > digit
            value = self._padded[ends + (_PAD - 1 - digit)] - np.uint8(_ZERO)
            value *= there
            if value.max() > 9:
                return None
            values += value * np.int64(10**digit)
        return values

    def decimals(self, column: int) -> tuple[NDArray[np.float64], Ints]:
        """Give a column of decimal numbers, and the rows whose number is left to the caller.

        A number of at most 15 digits is the quotient of two integers that a float64 holds exactly,
        so that the division rounds once, as `float` does (Clinger, 1990).
        """
        starts, ends = self.starts[column], self.ends[column]
        if kernels.available():
            values, known = compiled.decimals(self.letters, starts, ends)
            return values, np.flatnonzero(~known)
        first = self.letters[starts]
        minus = first == _MINUS
        starts = starts + (minus | (first == _PLUS))
        words = self._words(ends - 8), self._words(ends - 9)
        values, known = _short_decimals(*words, ends - starts)
        rest = np.flatnonzero(~known)
        if rest.size:
            values[rest], found = self._long_decimals(starts[rest], ends[rest])
            rest = rest[~found]
        if minus.any():
            np.negative(values, out=values, where=minus)
        return values, rest

    def _long_decimals(
        self, starts: Ints, ends: Ints
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        dot = np.minimum(self._dots[np.searchsorted(self._dots, starts)], ends)
        whole, part = dot - starts, np.maximum(ends - dot - 1, 0)
        plain = (whole + part >= 1) & (whole + part <= _EXACT_DIGITS)
        # Where there is more than digits, no digit is looked at; the caller has to.
        whole_value = self._some_digits(dot, np.where(plain, whole, 0))
        part_value = self._some_digits(ends, np.where(plain, part, 0))
        known = plain & (whole_value >= 0) & (part_value >= 0)
        scale = _TENS[np.where(known, part, 0)]
        return (whole_value * scale + part_value) / scale, known

    def _some_digits(self, ends: Ints, lengths: Ints) -> Ints:
        """Give the numbers as `_digits` does, and -1 where something else than digits stands."""
        values = self._digits(ends, lengths)
        if values is not None:
            return values
        low = _digit_flags(self._words(ends - 8), np.minimum(lengths, 8))
        high = _digit_flags(self._words(ends - 16), np.maximum(lengths - 8, 0))
        good = low & high
        values = self._digits(ends, np.where(good, lengths, 0))
        assert values is not None
        return np.where(good, values, -1)

    def text(self, row: int, column: int) -> str:
        """Give one field."""
        return self.data[self.starts[column, row] : self.ends[column, row]].decode()

    def joined(self, column: int) -> tuple[bytes, Ints]:
        """Give the fields of a column one after the other, and where each begins and ends."""
        if kernels.available():
            return compiled.joined(self.letters, self.starts[column], self.ends[column])
        widths = self.ends[column] - self.starts[column]
        bounds = np.concatenate([[0], np.cumsum(widths)])
        place = np.repeat(self.starts[column] - bounds[:-1], widths)
        place += np.arange(len(place))
        return self.letters[place].tobytes(), bounds

    def texts(self, column: int) -> list[str]:
        """Give a column of strings."""
        raw, bounds = self.joined(column)
        places = bounds.tolist()
        if not raw.isascii():
            return [raw[i:j].decode() for i, j in pairwise(places)]
        text = raw.decode("ascii")
        return [text[i:j] for i, j in pairwise(places)]

    def repeated(self, column: int) -> tuple[Ints, list[str]] | None:
        """Give a column in which few strings occur again and again: codes, and the strings."""
        starts, lengths = self.starts[column], self.ends[column] - self.starts[column]
        longest = int(lengths.max())
        if longest > _LONGEST_WORD:
            return None
        codes: Ints | None = None
        for offset in range(0, max(longest, 1), 8):
            inside = np.clip(lengths - offset, 0, 8)
            place = np.minimum(starts + offset, len(self.letters)) if offset else starts
            word = self._words(place) & (_ALL >> _bits(8 - inside))
            if offset:
                word[inside == 0] = 0
            more, found = _factorized(word)
            codes = more if codes is None else _factorized(codes * np.int64(found) + more)[0]
        assert codes is not None
        # Of several writes to one place the last stays: that of the first row with the code.
        firsts = np.empty(int(codes.max()) + 1, dtype=np.int64)
        firsts[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
        return codes, [self.text(row, column) for row in firsts.tolist()]


def _factorized(values: NDArray[Any]) -> tuple[Ints, int]:
    """Number equal values in the order of their first place; runs of them are looked at once."""
    heads = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    if len(heads) > len(values) // 8:
        codes, found = pd.factorize(values)
        return codes, len(found)
    codes, found = pd.factorize(values[heads])
    return np.repeat(codes, np.diff(heads, append=len(values))), len(found)


def _bits(count: Ints) -> Words:
    return (count * 8).view(_U)


def _masked(word: Words, lengths: Ints) -> Words:
    """Give the last ``lengths`` bytes as the values of digits, and 0 before them."""
    # numpy shifts by 64 to 0, as it should be for no digit.
    return (word ^ _U(0x3030303030303030)) & (_ALL << _bits(8 - lengths))


def _short_decimals(
    last: Words, before: Words, lengths: Ints
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read the numbers of at most 8 digits with a dot among the last 8 characters or none.

    Given are the last 8 bytes of each, and those one place before.
    """
    digits: Words = _masked(last, np.clip(lengths, 0, 8))
    # One bit for what is no digit, the highest of its byte.
    dot = (digits + _U(0x7676767676767676)) | digits
    dot &= _U(0x8080808080808080)
    low = dot >> _U(7)
    none = dot == 0
    known = (digits & (low * _U(255))) == low * _U(ord(".") ^ _ZERO)
    known &= (dot & (dot - _U(1))) == 0
    lengths = lengths - ~none
    known &= (lengths >= 1) & (lengths <= 8)
    # What stands after the dot stays, what stands before moves into its place.
    after: Words = np.invert((dot << _U(1)) - _U(1))
    after[none] = _ALL
    joined: Words = (last & after) | (before & ~after)
    digits = _masked(joined, np.where(known, lengths, 0))
    odd = (((digits + _U(0x7676767676767676)) | digits) & _U(0x8080808080808080)) != 0
    if odd.any():
        known &= ~odd
        digits[odd] = 0
    # The factor shifts the number of the dot's byte to the top.
    place = ((low * _PLACES) >> _U(61)).view(np.int64)
    return _folded(digits) / _SCALES[np.where(none, 8, place)], known


def _digit_flags(word: Words, lengths: Ints) -> NDArray[np.bool_]:
    digits = _masked(word, lengths)
    flags: NDArray[np.bool_] = ((digits + _U(0x7676767676767676)) | digits) & _U(
        0x8080808080808080
    ) == 0
    return flags


def _eight_digits(word: Words, lengths: Ints) -> Ints | None:
    """Give the numbers of at most 8 digits at the end of each word; None if other bytes stand."""
    digits = _masked(word, lengths)
    # A byte above 9 reaches 128 when 118 is added; one that carries has the bit set already.
    high = digits + _U(0x7676767676767676)
    high |= digits
    high &= _U(0x8080808080808080)
    return None if high.any() else _folded(digits)


def _folded(digits: Words) -> Ints:
    """Give the numbers that 8 digits a word make; the words are used up."""
    for factor, shift, mask in _STEPS:
        upper = digits >> shift
        digits *= factor
        digits += upper
        digits &= mask
    return digits.view(np.int64)
