"""Names of chromosomes in two styles: ``chr1`` and ``1``, ``chrM`` and ``MT``.

They are never matched unasked: two files that differ in style often differ in assembly as well
(``chrM`` of hg19 is another sequence than ``MT`` of GRCh37).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from data_tools.errors import InputError

ChromStyle = Literal["exact", "match"]

_MITOCHONDRIA = ("chrM", "MT", "M", "chrMT")


def _spellings(name: str) -> tuple[str, ...]:
    if name in _MITOCHONDRIA:
        return _MITOCHONDRIA
    bare = name.removeprefix("chr")
    return (bare, f"chr{bare}")


def matching_name(name: str, known: Iterable[str]) -> str | None:
    """Give the known name that is this one, or this one in the other style; None if none is.

    Raises
    ------
    InputError
        If several known names could be meant.

    Examples
    --------
    >>> matching_name("1", ["chr1", "chrM"]), matching_name("MT", ["chr1", "chrM"])
    ('chr1', 'chrM')
    >>> matching_name("2", ["chr1"]) is None
    True
    """
    names = set(known)
    if name in names:
        return name
    found = [other for other in _spellings(name) if other in names]
    if len(found) > 1:
        raise InputError(
            f"chromosome {name!r} may be {' or '.join(map(repr, found))}: rename it in the file"
        )
    return found[0] if found else None


def match_chromosomes(
    names: Iterable[str], known: Iterable[str], style: ChromStyle = "match"
) -> dict[str, str]:
    """Map the names of a file to the known names.

    Parameters
    ----------
    names : iterable of str
        The names in the file.
    known : iterable of str
        The names of the genome.
    style : {"exact", "match"}
        ``"exact"`` maps each known name to itself. ``"match"`` also maps ``chr1`` and ``1`` to
        each other, and ``chrM``, ``M`` and ``MT``.

    Returns
    -------
    dict
        Without the names that are unknown.

    Raises
    ------
    InputError
        If two names of the file mean one chromosome, or one name may mean two.

    Examples
    --------
    >>> match_chromosomes(["1", "MT", "GL000220.1"], ["chr1", "chrM"])
    {'1': 'chr1', 'MT': 'chrM'}
    >>> match_chromosomes(["1"], ["chr1"], "exact")
    {}
    """
    check_style(style)
    every = list(known)
    if style == "exact":
        there = set(every)
        return {name: name for name in names if name in there}
    matched: dict[str, str] = {}
    taken: dict[str, str] = {}
    for name in dict.fromkeys(names):
        match = matching_name(name, every)
        if match is None:
            continue
        if match in taken:
            raise InputError(
                f"{taken[match]!r} and {name!r} both mean {match!r}: give it one name in the file"
            )
        matched[name], taken[match] = match, name
    return matched


def check_style(style: str) -> None:
    """Refuse a style of names that does not exist."""
    if style not in get_args(ChromStyle):
        raise InputError(f"chrom_style {style!r} does not exist: choose 'exact' or 'match'")


def style_hint(name: str, known: Iterable[str], style: ChromStyle) -> str:
    """Say how an unknown chromosome could be read, where the style of its name is all.

    Examples
    --------
    >>> style_hint("1", ["chr1"], "exact")
    "; pass chrom_style='match' to read '1' as 'chr1'"
    >>> style_hint("2", ["chr1"], "exact")
    ''
    """
    if style == "match":
        return ""
    try:
        match = matching_name(name, known)
    except InputError:
        return ""
    return "" if match is None else f"; pass chrom_style='match' to read {name!r} as {match!r}"
