"""Files that appear whole or not at all."""

import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path


def write_atomic(path: Path, content: bytes | str | Iterable[bytes]) -> None:
    """Replace a file in one step: temporary file in the same folder, fsync, rename.

    Content that is an iterable of bytes is written a part at a time, as it is made.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "note.txt"
    >>> write_atomic(target, "all or nothing")
    >>> target.read_text()
    'all or nothing'
    """
    whole = content.encode() if isinstance(content, str) else content
    parts = [whole] if isinstance(whole, bytes) else whole
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            stream.writelines(parts)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}")
"""Names of the temporary files of `write_atomic`."""


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Remove those of some files that writes which were killed have left.

    Only for files that nobody else writes at the time.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / ".table.csv.0123abcd").write_text("ha")
    >>> write_atomic(folder / "table.csv", "whole")
    >>> remove_unfinished(folder.iterdir())
    >>> [path.name for path in folder.iterdir()]
    ['table.csv']
    """
    for path in list(paths):
        if _UNFINISHED.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder last through a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
