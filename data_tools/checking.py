"""What is wrong with a file, all of it: the readers go on where else they stop at a fault.

The formats are told by content where it tells (bigWig, 2bit, parquet, VCF, FASTA, GenBank), else
by the name, else a file is read as intervals.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from data_tools.errors import InputError
from data_tools.faults import Faults
from data_tools.formats.byte_source import open_source
from data_tools.formats.fasta_index import scanned
from data_tools.formats.location import Location, location
from data_tools.formats.text import opened
from data_tools.formats.twobit import is_two_bit, read_layout

if TYPE_CHECKING:
    from data_tools.formats.bed_rows import Score
    from data_tools.genome import Genome
    from data_tools.sequences import SequenceFormat

LIMIT = 20
"""Faults of a file that are told one by one."""

_BIGWIG = (b"\x26\xfc\x8f\x88", b"\x88\x8f\xfc\x26")
_TWO_BIT = (b"\x43\x27\x41\x1a", b"\x1a\x41\x27\x43")
_BY_CONTENT = (
    (_BIGWIG, "bigWig"),
    (_TWO_BIT, "genome"),
    ((b"PAR1",), "parquet"),
    ((b"##fileformat=VCF",), "VCF"),
    ((b">",), "genome"),
    ((b"LOCUS ",), "GenBank"),
    ((b"track type=bedGraph",), "bedGraph"),
)
_BY_NAME = {
    **dict.fromkeys((".fa", ".fasta", ".fna", ".2bit"), "genome"),
    **dict.fromkeys((".bw", ".bigwig"), "bigWig"),
    **dict.fromkeys((".bedgraph", ".bg", ".bdg"), "bedGraph"),
    ".vcf": "VCF",
    ".csv": "CSV",
    ".tsv": "TSV",
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".gb", ".gbk", ".genbank", ".gbff"), "GenBank"),
}


class _Options(NamedTuple):
    genome: Genome | None
    score: Score
    max_inflated: int | None


@dataclass(frozen=True)
class Verdict:
    """What was found in a file.

    Attributes
    ----------
    path : Path or Url
    summary : str
        What a good file holds; "" for one with faults.
    faults : tuple of str
        As many as were asked for, one line each, with the place.
    further : int
        How many there are beyond those.
    """

    path: Location
    summary: str
    faults: tuple[str, ...]
    further: int

    @property
    def good(self) -> bool:
        """Whether nothing is wrong with it."""
        return not self.faults


def check_file(
    path: str | os.PathLike[str],
    genome: Genome | None = None,
    *,
    score: Score = "integer",
    limit: int = LIMIT,
    max_inflated: int | None = None,
) -> Verdict:
    r"""Read a file from end to end and say all that is wrong with it.

    After some faults nothing more can be read (broken compression, a header that lies): they are
    the last that is told. Of one record of FASTA each kind of fault in its lines is told once.

    Parameters
    ----------
    path : path
        FASTA, 2bit, BED, narrowPeak, broadPeak, bedGraph, bigWig, VCF, GenBank, or a table of
        sequences (TSV, CSV, parquet).
    genome : Genome, optional
        Against which intervals, variants and signal are checked.
    score : {"integer", "number"}
        What column 5 of a file of intervals holds, as in `read_intervals`.
    limit : int
        Most faults to tell one by one.
    max_inflated : int, optional
        To how many bytes a compressed file may inflate; 16 MiB or 200 times its size unless given.

    Returns
    -------
    Verdict

    Raises
    ------
    InputError
        If ``limit`` is below 1.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bed = Path(folder) / "a.bed"
    ...     _ = bed.write_text("c\t5\t9\nc\t9\t5\nc\t1\n")
    ...     verdict = check_file(bed)
    >>> [fault.split(":")[1] for fault in verdict.faults]
    ['2', '3']
    """
    if limit < 1:
        raise InputError(f"at least one fault must be told, not {limit}")
    faults = Faults(location(path), keep=limit)
    try:
        check = _CHECKS[recognise(faults.path)]
        summary = check(faults, _Options(genome, score, max_inflated))
    except InputError as error:
        summary = ""
        text = str(error)
        # It may be one that was noted already, and then found fatal.
        if text not in faults.kept:
            faults.kept.append(text)
    good = not faults.count
    return Verdict(faults.path, summary if good else "", tuple(faults.kept), faults.further)


def recognise(path: Location) -> str:
    """Tell what a file is: by its content where that tells, else by its name."""
    head = _head(path)
    for beginnings, kind in _BY_CONTENT:
        if head.startswith(beginnings):
            return kind
    bare = path.name.lower().removesuffix(".gz").removesuffix(".bgz")
    return _BY_NAME.get(Path(bare).suffix, "intervals")


def _head(path: Location) -> bytes:
    if isinstance(path, Path) and path.exists() and not path.is_file():
        return b""
    with opened(path) as stream:
        raw = stream.read(1 << 16)
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = zlib.decompressobj(wbits=31).decompress(raw, 256)
        except (zlib.error, gzip.BadGzipFile):
            return b""
    return raw[:256].removeprefix(b"\xef\xbb\xbf")


def _genome(faults: Faults, _: _Options) -> str:
    with closing(open_source(faults.path)) as source:
        if is_two_bit(source):
            lengths = {record.name: record.length for record in read_layout(source).records}
            # Each reading of a block of bgzip checks it; a bare 2bit has no checksum.
            for _chunk in source.chunks():
                pass
        else:
            # The scan looks at every byte.
            lengths = {record.name: record.length for record in scanned(source, faults)}
    return f"{len(lengths)} records, {sum(lengths.values()):,} bases"


def _intervals(faults: Faults, options: _Options) -> str:
    from data_tools.intervals import Policies, read_with_faults

    _, table = read_with_faults(
        faults, options.genome, Policies(score=options.score), max_inflated=options.max_inflated
    )
    summits = f", {int(table['summit'].notna().sum()):,} with a summit" if "summit" in table else ""
    return f"{len(table):,} intervals on {table['chrom'].nunique()} chromosomes{summits}"


def _variants(faults: Faults, options: _Options) -> str:
    from data_tools.variants import read_with_faults

    table = read_with_faults(faults, options.genome, max_inflated=options.max_inflated)
    return f"{len(table):,} alleles on {table['chrom'].nunique()} chromosomes"


def _bigwig(faults: Faults, options: _Options) -> str:
    from data_tools.formats.bigwig import BigWigFile
    from data_tools.signal import on_genome

    with ExitStack() as stack:
        big = BigWigFile(faults.path)
        stack.callback(big.close)
        count = big.check()
        if options.genome is not None:
            on_genome(faults, big.lengths, big, options.genome, "exact", exact_lengths=True)
    return f"{count:,} values on {len(big.lengths)} chromosomes"


def _bedgraph(faults: Faults, options: _Options) -> str:
    from data_tools.signal import BedGraph, on_genome

    graph = BedGraph(faults, options.max_inflated)
    if options.genome is not None:
        on_genome(faults, graph.lengths, graph, options.genome, "exact", exact_lengths=False)
    return f"{graph.rows:,} values on {len(graph.parts)} chromosomes"


def _sequences(faults: Faults, options: _Options) -> str:
    from data_tools.sequences import check_with_faults

    # A file of these kinds may be called as it likes.
    table = check_with_faults(faults, _TABLES[recognise(faults.path)], options.max_inflated)
    bases = int(table["sequence"].str.len().sum()) if len(table) else 0
    return f"{len(table):,} sequences, {bases:,} bases"


_TABLES: dict[str, SequenceFormat] = {
    "CSV": "csv",
    "TSV": "tsv",
    "parquet": "parquet",
    "GenBank": "genbank",
}
_CHECKS: dict[str, Callable[[Faults, _Options], str]] = {
    "genome": _genome,
    "intervals": _intervals,
    "VCF": _variants,
    "bigWig": _bigwig,
    "bedGraph": _bedgraph,
    **dict.fromkeys(_TABLES, _sequences),
}
