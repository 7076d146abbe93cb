"""Objects of stores that fsspec reads, each with its own library."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from typing import Any

import fsspec

from data_tools.errors import ChangedFileError, InputError, MissingFileError
from data_tools.formats.location import Url
from data_tools.formats.transports import DOWNLOAD, PIECE, Part


class Bucket:
    """An object of a store that fsspec reads, if what it needs for that is installed."""

    def __init__(self, url: Url) -> None:
        self._url = url
        self._systems: dict[int, tuple[Any, str]] = {}
        self._system()

    def _system(self) -> tuple[Any, str]:
        """Give this process' own file system, and what it calls the file."""
        if os.getpid() not in self._systems:
            try:
                found = fsspec.core.url_to_fs(self._url.address, skip_instance_cache=True)
            except ImportError:
                what = {"s3": "s3fs", "gs": "gcsfs"}[self._url.scheme]
                raise InputError(
                    f"{self._url}: {self._url.scheme}:// needs {what}: pip install {what}"
                ) from None
            self._systems[os.getpid()] = found
        return self._systems[os.getpid()]

    def part(self, start: int, stop: int) -> Part:
        """Give the bytes from start to stop, fewer only where the file ends."""
        system, path = self._system()
        with self._worded():
            size, _ = self._stated()
            stop = min(stop, size)
            data = system.cat_file(path, start=start, end=stop) if start < stop else b""
            # Asked after the bytes: what has this version now had it when they were read.
            size, version = self._stated()
        if len(data) != max(stop - start, 0):
            raise InputError(f"{self._url}: {len(data):,} bytes of {stop - start:,}: {DOWNLOAD}")
        return Part(data, size, version)

    def pieces(self) -> Generator[bytes]:
        """Give all bytes in order, in pieces."""
        system, path = self._system()
        with self._worded():
            before, total = self._stated(), 0
            with system.open(path, "rb", block_size=PIECE) as stream:
                while piece := stream.read(PIECE):
                    total += len(piece)
                    yield piece
            if self._stated() != before or total != before[0]:
                raise ChangedFileError(f"{self._url}: changed while it was read: read it again")

    def _stated(self) -> tuple[int, str]:
        system, path = self._system()
        system.invalidate_cache()
        info = system.info(path)
        keys = ("ETag", "etag", "generation", "LastModified", "mtime", "updated", "created")
        return int(info["size"]), " ".join(str(info[key]) for key in keys if key in info)

    @contextlib.contextmanager
    def _worded(self) -> Generator[None]:
        try:
            yield
        except InputError:
            raise
        except FileNotFoundError:
            raise MissingFileError(f"{self._url}: no such file: check the URL") from None
        except Exception as err:
            # Its text may hold keys.
            what = f"cannot be read ({type(err).__name__}): check the URL and your credentials"
            raise InputError(f"{self._url}: {what}") from None
