"""What becomes of rows that are sound but not wanted: an error, dropped and counted, or kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from data_tools.chromosomes import ChromStyle, check_style, style_hint
from data_tools.counts import Counts, tell_dropped
from data_tools.errors import InputError, unknown_chromosome
from data_tools.faults import Faults

ErrorOrDrop = Literal["error", "drop"]
Duplicates = Literal["error", "drop", "keep"]


def check_policy(name: str, value: str, choices: object) -> None:
    """Refuse a policy that does not exist.

    Examples
    --------
    >>> check_policy("duplicates", "skip", Duplicates)
    Traceback (most recent call last):
    ...
    data_tools.errors.InputError: duplicates='skip' does not exist: choose 'error', 'drop' or 'keep'
    """
    known = [repr(choice) for choice in get_args(choices)]
    if repr(value) not in known:
        either = " or ".join([", ".join(known[:-1]), known[-1]])
        raise InputError(f"{name}={value!r} does not exist: choose {either}")


class Sieve:
    """The rows of a file that are kept, as one policy after the other is applied.

    Parameters
    ----------
    faults : Faults
        Learns of the rows that are an error.
    lines : numpy.ndarray
        The line of each row in the file.
    counts : Counts, optional
        Learns how many rows were dropped, and why.

    Examples
    --------
    >>> from pathlib import Path
    >>> counts = Counts()
    >>> sieve = Sieve(Faults(Path("a.bed")), np.array([1, 2]), counts)
    >>> sieve.judge(np.array([True, False]), "drop", "too short", str)
    >>> sieve.keep.tolist(), counts
    ([True, False], {'a.bed: rows': 2, 'a.bed: dropped, too short': 1})
    """

    def __init__(self, faults: Faults, lines: NDArray[np.int64], counts: Counts | None) -> None:
        self.faults, self.lines, self.counts = faults, lines, counts
        self.keep = np.ones(len(lines), dtype=bool)
        if counts is not None:
            counts.note(f"{faults.path}: rows", len(lines))

    def judge(
        self,
        good: NDArray[np.bool_],
        policy: str,
        what: str,
        fault: Callable[[int], str],
        kind: type[InputError] = InputError,
    ) -> None:
        """Apply a policy to the rows that are kept so far and not good.

        Parameters
        ----------
        good : numpy.ndarray
            A flag for every row of the file.
        policy : {"error", "drop", "keep"}
            What becomes of the others; ``"keep"`` counts them.
        what : str
            What they are, for the counts.
        fault : callable
            Words the error for a row, given its place in the table.
        kind : type
            Of the error.
        """
        bad = np.flatnonzero(self.keep & ~good)
        if policy == "keep":
            if self.counts is not None:
                self.counts.note(f"{self.faults.path}: kept, {what}", bad.size)
            return
        if policy == "drop":
            tell_dropped(self.counts, f"{self.faults.path}: dropped, {what}", bad.size)
        else:
            for row in bad.tolist():
                self.faults.add(int(self.lines[row]), fault(row), kind)
        self.keep[bad] = False


@dataclass(frozen=True)
class PlacePolicies:
    """How names of chromosomes are read, and what becomes of rows that are not on the genome."""

    chrom_style: ChromStyle = "exact"
    unknown_chrom: ErrorOrDrop = "error"
    out_of_range: ErrorOrDrop = "error"

    def __post_init__(self) -> None:
        check_style(self.chrom_style)
        check_policy("unknown_chrom", self.unknown_chrom, ErrorOrDrop)
        check_policy("out_of_range", self.out_of_range, ErrorOrDrop)

    def judge(
        self,
        sieve: Sieve,
        chrom: Any,
        end: NDArray[np.int64],
        limit: NDArray[np.int64],
        lengths: Mapping[str, int],
        outside: Callable[[int], str],
    ) -> None:
        """Apply them to the rows of a file.

        Parameters
        ----------
        sieve : Sieve
        chrom : sequence of str
            Of each row, by the genome's name where it has one.
        end, limit : numpy.ndarray
            End of each row, and of its chromosome: -1 where the genome lacks it.
        lengths : mapping of str to int
            Of the genome's chromosomes.
        outside : callable
            Words the error for a row past the end.
        """

        def unknown(row: int) -> str:
            hint = style_hint(chrom[row], lengths, self.chrom_style)
            return unknown_chromosome(chrom[row], lengths) + hint

        what = "on a chromosome that the genome lacks"
        sieve.judge(limit >= 0, self.unknown_chrom, what, unknown)
        sieve.judge(end <= limit, self.out_of_range, "past the end of the chromosome", outside)
