"""The folder of a store of windows: written whole or not at all, checked when it is opened.

::

    bases.bin          four bases to a byte, a window a row, in the order of the genome
    rows.npy           of each window of the table, its row in bases.bin
    unknown.bin        of each window that has ambiguous bases, a bit a base
    unknown_rows.npy   the rows of bases.bin that these are of, rising
    column_0.npy …     the columns of the table
    header.json        how many windows of what width, and size and checksum of each file
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt, ValidationError

from data_tools.atomic import sync_folder
from data_tools.errors import FormatError, InputError, MissingFileError

_REMEDY = "write the store anew"
_HEADER_MAX = 1 << 20
_CHUNK = 1 << 20


class Header(BaseModel):
    """What header.json tells; `files` gives size and CRC-32 of each file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: str
    version: int
    count: PositiveInt
    width: PositiveInt
    margin: NonNegativeInt
    source: dict[str, str]
    columns: list[str]
    files: dict[str, tuple[NonNegativeInt, NonNegativeInt]]


_FORMAT, _VERSION = "data_tools windows", 1


class Part:
    """A file that is being written; it counts and sums what goes into it."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("xb")
        self.size = self.checksum = 0

    def write(self, raw: bytes) -> int:
        """Add bytes."""
        self.size += len(raw)
        self.checksum = zlib.crc32(raw, self.checksum)
        return self._stream.write(raw)

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        with self._stream:
            self._stream.flush()
            os.fsync(self._stream.fileno())


class NewFolder:
    """The folder of a store while it is being written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._parts: dict[str, Part] = {}

    def part(self, name: str) -> Part:
        """Begin a file."""
        self._parts[name] = Part(self._path / name)
        return self._parts[name]

    def save(self, name: str, values: NDArray[Any]) -> None:
        """Write an array."""
        with self.part(name) as part:
            np.save(part, values, allow_pickle=False)

    def finish(self, **told: Any) -> None:
        """Write the header, which makes it a store."""
        files = {name: (part.size, part.checksum) for name, part in self._parts.items()}
        header = {"format": _FORMAT, "version": _VERSION, **told, "files": files}
        text = json.dumps({"sha256": _checksum(header), "header": header})
        with self.part("header.json") as part:
            part.write(text.encode())


def _checksum(header: Any) -> str:
    return hashlib.sha256(json.dumps(header).encode()).hexdigest()


@contextmanager
def new_folder(place: Path) -> Iterator[NewFolder]:
    """Give a folder to write into, which takes its name when all went well, else is removed.

    Raises
    ------
    InputError
        If there is something at the place already, or the folder cannot be made.
    """
    if os.path.lexists(place):
        raise InputError(f"{place}: exists already: remove it or choose another name")
    beside = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        beside.mkdir()
    except OSError as error:
        raise InputError(f"{place}: cannot be made: {error.strerror}") from error
    try:
        yield NewFolder(beside)
        sync_folder(beside)
        beside.rename(place)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(place.parent)


class WindowFiles:
    """The files of a store, mapped.

    Attributes
    ----------
    place : Path
        The folder.
    header : Header
    digest : str
        Of the header, and so of the checksums of all files.
    bases : ndarray of uint8, shape (N, ceil(L / 4))
    rows : ndarray of int64, shape (N,)
    unknown : ndarray of uint8, shape (K, ceil(L / 8))
    unknown_rows : ndarray of int64, shape (K,)
    columns : list of ndarray, shape (N,)
    """

    def __init__(self, place: Path, shown: Path, header: Header, digest: str) -> None:
        self.place, self._shown, self.header, self.digest = place, shown, header, digest
        count, length = header.count, header.width + 2 * header.margin
        self._check_sizes()
        self.rows = self._array("rows.npy", (count,), np.int64)
        self.unknown_rows = self._array("unknown_rows.npy", None, np.int64)
        self.bases = self._bytes("bases.bin", count, -(-length // 4))
        self.unknown = self._bytes("unknown.bin", len(self.unknown_rows), -(-length // 8))
        self.columns = [
            self._array(f"column_{number}.npy", (count,), None)
            for number in range(len(header.columns))
        ]
        self._check_rows()

    def wrong(self, name: str, what: str) -> FormatError:
        """Give the error for a file."""
        return FormatError(f"{self._shown}/{name}: {what}: {_REMEDY}")

    def _check_sizes(self) -> None:
        for name, (size, _) in self.header.files.items():
            if "/" in name or name.startswith("."):
                raise self.wrong("header.json", f"it names a file {name!r}")
            try:
                found = (self.place / name).stat().st_size
            except OSError as error:
                raise self.wrong(name, f"cannot be read ({error.strerror})") from None
            if found != size:
                raise self.wrong(name, f"{found} bytes, {size} were written")

    def _path(self, name: str) -> Path:
        if name not in self.header.files:
            raise self.wrong("header.json", f"it does not name {name}")
        return self.place / name

    def _bytes(self, name: str, rows: int, width: int) -> NDArray[np.uint8]:
        path = self._path(name)
        if self.header.files[name][0] != rows * width:
            raise self.wrong(name, f"not {rows} rows of {width} bytes")
        if not rows:
            return np.empty((0, width), dtype=np.uint8)
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r", shape=(rows, width)))

    def _array(self, name: str, shape: tuple[int] | None, kind: Any) -> NDArray[Any]:
        path = self._path(name)
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise self.wrong(name, f"no array ({error})") from None
        right = found.ndim == 1 if shape is None else found.shape == shape
        if not right or (kind is not None and found.dtype != kind):
            raise self.wrong(name, f"an array of {found.dtype} of shape {found.shape}")
        return np.asarray(found)

    def _check_rows(self) -> None:
        """An index that leads out of the files would be read as another window."""
        count = self.header.count
        for lo in range(0, count, _CHUNK):
            piece = self.rows[lo : lo + _CHUNK]
            if piece.min() < 0 or piece.max() >= count:
                raise self.wrong("rows.npy", f"a row outside of 0 to {count - 1}")
        holes = self.unknown_rows
        if len(holes) and (holes[0] < 0 or holes[-1] >= count or (np.diff(holes) <= 0).any()):
            raise self.wrong("unknown_rows.npy", f"not rising rows of 0 to {count - 1}")

    def verify(self) -> None:
        """Compare the checksum of every file."""
        for name, (_, checksum) in self.header.files.items():
            found = 0
            with (self.place / name).open("rb") as stream:
                while raw := stream.read(_CHUNK):
                    found = zlib.crc32(raw, found)
            if found != checksum:
                raise self.wrong(name, "its checksum is not what was written")


def read_window_files(place: Path, shown: Path) -> WindowFiles:
    """Open the folder of a store and check its header, and every size against it.

    Parameters
    ----------
    place : Path
        The folder.
    shown : Path
        How errors call it.

    Raises
    ------
    InputError
        If there is no such folder.
    FormatError
        If it is no store, or not whole: names the file.
    """
    if not place.is_dir():
        raise MissingFileError(f"{shown}: no such folder: check the path")
    try:
        with (place / "header.json").open("rb") as stream:
            told = json.loads(stream.read(_HEADER_MAX))
        header, digest = told["header"], told["sha256"]
        version = header["version"] if header["format"] == _FORMAT else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        raise FormatError(
            f"{shown}: no store of windows: header.json is lacking or broken"
        ) from None
    if version != _VERSION:
        raise FormatError(f"{shown}: a store of version {version!r}, not {_VERSION}: {_REMEDY}")
    try:
        checked = Header.model_validate_json(json.dumps(header))
    except ValidationError:
        checked = None
    if checked is None or digest != _checksum(header):
        raise FormatError(f"{shown}/header.json: changed since it was written: {_REMEDY}")
    return WindowFiles(place, shown, checked, digest)
