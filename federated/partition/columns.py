"""Schemes that follow a column of the table: chromosomes, sites. Nothing is drawn."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from data_tools.errors import unknown_chromosome
from federated.partition.checks import Ints, PartitionError, column, whole

_RESERVED = ("unseen", "pooled")
"""Names with a meaning of their own in tables of results, where no client may have them."""

_LONGEST = 60
"""Characters of a client's name: leaves room for suffixes of files."""


def numbered(count: int) -> tuple[str, ...]:
    """Names of clients that have none of their own, in sorted order.

    Examples
    --------
    >>> numbered(2), numbered(11)[9:]
    (('client-0', 'client-1'), ('client-09', 'client-10'))
    """
    digits = len(str(count - 1))
    return tuple(f"client-{k:0{digits}d}" for k in range(count))


def safe_names(values: Sequence[str]) -> tuple[str, ...]:
    """Turn values into names fit for files: ASCII letters, digits, dot, dash, underscore.

    Names that would coincide, also where case does not count, get numbers in the order given.

    Examples
    --------
    >>> safe_names(["São Paulo", "a/b", "A b", "../x"])
    ('Sao-Paulo', 'a-b', 'A-b-2', 'x')
    """
    taken: set[str] = set(_RESERVED)
    names = []
    for value in values:
        plain = unicodedata.normalize("NFKD", value).encode("ascii", "ignore").decode()
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.").lstrip("-._")[:_LONGEST]
        stem = stem or "site"
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.lower())
        names.append(name)
    return tuple(names)


@dataclass(frozen=True, kw_only=True)
class ByChromosome:
    """Each client holds whole chromosomes.

    Rows linked across clients (equal sequences on two chromosomes) stay with the client that has
    most of them; the others are dropped, so that a client has no chromosome but its own.

    Parameters
    ----------
    clients : int, optional
        Number of clients. The chromosomes are balanced by rows: in falling order of rows, each to
        the client with fewest so far (Graham 1969, https://doi.org/10.1137/0117039: the largest
        client has at most 4/3 of what the best balance gives it).
    chromosomes : tuple of tuples of str, optional
        The chromosomes of each client, in place of ``clients``.

    Examples
    --------
    >>> rows = pd.DataFrame({"chrom": ["chr1", "chr1", "chr1", "chr2", "chr3"]})
    >>> ByChromosome(clients=2).owners(rows)
    (('client-0', 'client-1'), array([0, 0, 0, 1, 1]))
    """

    kind: ClassVar[str] = "by_chromosome"
    dial_name: ClassVar[None] = None
    dial: ClassVar[None] = None
    seed: ClassVar[None] = None

    clients: int | None = None
    chromosomes: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if (self.clients is None) == (not self.chromosomes):
            raise PartitionError("by chromosome: give either clients or chromosomes")
        if self.clients is not None:
            whole("clients", self.clients, 1)
        names = [name for held in self.chromosomes for name in held]
        for name in names:
            if names.count(name) > 1:
                raise PartitionError(f"chromosome '{name}' is given twice; a client each is enough")
        if not all(self.chromosomes):
            raise PartitionError("a client is given no chromosome; leave it out")

    def owners(self, rows: pd.DataFrame) -> tuple[tuple[str, ...], Ints]:
        """Names of the clients and the client of each row, shape (N,)."""
        chrom = column(rows, "chrom", "a split by chromosome").astype(str)
        counts = chrom.value_counts().sort_index()
        given = self.chromosomes or _balanced(counts, self.clients or 1)
        home = {name: client for client, held in enumerate(given) for name in held}
        for name in home.keys() - set(counts.index):
            raise PartitionError(f"the table: {unknown_chromosome(name, counts.index)}")
        found = chrom.map(home)
        _all_known(found, chrom, "chrom", "client holds")
        return numbered(len(given)), np.asarray(found, dtype=np.int64)


def _balanced(counts: "pd.Series[int]", clients: int) -> list[list[str]]:
    if clients > len(counts):
        raise PartitionError(
            f"clients = {clients}: the table has only {len(counts)} chromosomes; "
            "ask for as many clients at most"
        )
    held: list[list[str]] = [[] for _ in range(clients)]
    load = np.zeros(clients, dtype=np.int64)
    for name, count in counts.sort_values(ascending=False, kind="stable").items():
        lightest = int(load.argmin())
        held[lightest].append(str(name))
        load[lightest] += count
    return held


@dataclass(frozen=True, kw_only=True)
class BySite:
    """Each value of a column is a client: hospitals, regions, laboratories.

    Rows linked across sites stay with the site that has most of them; the others are dropped.

    Parameters
    ----------
    column : str, default "site"
        The column. Whole numbers n become names ``column-n``, texts names fit for files.
    sites : tuple of str, optional
        The sites that are expected: each must occur, and no other.

    Examples
    --------
    >>> BySite(column="region").owners(pd.DataFrame({"region": ["West", "Midwest", "West"]}))
    (('Midwest', 'West'), array([1, 0, 1]))
    >>> BySite(column="center").owners(pd.DataFrame({"center": [10, 2]}))
    (('center-02', 'center-10'), array([1, 0]))
    """

    kind: ClassVar[str] = "by_site"
    dial_name: ClassVar[None] = None
    dial: ClassVar[None] = None
    seed: ClassVar[None] = None

    column: str = "site"
    sites: tuple[str, ...] = ()

    def owners(self, rows: pd.DataFrame) -> tuple[tuple[str, ...], Ints]:
        """Names of the clients, sorted, and the client of each row, shape (N,)."""
        values = column(rows, self.column, "a split by site")
        text = _as_text(values, self.column)
        present = sorted(set(text))
        for site in self.sites:
            if site not in present:
                raise PartitionError(
                    f"site '{site}' has no row; column '{self.column}' has {_some(present)}"
                )
        if self.sites:
            known = text.map(dict.fromkeys(self.sites, 0))
            _all_known(known, text, self.column, "expected site is")
        name = dict(zip(present, safe_names(present), strict=True))
        names = tuple(sorted(name.values()))
        place = {site: names.index(name[site]) for site in present}
        return names, np.asarray(text.map(place), dtype=np.int64)


def _as_text(values: "pd.Series[Any]", name: str) -> "pd.Series[str]":
    """Sites as text; whole numbers padded, so that their names sort as they do."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        number = values.to_numpy(dtype=np.float64)
        if (number >= 0).all() and (number == np.floor(number)).all():
            digits = len(str(int(number.max(initial=0))))
            return pd.Series([f"{name}-{int(n):0{digits}d}" for n in number], index=values.index)
    return values.astype(str)


def _all_known(found: "pd.Series[int]", values: "pd.Series[str]", name: str, what: str) -> None:
    lost = found.isna().to_numpy()
    if lost.any():
        at = int(lost.argmax())
        raise PartitionError(
            f"row {at} (0-based), column '{name}': no {what} '{values.iloc[at]}'; "
            "add it to the scheme or leave the row out"
        )


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - 5} more" if len(every) > 5 else ""
    return ", ".join(f"'{name}'" for name in every[:5]) + more
