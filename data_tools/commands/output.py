"""Where the commands' tables and words go."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.atomic import write_atomic
from data_tools.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

LINE = 60
"""Bases a line of FASTA."""


def write(table: "pd.DataFrame", out: Path | None) -> None:
    """Write a table as CSV: to a file, whole or not at all, or to stdout."""
    write_text([table.to_csv(index=False, float_format="%.6g")], out)


def write_text(parts: Iterable[str], out: Path | None) -> None:
    """Write text, a part at a time: to a file, whole or not at all, or to stdout."""
    if out is None:
        sys.stdout.writelines(parts)
        return
    if out.is_dir():
        raise InputError(f"{out}: cannot be written (it is a folder); give the name of a file")
    try:
        write_atomic(out, (part.encode() for part in parts))
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror})") from error


def fasta_record(name: str, letters: str) -> str:
    """A record of FASTA, in lines of 60 bases."""
    lines = (letters[at : at + LINE] for at in range(0, len(letters), LINE))
    return "\n".join([f">{name}", *lines, ""])


def note(line: str) -> None:
    """Say something that is not part of the result, on stderr."""
    sys.stderr.write(line + "\n")
