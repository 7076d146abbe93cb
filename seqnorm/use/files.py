"""Scores as files that appear whole or not at all: bigWig, bedGraph, TSV."""

from __future__ import annotations

import importlib.util
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.atomic import sync_folder
from data_tools.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["bedgraph", "check_out", "made_whole", "track_rows", "tsv", "write_bigwig"]

TRACKS = {".bw": "bigwig", ".bigwig": "bigwig", ".bedgraph": "bedgraph", ".bg": "bedgraph"}
FORMATS = TRACKS | {".tsv": "tsv"}

Row = tuple[str, int, int, float]
"""Chromosome, start, end, value."""


def check_out(out: Path, formats: Mapping[str, str] = FORMATS) -> str:
    """Tell the format of a file by its name, before there is anything to write.

    Raises
    ------
    InputError
        For another name, a folder that is not there, or a bigWig that nothing here can write.

    Examples
    --------
    >>> check_out(Path("scores.tsv"))
    'tsv'
    """
    kind = formats.get(out.suffix.lower())
    if kind is None:
        raise InputError(f"{out}: give a name that ends in {', '.join(formats)}")
    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise InputError(f"{out}: cannot be written ({what}); give the name of a file")
    if kind == "bigwig" and importlib.util.find_spec("pybigtools") is None:
        raise InputError(
            f"{out}: bigWig is written by pybigtools, which is not installed; "
            "pip install seqnorm[formats], or give a name that ends in .bedgraph"
        )
    return kind


@contextmanager
def made_whole(out: Path) -> Iterator[Path]:
    """Give a name to write under; what is there at the end takes the place of ``out``."""
    # The same ending: writers look at it.
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}{out.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(out)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(out.parent)


def tsv(parts: Iterable[pd.DataFrame]) -> Iterator[str]:
    """Tables, one after the other, as one TSV; float32 keep all their digits, NaN is empty."""
    for number, part in enumerate(parts):
        yield part.to_csv(sep="\t", index=False, header=number == 0, float_format="%.9g")


def track_rows(parts: Iterable[pd.DataFrame]) -> Iterator[Row]:
    """Rows of a track (``chrom``, ``start``, ``end``, ``score``); those without a score are not.

    Raises
    ------
    InputError
        If two of them overlap or are not in order, since a track has one value a base.
    """
    chrom_before, end_before = "", 0
    for part in parts:
        known = part[part["score"].notna()]
        columns = (known[name].tolist() for name in ("chrom", "start", "end", "score"))
        for row in zip(*columns, strict=True):
            chrom, start, end, _ = row
            if chrom == chrom_before and start < end_before:
                raise InputError(
                    f"{chrom}:{start}-{end} overlaps what is before it: a track holds one value a "
                    "base; merge the intervals, or write a .tsv"
                )
            chrom_before, end_before = chrom, end
            yield row


def bedgraph(rows: Iterable[Row]) -> Iterator[str]:
    """Rows of a track as lines of bedGraph."""
    for chrom, start, end, score in rows:
        yield f"{chrom}\t{start}\t{end}\t{score:.9g}\n"


def write_bigwig(rows: Iterator[Row], lengths: Mapping[str, int], out: Path) -> None:
    """Write rows of a track as bigWig, a row at a time."""
    import pybigtools

    from data_tools.formats.bigwig import BigWigFile

    count, failed = 0, []

    def passed() -> Iterator[Row]:
        # The writer takes an error for the end of the rows and goes on: it is kept for later.
        nonlocal count
        try:
            for row in rows:
                count += 1
                yield row
        except BaseException as error:
            failed.append(error)

    with made_whole(out) as temporary:
        pybigtools.open(str(temporary), "w").write(dict(lengths), passed())
        if failed:
            raise failed[0]
        # Nor does it tell when it fails.
        written = BigWigFile(temporary)
        try:
            if written.check() != count:
                raise InputError(f"{out}: could not be written whole; is the disk full?")
        finally:
            written.close()
