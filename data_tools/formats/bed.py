"""Rows of BED, narrowPeak and broadPeak files: exactly what stands there, or a fault.

A block of rows is read by arithmetic on all of its bytes at once (`data_tools.formats.fields`).
Where that cannot vouch for a block, it is read again row by row, which finds the fault and words
it. Both give the same values; a test holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from data_tools.errors import InputError
from data_tools.faults import Faults
from data_tools.formats.ahead import worked_ahead
from data_tools.formats.bed_rows import BED, PEAK, Score, blocks, is_bed9, is_rgb, row_values
from data_tools.formats.fields import Fields, Ints, data_rows
from data_tools.formats.location import Location
from data_tools.formats.text import BLOCK, Block, text_blocks
from data_tools.formats.values import WrongRowError, has_blank, number

IntervalFormat = Literal["bed", "narrowPeak", "broadPeak"]
RowFormat = Literal[IntervalFormat, "bedGraph"]

BED_GRAPH = ("chrom", "start", "end", "value")
_SUPPORTED = "supported are BED with 3 to 9 or 12, narrowPeak with 10 and broadPeak with 9"
_COUNTS: dict[str, tuple[int, ...]] = {
    "bed": (3, 4, 5, 6, 7, 8, 9, 12),
    "narrowPeak": (10,),
    "broadPeak": (9,),
    "bedGraph": (4,),
}
# Only with a blank after it: a chromosome may be called track, and no row may vanish.
SKIPPED = (b"#", b"track ", b"browser ")
_INTEGERS = ("start", "end", "score", "thick_start", "thick_end", "block_count")
_NUMBERS = ("signal", "p_value", "q_value", "value")


@dataclass(frozen=True)
class Layout:
    """The columns of a file, and what its errors say of how that was decided."""

    format: RowFormat
    columns: tuple[str, ...]
    score: Score = "integer"

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns of decimal numbers."""
        return ("score", *_NUMBERS) if self.score == "number" else _NUMBERS

    @property
    def note(self) -> str:
        """What to add to a fault where the format might have been taken for another."""
        count = len(self.columns)
        if count <= 6:
            return ""
        name = f"BED{count}" if self.format == "bed" else self.format
        return f" (its {count} columns are read as {name})"


@dataclass
class Rows:
    """Columns of values, block after block, and the line of every row."""

    parts: dict[str, list[Any]] = field(default_factory=dict)
    lines: list[Ints] = field(default_factory=list)

    def add(self, columns: dict[str, Any], lines: Ints) -> None:
        """Append a block."""
        for name, values in columns.items():
            self.parts.setdefault(name, []).append(values)
        self.lines.append(lines)

    def columns(self) -> dict[str, Any]:
        """Give each column whole: an array of numbers, or of objects; blocks are let go."""
        return {name: _joined(self.parts.pop(name)) for name in list(self.parts)}

    def line_numbers(self) -> Ints:
        """Give the line of every row."""
        return np.concatenate(self.lines)


def _joined(parts: list[Any]) -> Any:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return pd.concat(map(pd.Series, parts), ignore_index=True).array


def strings(names: list[str], codes: Ints | None = None) -> Any:
    """Give pandas' array of strings, whichever that is: the names, or those of the codes."""
    found = pd.Series(names, dtype="str").array
    return found if codes is None else found.take(codes)


def read_rows(
    path: Location,
    faults: Faults,
    *,
    format: RowFormat | None = None,  # noqa: A002
    score: Score = "integer",
    max_inflated: int | None = None,
    size: int = BLOCK,
) -> tuple[Layout, dict[str, Any], Ints]:
    """Read the rows of a file of intervals.

    Returns
    -------
    layout : Layout
    columns : dict
        An array for each column: of numpy for numbers and lists of blocks (tuples of int), of
        pandas for strings. ``summit`` counts from ``start``, -1 for none, and may still lie
        outside.
    lines : numpy.ndarray
        The line of each row.
    """
    if format is not None and format not in _COUNTS:
        known = ", ".join(get_args(IntervalFormat))
        raise InputError(f"format {format!r} does not exist: choose one of {known}")
    layout: Layout | None = None
    first_line = 0
    rows = Rows()

    def read(block: Block) -> dict[str, Any] | None:
        return None if layout is None else quick(block.data, layout)

    given = text_blocks(path, faults, max_inflated=max_inflated, size=size)
    # The first alone, since it tells what the others are read as.
    first = ((block, None) for block in islice(given, 1))
    for block, columns in chain(first, worked_ahead(given, read)):
        if columns is not None:
            rows.add(columns, block.first + np.arange(len(columns["start"])))
            continue
        data, numbers = data_rows(block, SKIPPED)
        if not data:
            continue
        if layout is None:
            head, first_line = data[: data.index(b"\n")].decode(), int(numbers[0])
            chosen = choose_layout(path, head.split("\t"), first_line, faults, format)
            # In one step, since other threads look at it.
            layout = replace(chosen, score=score)
        columns = quick(data, layout)
        if columns is None:
            columns, numbers = exact(data, numbers, layout, first_line, faults)
        if len(numbers):
            rows.add(columns, numbers)
    if layout is None or not rows.lines:
        if faults.count:
            return layout or Layout("bed", BED[:3]), {}, np.empty(0, dtype=np.int64)
        raise faults.error(None, "holds no interval: check that it is the right file")
    return layout, rows.columns(), rows.line_numbers()


# --- which format --------------------------------------------------------------------------


def choose_layout(
    path: Location,
    head: list[str],
    line: int,
    faults: Faults,
    format: RowFormat | None,  # noqa: A002
) -> Layout:
    """Tell the format by what is asked for, the number of columns, the name, and the first row."""
    count = len(head)
    if format is None:
        format = "narrowPeak" if count == 10 else "bed"  # noqa: A001
        if count == 9:
            format = _nine(path, head)  # noqa: A001
    if count not in _COUNTS[format]:
        hint = "; columns are separated by tabs, not blanks" if count == 1 else ""
        known = "bedGraph has 4" if format == "bedGraph" else _SUPPORTED
        raise faults.error(line, f"{count} columns, {known}{hint}")
    columns = {
        "bed": BED[:count],
        "narrowPeak": (*PEAK, "summit"),
        "broadPeak": PEAK,
        "bedGraph": BED_GRAPH,
    }
    return Layout(format, columns[format])


def _nine(path: Location, head: list[str]) -> IntervalFormat:
    """Tell broadPeak from BED9: by the name, else by whether the first row can be BED9."""
    if ".broadpeak" in path.name.lower():
        return "broadPeak"
    return "bed" if is_bed9(dict(zip(BED, head, strict=False))) else "broadPeak"


# --- all rows at once ----------------------------------------------------------------------


def quick(data: bytes, layout: Layout) -> dict[str, Any] | None:
    """Read a block all at once; None where that does not prove every row right."""
    fields = Fields.of(data, len(layout.columns))
    if fields is None or fields.any_begins(SKIPPED):
        return None
    out: dict[str, Any] = {}
    for at, name in enumerate(layout.columns):
        if name in ("block_sizes", "block_starts"):
            out[name] = fields.texts(at)
            continue
        read = _quick_number if name in layout.numbers else _QUICK[name]
        column = read(fields, at)
        if column is None:
            return None
        out[name] = column
    return out if _quick_sound(out, layout) else None


def _quick_sound(out: dict[str, Any], layout: Layout) -> bool:
    start, end = out["start"], out["end"]
    good = (end > start).all()
    if "score" in out and layout.score == "integer":
        good &= bool((out["score"] <= 1000).all())
    if "thick_start" in out:
        low = out["thick_start"]
        # BED7 has no end of it.
        high = out.get("thick_end", low)
        good &= bool(((start <= low) & (low <= high) & (high <= end)).all())
    for name in ("p_value", "q_value"):
        if name in out:
            good &= bool(((out[name] >= 0) | (out[name] == -1)).all())
    return bool(good) and ("block_count" not in out or _quick_blocks(out))


def _quick_blocks(out: dict[str, Any]) -> bool:
    lengths = (out["end"] - out["start"]).tolist()
    columns = (out["block_count"].tolist(), out["block_sizes"], out["block_starts"], lengths)
    try:
        pairs = [blocks(*row) for row in zip(*columns, strict=True)]
    except WrongRowError:
        return False
    for at, name in enumerate(("block_sizes", "block_starts")):
        out[name] = _objects([pair[at] for pair in pairs])
    return True


def _objects(values: list[Any]) -> Any:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _quick_chrom(fields: Fields, at: int) -> Any | None:
    raw, bounds = fields.joined(at)
    # In sound ASCII text, nothing but the space is a blank within a field.
    blank = b" " in raw if raw.isascii() else has_blank(raw.decode())
    return None if blank else _strings_of(fields, at, raw, bounds, few=True)


def _quick_name(fields: Fields, at: int) -> Any | None:
    return _strings_of(fields, at, *fields.joined(at), few=False)


def _quick_strand(fields: Fields, at: int) -> Any | None:
    raw, bounds = fields.joined(at)
    good = len(raw) == len(bounds) - 1 and not raw.translate(None, b"+-.")
    return _strings_of(fields, at, raw, bounds, few=True) if good else None


def _strings_of(fields: Fields, at: int, raw: bytes, bounds: Ints, *, few: bool) -> Any | None:
    """Give a column of strings, joined as raw; None if one is empty; few may occur many times."""
    if (bounds[1:] == bounds[:-1]).any():
        return None
    kind: Any = pd.api.types.pandas_dtype("str")
    if getattr(kind, "storage", "") == "pyarrow":
        import pyarrow

        buffers = [None, pyarrow.py_buffer(bounds), pyarrow.py_buffer(raw)]
        text = pyarrow.Array.from_buffers(pyarrow.large_string(), len(bounds) - 1, buffers)
        return kind.__from_arrow__(text)
    found = fields.repeated(at) if few else None
    return strings(fields.texts(at)) if found is None else strings(found[1], found[0])


def _quick_rgb(fields: Fields, at: int) -> Any | None:
    found = fields.repeated(at)
    if found is None or not all(map(is_rgb, found[1])):
        return None
    return strings(found[1], found[0])


def _quick_integer(fields: Fields, at: int) -> Any | None:
    return fields.integers(at)


def _quick_signed(fields: Fields, at: int) -> Any | None:
    return fields.integers(at, signed=True)


def _quick_number(fields: Fields, at: int) -> Any | None:
    values, rest = fields.decimals(at)
    for row in rest.tolist():
        try:
            values[row] = number(fields.text(row, at), "")
        except WrongRowError:
            return None
    return values


_QUICK: dict[str, Callable[[Fields, int], Any | None]] = {
    "chrom": _quick_chrom,
    "name": _quick_name,
    "item_rgb": _quick_rgb,
    "strand": _quick_strand,
    "summit": _quick_signed,
    **dict.fromkeys(_INTEGERS, _quick_integer),
}


# --- row by row ----------------------------------------------------------------------------


def exact(
    data: bytes, numbers: Ints, layout: Layout, first_line: int, faults: Faults
) -> tuple[dict[str, Any], Ints]:
    """Read a block row by row: every fault is told, and the rows without one are given."""
    count = len(layout.columns)
    values: dict[str, list[Any]] = {name: [] for name in layout.columns}
    good = []
    for at, line in zip(numbers.tolist(), data.decode().split("\n"), strict=False):
        row = line.split("\t")
        if len(row) != count:
            what = f"{len(row)} columns, line {first_line} has {count}"
            faults.add(at, f"{what}: give every row the same columns, separated by tabs")
            continue
        try:
            found = row_values(dict(zip(layout.columns, row, strict=True)), layout.score)
        except WrongRowError as wrong:
            faults.add(at, f"{wrong}{layout.note}")
            continue
        good.append(at)
        for name, value in found.items():
            values[name].append(value)
    columns = {name: _array(column, name, layout) for name, column in values.items()}
    return columns, np.array(good, dtype=np.int64)


def _array(column: list[Any], name: str, layout: Layout) -> Any:
    if name in layout.numbers:
        return np.array(column, dtype=np.float64)
    if name in (*_INTEGERS, "summit"):
        return np.array(column, dtype=np.int64)
    return _objects(column) if name in ("block_sizes", "block_starts") else strings(column)
