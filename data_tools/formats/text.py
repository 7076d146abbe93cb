"""Text files, plain, gzip or bgzip, as blocks of whole lines that are known to be sound text.

What common readers pass over is a fault here: bytes that are not UTF-8, control characters,
gzip that is cut short, damaged or followed by something else. Blocks keep memory bounded, and
what a small compressed file may inflate to is limited.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from data_tools import kernels
from data_tools.errors import InputError, MissingFileError
from data_tools.faults import Faults
from data_tools.formats.location import Location, Url
from data_tools.formats.remote import open_stream
from data_tools.kernels import fields as compiled

BLOCK = 1 << 21
"""Bytes of text that are looked at together: few enough to stay in a processor's cache."""

LINE_MAX = 1 << 26
"""Longest line that is read."""

FREE = 1 << 24
"""Bytes to which any file may inflate."""

RATIO = 200
"""How many times its size a larger one may; BED and VCF files reach 4 to 40."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file, each ended by a line feed, and the number of the first."""

    first: int
    data: bytes


def text_blocks(
    path: Location, faults: Faults, *, max_inflated: int | None = None, size: int = BLOCK
) -> Iterator[Block]:
    r"""Give the lines of a text file in blocks of about ``size`` bytes.

    A byte order mark is taken off and CRLF line ends become LF. A line that is no sound text is
    told to ``faults`` and emptied, so that the lines after it keep their numbers.

    Parameters
    ----------
    path : Path or Url
        Plain, gzip (of any number of members) or bgzip, told by the content; it is read once from
        front to end, so that a pipe will do.
    faults : Faults
        Learns of every line that is no text.
    max_inflated : int, optional
        To how many bytes a compressed file may inflate. Default: 16 MiB, or 200 times what has
        been read of the file, whichever is more.
    size : int
        Bytes of a block.

    Raises
    ------
    InputError
        If the file cannot be read; `FormatError` if the compression is broken, it inflates to
        more than it may, or a line is longer than 64 MiB.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "a.txt"
    ...     _ = file.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    ...     list(text_blocks(file, Faults(file)))
    [Block(first=1, data=b'one\n'), Block(first=2, data=b'two\n')]
    """
    first, carry, at_start = 1, b"", True
    for chunk in _chunks(path, faults, max_inflated, size):
        if at_start and len(carry + chunk) >= 3:
            carry, chunk = b"", (carry + chunk).removeprefix(b"\xef\xbb\xbf")
            at_start = False
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            carry += chunk
        else:
            block = _block(carry + chunk[:cut], first, faults)
            carry = chunk[cut:]
            yield block
            first += int(np.count_nonzero(np.frombuffer(block.data, np.uint8) == 10))
        if len(carry) > LINE_MAX:
            raise faults.error(first, f"a line of more than {LINE_MAX >> 20} MiB: is it text?")
    if at_start:
        carry = carry.removeprefix(b"\xef\xbb\xbf")
    if carry:
        yield _block(carry, first, faults)


def _block(data: bytes, first: int, faults: Faults) -> Block:
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if not _sound(data):
        lines = [
            b"" if _unsound(line, first + at, faults) else line
            for at, line in enumerate(data.removesuffix(b"\n").split(b"\n"))
        ]
        data = b"\n".join(lines)
    return Block(first, data if data.endswith(b"\n") else data + b"\n")


def _sound(data: bytes) -> bool:
    if kernels.available() and compiled.plain(data):
        return True
    if data.isascii():
        letters = np.frombuffer(data, dtype=np.uint8)
        breaks = np.count_nonzero(letters == 9) + np.count_nonzero(letters == 10)
        return bool(np.count_nonzero(letters < 32) == breaks) and b"\x7f" not in data
    try:
        return _CONTROL.search(data.decode()) is None
    except UnicodeDecodeError:
        return False


def _unsound(line: bytes, number: int, faults: Faults) -> bool:
    try:
        match = _CONTROL.search(line.decode())
    except UnicodeDecodeError:
        faults.add(number, "not UTF-8 text: save the file as UTF-8")
        return True
    if match:
        what = f"control character {match[0]!r}: save as plain text with LF line ends"
        faults.add(number, what)
    return match is not None


@contextmanager
def opened(path: Location) -> Iterator[BinaryIO]:
    """Open a file for reading; what the system says against it becomes an `InputError`."""
    if isinstance(path, Url):
        with open_stream(path) as stream:
            yield stream
        return
    try:
        with path.open("rb") as stream:
            yield stream
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file: check the path") from None
    except OSError as err:
        raise InputError(f"{path}: cannot be read: {err.strerror}") from err


def _chunks(path: Location, faults: Faults, limit: int | None, size: int) -> Iterator[bytes]:
    """Give the text in chunks; they are cut anywhere."""
    with opened(path) as stream:
        source = _Tracked(stream)
        if source.head[:2] == b"\x1f\x8b":
            yield from _inflated(source, faults, limit, size)
            return
        while raw := source.read(size):
            yield raw


class _Tracked:
    """A stream of bytes that knows its first and last ones, and how many have been read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.head = self._left = stream.read(16)
        self.tail = b""
        self.count = 0

    def read(self, size: int) -> bytes:
        raw, self._left = self._left[:size], self._left[size:]
        raw = raw or self._stream.read(size)
        self.tail = (self.tail + raw[-len(_BGZIP_END) :])[-len(_BGZIP_END) :]
        self.count += len(raw)
        return raw


def _inflated(source: _Tracked, faults: Faults, limit: int | None, size: int) -> Iterator[bytes]:
    total = 0
    try:
        with gzip.GzipFile(fileobj=source, mode="rb") as stream:  # type: ignore[call-overload]
            while raw := stream.read(size):
                total += len(raw)
                _check_inflated(total, source.count, faults, limit)
                yield raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as err:
        raise faults.error(None, f"broken gzip ({err}): fetch or compress the file again") from None
    blocked = source.head[:4] == b"\x1f\x8b\x08\x04" and source.head[12:14] == b"BC"
    if blocked and source.tail != _BGZIP_END:
        what = "the end marker of bgzip is lacking, so the file is cut short"
        raise faults.error(None, f"broken gzip ({what}): fetch or compress the file again")


def _check_inflated(total: int, read: int, faults: Faults, limit: int | None) -> None:
    allowed = max(FREE, RATIO * read) if limit is None else limit
    if total > allowed:
        raise faults.error(
            None,
            f"inflates to more than {allowed:,} bytes from {read:,}: is it what it claims to be? "
            "Pass max_inflated= (in bytes) to read more",
        )
