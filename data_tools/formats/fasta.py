"""The bases of a FASTA file, plain or bgzip, read by its layout and checked at every read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import data_tools.kernels
from data_tools.encode import AMBIGUOUS, CODE_TABLE, LETTERS, Codes
from data_tools.errors import ChangedFileError
from data_tools.formats.byte_source import PlainBytes
from data_tools.formats.fasta_index import Index, index_of, load_index, save_index
from data_tools.formats.fasta_records import Record
from data_tools.kernels import bases as compiled


class FastaLines:
    """Reads stretches of records by where their lines are, and checks that they are there."""

    _current: tuple[PlainBytes, tuple[int, int, int]]

    def close(self) -> None:
        """Close the file; later reads raise `InputError`."""
        self._current[0].close()

    def letters(self, rank: int, start: int, end: int) -> bytes:
        """Give the letters of a stretch of a record, exactly as they stand in the file."""
        record = self._record(rank)
        letters = self._read(record, start, end, None)
        if letters.translate(None, LETTERS):
            raise self._moved(record)
        return letters

    def codes(self, rank: int, start: int, end: int) -> Codes:
        """Give a stretch of a record as codes that may not be written to."""
        record = self._record(rank)
        if data_tools.kernels.available() and start < end:
            found = compiled.line_codes(*self._raw(record, start, end), CODE_TABLE, end - start)
            if found is None:
                raise self._moved(record)
            return found
        codes = np.frombuffer(self._read(record, start, end, CODE_TABLE), dtype=np.uint8)
        if codes.size and codes.max() > AMBIGUOUS:
            raise self._moved(record)
        return codes

    def _record(self, rank: int) -> Record:
        """Give the layout of a record."""
        raise NotImplementedError

    def _source(self) -> PlainBytes:
        """Give the source to read from, which still is the one that was opened."""
        source, stamp = self._current
        return source if source.stamp() == stamp else self._checked_anew()

    def _raw(self, record: Record, start: int, end: int) -> tuple[bytes, int, int, bytes]:
        """Give the bytes of a stretch, their column, the width of lines and what ends them."""
        source = self._source()
        width, stride = record.width, record.stride
        line, column = divmod(start, width)
        last_line, last_column = divmod(end - 1, width)
        first = record.offset + line * stride + column
        raw = source.read(first, record.offset + last_line * stride + last_column + 1)
        return raw, column, width, record.line_end

    def _read(self, record: Record, start: int, end: int, table: bytes | None) -> bytes:
        """Read a stretch through a translation table, the line ends checked and taken out."""
        if start == end:
            self._source()
            return b""
        raw, column, width, line_end = self._raw(record, start, end)
        letters = raw.translate(table, line_end)
        lines = (column + end - start - 1) // width
        # As many line ends as expected, and one at each expected place: then none elsewhere.
        good = len(letters) == end - start
        for i, character in enumerate(line_end):
            expected = bytes([character]) * lines
            good = good and raw[width - column + i :: record.stride] == expected
        if not good:
            raise self._moved(record)
        return letters

    def _checked_anew(self) -> PlainBytes:
        """Give the source to read from after someone touched the file."""
        raise NotImplementedError

    def _moved(self, record: Record) -> ChangedFileError:
        """Give the error for a record that is not where its layout says."""
        raise NotImplementedError


class FastaStore(FastaLines):
    """A `data_tools.formats.store.Store` on FASTA; takes over the source, which it closes.

    Parameters
    ----------
    source : PlainBytes or BgzfBytes
        The open file.
    place : str
        Its absolute path, under which its layout is kept.
    folder : Path or None
        Where layouts are kept.
    known : Index, optional
        The layout from another process, to be taken instead of the kept one if it still holds.

    Raises
    ------
    FormatError
        If the file is no strict FASTA: names record and line.
    """

    def __init__(
        self, source: PlainBytes, place: str, folder: Path | None, known: Index | None = None
    ) -> None:
        stamp = source.settled_stamp()
        kept = load_index(folder, place) if known is None else known
        self.layout = index_of(source, kept)
        if self.layout is not kept:
            save_index(folder, place, self.layout)
        # One attribute, so that a thread never sees a new source with an old stamp.
        self._current = (source, stamp)
        self.lengths = {record.name: record.length for record in self.layout.records}

    @property
    def digest(self) -> str:
        """The lengths and checksums of all blocks of bgzip; of a plain file, size and times."""
        return self.layout.digest

    def _record(self, rank: int) -> Record:
        return self.layout.records[rank]

    def _checked_anew(self) -> PlainBytes:
        """Someone touched the file: go on only if a new scan finds the same layout."""
        source = self._current[0].refreshed()
        stamp = source.settled_stamp()
        index = index_of(source, self.layout)
        if index != self.layout:
            raise source.changed("its layout is another")
        self.layout, self._current = index, (source, stamp)
        return source

    def _moved(self, record: Record) -> ChangedFileError:
        return self._current[0].changed(
            f"record {record.name!r} no longer has letters and line ends where they were"
        )
