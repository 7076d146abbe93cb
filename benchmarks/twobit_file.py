"""Write a genome as 2bit, for benchmarks."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from data_tools.genome import Genome

# 2bit counts T, C, A, G as 0, 1, 2, 3.
_OF_CODE = np.array([2, 1, 3, 0, 0], dtype=np.uint8)


def write_twobit(path: Path, genome: Genome) -> None:
    """Write all chromosomes, upper case, runs of ambiguous bases as N blocks.

    Layout: https://genome.ucsc.edu/FAQ/FAQformat.html#format7
    """
    records = []
    for name, length in genome.lengths.items():
        codes = genome.codes(name, 0, length)
        edges = np.flatnonzero(np.diff((codes == 4).astype(np.int8), prepend=0, append=0))
        starts, ends = edges[::2].astype("<u4"), edges[1::2].astype("<u4")
        bases = np.concatenate([_OF_CODE[codes], np.zeros(-length % 4, np.uint8)]).reshape(-1, 4)
        packed = bases[:, 0] << 6 | bases[:, 1] << 4 | bases[:, 2] << 2 | bases[:, 3]
        head = struct.pack("<II", length, len(starts)) + starts.tobytes()
        records.append(
            head + (ends - starts).tobytes() + struct.pack("<II", 0, 0) + packed.tobytes()
        )
    place = 16 + sum(1 + len(name) + 4 for name in genome.lengths)
    with path.open("wb") as stream:
        stream.write(struct.pack("<IIII", 0x1A412743, 0, len(records), 0))
        for name, record in zip(genome.lengths, records, strict=True):
            stream.write(struct.pack("<B", len(name)) + name.encode() + struct.pack("<I", place))
            place += len(record)
        for record in records:
            stream.write(record)
