"""Names of all clients, kept beside the rows: a site's folder has rows of its own alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from data_tools.atomic import write_atomic
from data_tools.errors import InputError

__all__ = ["read_names", "write_names"]

_FILE = "clients.json"


def write_names(names: Iterable[str], folder: Path) -> None:
    """Write the names of all clients into the folder ``data`` of a run."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "data" / _FILE, json.dumps(sorted(names)))


def read_names(folder: Path) -> tuple[str, ...]:
    """Read what :func:`write_names` wrote.

    Raises
    ------
    InputError
        If there is none, or it is no list of names.
    """
    path = folder / "data" / _FILE
    try:
        names = json.loads(path.read_text())
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise TypeError("it is no list of names")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); draw the rows again") from error
    return tuple(sorted(names))
