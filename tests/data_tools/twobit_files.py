"""2bit files by the book (https://genome.ucsc.edu/FAQ/FAQformat.html#format7), and ones that lie.

Slow and plain: every field is written where the format says, and any of them can be another.
"""

import re
import struct

SIGNATURE = 0x1A412743


def runs(pattern, seq):
    """Give start and size of each longest stretch."""
    return [(found.start(), len(found.group())) for found in re.finditer(pattern, seq)]


def packed(seq):
    """Give four bases to a byte, the first highest; N and padding are T."""
    codes = ["TCAG".find(base) for base in seq.upper().replace("N", "T")]
    codes += [0] * (-len(codes) % 4)
    return bytes(
        a << 6 | b << 4 | c << 2 | d
        for a, b, c, d in zip(codes[::4], codes[1::4], codes[2::4], codes[3::4], strict=True)
    )


def record_bytes(seq, order="<", **lies):
    """Give a record; `lies` replace length, n, mask (start and size of each) and their counts."""
    told = {"length": len(seq), "n": runs("[Nn]+", seq), "mask": runs("[a-z]+", seq), "reserved": 0}
    told |= lies
    numbers = [told["length"]]
    for kind in ("n", "mask"):
        blocks = told[kind]
        numbers += [told.get(f"{kind}_count", len(blocks))]
        numbers += [start for start, _ in blocks] + [size for _, size in blocks]
    return struct.pack(f"{order}{len(numbers) + 1}I", *numbers, told["reserved"]) + packed(seq)


def twobit_bytes(
    records, order="<", version=0, *, count=None, reserved=0, offsets=None, names=None, lies=None
):
    """Give a file of these sequences by name, of A, C, G, T, N in either case."""
    bodies = [
        record_bytes(seq, order, **(lies or {}).get(name, {})) for name, seq in records.items()
    ]
    names = [name.encode() for name in records] if names is None else names
    wide = "Q" if version else "I"
    place = 16 + sum(1 + len(name) + struct.calcsize("=" + wide) for name in names)
    index = b""
    for i, (name, body) in enumerate(zip(names, bodies, strict=True)):
        told = place if offsets is None else offsets[i]
        index += struct.pack(f"{order}B{len(name)}s{wide}", len(name), name, told)
        place += len(body)
    claimed = len(records) if count is None else count
    head = struct.pack(order + "4I", SIGNATURE, version, claimed, reserved)
    return head + index + b"".join(bodies)
