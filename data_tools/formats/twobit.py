"""The bases of a 2bit file: four to a byte, with the stretches that are N or soft-masked beside.

Every number that the file tells of itself is checked at opening, against the size of the file and
against the others, so that a header that lies is an error and never a wrong base or a full
memory. The bases themselves carry no checksum in this format: a flipped bit in them is another
base, and no reader can tell. Where that matters, keep the genome as bgzip, which has one.

References
----------
2bit: https://genome.ucsc.edu/FAQ/FAQformat.html#format7; version 1, which differs in the 64-bit
offsets of its index, is what faToTwoBit -long writes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_tools.encode import AMBIGUOUS, Codes
from data_tools.errors import FormatError
from data_tools.formats.byte_source import PlainBytes
from data_tools.formats.fasta_index import RECORDS_MAX, TOO_MANY
from data_tools.formats.packed_bases import pack, unpack
from data_tools.formats.twobit_blocks import Blocks

if TYPE_CHECKING:
    from hashlib import _Hash

_LITTLE, _BIG = bytes.fromhex("4327411a"), bytes.fromhex("1a412743")
_HEAD = 16
_BUFFER = 1 << 16
_REMOTE_BUFFER = 1 << 10
_LOWER = 0x20
_REMEDY = "make it anew with faToTwoBit"

# The format counts T, C, A, G: for `bytes.translate`, of a packed byte and of a value.
_TO_CODES = pack(
    np.array([3, 1, 0, 2], dtype=np.uint8)[unpack(np.arange(256, dtype=np.uint8)[:, None])]
).tobytes()
_TO_LETTERS = b"TCAG" + bytes(252)


def is_two_bit(source: PlainBytes) -> bool:
    """Tell a 2bit file by its signature, in either byte order."""
    return source.read(0, min(4, source.size)) in (_LITTLE, _BIG)


class Record(NamedTuple):
    """Where a record lies in the file."""

    name: str
    start: int
    length: int
    unknown: Blocks
    masked: Blocks
    packed: int

    @property
    def end(self) -> int:
        """Where the record ends in the file."""
        return self.packed + (self.length + 3) // 4


@dataclass(frozen=True, slots=True)
class Layout:
    """The records of a file, and a digest of everything in it but the packed bases."""

    records: tuple[Record, ...]
    digest: str


class TwoBitStore:
    """A `data_tools.formats.store.Store` on 2bit; takes over the source, which it closes.

    Parameters
    ----------
    source : PlainBytes or BgzfBytes
        The open file.

    Raises
    ------
    FormatError
        If the file is no sound 2bit: names the record and its part.
    """

    def __init__(self, source: PlainBytes) -> None:
        stamp = source.settled_stamp()
        layout = read_layout(source)
        if source.stamp() != stamp:
            raise source.changed("it was written to while it was read")
        self._records, self.layout = layout.records, layout.digest
        # One attribute, so that a thread never sees a new source with an old stamp.
        self._current = (source, stamp)
        self._checked: set[int] | None = set() if source.remote else None
        self.lengths = {record.name: record.length for record in self._records}

    @property
    def digest(self) -> str:
        """All of the file but the packed bases."""
        return f"2bit:{self.layout}"

    def close(self) -> None:
        """Close the file; later reads raise `InputError`."""
        self._current[0].close()

    def letters(self, rank: int, start: int, end: int) -> bytes:
        """Give the letters of a stretch of a record: N where unknown, small where masked."""
        record, source = self._record(rank)
        values = _unpacked(source, record, start, end, None)
        letters = np.frombuffer(bytearray(values).translate(_TO_LETTERS), dtype=np.uint8)
        for lo, hi in record.unknown.within(source, start, end):
            letters[lo:hi] = ord("N")
        for lo, hi in record.masked.within(source, start, end):
            letters[lo:hi] |= _LOWER
        return letters.tobytes()

    def codes(self, rank: int, start: int, end: int) -> Codes:
        """Give a stretch of a record as codes."""
        record, source = self._record(rank)
        codes = _unpacked(source, record, start, end, _TO_CODES)
        for lo, hi in record.unknown.within(source, start, end):
            codes[lo:hi] = AMBIGUOUS
        return codes

    def _record(self, rank: int) -> tuple[Record, PlainBytes]:
        """Give a record and the source to read it from; of a remote file its tables are checked."""
        record, source = self._records[rank], self._source()
        if self._checked is not None and rank not in self._checked:
            _check_tables(source, record, None)
            self._checked.add(rank)
        return record, source

    def _source(self) -> PlainBytes:
        """Give the source to read from: if someone touched it, only where no record moved."""
        source, stamp = self._current
        if source.stamp() == stamp:
            return source
        source = source.refreshed()
        stamp = source.settled_stamp()
        if read_layout(source).digest != self.layout:
            raise source.changed("its records are others")
        self._current = (source, stamp)
        return source


def _unpacked(
    source: PlainBytes, record: Record, start: int, end: int, table: bytes | None
) -> NDArray[np.uint8]:
    """Give the values of a stretch, the packed bytes sent through a table."""
    first, stop = start // 4, (end + 3) // 4
    packed = source.read(record.packed + first, record.packed + stop).translate(table)
    return unpack(np.frombuffer(packed, dtype=np.uint8))[start - 4 * first : end - 4 * first]


def read_layout(source: PlainBytes) -> Layout:
    """Read and check all that a 2bit file tells of itself.

    Parameters
    ----------
    source : PlainBytes or BgzfBytes
        A file for which `is_two_bit` holds.

    Raises
    ------
    FormatError
        At the first thing that is not so: names the record and its part.
    """
    reader = _Reader(source)
    index, stop = _index(reader)
    source.expect(index.values())
    records = [_record(reader, name, place) for name, place in index.items()]
    _check_places(reader, records, stop)
    if source.remote:
        # The tables are a twentieth of a file: those of a record are read when it is.
        return Layout(tuple(records), source.digest())
    # Only now: records that lie over each other could share one long table of blocks.
    for record in records:
        _check_tables(source, record, reader.digest)
    return Layout(tuple(records), reader.digest.hexdigest())


def _check_tables(source: PlainBytes, record: Record, digest: _Hash | None) -> None:
    for kind, blocks in (("N", record.unknown), ("mask", record.masked)):
        if fault := blocks.first_fault(source, record.length, digest):
            raise _wrong(source, _called(record.name), f"{kind} {fault}")


def _wrong(source: PlainBytes, what: str, fault: str) -> FormatError:
    return FormatError(f"{source.path}: 2bit {what}: {fault}: {_REMEDY}")


class _Reader:
    """Reads the small fields of a file, near ones in one go, and digests what it gives out."""

    def __init__(self, source: PlainBytes) -> None:
        self.source, self.digest = source, hashlib.sha256()
        self._start, self._held = 0, b""
        self._ahead = _REMOTE_BUFFER if source.remote else _BUFFER
        self._order = "<" if self.take(0, 4, "header") == _LITTLE else ">"

    def take(self, place: int, size: int, what: str) -> bytes:
        """Give so many bytes from this place."""
        if place + size > self.source.size:
            raise self.wrong(what, f"lies past the end of the file ({self.source.size} bytes)")
        if not self._start <= place <= place + size <= self._start + len(self._held):
            stop = min(place + max(size, self._ahead), self.source.size)
            self._start, self._held = place, self.source.read(place, stop)
        taken = self._held[place - self._start : place - self._start + size]
        self.digest.update(taken)
        return taken

    def numbers(self, place: int, kinds: str, what: str) -> tuple[Any, ...]:
        """Give numbers of these kinds (as of `struct`) in the byte order of the file."""
        layout = self._order + kinds
        return struct.unpack(layout, self.take(place, struct.calcsize(layout), what))

    def blocks(self, place: int, count: int) -> Blocks:
        """Give the table of blocks at this place."""
        return Blocks(place, count, self._order)

    def wrong(self, what: str, fault: str) -> FormatError:
        """Give the error for a part of the file."""
        return _wrong(self.source, what, fault)


def _called(name: str) -> str:
    return f"record {name!r}"


def _index(reader: _Reader) -> tuple[dict[str, int], int]:
    """Give where each record begins, and where the index ends."""
    version, count, reserved = reader.numbers(4, "III", "header")
    if version > 1 or reserved:
        raise reader.wrong("header", f"version {version}, reserved {reserved}, not 0 or 1, and 0")
    if not count:
        raise reader.wrong("header", "no record is claimed")
    offset, width = ("Q", 8) if version else ("I", 4)
    # The shortest entry is a length, a name of one letter and an offset.
    if count * (2 + width) > reader.source.size - _HEAD:
        raise reader.wrong("header", f"{count} records are claimed, more than the file can hold")
    if count > RECORDS_MAX:
        raise reader.wrong("header", f"{count:,} records, more than {RECORDS_MAX:,}, {TOO_MANY}")
    starts: dict[str, int] = {}
    place = _HEAD
    for number in range(1, count + 1):
        what = f"index entry {number}"
        (size,) = reader.numbers(place, "B", what)
        raw = reader.take(place + 1, size, what)
        name = raw.decode("latin-1")
        if not raw or any(not 32 < byte < 127 for byte in raw):
            raise reader.wrong(what, f"name {name!r} is not of visible ASCII letters")
        if name in starts:
            raise reader.wrong(_called(name), "the name occurs twice")
        (starts[name],) = reader.numbers(place + 1 + size, offset, _called(name))
        place += 1 + size + width
    return starts, place


def _record(reader: _Reader, name: str, start: int) -> Record:
    """Read how long a record and its tables are; that tells where each of them lies."""
    what, size = _called(name), reader.source.size
    (length,) = reader.numbers(start, "I", what)
    if not length:
        raise reader.wrong(what, "it is empty")
    place, tables = start + 4, []
    for kind in ("N", "mask"):
        (count,) = reader.numbers(place, "I", what)
        if count > length or place + 4 + 8 * count > size:
            raise reader.wrong(what, f"{count} {kind} blocks are claimed, more than can be")
        tables.append(reader.blocks(place + 4, count))
        place += 4 + 8 * count
    (reserved,) = reader.numbers(place, "I", what)
    if reserved:
        raise reader.wrong(what, f"reserved is {reserved}, not 0")
    record = Record(name, start, length, tables[0], tables[1], place + 4)
    if record.end > size:
        raise reader.wrong(what, f"{length} bases are claimed, more than the file holds")
    return record


def _check_places(reader: _Reader, records: list[Record], stop: int) -> None:
    """No byte may belong to two records, and none may follow the last."""
    for record in sorted(records, key=lambda record: record.start):
        if record.start < stop:
            raise reader.wrong(_called(record.name), "it begins inside of what stands before it")
        stop = record.end
    if stop < reader.source.size:
        left = reader.source.size - stop
        raise reader.wrong("file", f"{left} bytes follow the last record, as of two files joined")
