"""Where a file is: a path, or a URL whose secrets are never shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from data_tools.errors import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")
_WEB, _BUCKETS = ("http", "https"), ("s3", "gs")


class Url:
    """An address of a remote file; as text it is without user, password and query.

    Parameters
    ----------
    address : str
        The whole address.

    Attributes
    ----------
    address : str
        As given, less what follows ``#``.
    scheme : str
    name : str
        The last part of its path, as of `pathlib.Path`.

    Raises
    ------
    InputError
        If it names no file, or the scheme is not one that is read.

    Examples
    --------
    >>> url = Url("https://me:secret@host/hg38.fa.gz?token=secret")
    >>> str(url), url.name, str(url.beside(".fai"))
    ('https://host/hg38.fa.gz', 'hg38.fa.gz', 'https://host/hg38.fa.gz.fai')
    """

    __slots__ = ("_shown", "address", "name", "scheme")

    def __init__(self, address: str) -> None:
        try:
            parts = urlsplit(address)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise InputError("a URL that cannot be read: check its host and port") from None
        bare = parts.netloc.rpartition("@")[2]
        self._shown = urlunsplit((parts.scheme, bare, parts.path, "", ""))
        self.scheme, self.name = parts.scheme, unquote(parts.path).rpartition("/")[2]
        if self.scheme not in (*_WEB, *_BUCKETS):
            what = "files are read from a path, http://, https://, s3:// and gs://"
            raise InputError(f"{self._shown}: {self.scheme}:// is not read: {what}: download it")
        if not host or not self.name or not address.isprintable():
            raise InputError(f"{self._shown!r} names no file on a host: check the URL")
        self.address = urlunsplit(parts._replace(fragment=""))

    def beside(self, ending: str) -> Url:
        """Give the file whose name is longer by this ending."""
        parts = urlsplit(self.address)
        return Url(urlunsplit(parts._replace(path=parts.path + ending)))

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"Url({self._shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Url) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)


Location = Path | Url


def location(path: str | os.PathLike[str]) -> Location:
    """Tell a URL from a path.

    Examples
    --------
    >>> location("https://host/a.bed"), location("a.bed").name
    (Url('https://host/a.bed'), 'a.bed')
    """
    text = os.fspath(path)
    found = _SCHEME.match(text) if isinstance(text, str) else None
    if found is None:
        return Path(path)
    rest = text[found.end() :]
    if rest.startswith("/"):
        return Url(text)
    # `pathlib` makes one slash of two, as in the arguments of commands.
    if isinstance(path, Path) and found[1] in (*_WEB, *_BUCKETS):
        return Url(f"{found[1]}://{rest}")
    return Path(path)
