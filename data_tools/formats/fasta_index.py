"""Where the bases of each FASTA record lie: one strict streaming pass, kept in a cache.

The index holds the layout only (offsets and line widths); bases are always read from the file.
What makes a kept index valid is the file's size and content, never the age of a file:

- bgzip: the lengths and checksums of all blocks, which stand for every byte;
- plain: every record's header line stands byte for byte where the index says and its first line
  has the length that the index says, which fixes the layout of a sound FASTA of this size; and
  at each read the line ends fall exactly where the index says and nowhere else. A time stamp is
  looked at in one direction only: another stamp makes the index suspect, and the file is scanned
  anew; an equal stamp proves nothing.

``.fai`` and ``.gzi`` files are never used: they carry nothing that binds them to the FASTA.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_tools.atomic import write_atomic
from data_tools.encode import LETTERS
from data_tools.errors import ChangedFileError, FormatError
from data_tools.faults import Faults
from data_tools.formats.beginnings import BEGINNING, remedy_for
from data_tools.formats.byte_source import PlainBytes
from data_tools.formats.fasta_records import Record, all_stand_in, short_records

_VERSION = 1
_HEADER_MAX = 1 << 20
#: A record takes some 400 bytes of memory, and a small compressed file can hold very many.
RECORDS_MAX = 1 << 21
TOO_MANY = "keep the longest sequences alone"
_NEWLINE, _RETURN, _GREATER = 10, 13, 62
_LEGAL = np.zeros(256, dtype=bool)
_LEGAL[[*LETTERS, _NEWLINE]] = True


@dataclass(frozen=True, slots=True)
class Index:
    """The records of a file, and the digest of the file that they belong to.

    Indexes are equal where the records are: a file that was touched may have its layout still.
    """

    digest: str = field(compare=False)
    records: tuple[Record, ...]


def index_of(source: PlainBytes, candidate: Index | None = None) -> Index:
    """Give the index of a file: the candidate if it holds for the file as it is, else a new one.

    Parameters
    ----------
    source : PlainBytes or BgzfBytes
        The open file.
    candidate : Index, optional
        From the cache, or from another process.

    Returns
    -------
    Index
        ``index is candidate`` tells that the candidate was valid.

    Raises
    ------
    FormatError
        If the file is no strict FASTA, naming record and line.
    ChangedFileError
        If the file changes while it is scanned.
    """
    digest = source.digest()
    if candidate is not None and candidate.digest == digest:
        with contextlib.suppress(ChangedFileError):
            if all_stand_in(source, candidate.records):
                return candidate
    return Index(digest, scanned(source, Faults(source.path)))


def scanned(source: PlainBytes, faults: Faults) -> tuple[Record, ...]:
    """Read a FASTA file from end to end and give its records.

    Parameters
    ----------
    source : PlainBytes or BgzfBytes
        The open file.
    faults : Faults
        Learns of every line that is not as it should be: each illegal character's line, and of
        a record each other kind of fault once. After one, the records are not to be used.

    Raises
    ------
    FormatError
        If it is no FASTA at all.
    ChangedFileError
        If the file changes while it is scanned.
    """
    stamp = source.stamp()
    check_beginning(source)
    scanner = _Scanner(faults)
    for chunk in source.chunks():
        scanner.feed(chunk)
    records = scanner.finish()
    if source.stamp() != stamp:
        raise source.changed("it was written to while it was read")
    return records


def check_beginning(source: PlainBytes) -> None:
    """Refuse what is no FASTA at all, saying what it looks like."""
    head = source.read(0, min(BEGINNING, source.size))
    if head[:1] == b">":
        return
    if not head:
        raise FormatError(f"{source.path}: the file is empty: a FASTA record begins with '>'")
    raise FormatError(
        f"{source.path}:1: no header: a FASTA file begins with '>', not {head[:1]!r}: "
        f"{remedy_for(head)}"
    )


@dataclass(slots=True)
class _Open:
    """The record that is being scanned."""

    name: str
    header: str
    offset: int
    line: int
    length: int = 0
    width: int = 0
    returns: bool = False
    short: int = 0
    blank: int = 0
    told: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Scanner:
    """Reads FASTA chunk by chunk; lines of sequence may be longer than a chunk."""

    faults: Faults
    done: list[Record] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    record: _Open | None = None
    carry: bytes = b""
    base: int = 0
    line_start: int = 0
    line: int = 1
    odd_line: int = 0

    def feed(self, chunk: bytes) -> None:
        data = self.carry + chunk
        data = self._hold_back(data)
        letters = np.frombuffer(data, dtype=np.uint8)
        ends = np.flatnonzero(letters == _NEWLINE)
        starts = np.empty_like(ends)
        if ends.size:
            starts[0], starts[1:] = self.line_start - self.base, ends[:-1] + 1
        headers = (starts >= 0) & (letters[np.maximum(starts, 0)] == _GREATER)
        returns = (ends > 0) & (letters[ends - 1] == _RETURN)
        odd_lines, odd_letters = self._odd(data, letters, ends, headers)
        bases = ends - starts - returns
        heads, after = np.flatnonzero(headers), 0
        if len(heads) > 2 and not odd_lines.size:
            short = short_records(data, letters, (starts, ends), heads, bases, returns, self.base)
            if short and self._may_add(short):
                first, after = int(heads[0]), int(heads[-1])
                self._add_lines(bases[:first], returns[:first], self.line)
                self._close()
                self.record = None
                self.seen.update(record.name for record in short)
                self.done += short
                heads = heads[-1:]
        for i in map(int, heads):
            cut = int(np.searchsorted(odd_lines, self.line + i))
            self._tell_odd(odd_lines[:cut], odd_letters[:cut])
            odd_lines, odd_letters = odd_lines[cut:], odd_letters[cut:]
            self._add_lines(bases[after:i], returns[after:i], self.line + after)
            self._begin(data[starts[i] : ends[i] + 1], self.base + int(starts[i]), self.line + i)
            after = i + 1
        self._tell_odd(odd_lines, odd_letters)
        self._add_lines(bases[after:], returns[after:], self.line + after)
        if ends.size:
            self.line_start = self.base + int(ends[-1]) + 1
            self.line += int(ends.size)
        self.base += len(data)

    def _may_add(self, records: list[Record]) -> bool:
        """Tell whether no name of these occurs twice, and they are not too many."""
        names = {record.name for record in records}
        room = len(self.seen) + len(records) <= RECORDS_MAX
        return room and len(names) == len(records) and self.seen.isdisjoint(names)

    def finish(self) -> tuple[Record, ...]:
        if self.carry[:1] == b">":
            self._begin(self.carry, self.base, self.line)
        elif self.carry:
            self._tell(self.line, "a carriage return without a newline: convert line ends")
        tail = self.base - self.line_start
        if tail and not self.carry and self.record is not None:
            self._add_lines(np.array([tail]), np.array([self.record.returns]), self.line)
        self._close()
        return tuple(self.done)

    def _hold_back(self, data: bytes) -> bytes:
        """Keep for the next chunk what cannot be judged yet: half a header, a last return."""
        cut = data.rfind(b"\n") + 1
        at_line_start = cut > 0 or self.line_start == self.base
        if at_line_start and data[cut : cut + 1] == b">":
            if len(data) - cut > _HEADER_MAX:
                line = self.line + data.count(b"\n")
                raise self.faults.error(line, "a header of more than 1 MiB: is it FASTA?")
        elif data[-1:] == b"\r":
            cut = len(data) - 1
        else:
            cut = len(data)
        self.carry = data[cut:]
        return data[:cut]

    def _odd(
        self,
        data: bytes,
        letters: NDArray[np.uint8],
        ends: NDArray[np.intp],
        headers: NDArray[np.bool_],
    ) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        """Give the lines of sequence that hold an illegal character, and the first one in each."""
        if not data.translate(None, LETTERS + b"\n"):
            return np.empty(0, dtype=np.intp), letters[:0]
        odd = np.flatnonzero(~_LEGAL[letters])
        line = np.searchsorted(ends, odd)
        stop = np.append(ends, -1)[line]
        in_header = np.append(headers, False)[line]
        is_return = (letters[odd] == _RETURN) & (stop == odd + 1)
        wrong = ~in_header & ~is_return
        lines, first = np.unique(line[wrong], return_index=True)
        return lines + self.line, letters[odd[wrong][first]]

    def _tell_odd(self, lines: NDArray[np.intp], letters: NDArray[np.uint8]) -> None:
        for line, letter in zip(lines.tolist(), letters.tolist(), strict=True):
            # A long line comes in several chunks.
            if line == self.odd_line:
                continue
            self.odd_line = line
            remedy = "; this is RNA, write T for U" if letter in b"Uu" else ""
            what = f"illegal character {chr(letter)!r}: only IUPAC letters{remedy}"
            self._tell(line, what)

    def _tell(self, line: int, what: str, kind: str = "") -> None:
        """Tell a fault; one of a kind only once for a record."""
        record = self.record
        if record is None:
            self.faults.add(line, what)
        elif kind not in record.told:
            record.told |= {kind} - {""}
            self.faults.add(line, f"record {record.name!r}: {what}")

    def _begin_name(self, header: bytes, line: int) -> str:
        """Read the name from a header line and make it the record that errors speak of."""
        text = header.rstrip(b"\r\n")
        if any(byte < 32 and byte != 9 for byte in text):
            self._tell(line, "a control character in a header: check the line ends")
        words = text[1:].replace(b"\t", b" ").split(b" ", 1)
        name = words[0].decode("latin-1")
        if not name:
            self.faults.add(line, "empty name: put the name right after '>'")
        elif not name.isascii():
            self.faults.add(line, f"name {name!r} is not ASCII: rename it")
        self.record = _Open(name, header.decode("latin-1"), 0, line)
        return name

    def _begin(self, header: bytes, place: int, line: int) -> None:
        self._close()
        name = self._begin_name(header, line)
        if name and name in self.seen:
            self._tell(line, "the name occurs twice: rename one of the records")
        if len(self.seen) == RECORDS_MAX:
            what = f"record {name!r}: it is one record more than {RECORDS_MAX:,}: {TOO_MANY}"
            raise self.faults.error(line, what)
        self.seen.add(name)
        assert self.record is not None
        self.record.offset = place + len(header)

    def _add_lines(self, bases: NDArray[np.intp], returns: NDArray[np.bool_], line: int) -> None:
        """Count lines of sequence; all but the last of a record must be of one length."""
        record = self.record
        if record is None or not bases.size:
            return
        full = int(np.count_nonzero(bases))
        if full and (record.blank or not bases[:full].all()):
            blank = record.blank or line + int(bases.argmin())
            self._tell(blank, "a blank line inside a record: remove it", "blank")
            full = int(np.flatnonzero(bases)[-1]) + 1
        if full < bases.size and not record.blank:
            record.blank = line + full
        if not full:
            return
        bases, returns = bases[:full], returns[:full]
        if not record.width:
            record.width, record.returns = int(bases[0]), bool(returns[0])
        self._check_widths(record, bases, line)
        if (returns != record.returns).any():
            mixed = line + int((returns != record.returns).argmax())
            self._tell(mixed, "LF and CRLF line ends are mixed: convert the file to one", "end")
        record.length += int(bases.sum())

    def _check_widths(self, record: _Open, bases: NDArray[np.intp], line: int) -> None:
        odd = np.flatnonzero(bases != record.width)
        at = int(odd[0]) if odd.size else -1
        if record.short:
            fault = record.short
        elif odd.size and (bases[at] > record.width or at < bases.size - 1):
            fault = line + at
        else:
            record.short = line + at if odd.size else 0
            return
        if "blank" in record.told:
            return
        self._tell(
            fault,
            f"its length differs from the record's first line ({record.width} letters); "
            "only the last line may be shorter: wrap the file anew",
            "width",
        )

    def _close(self) -> None:
        record = self.record
        if record is None:
            return
        if not record.length:
            self._tell(record.line, "the record is empty: remove it or add its sequence")
        stride = record.width + 1 + record.returns
        self.done.append(
            Record(record.name, record.length, record.offset, record.width, stride, record.header)
        )


def cache_folder(chosen: str | os.PathLike[str] | None) -> Path | None:
    """Give the folder for indexes: chosen, else ``$SEQNORM_CACHE``, else the user's cache."""
    if chosen is not None:
        return Path(chosen)
    if own := os.environ.get("SEQNORM_CACHE"):
        return Path(own)
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if Path(xdg).is_absolute():
        return Path(xdg) / "seqnorm"
    try:
        return Path.home() / ".cache" / "seqnorm"
    except RuntimeError:
        return None


def _file_for(folder: Path, path: str) -> Path:
    key = hashlib.sha256(os.fsencode(path)).hexdigest()[:24]
    return folder / f"{key}.fasta-index.json"


def _checksum(body: Any) -> str:
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()


def load_index(folder: Path | None, path: str) -> Index | None:
    """Load the index kept for an absolute path; None if there is none or it is damaged."""
    if folder is None:
        return None
    try:
        kept = json.loads(_file_for(folder, path).read_bytes())
        body = kept["index"]
        if kept["sha256"] != _checksum(body) or body["version"] != _VERSION:
            return None
        if body["path"] != path:
            return None
        return Index(body["digest"], tuple(Record(*row) for row in body["records"]))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def save_index(folder: Path | None, path: str, index: Index) -> None:
    """Keep an index, whole or not at all; a folder that cannot be written is no error."""
    if folder is None:
        return
    body = {"version": _VERSION, "path": path, "digest": index.digest, "records": index.records}
    text = json.dumps({"sha256": _checksum(body), "index": body})
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(_file_for(folder, path), text)
