"""Read and check VCF files: one row for each alternative allele, 0-based and half-open.

What a variant does to a sequence is known only where its alleles are sequences and REF is what
the genome has there; everything else is an error, or dropped and counted on request.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.chromosomes import ChromStyle, match_chromosomes
from data_tools.counts import Counts
from data_tools.encode import encode
from data_tools.faults import Faults, shown
from data_tools.formats.location import location
from data_tools.formats.vcf import as_table, read_alleles
from data_tools.genome import Genome
from data_tools.policies import Duplicates, ErrorOrDrop, PlacePolicies, Sieve, check_policy

_BASES = 1 << 24
"""Most bases of the genome to hold at a time."""


def read_variants(
    path: str | os.PathLike[str],
    genome: Genome | None = None,
    *,
    ref_mismatch: ErrorOrDrop = "error",
    not_sequence: ErrorOrDrop = "error",
    duplicates: Duplicates = "error",
    chrom_style: ChromStyle = "exact",
    unknown_chrom: ErrorOrDrop = "error",
    out_of_range: ErrorOrDrop = "error",
    counts: Counts | None = None,
    max_inflated: int | None = None,
) -> pd.DataFrame:
    r"""Read a VCF file, plain, gzip or bgzip; a row with several ALT alleles becomes several.

    Alleles stay as they are written: they are neither trimmed nor shifted to the left. Genotypes
    and INFO are not read. Rows keep the order of the file, which need not be sorted.

    Parameters
    ----------
    path : path or URL
        The file; compression is told by the content, not by the name.
    genome : Genome, optional
        Also check that REF is what stands there, whatever the case. Where the genome has an
        ambiguous letter, REF must be N.
    ref_mismatch : {"error", "drop"}
        For alleles whose REF is not what the genome has.
    not_sequence : {"error", "drop"}
        For alleles that are no sequence: ``<DEL>`` and the like, breakends, ``*``, ``.``, and
        any at position 0. The other alleles of their row stay.
    duplicates : {"error", "drop", "keep"}
        For alleles with chrom, start, REF and ALT of an earlier one. ``"drop"`` keeps the first.
    chrom_style : {"exact", "match"}
        ``"match"`` reads ``1`` as ``chr1`` and ``MT`` as ``chrM``, or the reverse, where that is
        what the genome has.
    unknown_chrom : {"error", "drop"}
        For rows on a chromosome that the genome lacks.
    out_of_range : {"error", "drop"}
        For rows past the end of their chromosome.
    counts : Counts, optional
        Learns how many alleles were read, dropped and why. Without it, what is dropped is a
        `DroppedWarning`.
    max_inflated : int, optional
        To how many bytes a compressed file may inflate; 16 MiB or 200 times its size unless given.

    Returns
    -------
    DataFrame
        ``chrom``, ``start`` (POS - 1), ``end`` (start + length of REF), ``name`` (missing where
        ID is a dot), ``ref`` and ``alt`` (upper case), ``allele`` (1 for the row's first ALT),
        ``qual`` (float64, NaN for a dot) and ``filter`` (missing for a dot).

    Raises
    ------
    FormatError
        At the first row that does not keep to the format, as ``file:line``.
    InputError
        If the file cannot be read, or a row does not fit the genome or a policy.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     vcf = Path(folder) / "a.vcf"
    ...     head = "##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    ...     _ = vcf.write_text(head + "chr1\t5\trs1\tA\tC,AT\t30\tPASS\t.\n")
    ...     table = read_variants(vcf)
    >>> table[["start", "end", "ref", "alt"]].to_numpy().tolist()
    [[4, 5, 'A', 'C'], [4, 5, 'A', 'AT']]
    """
    policies = Policies(
        chrom_style, unknown_chrom, out_of_range, ref_mismatch, not_sequence, duplicates
    )
    return read_with_faults(Faults(location(path)), genome, policies, counts, max_inflated)


@dataclass(frozen=True)
class Policies(PlacePolicies):
    """The policies of `read_variants`."""

    ref_mismatch: ErrorOrDrop = "error"
    not_sequence: ErrorOrDrop = "error"
    duplicates: Duplicates = "error"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_policy("ref_mismatch", self.ref_mismatch, ErrorOrDrop)
        check_policy("not_sequence", self.not_sequence, ErrorOrDrop)
        check_policy("duplicates", self.duplicates, Duplicates)


def read_with_faults(
    faults: Faults,
    genome: Genome | None = None,
    policies: Policies | None = None,
    counts: Counts | None = None,
    max_inflated: int | None = None,
) -> pd.DataFrame:
    """Read as `read_variants` does; ``faults`` decides whether the first fault ends it."""
    policies = policies or Policies()
    parts = list(read_alleles(faults, max_inflated=max_inflated))
    table = pd.concat(parts, ignore_index=True) if parts else as_table([])
    del parts
    sieve = Sieve(faults, table["line"].to_numpy(), counts)
    for kind in sorted(set(table["kind"]) - {""}):
        _judge_kind(table, sieve, kind, policies.not_sequence)
    table["end"] = table["start"] + table["ref"].str.len().astype(np.int64)
    if genome is not None:
        _fit_genome(table, sieve, genome, policies)
    again = np.zeros(len(table), dtype=bool)
    place = table.loc[sieve.keep, ["chrom", "start", "ref", "alt"]]
    again[sieve.keep] = place.duplicated().to_numpy()
    fault = "the allele occurs before: remove one, or pass duplicates='drop' or 'keep'"
    sieve.judge(~again, policies.duplicates, "duplicates", lambda _: fault)
    if len(table) and not sieve.keep.any() and not faults.count:
        what = "no allele is left, all of them were dropped"
        raise faults.error(None, f"{what}: check that file and genome belong together")
    order = ["chrom", "start", "end", "name", "ref", "alt", "allele", "qual", "filter"]
    return table.loc[sieve.keep, order].reset_index(drop=True)


def _judge_kind(table: pd.DataFrame, sieve: Sieve, kind: str, policy: str) -> None:
    def fault(row: int) -> str:
        return (
            f"{kind} {shown(table['alt'].iloc[row])}: its sequence is not known; "
            "pass not_sequence='drop' to leave such alleles out"
        )

    sieve.judge((table["kind"] != kind).to_numpy(), policy, kind, fault)


def _fit_genome(table: pd.DataFrame, sieve: Sieve, genome: Genome, policies: Policies) -> None:
    lengths = genome.lengths
    names = list(dict.fromkeys(table["chrom"]))
    known = match_chromosomes(names, lengths, policies.chrom_style)
    table["chrom"] = table["chrom"].map({name: known.get(name, name) for name in names})
    chrom, end = table["chrom"].tolist(), table["end"].to_numpy()
    limit = np.array([lengths.get(name, -1) for name in chrom], dtype=np.int64)

    def outside(row: int) -> str:
        return (
            f"the end of REF, {end[row]}, is past the end of {chrom[row]} ({limit[row]}): "
            "check that file and genome are of one assembly"
        )

    policies.judge(sieve, chrom, end, limit, lengths, outside)
    good = _same_reference(table, sieve.keep, genome)

    def mismatch(row: int) -> str:
        ref, start = table["ref"].iloc[row], int(table["start"].iloc[row])
        there = genome.fetch(chrom[row], start, start + len(ref))
        return (
            f"REF {shown(ref)} but the genome has {shown(there)} at {chrom[row]}:{start + 1}: "
            "check that file and genome are of one assembly"
        )

    sieve.judge(good, policies.ref_mismatch, "REF is not what the genome has", mismatch)


def _same_reference(
    table: pd.DataFrame, keep: NDArray[np.bool_], genome: Genome
) -> NDArray[np.bool_]:
    """Compare REF with the genome; rows of one length of REF are read together."""
    good = np.ones(len(table), dtype=bool)
    chrom, start = table["chrom"].to_numpy(), table["start"].to_numpy()
    width = table["ref"].str.len().to_numpy(np.int64)
    for length in np.unique(width[keep]).tolist():
        rows = np.flatnonzero(keep & (width == length))
        step = max(1, _BASES // length)
        for part in (rows[i : i + step] for i in range(0, len(rows), step)):
            there = genome.windows(chrom[part], start[part], length)
            claimed = encode("".join(table["ref"].iloc[part])).reshape(-1, length)
            good[part] = (there == claimed).all(axis=1)
    return good
