"""Rows of a VCF file, one for each alternative allele, or a fault.

References
----------
VCF 4.3: https://samtools.github.io/hts-specs/VCFv4.3.pdf
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from data_tools.faults import Faults, shown
from data_tools.formats.fields import Fields
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
) -> Iterator[pd.DataFrame]:
    """Give the alternative alleles of a file in its order, a table for each block of text.

    Rows of one allele that is a sequence, nearly all, are read at once; the others, and blocks
    in which something is amiss, row by row. Both give the same values; a test holds them to it.
    """
    header: int | None = None
    first = True
    for block in text_blocks(faults.path, faults, max_inflated=max_inflated, size=size):
        if header is not None and (found := quick(block.data, block.first, header)) is not None:
            yield found
            continue
        alleles: list[Allele] = []
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
                    alleles += row_alleles(line, number_, header)
                except WrongRowError as wrong:
                    faults.add(number_, str(wrong))
        yield as_table(alleles)
    if header is None and not faults.count:
        raise faults.error(None, "holds no header line #CHROM POS ...: is the file cut short?")


def as_table(alleles: list[Allele]) -> pd.DataFrame:
    """Give alleles as a table."""
    columns = zip(*alleles, strict=True) if alleles else [()] * len(Allele._fields)
    return _typed(dict(zip(Allele._fields, columns, strict=True)))


def _typed(columns: dict[str, Any]) -> pd.DataFrame:
    types = {"line": "int64", "start": "int64", "allele": "int64", "qual": "float64"}
    return pd.DataFrame(
        {name: pd.Series(column, dtype=types.get(name, "str")) for name, column in columns.items()}
    )


def quick(data: bytes, first_line: int, count: int) -> pd.DataFrame | None:
    """Read whole lines at once; None where that does not prove every row right."""
    fields = Fields.of(data, count) if data.isascii() else None
    if fields is None or fields.any_begins((b"#",)):
        return None
    chrom, place, passed = fields.repeated(0), fields.integers(1), fields.repeated(6)
    if chrom is None or place is None or passed is None or place.min() < 1:
        return None
    names, quality = fields.texts(2), _quick_quality(fields)
    # In sound ASCII text, nothing but the space is a blank within a field.
    if quality is None or not all(names) or b" " in fields.joined(2)[0]:
        return None
    if any(not name or has_blank(name) for name in (*chrom[1], *passed[1])):
        return None
    ref, alt = _quick_bases(fields, 3), _quick_bases(fields, 4)
    if not all(ref):
        return None
    plain = np.array([a != "" and a != r for r, a in zip(ref, alt, strict=True)], dtype=np.bool_)
    table = _typed(
        {
            "line": first_line + np.arange(len(place)),
            "chrom": np.array(chrom[1], dtype=object)[chrom[0]],
            "start": place - 1,
            "name": [None if name == "." else name for name in names],
            "ref": ref,
            "alt": alt,
            "allele": np.ones(len(place), dtype=np.int64),
            "qual": quality,
            "filter": np.array([None if p == "." else p for p in passed[1]], object)[passed[0]],
            "kind": np.full(len(place), "", dtype=object),
        }
    )
    if plain.all():
        return table
    others: list[Allele] = []
    lines = data.decode().split("\n")
    try:
        for row in np.flatnonzero(~plain).tolist():
            others += row_alleles(lines[row], first_line + row, count)
    except WrongRowError:
        return None
    both = pd.concat([table[plain], as_table(others)])
    return both.sort_values("line", kind="stable", ignore_index=True)


def _quick_quality(fields: Fields) -> Any | None:
    values, rest = fields.decimals(5)
    for row in rest.tolist():
        text = fields.text(row, 5)
        try:
            values[row] = math.nan if text == "." else number(text, "QUAL")
        except WrongRowError:
            return None
    return values


def _quick_bases(fields: Fields, column: int) -> list[str]:
    """Give a column of bases in upper case; "" where something else stands."""
    texts = fields.texts(column)
    raw, _ = fields.joined(column)
    if not raw.translate(None, b"ACGTN"):
        return texts
    return [text.upper() if _BASES.fullmatch(text) else "" for text in texts]


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
