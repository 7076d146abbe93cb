"""What brings the bytes of a remote file here; one file for each way."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple, Protocol

#: What to do where a server cannot do what is needed.
DOWNLOAD = "download the file and read it from disk"
#: Bytes of a stream that are asked for at a time.
PIECE = 1 << 20


class Part(NamedTuple):
    """A range of bytes, and what the server says of the whole file."""

    data: bytes
    size: int
    version: str


class Transport(Protocol):
    """Reads one remote file; keeps nothing that a forked worker could not use."""

    def part(self, start: int, stop: int) -> Part:
        """Give the bytes from start to stop, fewer only where the file ends."""

    def pieces(self) -> Generator[bytes]:
        """Give all bytes in order, in pieces."""
