"""Motifs of a collection that a motif is like, by TOMTOM.

The comparison is memelite's (extra ``motifs``); what stands here checks its input and corrects for
how many comparisons were made.

References
----------
Gupta et al. (2007), Quantifying similarity between motifs. Genome Biology 8, R24.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import InputError
from data_tools.motifs import Motif

FEWEST = 50
"""Motifs of a collection; the p-values take their background from its columns."""


def match_motifs(
    queries: Sequence[Motif], collection: Sequence[Motif], nearest: int = 1
) -> pd.DataFrame:
    """Find the motifs of a collection that each of some motifs is most like.

    Motifs that are nothing but rich in two bases are like others of the same composition: a small
    p-value says that columns agree, not which factor binds.

    Parameters
    ----------
    queries : sequence of Motif
        What is looked up.
    collection : sequence of Motif
        At least 50, such as the whole of JASPAR's CORE for a taxon.
    nearest : int
        Matches of each, the best first.

    Returns
    -------
    pandas.DataFrame
        A row a match: ``query`` and ``target`` (positions in the two sequences), ``match`` (name),
        ``reverse`` (whether the match's reverse complement fits), ``overlap`` (columns),
        ``p_value`` of this pair over offsets and strands, ``e_value`` (times the motifs of the
        collection: matches as good that chance would give) and ``p_adjusted`` (Bonferroni over
        collection and queries).

    Raises
    ------
    InputError
        With fewer than 50 motifs in the collection, or without memelite.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> motifs = [Motif(f"M{i}", rng.gamma(0.2, 10, (4, 12)) + 0.1) for i in range(60)]
    >>> turned = Motif("x", motifs[7].counts[::-1, ::-1])
    >>> match_motifs([turned], motifs)[["match", "reverse", "overlap"]].values.tolist()
    [['M7', True, 12]]
    """
    if len(collection) < FEWEST:
        raise InputError(
            f"a collection of {len(collection)} motifs is too small to compare with, {FEWEST} are "
            "needed: p-values take their background from its columns"
        )
    columns = ["query", "target", "match", "reverse", "overlap"]
    if not queries:
        numbers = ["p_value", "e_value", "p_adjusted"]
        return pd.DataFrame({name: pd.Series(dtype=object) for name in columns + numbers})
    try:
        from memelite import tomtom
    except ImportError:
        raise InputError(
            "comparing motifs with a collection needs more: pip install 'seqnorm[motifs]'"
        ) from None
    found = tomtom(
        [_frequencies(motif) for motif in queries],
        [_frequencies(motif) for motif in collection],
        n_nearest=nearest,
    )
    p_value, _, _, overlap, strand, target = (np.asarray(part) for part in found)
    target = target.astype(int)
    table = pd.DataFrame(
        {
            "query": np.repeat(np.arange(len(queries)), target.shape[1]),
            "target": target.ravel(),
            "match": [collection[number].name for number in target.ravel()],
            "reverse": strand.ravel().astype(bool),
            "overlap": overlap.ravel().astype(int),
            "p_value": p_value.ravel(),
        }
    )
    table["e_value"] = table["p_value"] * len(collection)
    table["p_adjusted"] = np.minimum(1, table["e_value"] * len(queries))
    return table


def _frequencies(motif: Motif) -> NDArray[np.float64]:
    return np.asarray(motif.counts / motif.counts.sum(0))
