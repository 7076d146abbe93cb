"""The errors that a wrong input raises: one line that says where, what, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user handed in is wrong: a file, a record, an argument.

    The base of every error that this package raises about its input, so that one ``except``
    catches them all. The message is one line that names the place, the fault and the remedy.

    Examples
    --------
    >>> issubclass(FormatError, InputError) and issubclass(InputError, ValueError)
    True
    """


class FormatError(InputError):
    """A file does not keep to its format."""


class RangeError(InputError):
    """A chromosome, a coordinate or a value lies outside what exists."""


class ChangedFileError(InputError):
    """A file is no longer what it was when it was opened."""


class MissingFileError(InputError, FileNotFoundError):
    """A file is not there; also a `FileNotFoundError`."""


def unknown_chromosome(name: object, known: Iterable[str]) -> str:
    """Say that a chromosome is unknown, which name comes close and which names there are.

    Parameters
    ----------
    name : object
        The name that was asked for.
    known : iterable of str
        The names that exist.

    Returns
    -------
    str
        Half a message, to follow the name of the file.

    Examples
    --------
    >>> unknown_chromosome("21", ["chr21", "chr22"])
    "unknown chromosome '21', did you mean 'chr21'? It has 'chr21', 'chr22'"
    """
    names = list(known)
    text = str(name)
    # The commonest slip is the prefix, which a similarity score ranks too low for short names.
    swapped = text.removeprefix("chr") if text.startswith("chr") else f"chr{text}"
    close = [swapped] if swapped in names else difflib.get_close_matches(text, names, n=1)
    hint = f", did you mean {close[0]!r}?" if close else "."
    shown = ", ".join(repr(n) for n in names[:5])
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"unknown chromosome {name!r}{hint} It has {shown}{more}"
