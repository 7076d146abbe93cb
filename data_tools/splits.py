"""Who trains and who tests: chromosome folds and blocks, as tables of regions.

A split is a table of regions (``chrom``, ``start``, ``end``). Windows are then drawn inside
the regions, so that none can straddle the border between training and validation.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from data_tools.errors import InputError, unknown_chromosome


def _regions(rows: list[tuple[str, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["chrom", "start", "end"]).astype(
        {"start": "int64", "end": "int64"}
    )


def check_chromosomes(chroms: Sequence[str], lengths: Mapping[str, int]) -> None:
    """Raise unless every chromosome is in the genome, naming the nearest one that is.

    Examples
    --------
    >>> check_chromosomes(["chr2"], {"chr21": 10, "chr22": 10})
    Traceback (most recent call last):
    data_tools.errors.InputError: genome: unknown chromosome 'chr2', did you mean 'chr22'? It \
has 'chr21', 'chr22'
    """
    for chrom in chroms:
        if chrom not in lengths:
            raise InputError(f"genome: {unknown_chromosome(chrom, lengths)}")


def _check_once(chroms: Sequence[str], lengths: Mapping[str, int]) -> None:
    check_chromosomes(chroms, lengths)
    seen: set[str] = set()
    for chrom in chroms:
        if chrom in seen:
            raise InputError(f"chromosome '{chrom}' is given twice; name each chromosome once")
        seen.add(chrom)


def check_disjoint(**parts: Sequence[str]) -> None:
    """Raise if a chromosome stands in two of the named parts.

    Examples
    --------
    >>> check_disjoint(train=["chr1"], test=["chr1"])
    Traceback (most recent call last):
    data_tools.errors.InputError: chromosome 'chr1' is in both train and test; a held-out \
chromosome must not be learnt from: remove it from one of them
    """
    owner: dict[str, str] = {}
    for part, chroms in parts.items():
        for chrom in chroms:
            if owner.setdefault(chrom, part) != part:
                raise InputError(
                    f"chromosome '{chrom}' is in both {owner[chrom]} and {part}; a held-out "
                    "chromosome must not be learnt from: remove it from one of them"
                )


def whole_chromosomes(chroms: Sequence[str], lengths: Mapping[str, int]) -> pd.DataFrame:
    """Regions that cover the chromosomes from end to end.

    Raises
    ------
    InputError
        For a chromosome that is unknown or given twice.

    Examples
    --------
    >>> whole_chromosomes(["b"], {"a": 5, "b": 7}).to_numpy().tolist()
    [['b', 0, 7]]
    """
    _check_once(chroms, lengths)
    return _regions([(chrom, 0, lengths[chrom]) for chrom in chroms])


def block_split(
    chroms: Sequence[str],
    lengths: Mapping[str, int],
    *,
    block: int = 1_000_000,
    every: int = 5,
    offset: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set every n-th block of each chromosome aside.

    Interleaved blocks give both parts the same mixture of regions, and blocks much longer than
    the reach of local correlation keep the parts apart.

    Parameters
    ----------
    chroms
        Chromosomes to cut into blocks.
    lengths
        Length of every chromosome in bases.
    block
        Length of a block in bases; the last block of a chromosome may be shorter.
    every, offset
        Block ``i`` of a chromosome is set aside where ``i % every == offset``.

    Returns
    -------
    kept, aside : pandas.DataFrame
        Two tables of regions that together cover the chromosomes once.

    Raises
    ------
    InputError
        For a chromosome that is unknown or given twice, or an impossible ``every``, ``offset`` or
        ``block``.

    Examples
    --------
    >>> kept, aside = block_split(["a"], {"a": 25}, block=10, every=2, offset=1)
    >>> aside.to_numpy().tolist()
    [['a', 10, 20]]
    """
    _check_once(chroms, lengths)
    if every < 2 or not 0 <= offset < every or block < 1:
        raise InputError(
            f"cannot set aside blocks with every={every}, offset={offset}, block={block}: "
            "every must be 2 or more, 0 <= offset < every, and block at least 1 base"
        )
    kept: list[tuple[str, int, int]] = []
    aside: list[tuple[str, int, int]] = []
    for chrom in chroms:
        for number, start in enumerate(range(0, lengths[chrom], block)):
            part = aside if number % every == offset else kept
            part.append((chrom, start, min(start + block, lengths[chrom])))
    return _regions(kept), _regions(aside)


def chromosome_folds(lengths: Mapping[str, int], k: int) -> list[list[str]]:
    """Share whole chromosomes out over ``k`` folds of nearly equal length.

    The longest chromosome goes first, each to the fold that is shortest so far (Graham's
    longest-processing-time rule). With ``k`` equal to the number of chromosomes this is
    leave-one-chromosome-out.

    Examples
    --------
    >>> chromosome_folds({"a": 5, "b": 4, "c": 3}, 2)
    [['a'], ['b', 'c']]
    """
    if not 2 <= k <= len(lengths):
        raise InputError(
            f"cannot make {k} folds of {len(lengths)} chromosomes: choose k from 2 to "
            f"{len(lengths)}"
        )
    folds: list[list[str]] = [[] for _ in range(k)]
    totals = [0] * k
    for chrom in sorted(lengths, key=lambda name: (-lengths[name], name)):
        # Of equally short folds the emptiest, so that none stays empty where lengths are 0.
        shortest = min(range(k), key=lambda fold: (totals[fold], len(folds[fold])))
        folds[shortest].append(chrom)
        totals[shortest] += lengths[chrom]
    return folds
