"""How large the tile of a program is: a rule, not a search, so that sums keep their order.

Tiles depend on channels, length and type, never on the number of samples: a sample gets the same
bits in any batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from torch import Tensor

from seqnorm.backends.plan import Plan

__all__ = ["Block", "Shape", "ceil_div", "part_of_sets", "power_of_two", "whole_sets"]

# Numbers in the tile of one program: enough bytes in flight to keep the memory busy, and few enough
# for several programs on a processor, so that some load while others compute.
NUMBERS = 4096
# Consecutive bytes that a tile should take along the contiguous axis: a line of the cache, or the
# half of it that memory delivers at once, or at the very least a sector, which is paid for whole.
LINE, HALF_LINE, SECTOR = 128, 64, 32


def ceil_div(a: int, b: int) -> int:
    """Smallest integer that is not below ``a / b``."""
    return -(-a // b)


def power_of_two(n: int) -> int:
    """Smallest power of two that is not below ``n``; 1 for 0."""
    return 1 << max(n - 1, 0).bit_length()


@dataclass(frozen=True)
class Shape:
    """A tensor in the terms of the kernels; ``channels`` are those of one group."""

    samples: int
    groups: int
    channels: int
    length: int
    ncl: bool
    itemsize: int

    @classmethod
    def of(cls, x: Tensor, plan: Plan) -> Shape:
        """Read it off ``(N, C, L)`` or ``(N, L, C)``."""
        channels = x.shape[plan.channel_axis]
        length = x.shape[plan.layout.index("L")]
        groups = plan.groups
        ncl = plan.layout == "NCL"
        return cls(x.shape[0], groups, channels // groups, length, ncl, x.element_size())

    @property
    def vector(self) -> int:
        """Numbers that one instruction moves: 16 bytes, or what divides the contiguous axis."""
        return gcd(self.length if self.ncl else self.channels, 16 // self.itemsize)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """What kernels take: groups, then channels and length, the contiguous one in vectors."""
        if self.ncl:
            return self.groups, self.channels, self.length // self.vector
        return self.groups, self.channels // self.vector, self.length

    @property
    def numbers(self) -> int:
        """Numbers in a tile: half as many in float64, which takes two registers each."""
        return NUMBERS // 2 if self.itemsize == 8 else NUMBERS


@dataclass(frozen=True)
class Block:
    """Tile of a program, both sides powers of two, and how many warps work on it."""

    channels: int
    positions: int
    warps: int

    @classmethod
    def of(cls, channels: int, positions: int, shape: Shape, backward: bool) -> Block:
        """Take the warps from how many numbers of each tensor a thread can hold in registers."""
        per_thread = 32 // (2 if backward else 1) // (2 if shape.itemsize == 8 else 1)
        warps = channels * positions // (32 * per_thread)
        return cls(channels, positions, min(max(warps, 1), 16))

    def tiles(self, shape: Shape) -> tuple[int, int]:
        """How many tiles cover the channels of a group, and the positions."""
        return ceil_div(shape.channels, self.channels), ceil_div(shape.length, self.positions)


def whole_sets(over: str, shape: Shape, backward: bool) -> Block | None:
    """Tile that holds whole sets of numbers that share a mean, or None where none can.

    The backward pass holds two or more tensors at once, hence fewer numbers of each.
    """
    # As many as the registers of 16 warps hold, with what is computed from them.
    most = shape.numbers * (2 if backward else 4)
    channels, positions = power_of_two(shape.channels), power_of_two(shape.length)
    if over == "NL":
        return None
    if over == "CL":
        fits = channels * positions <= most
        return Block.of(channels, positions, shape, backward) if fits else None
    held, free = (positions, channels) if over == "L" else (channels, positions)
    contiguous = (over == "C") == shape.ncl
    sector, half_line = (size // shape.itemsize for size in (SECTOR, HALF_LINE))
    least = min(free, sector if contiguous else 1)
    wanted = max(shape.numbers // held // (2 if backward else 1), 1)
    if contiguous:
        wanted = max(wanted, min(half_line, shape.numbers // held), sector)
    side = min(free, wanted, most // held)
    if side < least:
        return None
    return Block.of(*((side, held) if over == "L" else (held, side)), shape, backward)


def part_of_sets(over: str, shape: Shape, backward: bool) -> Block:
    """Tile of sets that no program can hold: long where rows are contiguous, else a line wide."""
    numbers = shape.numbers // (2 if backward else 1)
    channels, positions = power_of_two(shape.channels), power_of_two(shape.length)
    inner, outer = (positions, channels) if shape.ncl else (channels, positions)
    rows = shape.ncl and over != "C"
    a = min(inner, numbers, numbers if rows else LINE // shape.itemsize)
    b = min(outer, numbers // a)
    a = min(inner, numbers // b)
    return Block.of(*((b, a) if shape.ncl else (a, b)), shape, backward)
