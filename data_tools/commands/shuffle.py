"""``data-tools shuffle``."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from data_tools.commands.output import fasta_record, note, write_text
from data_tools.commands.progress import shown

if TYPE_CHECKING:
    from data_tools.genome import Genome

TOGETHER = 1 << 24
"""Bases shuffled at a time."""


def shuffle(
    fasta: tyro.conf.Positional[Path],
    k: int = 2,
    count: int = 1,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Shuffle every sequence of a FASTA or 2bit file, keeping the exact count of each k-mer.

    Example: data-tools shuffle peaks.fa --k 2 --count 5 --out shuffled.fa

    Each shuffle is uniform over all sequences with the same counts and ends. Ambiguous bases stay
    in place. Records are named NAME_shuffle1 and so on; a record's shuffles depend on its name,
    its bases and the seed alone.

    Args:
        fasta: FASTA (plain or compressed with bgzip) or 2bit file.
        k: Length of the words to keep: 1 bases, 2 dinucleotides, 3 trinucleotides, up to 6.
        count: Shuffles of each sequence.
        seed: Of the shuffles.
        out: FASTA file to write; stdout unless given.
    """
    from data_tools.genome import Genome
    from data_tools.shuffle import check_numbers

    check_numbers(k, count, seed)
    with Genome(fasta) as source:
        write_text(_records(source, k, count, seed), out)
        note(f"{len(source.lengths)} sequences, {count} shuffles each")


def _records(source: "Genome", k: int, count: int, seed: int) -> Iterator[str]:
    """The shuffled records as FASTA, a batch of records at a time."""
    import numpy as np

    from data_tools.encode import AMBIGUOUS, decode
    from data_tools.shuffle import kmer_shuffle

    batches = list(_batches(source.lengths, count))
    for names in shown(batches, "shuffling"):
        widest = max(source.lengths[name] for name in names)
        codes = np.full((len(names), widest), AMBIGUOUS, dtype=np.uint8)
        for row, name in zip(codes, names, strict=True):
            length = source.lengths[name]
            row[:length] = source.codes(name, 0, length)
        streams = np.array([_stream(name) for name in names], dtype=np.uint64)
        for name, shuffles in zip(names, kmer_shuffle(codes, k, count, seed, streams), strict=True):
            for number, row in enumerate(shuffles, start=1):
                yield fasta_record(f"{name}_shuffle{number}", decode(row[: source.lengths[name]]))


def _batches(lengths: dict[str, int], count: int) -> Iterator[list[str]]:
    """Names of records, together no larger than is good for memory, or alone."""
    batch: list[str] = []
    widest = 0
    for name, length in lengths.items():
        widest = max(widest, length)
        if batch and widest * (len(batch) + 1) * count > TOGETHER:
            yield batch
            batch, widest = [], length
        batch.append(name)
    if batch:
        yield batch


def _stream(name: str) -> int:
    """A number of 63 bits that the name alone decides."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 1
