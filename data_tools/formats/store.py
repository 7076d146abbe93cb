"""What a file of sequences must give so that `Genome` can stand on it, and which one fits a file.

A store is asked only for stretches that were checked against its `lengths`; it gives the bases
that stand in the file now, or an error. It serves threads and forked workers without a lock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from data_tools.encode import Codes
from data_tools.formats.byte_source import PlainBytes, RemoteBytes, open_source
from data_tools.formats.fasta import FastaStore
from data_tools.formats.fasta_index import Index
from data_tools.formats.indexed_fasta import IndexedBgzfBytes, IndexedFastaStore
from data_tools.formats.location import Location, Url
from data_tools.formats.twobit import TwoBitStore, is_two_bit


class Store(Protocol):
    """The bases of a file; records are counted from 0 in the order of the file."""

    @property
    def lengths(self) -> dict[str, int]:
        """Bases of each record by its name, in the order of the file."""

    @property
    def layout(self) -> Index | str:
        """What is equal between two openings of a file in which no record moved; pickles."""

    @property
    def digest(self) -> str:
        """What stands for the content, as well as the format allows; see `Genome.digest`."""

    def letters(self, rank: int, start: int, end: int) -> bytes:
        """Give a stretch of a record as letters, case kept."""

    def codes(self, rank: int, start: int, end: int) -> Codes:
        """Give a stretch of a record as codes, which the caller does not write to."""

    def close(self) -> None:
        """Close the file; later reads raise `InputError`."""


def open_store(
    place: str | Url, shown: Location, folder: Path | None, known: Index | str | None = None
) -> Store:
    """Open a file of sequences, telling FASTA from 2bit by its first bytes.

    Parameters
    ----------
    place : str or Url
        Absolute path, or address, of a FASTA file (plain or bgzip) or of a 2bit file.
    shown : Path or Url
        How errors call it.
    folder : Path or None
        Where layouts of FASTA files are kept.
    known : optional
        The `layout` of another opening, which may save a scan.

    Raises
    ------
    InputError
        If it cannot be opened; `FormatError` if it is neither sound FASTA nor sound 2bit.
    """
    if isinstance(place, Url):
        return _remote_store(place)
    source = open_source(place, shown)
    try:
        if is_two_bit(source):
            return TwoBitStore(source)
        return FastaStore(source, place, folder, known if isinstance(known, Index) else None)
    except BaseException:
        source.close()
        raise


def _remote_store(url: Url) -> Store:
    file = RemoteBytes(url)
    source: PlainBytes = file
    try:
        if file.read(0, min(2, file.size)) == b"\x1f\x8b":
            source = IndexedBgzfBytes(file, url)
        return TwoBitStore(source) if is_two_bit(source) else IndexedFastaStore(source, url)
    except BaseException:
        file.close()
        raise
