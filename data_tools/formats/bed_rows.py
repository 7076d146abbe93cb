"""One row of a BED, narrowPeak or broadPeak file: its values, or what is wrong with it.

This says what the formats are; `data_tools.formats.bed` reads many rows at once, to the same end.

References
----------
BED: https://samtools.github.io/hts-specs/BEDv1.pdf;
narrowPeak and broadPeak: https://genome.ucsc.edu/FAQ/FAQformat.html
"""

from __future__ import annotations

import re
from typing import Any, Literal

from data_tools.formats.values import INTEGER_DIGITS, WrongRowError, has_blank, integer, number

BED = (
    *("chrom", "start", "end", "name", "score", "strand"),
    *("thick_start", "thick_end", "item_rgb", "block_count", "block_sizes", "block_starts"),
)
PEAK = (*BED[:6], "signal", "p_value", "q_value")

Score = Literal["integer", "number"]
"""What column 5 holds: an integer from 0 to 1000, as the specification asks, or any number."""

_BYTE = "(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])"
_ANY_SCORE = "correct this row, or pass score='number' to take any number"
_RGB = re.compile(f"0|{_BYTE},{_BYTE},{_BYTE}", re.ASCII)
_LIST = re.compile(rf"[0-9]{{1,{INTEGER_DIGITS}}}(,[0-9]{{1,{INTEGER_DIGITS}}})*,?", re.ASCII)


def row_values(text: dict[str, str], score: Score = "integer") -> dict[str, Any]:
    """Read and check every column of a row; raise `WrongRowError` at the first that is wrong.

    Examples
    --------
    >>> row_values({"chrom": "c", "start": "1", "end": "9"})
    {'chrom': 'c', 'start': 1, 'end': 9}
    """
    row = _Row(text, score)
    row.names()
    row.place()
    for column, check in _CHECKS.items():
        if column in text:
            check(row)
    return {name: row.found[name] for name in text}


def is_bed9(text: dict[str, str]) -> bool:
    """Tell whether columns 7 to 9 of a row can be those of BED9."""
    row = _Row(text)
    try:
        row.place()
        row.thick()
    except WrongRowError:
        return False
    return True


class _Row:
    """The columns of one row: as text, and those that have been read as values."""

    def __init__(self, text: dict[str, str], score: Score = "integer") -> None:
        self.text, self.score_kind = text, score
        self.found: dict[str, Any] = {}

    def names(self) -> None:
        for name in ("chrom", "name"):
            if name in self.text:
                value = self.text[name]
                good = bool(value) and (name == "name" or not has_blank(value))
                self.demand(good, name, f"{name} is empty or holds a blank")
                self.found[name] = value

    def score(self) -> None:
        text = self.text["score"]
        if self.score_kind == "number":
            self.found["score"] = number(text, "score")
            return
        try:
            value = integer(text, "score")
        except WrongRowError:
            raise WrongRowError("score is not an integer", text, _ANY_SCORE) from None
        if not 0 <= value <= 1000:
            raise WrongRowError("score is outside 0 to 1000", text, _ANY_SCORE)
        self.found["score"] = value

    def strand(self) -> None:
        self.demand(self.text["strand"] in ("+", "-", "."), "strand", "strand is none of + - .")
        self.found["strand"] = self.text["strand"]

    def demand(self, good: bool, name: str, fault: str) -> None:
        if not good:
            raise WrongRowError(fault, self.text[name])

    def integer(self, name: str) -> None:
        self.found[name] = integer(self.text[name], name)

    def place(self) -> None:
        self.integer("start")
        self.integer("end")
        self.demand(self.found["start"] >= 0, "start", "start is below 0")
        self.demand(self.found["end"] > self.found["start"], "end", "end is not above start")

    def thick(self) -> None:
        # BED7 has no thick_end.
        for name in ("thick_start", "thick_end"):
            if name in self.text:
                self.integer(name)
        found = self.found
        inside = found["start"] <= found["thick_start"] <= found["end"]
        self.demand(inside, "thick_start", "thick_start (column 7) lies outside the interval")
        if "thick_end" not in found:
            return
        inside = found["thick_start"] <= found["thick_end"] <= found["end"]
        fault = "thick_end (column 8) lies outside the interval or before thick_start"
        self.demand(inside, "thick_end", fault)
        if "item_rgb" in self.text:
            fault = "item_rgb (column 9) is neither 0 nor three numbers up to 255 like 255,0,0"
            self.demand(is_rgb(self.text["item_rgb"]), "item_rgb", fault)
            found["item_rgb"] = self.text["item_rgb"]

    def blocks(self) -> None:
        self.integer("block_count")
        found, text = self.found, self.text
        length = found["end"] - found["start"]
        found["block_sizes"], found["block_starts"] = blocks(
            found["block_count"], text["block_sizes"], text["block_starts"], length
        )

    def peak(self) -> None:
        for name in ("signal", "p_value", "q_value"):
            self.found[name] = number(self.text[name], name)
        for name in ("p_value", "q_value"):
            good = self.found[name] >= 0 or self.found[name] == -1
            self.demand(good, name, f"{name} is below 0 and not -1 (not given)")

    def value(self) -> None:
        self.found["value"] = number(self.text["value"], "value")

    def summit(self) -> None:
        self.integer("summit")


_CHECKS = {
    "score": _Row.score,
    "strand": _Row.strand,
    "thick_start": _Row.thick,
    "block_count": _Row.blocks,
    "signal": _Row.peak,
    "summit": _Row.summit,
    "value": _Row.value,
}


def is_rgb(text: str) -> bool:
    """Tell whether this is a colour as column 9 of BED has it."""
    return _RGB.fullmatch(text) is not None


def blocks(
    count: int, sizes: str, starts: str, length: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Read the blocks (exons) of a row and check them as the specification of BED asks."""
    lists = []
    for name, text in (("block_sizes (column 11)", sizes), ("block_starts (column 12)", starts)):
        if _LIST.fullmatch(text) is None:
            raise WrongRowError(f"{name} is not a list of integers like 10,20", text)
        values = tuple(map(int, text.removesuffix(",").split(",")))
        if len(values) != count:
            raise WrongRowError(f"{name} has {len(values)} numbers, block_count is {count}", text)
        lists.append(values)
    size, start = lists
    if 0 in size:
        raise WrongRowError("a block (column 11) of no length", sizes)
    if start[0] != 0:
        raise WrongRowError("the first block (column 12) does not begin at 0", starts)
    if any(a + n > b for a, n, b in zip(start, size, start[1:], strict=False)):
        raise WrongRowError("blocks (column 12) overlap or are not in order", starts)
    if start[-1] + size[-1] != length:
        raise WrongRowError("the last block (columns 11, 12) does not end at end", starts)
    return size, start
