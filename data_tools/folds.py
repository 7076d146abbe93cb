"""Which chromosomes train, validate and test: k-fold, leave-one-out, GC-stress, fold files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_tools.atomic import write_atomic
from data_tools.errors import FormatError, InputError, MissingFileError
from data_tools.faults import shown
from data_tools.formats.values import has_blank
from data_tools.splits import check_chromosomes, check_disjoint, chromosome_folds

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Fold:
    """Three sets of chromosomes of which none is in two.

    Attributes
    ----------
    train, valid, test : tuple of str
        Names of chromosomes.

    Raises
    ------
    InputError
        If a part is empty, or a chromosome stands twice.

    Examples
    --------
    >>> Fold(train=("chr1", "chr2"), valid=("chr3",), test=("chr4",)).part_of("chr3")
    'valid'
    """

    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, chroms in asdict(self).items():
            if not chroms:
                raise InputError(f"a fold needs a chromosome in each part; {part} has none")
            if len(set(chroms)) < len(chroms):
                twice = next(chrom for chrom in chroms if chroms.count(chrom) > 1)
                raise InputError(f"chromosome '{twice}' stands twice in {part}; name it once")
        check_disjoint(**asdict(self))

    def part_of(self, chrom: str) -> str | None:
        """Give the part that a chromosome is in: train, valid, test or None."""
        return next((part for part in PARTS if chrom in getattr(self, part)), None)


def k_folds(lengths: Mapping[str, int], k: int) -> list[Fold]:
    """Cross-validation by chromosome: each chromosome tests once and validates once.

    Fold ``i`` tests on group ``i`` of `data_tools.chromosome_folds`, validates on the next group
    and trains on the rest. With ``k`` equal to the number of chromosomes this leaves one
    chromosome out at a time.

    Parameters
    ----------
    lengths : mapping of str to int
        Length of every chromosome in bases.
    k : int
        Number of folds, at least 3.

    Returns
    -------
    list of Fold

    Raises
    ------
    InputError
        If ``k`` is below 3 or above the number of chromosomes.

    Examples
    --------
    >>> [fold.test for fold in k_folds({"a": 5, "b": 4, "c": 3}, 3)]
    [('a',), ('b',), ('c',)]
    """
    if k < 3:
        raise InputError(f"k is at least 3 (one group each to train, validate, test), not {k}")
    groups = chromosome_folds(lengths, k)
    folds = []
    for i, test in enumerate(groups):
        valid = groups[(i + 1) % k]
        train = [chrom for group in groups for chrom in group if chrom not in {*test, *valid}]
        folds.append(Fold(_in_order(train, lengths), tuple(valid), tuple(test)))
    return folds


def gc_stress_fold(
    lengths: Mapping[str, int],
    gc: Mapping[str, float],
    *,
    test_share: float = 0.2,
    valid_share: float = 0.1,
    train_on: str = "poor",
) -> Fold:
    """Train on GC-poor chromosomes and test on GC-rich ones, or the reverse.

    Parameters
    ----------
    lengths : mapping of str to int
        Length of every chromosome in bases.
    gc : mapping of str to float
        GC fraction of every chromosome.
    test_share, valid_share : float
        Least share of all bases in the test and the validation part.
    train_on : {"poor", "rich"}
        Where the test chromosomes are the richest, or, as the control, the poorest.

    Returns
    -------
    Fold
        The test part are the chromosomes at the end of the order by GC; the validation part those
        nearest to the GC of the middle base of what is left, so that it resembles the training
        part and tells nothing of the test part.

    Raises
    ------
    InputError
        For shares outside 0 to 1, an unknown direction, or if nothing is left to train on.

    Examples
    --------
    >>> lengths = dict.fromkeys("abcde", 10)
    >>> gc = {"a": 0.36, "b": 0.38, "c": 0.41, "d": 0.44, "e": 0.5}
    >>> gc_stress_fold(lengths, gc)
    Fold(train=('a', 'b', 'd'), valid=('c',), test=('e',))
    """
    if train_on not in ("poor", "rich"):
        raise InputError(f"train_on '{train_on}' does not exist; choose one of poor, rich")
    if not (test_share > 0 and valid_share > 0 and test_share + valid_share < 1):
        raise InputError(
            f"test_share={test_share} and valid_share={valid_share} must be above 0 and leave "
            "something to train on"
        )
    check_chromosomes(list(gc), lengths)
    total = sum(lengths[chrom] for chrom in gc)
    order = sorted(gc, key=lambda chrom: (gc[chrom], chrom), reverse=train_on == "poor")
    test = _first(order, lengths, test_share * total)
    rest = [chrom for chrom in order if chrom not in test]
    middle = gc[_first(rest, lengths, sum(lengths[chrom] for chrom in rest) / 2)[-1]] if rest else 0
    near = sorted(rest, key=lambda chrom: (abs(gc[chrom] - middle), chrom))
    valid = _first(near, lengths, valid_share * total)
    train = [chrom for chrom in rest if chrom not in valid]
    if not train:
        raise InputError(
            f"{len(gc)} chromosomes cannot be split with test_share={test_share} and "
            f"valid_share={valid_share}: nothing is left to train on; lower the shares"
        )
    return Fold(*(_in_order(part, lengths) for part in (train, valid, test)))


def _first(order: Sequence[str], lengths: Mapping[str, int], bases: float) -> list[str]:
    """Take chromosomes in order until they have so many bases."""
    taken: list[str] = []
    for chrom in order:
        if taken and sum(lengths[name] for name in taken) >= bases:
            break
        taken.append(chrom)
    return taken


def _in_order(chroms: Sequence[str], lengths: Mapping[str, int]) -> tuple[str, ...]:
    return tuple(chrom for chrom in lengths if chrom in set(chroms))


def read_fold(path: str | os.PathLike[str], lengths: Mapping[str, int] | None = None) -> Fold:
    """Read a fold file as ENCODE and ChromBPNet write it.

    Parameters
    ----------
    path : path
        JSON: an object with lists of chromosomes under ``train``, ``valid`` and ``test``.
    lengths : mapping of str to int, optional
        Also check that every chromosome is one of these.

    Returns
    -------
    Fold

    Raises
    ------
    FormatError
        If it is no such object; names the key.
    InputError
        If it cannot be read, a chromosome is unknown or stands in two parts.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "fold_0.json"
    ...     write_fold(path, Fold(("chr2",), ("chr8",), ("chr1",)))
    ...     read_fold(path)
    Fold(train=('chr2',), valid=('chr8',), test=('chr1',))
    """
    where = Path(path)
    try:
        content = json.loads(where.read_text("utf-8"), object_pairs_hook=_once)
    except FileNotFoundError:
        raise MissingFileError(f"{where}: no such file: check the path") from None
    except OSError as err:
        raise InputError(f"{where}: cannot be read: {err.strerror}") from None
    except (ValueError, RecursionError) as err:
        raise FormatError(f"{where}: not JSON ({err}): give a fold file") from None
    try:
        fold = Fold(**{part: _names(where, content, part) for part in PARTS})
        if lengths is not None:
            check_chromosomes([*fold.train, *fold.valid, *fold.test], lengths)
    except FormatError:
        raise
    except InputError as err:
        raise InputError(f"{where}: {err}") from None
    return fold


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what Python's reader of JSON passes over: the last of two equal keys would win."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {shown(key)} occurs twice")
        found[key] = value
    return found


def _names(where: Path, content: Any, part: str) -> tuple[str, ...]:
    names = content.get(part) if isinstance(content, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FormatError(f"{where}: no list of chromosomes under '{part}': add one")
    for name in names:
        # Also what cannot be written as UTF-8 is not printable.
        if not name or has_blank(name) or not name.isprintable():
            what = "is no name of a chromosome: correct it"
            raise FormatError(f"{where}: {shown(name)} under '{part}' {what}")
    if extra := sorted(set(content) - set(PARTS)):
        raise FormatError(f"{where}: unknown key '{extra[0]}': a fold has train, valid and test")
    return tuple(names)


def write_fold(path: str | os.PathLike[str], fold: Fold) -> None:
    """Write a fold as ENCODE and ChromBPNet read it; whole or not at all.

    Parameters
    ----------
    path : path
        The file to write.
    fold : Fold
        What to write.
    """
    text = json.dumps({part: list(chroms) for part, chroms in asdict(fold).items()}, indent=2)
    write_atomic(Path(path), text + "\n")
