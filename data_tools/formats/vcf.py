"""Rows of a VCF file, one for each alternative allele, or a fault.

References
----------
VCF 4.3: https://samtools.github.io/hts-specs/VCFv4.3.pdf
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from data_tools.faults import Faults, shown
from data_tools.formats.text import BLOCK, text_blocks
from data_tools.formats.values import WrongRowError, has_blank, integer, number

COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO")
_FORMAT = re.compile(r"##fileformat=VCFv4\.[0-9]", re.ASCII)
_BASES = re.compile("[ACGTN]+", re.IGNORECASE | re.ASCII)
_SYMBOLIC = re.compile("<[^<>,]+>")
_MATE = re.compile(r"[ACGTN]*[\[\]][^\[\],]+[\[\]][ACGTN]*", re.IGNORECASE | re.ASCII)
_SINGLE = re.compile(r"\.[ACGTN]+|[ACGTN]+\.", re.IGNORECASE | re.ASCII)


class Allele(NamedTuple):
    """One alternative allele of a row; ``kind`` is "" where it is a sequence."""

    line: int
    chrom: str
    start: int
    name: str | None
    ref: str
    alt: str
    allele: int
    qual: float
    filter: str | None
    kind: str


def read_alleles(
    faults: Faults, *, max_inflated: int | None = None, size: int = BLOCK
) -> Iterator[Allele]:
    """Give the alternative alleles of a file in its order; only a block of text is in memory."""
    header: int | None = None
    first = True
    for block in text_blocks(faults.path, faults, max_inflated=max_inflated, size=size):
        lines = block.data.decode().removesuffix("\n").split("\n")
        for number_, line in enumerate(lines, start=block.first):
            if first:
                _check_first(line, number_, faults)
                first = False
            elif not line or (header is None and line.startswith("##")):
                continue
            elif header is None:
                header = _check_header(line, number_, faults)
            else:
                try:
                    yield from row_alleles(line, number_, header)
                except WrongRowError as wrong:
                    faults.add(number_, str(wrong))
    if header is None and not faults.count:
        raise faults.error(None, "holds no header line #CHROM POS ...: is the file cut short?")


def _check_first(line: str, number_: int, faults: Faults) -> None:
    if _FORMAT.fullmatch(line) is None:
        raise faults.error(
            number_, f"not VCF 4: it begins with ##fileformat=VCFv4.x, not {shown(line)}"
        )


def _check_header(line: str, number_: int, faults: Faults) -> int:
    """Give the number of columns."""
    names = line.split("\t")
    if tuple(names[:8]) != COLUMNS or (len(names) > 8 and names[8] != "FORMAT"):
        raise faults.error(
            number_,
            f"the header line is not {' '.join(COLUMNS)} [FORMAT samples], separated by tabs: "
            f"{shown(line)}",
        )
    samples = names[9:]
    if len(set(samples)) != len(samples):
        twice = next(name for name in samples if samples.count(name) > 1)
        raise faults.error(number_, f"the sample {shown(twice)} occurs twice: rename one")
    return len(names)


def row_alleles(line: str, number_: int, count: int) -> list[Allele]:
    r"""Read one line; raise `WrongRowError` if it does not keep to the format.

    Examples
    --------
    >>> for found in row_alleles("1\t5\t.\tA\tC,<DEL>\t.\tPASS\t.", 9, 8):
    ...     print(found.start, found.ref, found.alt, found.allele, repr(found.kind))
    4 A C 1 ''
    4 A <DEL> 2 'symbolic allele'
    """
    if line.startswith("#"):
        raise WrongRowError("a header line among the rows", line)
    columns = line.count("\t") + 1
    if columns != count:
        raise WrongRowError(f"{columns} columns, the header has {count}", line)
    chrom, pos, name, ref, alts, qual, passed, *_ = line.split("\t", 8)
    for label, text in (("CHROM", chrom), ("ID", name), ("FILTER", passed)):
        if not text or has_blank(text):
            raise WrongRowError(f"{label} is empty or holds a blank", text)
    place = integer(pos, "POS")
    if place < 0:
        raise WrongRowError("POS is below 0", pos)
    if _BASES.fullmatch(ref) is None:
        raise WrongRowError("REF holds something else than A, C, G, T and N", ref)
    quality = float("nan") if qual == "." else number(qual, "QUAL")
    common: dict[str, Any] = {
        "line": number_,
        "chrom": chrom,
        "start": place - 1,
        "name": None if name == "." else name,
        "ref": ref.upper(),
        "qual": quality,
        "filter": None if passed == "." else passed,
    }
    return [
        Allele(alt=_upper(alt), allele=at, kind=_kind(alt, ref, place), **common)
        for at, alt in enumerate(alts.split(","), start=1)
    ]


def _upper(alt: str) -> str:
    return alt.upper() if _BASES.fullmatch(alt) else alt


def _kind(alt: str, ref: str, place: int) -> str:
    """Say what an allele is that is no sequence; "" for one that is."""
    if _BASES.fullmatch(alt):
        if alt.upper() == ref.upper():
            raise WrongRowError("ALT is the same as REF", alt)
        return "" if place else "position 0 (telomere)"
    if alt == ".":
        return "no alternative allele"
    if alt == "*":
        return "allele *"
    if _SYMBOLIC.fullmatch(alt):
        return "symbolic allele"
    if _MATE.fullmatch(alt) or _SINGLE.fullmatch(alt):
        return "breakend"
    raise WrongRowError("ALT is neither bases nor an allele that VCF knows", alt)
