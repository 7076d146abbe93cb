"""The fields of many rows of text at once, as numbers and strings, without a loop over rows.

Every method gives exactly what stands in the text or None, which says that this quick way cannot
vouch for it: the caller then reads row by row, which is slow and words the error.

Eight digits are turned into a number in a handful of operations on one 64-bit word, the idea
behind https://lemire.me/blog/2022/01/21/swar-explained-parsing-eight-digits/, here on arrays of
words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.formats.text import Block
from data_tools.formats.values import INTEGER_DIGITS

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

_PAD = 16
_TAB, _NEWLINE, _DOT, _MINUS, _PLUS = 9, 10, 46, 45, 43
_LONGEST_WORD = 64
_EXACT_DIGITS = 15
_U = np.uint64
_ALL = _U(0xFFFFFFFFFFFFFFFF)
_TENS = 10.0 ** np.arange(16)


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
    suspect = np.zeros(256, dtype=bool)
    suspect[[_NEWLINE, *(word[0] for word in skip)]] = True
    odd = np.flatnonzero(suspect[letters[starts]])
    prefixes = (b"\n", *skip)
    out = [
        i
        for i, start in zip(odd.tolist(), starts[odd].tolist(), strict=True)
        if block.data.startswith(prefixes, start)
    ]
    numbers = np.arange(block.first, block.first + len(ends), dtype=np.int64)
    if not out:
        return block.data, numbers
    cuts = np.concatenate([[0], np.stack([starts[out], ends[out] + 1], axis=1).ravel()])
    bounds = np.append(cuts, len(block.data)).reshape(-1, 2).tolist()
    return b"".join(block.data[low:high] for low, high in bounds), np.delete(numbers, out)


class Fields:
    """Where the fields of rows of equal length lie.

    Parameters
    ----------
    data : bytes
        Whole lines, each with ``count`` fields separated by tabs.
    ends : numpy.ndarray
        Shape (rows, count): where each field ends, in ``letters``.
    letters : numpy.ndarray
        The bytes of ``data`` with room on both sides.
    """

    def __init__(self, data: bytes, ends: Ints, letters: NDArray[np.uint8]) -> None:
        self.data, self.letters, self.ends = data, letters, ends
        self.starts = np.empty_like(ends)
        self.starts.ravel()[0] = _PAD
        self.starts.ravel()[1:] = ends.ravel()[:-1] + 1
        # Eight bytes from every place on, as one number.
        self._words: Words = np.ndarray((len(letters) - 7,), "<u8", letters, strides=(1,))

    @classmethod
    def of(cls, data: bytes, count: int) -> Fields | None:
        """Find the fields; None unless every row has ``count`` of them."""
        letters = np.zeros(len(data) + 2 * _PAD, dtype=np.uint8)
        letters[_PAD:-_PAD] = np.frombuffer(data, dtype=np.uint8)
        breaks = np.flatnonzero((letters == _TAB) | (letters == _NEWLINE))
        if not breaks.size or breaks.size % count:
            return None
        ends = breaks.reshape(-1, count)
        newlines = letters[ends] == _NEWLINE
        if not newlines[:, -1].all() or np.count_nonzero(newlines) != len(ends):
            return None
        return cls(data, ends, letters)

    def integers(self, column: int, *, signed: bool = False) -> Ints | None:
        """Give a column of integers of at most 13 digits, below 0 only if ``signed``."""
        starts, ends = self.starts[:, column], self.ends[:, column]
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
        values = _eight_digits(self._words[ends - 8], np.minimum(lengths, 8))
        long = np.flatnonzero(lengths > 8)
        if values is not None and long.size:
            upper = _eight_digits(self._words[ends[long] - 16], lengths[long] - 8)
            if upper is None:
                return None
            values[long] += upper * 100_000_000
        return values

    def decimals(self, column: int) -> tuple[NDArray[np.float64], Ints]:
        """Give a column of decimal numbers, and the rows whose number is left to the caller.

        A number of at most 15 digits is the quotient of two integers that a float64 holds exactly,
        so that the division rounds once, as `float` does (Clinger, 1990).
        """
        starts, ends = self.starts[:, column], self.ends[:, column]
        first = self.letters[starts]
        minus = first == _MINUS
        starts = starts + (minus | (first == _PLUS))
        dots = np.append(np.flatnonzero(self.letters == _DOT), len(self.letters))
        dot = np.minimum(dots[np.searchsorted(dots, starts)], ends)
        whole, part = dot - starts, np.maximum(ends - dot - 1, 0)
        plain = (whole + part >= 1) & (whole + part <= _EXACT_DIGITS)
        # Where there is more than digits, no digit is looked at; the caller has to.
        whole_value = self._some_digits(dot, np.where(plain, whole, 0))
        part_value = self._some_digits(ends, np.where(plain, part, 0))
        known = plain & (whole_value >= 0) & (part_value >= 0)
        values = (whole_value * _TENS[np.where(known, part, 0)] + part_value) / _TENS[
            np.where(known, part, 0)
        ]
        return np.where(minus, -values, values), np.flatnonzero(~known)

    def _some_digits(self, ends: Ints, lengths: Ints) -> Ints:
        """Give the numbers as `_digits` does, and -1 where something else than digits stands."""
        values = self._digits(ends, lengths)
        if values is not None:
            return values
        low = _digit_flags(self._words[ends - 8], np.minimum(lengths, 8))
        high = _digit_flags(self._words[ends - 16], np.maximum(lengths - 8, 0))
        good = low & high
        values = self._digits(ends, np.where(good, lengths, 0))
        assert values is not None
        return np.where(good, values, -1)

    def text(self, row: int, column: int) -> str:
        """Give one field."""
        low, high = int(self.starts[row, column]) - _PAD, int(self.ends[row, column]) - _PAD
        return self.data[low:high].decode()

    def texts(self, column: int) -> list[str]:
        """Give a column of strings that differ from row to row."""
        low = (self.starts[:, column] - _PAD).tolist()
        high = (self.ends[:, column] - _PAD).tolist()
        if self.data.isascii():
            text = self.data.decode("ascii")
            return [text[i:j] for i, j in zip(low, high, strict=True)]
        return [self.data[i:j].decode() for i, j in zip(low, high, strict=True)]

    def repeated(self, column: int) -> tuple[Ints, list[str]] | None:
        """Give a column in which few strings occur again and again: codes, and the strings."""
        starts, lengths = self.starts[:, column], self.ends[:, column] - self.starts[:, column]
        longest = int(lengths.max())
        if longest > _LONGEST_WORD:
            return None
        codes: Ints = np.zeros(len(starts), dtype=np.int64)
        for offset in range(0, max(longest, 1), 8):
            inside = np.clip(lengths - offset, 0, 8)
            place = np.minimum(starts + offset, len(self._words) - 1)
            word = self._words[place] & (_ALL >> _bits(8 - inside))
            word[inside == 0] = 0
            more, found = pd.factorize(word)
            codes, _ = pd.factorize(codes * np.int64(len(found)) + more)
        # Of several writes to one place the last stays: that of the first row with the code.
        firsts = np.empty(int(codes.max()) + 1, dtype=np.int64)
        firsts[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
        return codes, [self.text(row, column) for row in firsts.tolist()]

    def single(self, column: int, allowed: bytes) -> Any | None:
        """Give a column of single characters out of few, as an array of str."""
        starts = self.starts[:, column]
        found = self.letters[starts]
        table = np.full(256, None, dtype=object)
        for letter in allowed:
            table[letter] = chr(letter)
        good = np.zeros(256, dtype=bool)
        good[list(allowed)] = True
        if not (self.ends[:, column] - starts == 1).all() or not good[found].all():
            return None
        return table[found]


def _bits(count: Ints) -> Words:
    return (count * 8).astype(_U)


def _masked(word: Words, lengths: Ints) -> Words:
    """Give the last ``lengths`` bytes as the values of digits, and 0 before them."""
    # numpy shifts by 64 to 0, as it should be for no digit.
    return (word ^ _U(0x3030303030303030)) & (_ALL << _bits(8 - lengths))


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
    if (((digits + _U(0x7676767676767676)) | digits) & _U(0x8080808080808080)).any():
        return None
    digits = (digits * _U(10) + (digits >> _U(8))) & _U(0x00FF00FF00FF00FF)
    digits = (digits * _U(100) + (digits >> _U(16))) & _U(0x0000FFFF0000FFFF)
    digits = (digits * _U(10_000) + (digits >> _U(32))) & _U(0x00000000FFFFFFFF)
    return digits.astype(np.int64)
