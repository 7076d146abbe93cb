"""Read and check BED, narrowPeak and broadPeak files.

Coordinates are 0-based and half-open. The reader refuses what common readers guess at: a row
that is wrong stops the reading with ``file:line`` and the remedy, because a peak that is dropped
or shifted in silence is a wrong label later. What is sound but may not be wanted has a policy
each, and what a policy drops is counted.

References
----------
BED: https://samtools.github.io/hts-specs/BEDv1.pdf;
narrowPeak and broadPeak: https://genome.ucsc.edu/FAQ/FAQformat.html
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd

from data_tools.chromosomes import ChromStyle, match_chromosomes
from data_tools.counts import Counts
from data_tools.errors import FormatError
from data_tools.faults import Faults
from data_tools.formats.bed import IntervalFormat, Layout, read_rows, strings
from data_tools.formats.bed_rows import Score
from data_tools.formats.location import location
from data_tools.policies import Duplicates, ErrorOrDrop, PlacePolicies, Sieve, check_policy

SummitMissing = Literal["keep", "error", "drop"]
SummitOutside = Literal["error", "drop", "missing"]

# What says where an interval lies; name, score and signal may differ between duplicates.
_PLACE = ("chrom", "start", "end", "strand", "summit", "block_sizes", "block_starts")


class HasLengths(Protocol):
    """A `Genome`, or anything that knows the lengths of chromosomes."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """Length of each chromosome in bases."""
        ...


def read_intervals(
    path: str | os.PathLike[str],
    genome: HasLengths | None = None,
    *,
    format: IntervalFormat | None = None,  # noqa: A002
    score: Score = "integer",
    chrom_style: ChromStyle = "exact",
    unknown_chrom: ErrorOrDrop = "error",
    out_of_range: ErrorOrDrop = "error",
    duplicates: Duplicates = "keep",
    summit_missing: SummitMissing = "keep",
    summit_outside: SummitOutside = "error",
    counts: Counts | None = None,
    max_inflated: int | None = None,
) -> pd.DataFrame:
    r"""Read a BED, narrowPeak or broadPeak file, plain, gzip or bgzip.

    Comments, ``track`` and ``browser`` lines and empty lines are skipped; Windows line ends and
    a byte order mark are understood. Rows keep the order of the file.

    The format is told by the number of columns: BED has 3 to 9 or 12, narrowPeak 10 and
    broadPeak 9. Nine columns are broadPeak if ``.broadPeak`` is in the file's name; else BED9 if
    the first row can be that (columns 7 and 8 integers in order inside the interval, column 9 a
    colour), and broadPeak if not. Errors say what such a file was taken for. BED7 has a
    ``thick_start`` and no ``thick_end``, which is not made up; BED10 and BED11 do not exist.

    Parameters
    ----------
    path : path or URL
        The file; compression is told by the content, not by the name.
    genome : Genome, optional
        Also check that every interval lies on a chromosome of it. Anything with ``lengths``.
    format : {"bed", "narrowPeak", "broadPeak"}, optional
        What the file is, where it should not be told from its columns.
    score : {"integer", "number"}
        What column 5 holds: an integer from 0 to 1000, as the specification of BED asks, or, as
        many tools write it, any finite number.
    chrom_style : {"exact", "match"}
        ``"match"`` reads ``1`` as ``chr1`` and ``MT`` as ``chrM``, or the reverse, where that is
        what the genome has.
    unknown_chrom : {"error", "drop"}
        For intervals on a chromosome that the genome lacks.
    out_of_range : {"error", "drop"}
        For intervals past the end of their chromosome.
    duplicates : {"keep", "error", "drop"}
        For intervals at the place of an earlier one: same chrom, start, end and, where the file
        has them, strand, summit and blocks. ``"drop"`` keeps the first.
    summit_missing : {"keep", "error", "drop"}
        For narrowPeak rows with -1 in column 10.
    summit_outside : {"error", "drop", "missing"}
        For narrowPeak rows whose summit is outside the interval; ``"missing"`` keeps the row
        without it.
    counts : Counts, optional
        Learns how many rows were read, dropped and why. Without it, what is dropped is a
        `DroppedWarning`.
    max_inflated : int, optional
        To how many bytes a compressed file may inflate; 16 MiB or 200 times its size unless given.

    Returns
    -------
    DataFrame
        ``chrom``, ``start``, ``end`` (int64) and, as far as the file has them, ``name``,
        ``score`` (int64; float64 with ``score="number"``), ``strand``, ``thick_start``,
        ``thick_end`` (int64), ``item_rgb``,
        ``block_count`` (int64), ``block_sizes``, ``block_starts`` (tuples of int, relative to
        ``start``); for peaks also ``signal``, ``p_value``, ``q_value`` (float64, as in the file:
        -1 means not given) and, for narrowPeak, ``summit``, the absolute position ``start`` +
        column 10: int64, or Int64 with missing values where column 10 is -1.

    Raises
    ------
    FormatError
        At the first row that does not keep to the format, as ``file:line``.
    InputError
        If the file cannot be read, or an interval does not fit the genome or a policy.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     bed = Path(folder) / "peaks.bed"
    ...     _ = bed.write_text("chr1\t10\t20\tp1\nchr2\t0\t5\tp2\n")
    ...     table = read_intervals(bed)
    >>> table["end"].tolist(), list(table.columns)
    ([20, 5], ['chrom', 'start', 'end', 'name'])
    """
    policies = Policies(
        chrom_style,
        unknown_chrom,
        out_of_range,
        duplicates,
        summit_missing,
        summit_outside,
        score,
    )
    faults = Faults(location(path))
    return read_with_faults(faults, genome, policies, format, counts, max_inflated)[1]


@dataclass(frozen=True)
class Policies(PlacePolicies):
    """The policies of `read_intervals`."""

    duplicates: Duplicates = "keep"
    summit_missing: SummitMissing = "keep"
    summit_outside: SummitOutside = "error"
    score: Score = "integer"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_policy("duplicates", self.duplicates, Duplicates)
        check_policy("summit_missing", self.summit_missing, SummitMissing)
        check_policy("summit_outside", self.summit_outside, SummitOutside)
        check_policy("score", self.score, Score)


def read_with_faults(
    faults: Faults,
    genome: HasLengths | None = None,
    policies: Policies | None = None,
    format: IntervalFormat | None = None,  # noqa: A002
    counts: Counts | None = None,
    max_inflated: int | None = None,
) -> tuple[Layout, pd.DataFrame]:
    """Read as `read_intervals` does; ``faults`` decides whether the first fault ends it."""
    policies = policies or Policies()
    layout, columns, lines = read_rows(
        faults.path, faults, format=format, score=policies.score, max_inflated=max_inflated
    )
    if not columns:
        return layout, pd.DataFrame(columns=list(layout.columns))
    sieve = Sieve(faults, lines, counts)
    if genome is not None:
        _fit_genome(columns, sieve, genome.lengths, policies)
    if "summit" in columns:
        _place_summits(columns, sieve, policies)
    if policies.duplicates != "keep" or counts is not None:
        _find_duplicates(columns, sieve, policies.duplicates)
    if not sieve.keep.any() and not faults.count:
        what = "no interval is left, all of them were dropped: check that file and genome belong"
        raise faults.error(None, f"{what} together, or choose other policies")
    return layout, _table(columns, sieve)


def _fit_genome(
    columns: dict[str, Any], sieve: Sieve, lengths: Mapping[str, int], policies: Policies
) -> None:
    codes, names = pd.factorize(columns["chrom"])
    known = match_chromosomes(names, lengths, policies.chrom_style)
    columns["chrom"] = strings([known.get(name, name) for name in names], codes)
    chrom, end = columns["chrom"], columns["end"]
    limit = np.array([lengths[known[name]] if name in known else -1 for name in names])[codes]

    def outside(row: int) -> str:
        return (
            f"end {end[row]} is past the end of {chrom[row]} ({limit[row]}): "
            "check that intervals and genome are of one assembly"
        )

    policies.judge(sieve, chrom, end, limit, lengths, outside)


def _place_summits(columns: dict[str, Any], sieve: Sieve, policies: Policies) -> None:
    """Turn the offsets of column 10 into positions, -1 where there is none."""
    start, offset = columns["start"], columns["summit"]
    inside = (offset >= -1) & (offset < columns["end"] - start)

    def outside(row: int) -> str:
        return (
            "summit (column 10, counted from start; -1 for none) lies outside the interval: "
            f"'{offset[row]}'; correct or remove this row"
        )

    policy = "keep" if policies.summit_outside == "missing" else policies.summit_outside
    what = "summit outside the interval"
    what += ", taken as missing" if policy == "keep" else ""
    sieve.judge(inside, policy, what, outside, FormatError)
    missing = (offset == -1) | ~inside
    sieve.judge(
        ~missing,
        policies.summit_missing,
        "summit missing",
        lambda _: "summit (column 10) is missing: remove the row or call summits",
        FormatError,
    )
    columns["summit"] = np.where(missing, -1, start + offset)


def _find_duplicates(columns: dict[str, Any], sieve: Sieve, policy: Duplicates) -> None:
    codes = {name: pd.factorize(columns[name])[0] for name in _PLACE if name in columns}
    place = pd.DataFrame(codes)[sieve.keep]
    again = np.zeros(len(sieve.keep), dtype=bool)
    again[sieve.keep] = place.duplicated().to_numpy()

    def fault(row: int) -> str:
        same = (place == place.loc[row]).all(axis=1)
        first = sieve.lines[int(np.flatnonzero(sieve.keep)[int(same.to_numpy().argmax())])]
        return f"the same place as line {first}: remove one, or pass duplicates='drop' or 'keep'"

    sieve.judge(~again, policy, "duplicates", fault)


def _table(columns: dict[str, Any], sieve: Sieve) -> pd.DataFrame:
    whole = bool(sieve.keep.all())
    out: dict[str, Any] = {}
    for name in list(columns):
        column = columns.pop(name)
        out[name] = column if whole else column[sieve.keep]
    if "summit" in out:
        summit = pd.Series(out["summit"])
        missing = summit < 0
        out["summit"] = summit.astype("Int64").mask(missing) if missing.any() else summit
    return pd.DataFrame(out, copy=False)
