"""Motifs of a collection that a motif is like, by TOMTOM.

The comparison is memelite's (extra ``motifs``). TOMTOM's p-values are of queries whose columns are
drawn, one by one, from the collection's own. Motifs of networks are not such: one without
information is like any motif that has a stretch without (in JASPAR's CORE two of CTCF, with an
e-value of 1e-12), one of nothing but C and G like any that is rich in them. Hence each match has a
second p-value, against shuffles of the query's own columns, which such a motif does not pass.

References
----------
Gupta et al. (2007), Quantifying similarity between motifs. Genome Biology 8, R24.
"""

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import InputError
from data_tools.motifs import Motif

FEWEST = 50
"""Motifs of a collection; the p-values take their background from its columns."""
SHUFFLES = 99
"""Of a query's columns, so that the smallest p-value against them is .01."""


def match_motifs(
    queries: Sequence[Motif], collection: Sequence[Motif], nearest: int = 1
) -> pd.DataFrame:
    """Find the motifs of a collection that each of some motifs is most like.

    A match says that columns agree, not which factor binds: factors of one family share a motif.

    Parameters
    ----------
    queries : sequence of Motif
        What is looked up.
    collection : sequence of Motif
        At least 50, such as the whole of JASPAR's CORE for a taxon.
    nearest : int
        Matches of each, the best first; at least 1.

    Returns
    -------
    pandas.DataFrame
        A row a match: ``query`` and ``target`` (positions in the two sequences), ``match`` (name),
        ``reverse`` (whether the match's reverse complement fits at least as well), ``overlap``
        (columns), ``p_value`` of this pair over offsets and strands, ``e_value`` (times the motifs
        of the collection: matches as good that chance would give), ``p_adjusted`` (Bonferroni over
        collection and queries) and ``p_shuffled``: the share of 99 shuffles of the query's columns,
        and itself, that are as much like any motif of the collection, so at least .01.

    Raises
    ------
    InputError
        With fewer than 50 motifs in the collection, a motif with a column without a count,
        ``nearest`` below 1, or without memelite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> motifs = [Motif(f"M{i}", rng.gamma(0.2, 10, (4, 12)) + 0.1) for i in range(60)]
    >>> turned = Motif("x", motifs[7].counts[::-1, ::-1])
    >>> match_motifs([turned], motifs)[["match", "reverse", "overlap"]].values.tolist()
    [['M7', True, 12]]
    """
    check_collection(collection)
    if nearest < 1:
        raise InputError(f"the number of matches of a motif must be at least 1, not {nearest}")
    if not queries:
        return _TYPES.copy()
    targets = [_frequencies(motif) for motif in collection]
    own = [_frequencies(motif) for motif in queries]
    p_value, overlap, reverse, target = _tomtom(own, targets, nearest)
    table = pd.DataFrame(
        {
            "query": np.repeat(np.arange(len(queries)), target.shape[1]),
            "target": target.ravel(),
            "match": [collection[number].name for number in target.ravel().tolist()],
            "reverse": reverse.ravel(),
            "overlap": overlap.ravel(),
            "p_value": p_value.ravel(),
        }
    )
    table["e_value"] = table["p_value"] * len(collection)
    table["p_adjusted"] = np.minimum(1, table["e_value"] * len(queries))
    rng = np.random.default_rng(0)
    shuffled = [c[:, rng.permutation(c.shape[1])] for c in own for _ in range(SHUFFLES)]
    reached = _tomtom(shuffled, targets, 1)[0].reshape(len(own), SHUFFLES)
    as_good = (reached[table["query"]] <= table["p_value"].to_numpy()[:, None]).sum(1)
    table["p_shuffled"] = (1 + as_good) / (1 + SHUFFLES)
    return table


def check_collection(collection: Sequence[Motif]) -> None:
    """Whether motifs can be looked up in it.

    Raises
    ------
    InputError
        With fewer than 50 motifs, or where memelite is not installed.
    """
    if len(collection) < FEWEST:
        raise InputError(
            f"a collection of {len(collection)} motifs is too small to compare with, {FEWEST} are "
            "needed: p-values take their background from its columns"
        )
    if find_spec("memelite") is None:
        raise InputError(
            "comparing motifs with a collection needs more: pip install 'seqnorm[motifs]'"
        )


def _tomtom(
    queries: list[NDArray[np.float64]], targets: list[NDArray[np.float64]], nearest: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
    """p-values, overlaps, strands and positions of the nearest targets of each query."""
    from memelite import tomtom
    from threadpoolctl import threadpool_limits

    # Numba's first loop sets the number of threads of OpenMP, which is torch's too: put it back.
    with threadpool_limits(limits=None):
        p_value, _, _, overlap, strand, target = tomtom(queries, targets, n_nearest=nearest)
    return (
        np.asarray(p_value, dtype=np.float64),
        np.asarray(overlap, dtype=np.int64),
        np.asarray(strand, dtype=bool),
        np.asarray(target, dtype=np.int64),
    )


def _frequencies(motif: Motif) -> NDArray[np.float64]:
    size = motif.counts.sum(0)
    if not (size > 0).all():
        column = int(np.flatnonzero(~(size > 0))[0]) + 1
        raise InputError(f"motif {motif.name or 'without a name'}: column {column} has no count")
    return np.asarray(motif.counts / size)


_TYPES = pd.DataFrame(
    {
        "query": pd.Series(dtype=np.int64),
        "target": pd.Series(dtype=np.int64),
        "match": pd.Series(dtype=str),
        "reverse": pd.Series(dtype=bool),
        "overlap": pd.Series(dtype=np.int64),
        **{n: pd.Series(dtype=float) for n in ("p_value", "e_value", "p_adjusted", "p_shuffled")},
    }
)
