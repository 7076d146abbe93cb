"""Rows of CSV and TSV files with a line of column names; fields may be quoted."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from data_tools.faults import Faults, shown
from data_tools.formats.text import text_blocks

_FIELD_MAX = 1 << 28
"""Longest field of a table, as long as the longest chromosome arms."""


def text_lines(faults: Faults, max_inflated: int | None) -> Iterator[tuple[int, str]]:
    """Give the lines of a text file, each with its number."""
    for block in text_blocks(faults.path, faults, max_inflated=max_inflated):
        lines = block.data.decode().removesuffix("\n").split("\n")
        yield from enumerate(lines, start=block.first)


def delimited_rows(
    faults: Faults, separator: str, max_inflated: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    r"""Give the rows of a table, the column names first, each with the line where it begins.

    Every row has as many fields as there are names; an empty line is given as an empty list.

    Raises
    ------
    FormatError
        For broken quoting or names that are empty or occur twice; a row of another number of
        fields is told to ``faults``.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "a.csv"
    ...     _ = file.write_text('name,note\na,"two\nlines"\n\nb,\n')
    ...     list(delimited_rows(Faults(file), ","))
    [(1, ['name', 'note']), (2, ['a', 'two\nlines']), (4, []), (5, ['b', ''])]
    """
    at = _Place()
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_MAX))
    texts = at.texts(text_lines(faults, max_inflated))
    rows = csv.reader(texts, delimiter=separator, strict=True)
    names: list[str] | None = None
    while True:
        line = at.line + 1
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error as err:
            raise faults.error(line, f"broken quoting ({err}): close every quote") from None
        if row and names is None:
            names = checked_names(row, line, faults)
        elif row and names is not None and len(row) != len(names):
            what = f"{len(row)} columns, the first line has {len(names)}"
            faults.add(line, f"{what}: give every row the same columns")
            continue
        yield line, row


class _Place:
    """Which line the reader of a table has come to; a quoted field may span several."""

    def __init__(self) -> None:
        self.line = 0

    def texts(self, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
        for number, text in lines:
            self.line = number
            yield text + "\n"


def checked_names(row: list[str], line: int, faults: Faults) -> list[str]:
    """Give the column names, if none is empty and none occurs twice."""
    for at, name in enumerate(row):
        if not name or name in row[:at]:
            what = f"the name of column {at + 1}, {shown(name)}, is empty or occurs twice"
            raise faults.error(line, f"{what}: rename it")
    return row
