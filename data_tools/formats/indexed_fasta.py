"""A remote FASTA file, read by the ``.fai`` and ``.gzi`` that stand beside it and tell its layout.

Nothing binds these to the FASTA, and the whole of it is not looked at. So what they say is held
against what is read: the header line before a record and what follows its end, at the first read
of it; the line ends inside and around each stretch; of bgzip, that blocks begin and end where
they should, and their checksums.

References
----------
``.fai``: http://www.htslib.org/doc/faidx.html; ``.gzi``: http://www.htslib.org/doc/bgzip.html
"""

from __future__ import annotations

import hashlib
import re
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterator

import numpy as np

from data_tools.errors import ChangedFileError, FormatError, MissingFileError
from data_tools.faults import shown
from data_tools.formats.byte_source import BLOCK_MAX, END_BLOCK, BgzfBytes, PlainBytes, RemoteBytes
from data_tools.formats.fasta import FastaLines
from data_tools.formats.fasta_index import RECORDS_MAX, TOO_MANY, check_beginning
from data_tools.formats.fasta_records import Record
from data_tools.formats.location import Url

_INDEX_MAX = 1 << 28
_HEADER_STEPS = (1 << 10, 1 << 15, 1 << 20)
_LINE_WIDENED = 1 << 16
_MEMBERS = 4
_NUMBER = re.compile("[0-9]{1,18}", re.ASCII)
_FAI = "make it anew with samtools faidx"
_GZI = "make it anew with bgzip --reindex"


def _beside(source: PlainBytes, url: Url, ending: str, remedy: str) -> bytes:
    """Give the whole of a file that stands beside."""
    other = url.beside(ending)
    try:
        found = RemoteBytes(other)
    except MissingFileError:
        raise MissingFileError(
            f"{url}: a remote FASTA is read by its index, but there is no {other.name} beside it: "
            f"{remedy.replace(' anew', '')} and put it there, download the FASTA, or use 2bit"
        ) from None
    if found.size > min(_INDEX_MAX, max(source.size, 1 << 16) * 4):
        raise FormatError(f"{other}: {found.size:,} bytes are too many for an index: {remedy}")
    raw = found.read(0, found.size)
    found.close()
    return raw


# --- bgzip ---------------------------------------------------------------------------------


class IndexedBgzfBytes(BgzfBytes):
    """The uncompressed bytes of a bgzip file whose blocks a ``.gzi`` lists.

    Parameters
    ----------
    file : RemoteBytes
        The compressed file; shared, and closed together with this one.
    url : Url
        Where it is.

    Raises
    ------
    InputError
        If there is no index; `FormatError` if it cannot be that of the file.
    """

    remote = True

    def __init__(self, file: RemoteBytes, url: Url) -> None:
        self._file, self.path, self.close = file, file.path, file.close
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        raw = _beside(file, url, ".gzi", _GZI)
        self._index_path, self._index_digest = url.beside(".gzi"), hashlib.sha256(raw).hexdigest()
        end = file.size - len(END_BLOCK)
        if end <= 0 or file.read(end, file.size) != END_BLOCK:
            raise self._broken(file.size, "the end marker is lacking, so the file is cut short")
        places, starts = self._listed(raw)
        if places[-1] == end and len(places) > 1:
            self.size = starts[-1]
        else:
            if not 0 < end - places[-1] <= _MEMBERS * BLOCK_MAX:
                raise self._misfit("its last block is another")
            self.size = starts[-1] + len(self._members(places[-1], file.read(places[-1], end)))
            places.append(end)
            starts.append(self.size)
        steps, contents = np.diff(places), np.diff(starts)
        # Neighbours may stand as one where one of them is empty.
        if (steps <= 0).any() or (contents < 0).any() or (steps > _MEMBERS * BLOCK_MAX).any():
            raise self._misfit("its blocks are not in order")
        self._places, self._starts = array("q", places[:-1]), array("q", starts)
        self._lengths = array("q", steps.tolist())

    def _listed(self, raw: bytes) -> tuple[list[int], list[int]]:
        """Give where each block begins, in the file and in its content."""
        count = int.from_bytes(raw[:8], "little")
        if len(raw) < 8 or len(raw) != 8 + 16 * count:
            raise self._misfit("it does not hold as many blocks as it says")
        table = np.frombuffer(raw, dtype="<u8", offset=8).reshape(-1, 2)
        if (table > 1 << 62).any():
            raise self._misfit("its blocks are not in order")
        return [0, *table[:, 0].tolist()], [0, *table[:, 1].tolist()]

    def digest(self) -> str:
        """Give what the server says of this version of the file, and a digest of its index."""
        return f"{self._file.digest()}:{self._index_digest}"

    def refreshed(self) -> BgzfBytes:
        """Give the source to read from: this version of the file cannot change."""
        return self

    def _inflate(self, i: int, deflated: bytes | memoryview) -> bytes:
        content = self._members(self._places[i], bytes(deflated))
        if len(content) != self._starts[i + 1] - self._starts[i]:
            raise self._misfit(
                f"the content of the block at byte {self._places[i]} is longer or shorter"
            )
        return content

    def _members(self, place: int, raw: bytes) -> bytes:
        """Inflate neighbouring blocks; each holds its own length and checksum."""
        parts = []
        while raw:
            if raw[:4] != END_BLOCK[:4]:
                raise self._misfit(f"no block begins at byte {place}")
            tool = zlib.decompressobj(wbits=31)
            try:
                parts.append(tool.decompress(raw, BLOCK_MAX + 1))
            except zlib.error as err:
                raise self._broken(place, f"the block does not inflate ({err})") from None
            if not tool.eof:
                raise self._misfit(f"the block at byte {place} ends elsewhere")
            place += len(raw) - len(tool.unused_data)
            raw = tool.unused_data
        return b"".join(parts)

    def _misfit(self, what: str) -> FormatError:
        return FormatError(f"{self._index_path}: not the index of this file: {what}: {_GZI}")


# --- FASTA ---------------------------------------------------------------------------------


class IndexedFastaStore(FastaLines):
    """A `data_tools.formats.store.Store` on a remote FASTA; takes over the source.

    Parameters
    ----------
    source : RemoteBytes or IndexedBgzfBytes
        The open file.
    url : Url
        Where it is.

    Raises
    ------
    InputError
        If there is no index; `FormatError` if it cannot be that of the file.
    """

    def __init__(self, source: PlainBytes, url: Url) -> None:
        check_beginning(source)
        self._index_path = url.beside(".fai")
        raw = _beside(source, url, ".fai", _FAI)
        records = tuple(self._listed(raw, source.size))
        if not records:
            raise FormatError(f"{self._index_path}: holds no record: {_FAI}")
        self.layout = self.digest = f"{source.digest()}:{hashlib.sha256(raw).hexdigest()}"
        self._current = (source, source.stamp())
        self._records = records
        self._checked: set[int] = set()
        self.lengths = {record.name: record.length for record in records}

    def _listed(self, raw: bytes, size: int) -> Iterator[Record]:
        """Give the records, if they can stand in a file of this size."""
        seen: set[str] = set()
        reach = 0
        lines = raw.decode("latin-1").removesuffix("\n").split("\n")
        for number, line in enumerate(lines if raw else [], start=1):
            what = f"{self._index_path}:{number}"
            name, *texts = line.split("\t")
            if len(texts) != 4 or not all(_NUMBER.fullmatch(text) for text in texts):
                raise FormatError(f"{what}: not a name and four numbers: {_FAI}")
            length, offset, width, stride = map(int, texts)
            if not name.isascii() or not name.isprintable() or not name or " " in name:
                raise FormatError(f"{what}: {shown(name)} is no name of a record: rename it")
            if name in seen:
                raise FormatError(f"{what}: the name {shown(name)} occurs twice: rename one")
            if not length:
                raise FormatError(f"{what}: the record {shown(name)} is empty: remove it")
            if number > RECORDS_MAX:
                raise FormatError(f"{what}: more than {RECORDS_MAX:,} records: {TOO_MANY}")
            seen.add(name)
            record = Record(name, length, offset, width, stride, "")
            if not 0 < width < stride <= width + 2 or offset < reach + 2:
                raise FormatError(f"{what}: lies across another record, or its lines do: {_FAI}")
            reach = _end(record)
            if reach > size:
                raise FormatError(f"{what}: the record ends past the end of the file: {_FAI}")
            yield record

    def _record(self, rank: int) -> Record:
        record = self._records[rank]
        if rank not in self._checked:
            self._check(record, self._current[0])
            self._checked.add(rank)
        return record

    def _check(self, record: Record, source: PlainBytes) -> None:
        """Look at the header line before the record, and at what follows its end."""
        for step in _HEADER_STEPS:
            low = max(0, record.offset - step)
            before = source.read(low, record.offset)
            cut = before.rfind(b"\n", 0, -1) + 1
            if cut or not low:
                break
        header = before[cut:]
        good = header[:1] == b">" and header.endswith(record.line_end)
        words = header[1:].replace(b"\t", b" ").split()
        good &= header[1:2] not in b" \t\r\n" and words[0].decode("latin-1") == record.name
        end = _end(record)
        after = source.read(end, min(end + 64, source.size))
        left = after.lstrip(b"\r\n")
        ended = not after or after.startswith((b"\n", b"\r\n"))
        if not good or not ended or left[:1] not in (b"", b">"):
            raise self._moved(record)

    def _read(self, record: Record, start: int, end: int, table: bytes | None) -> bytes:
        """Read a stretch, and beyond it to the line ends around it, as far as they are near."""
        low, high = start, end
        if start < end and record.width <= _LINE_WIDENED:
            low = max(0, start - start % record.width - 1)
            high = min(record.length, end - (end - 1) % record.width + record.width)
        return super()._read(record, low, high, table)[start - low : end - low]

    def _checked_anew(self) -> PlainBytes:
        return self._current[0]

    def _moved(self, record: Record) -> ChangedFileError:
        return ChangedFileError(
            f"{self._index_path}: not the index of this file: the record {record.name!r} is not "
            f"where it says: {_FAI}"
        )


def _end(record: Record) -> int:
    """Give where the last base of a record ends in the file."""
    lines = (record.length - 1) // record.width
    return record.offset + record.length + lines * (record.stride - record.width)
