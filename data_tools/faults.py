"""What is wrong with a file: raised at the first fault, or noted, all of it."""

from __future__ import annotations

from data_tools.errors import FormatError, InputError
from data_tools.formats.location import Location

_SHOWN = 60


def shown(value: object) -> str:
    r"""Show a value that stands in a file: quoted, on one line, cut where it is long.

    Examples
    --------
    >>> shown("a\nb")
    "'a\\nb'"
    """
    text = str(value)
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}..."


class Faults:
    """What becomes of the faults of one file.

    A reader tells it every fault. Without ``keep`` the first is raised. With it, the reader goes
    on without the faulty row: up to ``keep`` faults are kept and the further ones counted.

    Parameters
    ----------
    path : Path or Url
        The file, as errors call it.
    keep : int, optional
        How many to keep; None raises the first.

    Examples
    --------
    >>> from pathlib import Path
    >>> faults = Faults(Path("a.bed"), keep=1)
    >>> faults.add(3, "end is not an integer")
    >>> faults.add(4, "end is not an integer")
    >>> faults.kept, faults.further
    (['a.bed:3: end is not an integer'], 1)
    """

    def __init__(self, path: Location, keep: int | None = None) -> None:
        self.path, self.keep = path, keep
        self.kept: list[str] = []
        self.further = 0

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self.kept) + self.further

    def error(
        self, line: int | None, what: str, kind: type[InputError] = FormatError
    ) -> InputError:
        """Give the error for a fault after which nothing can be read any more."""
        place = self.path if line is None else f"{self.path}:{line}"
        return kind(f"{place}: {what}")

    def add(self, line: int | None, what: str, kind: type[InputError] = FormatError) -> None:
        """Tell a fault of a line, counted from 1, or of the whole file."""
        error = self.error(line, what, kind)
        if self.keep is None:
            raise error
        if len(self.kept) < self.keep:
            self.kept.append(str(error))
        else:
            self.further += 1
