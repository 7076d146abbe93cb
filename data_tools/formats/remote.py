"""The bytes of a remote file, asked for in ranges or as a stream, never of two versions of it.

Every answer is held against the first one: size, ETag and Last-Modified must be the same, and the
server must have sent the range that was asked for and no other, or there is an error.
"""

from __future__ import annotations

import contextlib
import io
from collections import OrderedDict
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO

from data_tools.errors import ChangedFileError, InputError
from data_tools.formats.location import Url

if TYPE_CHECKING:
    from data_tools.formats.transports import Transport

BLOCK = 1 << 16
"""Bytes of a block, the least that is asked for."""

CACHE = 1 << 25
"""Bytes of the blocks that are kept of each file."""

AT_ONCE = 1 << 22
"""Most bytes of one request."""

_AT_A_TIME = 8
"""Most requests under way where many places are known in advance."""


class RemoteFile:
    """A remote file for reads at any place; safe in threads and forked workers.

    Parameters
    ----------
    url : Url
        Its server must give ranges of bytes.

    Attributes
    ----------
    size : int
        In bytes.
    version : str
        What the server says that tells one version of the file from another.

    Raises
    ------
    InputError
        If it cannot be reached, or not in parts.
    """

    def __init__(self, url: Url) -> None:
        self.url, self._transport = url, _transport(url)
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        # Where the last answer ended, and how many blocks it had: one attribute, for threads.
        self._last = (-1, 0)
        first = self._transport.part(0, BLOCK)
        self.size, self.version = first.size, first.version
        if first.data:
            self._kept[0] = first.data

    def read(self, start: int, stop: int) -> bytes:
        """Give the bytes from start to stop, all of them; memory beyond them stays bounded."""
        if not 0 <= start <= stop <= self.size:
            raise ChangedFileError(f"{self.url}: ends too early: open it again")
        if start == stop:
            return b""
        if stop - start > AT_ONCE:
            cuts = [*range(start, stop, AT_ONCE), stop]
            return b"".join(map(self._asked, cuts, cuts[1:]))
        first = start // BLOCK
        blocks = self._blocks(first, (stop - 1) // BLOCK)
        return blocks[start - first * BLOCK : stop - first * BLOCK]

    def expect(self, places: Iterable[int]) -> None:
        """Ask for the blocks of these places at once, as far as half of the cache holds them."""
        numbers = dict.fromkeys(place // BLOCK for place in places if 0 <= place < self.size)
        wanted = islice(numbers, CACHE // BLOCK // 2)
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            for _ in pool.map(lambda number: self._blocks(number, number), wanted):
                pass

    def _blocks(self, first: int, last: int) -> bytes:
        """Give neighbouring blocks; those that are lacking are asked for in one request."""
        found = {number: self._known(number) for number in range(first, last + 1)}
        lacking = [number for number, block in found.items() if not block]
        if lacking:
            low, high = lacking[0], self._further(lacking[0], lacking[-1])
            raw = self._asked(low * BLOCK, min((high + 1) * BLOCK, self.size))
            for number in range(low, high + 1):
                found[number] = raw[(number - low) * BLOCK : (number + 1 - low) * BLOCK]
                self._keep(number, found[number])
        return b"".join(found[number] for number in range(first, last + 1))

    def _further(self, low: int, high: int) -> int:
        """Say up to which block to ask: twice as many each time that reading goes straight on."""
        end, count = self._last
        if low == end:
            high = max(high, low + min(2 * count, AT_ONCE // BLOCK) - 1)
        high = min(high, (self.size - 1) // BLOCK)
        self._last = (high + 1, high + 1 - low)
        return high

    def _known(self, number: int) -> bytes:
        block = self._kept.get(number, b"")
        if block:
            # Another thread may have pushed it out since.
            with contextlib.suppress(KeyError):
                self._kept.move_to_end(number)
        return block

    def _keep(self, number: int, block: bytes) -> None:
        self._kept[number] = block
        while len(self._kept) > CACHE // BLOCK:
            with contextlib.suppress(KeyError):
                self._kept.popitem(last=False)

    def _asked(self, start: int, stop: int) -> bytes:
        part = self._transport.part(start, stop)
        if (part.size, part.version) != (self.size, self.version):
            raise ChangedFileError(
                f"{self.url}: changed on the server since it was opened: open it again"
            )
        return part.data

    def close(self) -> None:
        """Let go of what is kept."""
        self._kept.clear()


def open_stream(url: Url) -> BinaryIO:
    """Open a remote file for one reading from front to end.

    Raises
    ------
    InputError
        If it cannot be reached; reading raises it where the file ends too early.
    """
    return io.BufferedReader(_Stream(_transport(url).pieces()), BLOCK)


class _Stream(io.RawIOBase):
    """Pieces of bytes as a stream."""

    def __init__(self, pieces: Generator[bytes]) -> None:
        self._pieces = pieces
        # What can be said against the file is said at its opening.
        self._left = memoryview(next(pieces, b""))

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as one piece does."""
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        """Let go of the connection."""
        self._pieces.close()
        super().close()


def _transport(url: Url) -> Transport:
    try:
        if url.scheme.startswith("http"):
            from data_tools.formats.web import Web

            return Web(url)
        from data_tools.formats.buckets import Bucket

        return Bucket(url)
    except ImportError:
        raise InputError(f"{url}: remote files need more: pip install seqnorm[remote]") from None
