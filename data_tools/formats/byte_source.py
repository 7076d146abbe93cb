"""Exact reads at any position of a file, plain or bgzip, safe in threads and forked workers.

Every read is an ``os.pread``: it carries its own position, so that processes and threads which
share one open file cannot move it under each other. A read gives all bytes or an error.

A bgzip file is a chain of gzip blocks of at most 64 KiB, each of which tells its own length and
the CRC-32 of its content. Hopping from block to block gives the table of where what lies, and a
digest of all lengths and checksums that stands for the content of the whole file.

References
----------
BGZF: section 4.1 of https://samtools.github.io/hts-specs/SAMv1.pdf
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time
import weakref
import zlib
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_tools.errors import ChangedFileError, FormatError, InputError, MissingFileError
from data_tools.formats.location import Location, Url
from data_tools.formats.remote import RemoteFile

CHUNK = 1 << 21
_KEPT_BLOCKS = 64
BLOCK_MAX = 1 << 16
END_BLOCK = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
# File systems stamp in ticks of a few milliseconds: two edits inside one tick look like one.
_TICK_SECONDS = 0.02


class PlainBytes:
    """The bytes of a file as they stand in it.

    Parameters
    ----------
    path : path
        A regular file.
    shown : Path, optional
        How errors call it. Default: `path`.

    Raises
    ------
    InputError
        If it is missing, not a regular file or not readable.
    """

    path: Location
    #: Whether bytes are asked for over a network, so that the fewest should be.
    remote = False
    close: weakref.finalize[Any, Any]

    def __init__(self, path: str | os.PathLike[str], shown: Location | None = None) -> None:
        place, self.path = path, Path(path) if shown is None else shown
        try:
            self._fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise MissingFileError(f"{self.path}: no such file: check the path") from None
        except OSError as err:
            raise InputError(f"{self.path}: cannot be opened: {err.strerror}") from err
        except ValueError as err:
            raise InputError(f"{str(self.path)!r} is no path: {err}") from None
        self.close = weakref.finalize(self, os.close, self._fd)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            raise InputError(f"{self.path}: not a regular file: random access needs one on disk")
        self.size = self._disk_size = status.st_size

    def stamp(self) -> tuple[int, int, int]:
        """Give size and times of change; a file whose size is another than at opening is refused.

        An equal stamp proves little, but another one means that the content must be looked at.
        """
        if not self.close.alive:
            raise InputError(f"{self.path}: the file is closed: open it again")
        status = os.fstat(self._fd)
        if status.st_size != self._disk_size:
            raise self.changed("its size is not what it was")
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def settled_stamp(self) -> tuple[int, int, int]:
        """Give a stamp that any later edit will differ from; waits a moment on a fresh file."""
        age = time.time() - self.stamp()[2] / 1e9
        if age < _TICK_SECONDS:
            time.sleep(min(_TICK_SECONDS, _TICK_SECONDS - age))
        return self.stamp()

    def digest(self) -> str:
        """Give what an index is bound to. Plain text has no checksum: the stamp has to serve."""
        return "plain:" + ":".join(map(str, self.settled_stamp()))

    def refreshed(self) -> PlainBytes:
        """Give the source to read from after the file was touched: a plain file has no state."""
        return self

    def changed(self, what: str) -> ChangedFileError:
        """Give the error for a file that is no longer what it was."""
        return ChangedFileError(f"{self.path}: changed since it was opened ({what}): open it again")

    def read(self, start: int, stop: int) -> bytes:
        """Give the bytes from start to stop, all of them."""
        raw = os.pread(self._fd, stop - start, start)
        if len(raw) == stop - start:
            return raw
        # One call gives at most 2 GiB, and a network file system may give less.
        parts = [raw]
        while raw and (start := start + len(raw)) < stop:
            raw = os.pread(self._fd, stop - start, start)
            parts.append(raw)
        if start < stop:
            raise self.changed("it ends too early")
        return b"".join(parts)

    def expect(self, places: Iterable[int]) -> None:
        """Say that what stands at these places will be read; a file on disk is quick enough."""

    def chunks(self) -> Iterator[bytes]:
        """Give all bytes in order, a few MB at a time."""
        for start in range(0, self.size, CHUNK):
            yield self.read(start, min(start + CHUNK, self.size))


class RemoteBytes(PlainBytes):
    """The bytes of a remote file, asked for as they are needed.

    Every answer of the server is held against the first one, so that its stamp never changes:
    another version of the file is an error at the read that meets it.

    Parameters
    ----------
    url : Url
        Its server must give parts of files.

    Raises
    ------
    InputError
        If it cannot be reached, or not in parts.
    """

    remote = True

    def __init__(self, url: Url) -> None:
        self.path = url
        self._remote = RemoteFile(url)
        self.size = self._remote.size
        self.close = weakref.finalize(self, self._remote.close)

    def stamp(self) -> tuple[int, int, int]:
        """Give what cannot change; a closed file is refused."""
        if not self.close.alive:
            raise InputError(f"{self.path}: the file is closed: open it again")
        return self.size, 0, 0

    def settled_stamp(self) -> tuple[int, int, int]:
        """Give the stamp; there is nothing to wait for."""
        return self.stamp()

    def digest(self) -> str:
        """Give what the server says that tells this version of the file from others."""
        told = f"{self._remote.size} {self._remote.version}"
        return "remote:" + hashlib.sha256(told.encode()).hexdigest()

    def read(self, start: int, stop: int) -> bytes:
        """Give the bytes from start to stop, all of them."""
        return self._remote.read(start, stop)

    def expect(self, places: Iterable[int]) -> None:
        """Say that what stands at these places will be read."""
        self._remote.expect(places)


class BgzfBytes(PlainBytes):
    """The uncompressed bytes of a bgzip file; positions and `size` are those of the content.

    Parameters
    ----------
    file : PlainBytes
        The compressed file; shared, and closed together with this one.

    Raises
    ------
    FormatError
        If it is gzip but not bgzip, or if a block is broken or lacking.
    """

    def __init__(self, file: PlainBytes) -> None:
        self._file, self.path, self.close = file, file.path, file.close
        self._starts, self._places = array("q"), array("q")
        self._lengths, self._sums = array("q"), array("q")
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self.size = 0
        place = 0
        while place < file.size:
            place = self._hop(place)
        end = file.size - len(END_BLOCK)
        if end < 0 or file.read(end, file.size) != END_BLOCK:
            raise self._broken(file.size, "the end marker is lacking, so the file is cut short")
        self._starts.append(self.size)

    def _hop(self, place: int) -> int:
        """Enter the block at this place of the file into the table; give the next one's place."""
        file = self._file
        head = file.read(place, min(place + 18, file.size))
        if len(head) < 18:
            raise self._broken(place, "the block is cut short")
        if head[:4] != b"\x1f\x8b\x08\x04":
            raise self._not_bgzip(place)
        extra = int.from_bytes(head[10:12], "little")
        if extra == 6 and head[12:16] == b"BC\x02\x00":
            length = int.from_bytes(head[16:18], "little") + 1
        else:
            length = self._length_among(file.read(place + 12, min(place + 12 + extra, file.size)))
            if not length:
                raise self._not_bgzip(place)
        stop = place + length
        if stop > file.size or length < extra + 20:
            raise self._broken(place, "the block is cut short")
        checksum, content = struct.unpack("<II", file.read(stop - 8, stop))
        if content > BLOCK_MAX:
            raise self._broken(place, "the block claims more than 64 KiB")
        self._starts.append(self.size)
        self._places.append(place + 12 + extra)
        self._lengths.append(length - extra - 20)
        self._sums.append(checksum)
        self.size += content
        return stop

    def stamp(self) -> tuple[int, int, int]:
        """Give the stamp of the compressed file."""
        return self._file.stamp()

    @staticmethod
    def _length_among(fields: bytes) -> int:
        """Find the block length among several extra fields; 0 if it is not there."""
        at = 0
        while at + 4 <= len(fields):
            size = int.from_bytes(fields[at + 2 : at + 4], "little")
            if fields[at : at + 2] == b"BC" and size == 2 and at + 6 <= len(fields):
                return int.from_bytes(fields[at + 4 : at + 6], "little") + 1
            at += 4 + size
        return 0

    def _not_bgzip(self, place: int) -> FormatError:
        if place:
            return self._broken(place, "no block begins where the last one ends")
        return FormatError(
            f"{self.path}: gzip but not bgzip, so it has no random access: "
            f"recompress it, gunzip -c {self.path.name} | bgzip > new.fa.gz"
        )

    def _broken(self, place: int, what: str) -> FormatError:
        return FormatError(
            f"{self.path}: broken bgzip at byte {place}: {what}: fetch or compress it again"
        )

    def digest(self) -> str:
        """Bind an index to the lengths and checksums of all blocks, that is to the content."""
        digest = hashlib.sha256()
        for table in (self._starts, self._places, self._lengths, self._sums):
            digest.update(table.tobytes())
        return "bgzf:" + digest.hexdigest()

    def refreshed(self) -> BgzfBytes:
        """Give a source with the table of blocks read anew, and with no block kept."""
        return BgzfBytes(self._file)

    def read(self, start: int, stop: int) -> bytes:
        """Give the content from start to stop, all of it, its checksums verified."""
        if not 0 <= start <= stop <= self.size:
            raise self.changed("it ends too early")
        if start == stop:
            return b""
        # Empty blocks share their start with the next one; the rightmost holds the byte.
        first = bisect_right(self._starts, start) - 1
        at = self._starts[first]
        if stop <= self._starts[first + 1]:
            return self._block(first)[start - at : stop - at]
        last = bisect_right(self._starts, stop - 1) - 1
        if last - first < 4:
            blocks = b"".join(self._block(i) for i in range(first, last + 1))
        else:
            blocks = self._run_of_blocks(first, last)
        return blocks[start - at : stop - at]

    def _block(self, i: int) -> bytes:
        kept = self._kept
        # Another thread may push the block out between two steps: look it up once, then mark it.
        block = kept.get(i)
        if block is None:
            place = self._places[i]
            block = self._inflate(i, self._file.read(place, place + self._lengths[i]))
            kept[i] = block
            while len(kept) > _KEPT_BLOCKS:
                try:
                    kept.popitem(last=False)
                except KeyError:
                    break
        else:
            try:
                kept.move_to_end(i)
            except KeyError:
                kept[i] = block
        return block

    def _run_of_blocks(self, first: int, last: int) -> bytes:
        """Inflate neighbouring blocks from one read, leaving the kept ones alone."""
        base = self._places[first]
        raw = memoryview(self._file.read(base, self._places[last] + self._lengths[last]))
        parts = []
        for i in range(first, last + 1):
            at = self._places[i] - base
            parts.append(self._inflate(i, raw[at : at + self._lengths[i]]))
        return b"".join(parts)

    def _inflate(self, i: int, deflated: bytes | memoryview) -> bytes:
        size = self._starts[i + 1] - self._starts[i]
        try:
            block = zlib.decompress(deflated, wbits=-15, bufsize=size or 1)
        except zlib.error as err:
            raise self._broken(self._places[i], f"the block does not inflate ({err})") from None
        if len(block) != size or zlib.crc32(block) != self._sums[i]:
            raise self._broken(self._places[i], "the block's length or checksum is wrong")
        return block


def open_source(path: str | os.PathLike[str] | Url, shown: Location | None = None) -> PlainBytes:
    """Open a file for exact reads, telling bgzip from plain by its first bytes.

    Parameters
    ----------
    path : path or Url
        A regular file, or a remote one.
    shown : Path, optional
        How errors call it. Default: `path`.

    Returns
    -------
    PlainBytes or BgzfBytes
        With `read`, `chunks`, `size`, `stamp`, `digest` and `close`.

    Raises
    ------
    InputError
        If it cannot be opened; `FormatError` if it is gzip but not sound bgzip.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "a.txt"
    ...     _ = file.write_text("0123456789")
    ...     source = open_source(file)
    ...     source.read(3, 6)
    ...     source.close()
    b'345'
    """
    file = RemoteBytes(path) if isinstance(path, Url) else PlainBytes(path, shown)
    if file.size < 2 or file.read(0, 2) != b"\x1f\x8b":
        return file
    try:
        return BgzfBytes(file)
    except BaseException:
        file.close()
        raise
