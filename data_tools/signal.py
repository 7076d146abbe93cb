"""Signal along the genome, bedGraph or bigWig: values per base, or means over windows.

A base that the file says nothing of is missing: NaN, or the value that is asked for. It is never
taken for zero unasked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.chromosomes import ChromStyle, check_style, match_chromosomes, style_hint
from data_tools.errors import InputError, RangeError, unknown_chromosome
from data_tools.faults import Faults
from data_tools.formats.bed import read_rows
from data_tools.formats.bigwig import MAGIC, BigWigFile, Steps
from data_tools.formats.location import Location, location
from data_tools.formats.text import opened
from data_tools.intervals import HasLengths
from data_tools.windows import equal_width

_CELLS = 1 << 29
"""Most values that are given at once: 2 GiB."""


class Signal:
    """A track of values along chromosomes; see `open_signal`.

    Attributes
    ----------
    path : Path or Url
        The file.
    lengths : dict of str to int
        Length of each chromosome; for a bedGraph without genome, the end of its last interval.
    """

    def __init__(
        self, path: Location, lengths: Mapping[str, int], names: Mapping[str, str], source: Any
    ) -> None:
        self.path, self.lengths = path, dict(lengths)
        self._names, self._source = dict(names), source

    def __enter__(self) -> Signal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def values(
        self, chrom: str, start: int, end: int, *, missing: float = float("nan")
    ) -> NDArray[np.float32]:
        """Give the value of each base.

        Parameters
        ----------
        chrom : str
            A name in `lengths`.
        start, end : int
            0-based, half-open, inside the chromosome.
        missing : float
            For the bases that the file says nothing of.

        Returns
        -------
        ndarray of float32, shape (end - start,)

        Raises
        ------
        RangeError
            If there is no such stretch.
        FormatError
            If the file is damaged there.
        """
        if chrom not in self.lengths:
            raise RangeError(f"{self.path}: {unknown_chromosome(chrom, self.lengths)}")
        if not 0 <= start <= end <= self.lengths[chrom]:
            raise RangeError(
                f"{self.path}: {chrom}:{start}-{end} is not within 0 to {self.lengths[chrom]}: "
                "check that signal and intervals are of one assembly"
            )
        _check_cells(end - start)
        out = np.full(end - start, missing, dtype=np.float32)
        if chrom in self._names and end > start:
            low, high, value = self._source.steps(self._names[chrom], start, end)
            low, high = np.maximum(low, start) - start, np.minimum(high, end) - start
            width = np.where(np.isnan(value), 0, high - low)
            before = np.cumsum(width) - width
            place = np.repeat(low - before, width) + np.arange(int(width.sum()))
            out[place] = np.repeat(value, width)
        return out

    def windows(
        self, table: pd.DataFrame, *, bins: int | None = None, missing: float = float("nan")
    ) -> NDArray[np.float32]:
        r"""Give the values of windows of equal width, per base or as means.

        Parameters
        ----------
        table : DataFrame
            ``chrom``, ``start``, ``end``; all of one width.
        bins : int, optional
            Means over this many equal parts of each window, which must divide the width; per
            base unless given. A mean is over the bases that have a value, NaN where none has;
            with ``missing`` given, over all bases.
        missing : float
            For the bases that the file says nothing of.

        Returns
        -------
        ndarray of float32, shape (N, width) or (N, bins)

        Raises
        ------
        InputError
            If the windows differ in width, leave their chromosome, or cannot be cut into bins.

        Examples
        --------
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "a.bedgraph"
        ...     _ = file.write_text("c\t0\t2\t1.5\nc\t3\t8\t4\n")
        ...     signal = open_signal(file)
        ...     table = pd.DataFrame({"chrom": ["c"], "start": [1], "end": [5]})
        ...     signal.windows(table).tolist(), signal.windows(table, bins=1, missing=0).tolist()
        ([[1.5, nan, 4.0, 4.0]], [[2.375]])
        """
        if not len(table):
            return np.empty((0, bins or 0), dtype=np.float32)
        width = equal_width(table)
        if bins is not None and (bins < 1 or width % bins):
            raise InputError(f"windows of {width} bases cannot be cut into {bins} equal bins")
        _check_cells(len(table) * (bins or width))
        out = np.empty((len(table), bins or width), dtype=np.float32)
        rows = zip(table["chrom"], table["start"].tolist(), table["end"].tolist(), strict=True)
        for row, (chrom, start, end) in enumerate(rows):
            values = self.values(chrom, start, end, missing=missing)
            out[row] = values if bins is None else _means(values, bins)
        return out


def _means(values: NDArray[np.float32], bins: int) -> NDArray[np.float64]:
    parts = values.reshape(bins, -1)
    known = ~np.isnan(parts)
    number = known.sum(axis=1)
    total = np.where(known, parts, 0).sum(axis=1, dtype=np.float64)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _check_cells(count: int) -> None:
    if count > _CELLS:
        raise InputError(f"{count:,} values at once are more than {_CELLS:,}: ask for fewer")


def open_signal(
    path: str | os.PathLike[str],
    genome: HasLengths | None = None,
    *,
    chrom_style: ChromStyle = "exact",
    max_inflated: int | None = None,
) -> Signal:
    """Open a bigWig or bedGraph file; which it is is told by the content.

    A bigWig file stays where it is, on disk or on a server, and is read where it is asked; a
    bedGraph file (plain, gzip or bgzip) is read whole, checked row by row, and need not be sorted.

    Parameters
    ----------
    path : path or URL
        The file.
    genome : Genome, optional
        Check the chromosomes that both have: a bigWig must give them the same length, a bedGraph
        must not go past their end. Chromosomes of the genome without signal are all missing.
    chrom_style : {"exact", "match"}
        ``"match"`` reads ``1`` as ``chr1`` and ``MT`` as ``chrM``, or the reverse, where that is
        what the genome has.
    max_inflated : int, optional
        To how many bytes a compressed bedGraph may inflate; 16 MiB or 200 times its size unless
        given.

    Returns
    -------
    Signal

    Raises
    ------
    FormatError
        If the file is not sound, or two rows of a bedGraph overlap.
    InputError
        If it cannot be read or is not of the genome.
    """
    check_style(chrom_style)
    faults = Faults(location(path))
    if is_bigwig(faults.path):
        big = BigWigFile(faults.path)
        try:
            return on_genome(faults, big.lengths, big, genome, chrom_style, exact_lengths=True)
        except BaseException:
            big.close()
            raise
    graph = BedGraph(faults, max_inflated)
    return on_genome(faults, graph.lengths, graph, genome, chrom_style, exact_lengths=False)


def is_bigwig(path: Location) -> bool:
    """Tell a bigWig file by its first four bytes."""
    if isinstance(path, Path) and not path.is_file():
        return False
    with opened(path) as stream:
        head = stream.read(4)
    return MAGIC in (int.from_bytes(head, "little"), int.from_bytes(head, "big"))


class BedGraph:
    """The intervals of a bedGraph file, sorted, chromosome by chromosome."""

    def __init__(self, faults: Faults, max_inflated: int | None = None) -> None:
        _, columns, lines = read_rows(
            faults.path, faults, format="bedGraph", max_inflated=max_inflated
        )
        self.parts: dict[str, Steps] = {}
        self.rows = len(lines)
        if not columns:
            return
        with np.errstate(over="ignore"):
            value = columns["value"].astype(np.float32)
        for row in np.flatnonzero(np.isinf(value)).tolist():
            faults.add(int(lines[row]), "value is too large for float32: scale the signal")
        codes, names = pd.factorize(columns["chrom"])
        order = np.lexsort((columns["start"], codes))
        start, end = columns["start"][order], columns["end"][order]
        codes, value, lines = codes[order], value[order], lines[order]
        # Each row against the furthest end before it: a long row may cover several.
        for code, name in enumerate(names):
            low, high = np.searchsorted(codes, [code, code + 1])
            part = slice(int(low), int(high))
            _check_overlaps(faults, start[part], end[part], lines[part])
            self.parts[name] = Steps(start[part], end[part], value[part])

    @property
    def lengths(self) -> dict[str, int]:
        """The end of the last interval of each chromosome."""
        return {name: int(part.end[-1]) for name, part in self.parts.items()}

    def steps(self, chrom: str, start: int, end: int) -> Steps:
        """Give the intervals that overlap [start, end), not cut."""
        part = self.parts[chrom]
        first = int(np.searchsorted(part.end, start, side="right"))
        last = int(np.searchsorted(part.start, end, side="left"))
        return Steps(part.start[first:last], part.end[first:last], part.value[first:last])

    def close(self) -> None:
        """Nothing is open."""


def _check_overlaps(faults: Faults, start: Any, end: Any, lines: Any) -> None:
    reach = np.maximum.accumulate(end)[:-1]
    for row in np.flatnonzero(start[1:] < reach).tolist():
        other = int(lines[int(np.argmax(end[: row + 1] > start[row + 1]))])
        first, second = sorted((other, int(lines[row + 1])))
        faults.add(second, f"overlaps line {first}: a base of a bedGraph has one value")


def on_genome(
    faults: Faults,
    lengths: Mapping[str, int],
    source: Any,
    genome: HasLengths | None,
    style: ChromStyle,
    *,
    exact_lengths: bool,
) -> Signal:
    """Put a signal on the chromosomes of a genome, if there is one."""
    if genome is None:
        return Signal(faults.path, lengths, {name: name for name in lengths}, source)
    matched = match_chromosomes(lengths, genome.lengths, style)
    for name in lengths:
        hint = "" if name in matched else style_hint(name, genome.lengths, style)
        if hint or not matched:
            raise faults.error(None, unknown_chromosome(name, genome.lengths) + hint, InputError)
    for name, target in matched.items():
        mine, theirs = lengths[name], genome.lengths[target]
        if mine > theirs or (exact_lengths and mine != theirs):
            raise faults.error(
                None,
                f"{name} is {mine} long, {target} of the genome {theirs}: "
                "check that signal and genome are of one assembly",
                InputError,
            )
    names = {target: name for name, target in matched.items()}
    return Signal(faults.path, genome.lengths, names, source)
