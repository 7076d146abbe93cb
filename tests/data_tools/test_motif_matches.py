"""Motifs looked up in a collection are found again; noise matches as often as it says."""

import sys
from pathlib import Path

import numpy as np
import pytest

from data_tools.errors import InputError
from data_tools.motif_matches import match_motifs
from data_tools.motifs import Motif, read_motifs

FILE = Path(__file__).parents[2] / "examples" / "data" / "JASPAR2024_CORE_vertebrates.jaspar.gz"


@pytest.fixture(scope="module")
def collection():
    pytest.importorskip("memelite")
    return read_motifs(FILE)


def test_every_motif_and_every_reverse_complement_finds_itself(collection):
    for turned in (False, True):
        queries = [Motif("", m.counts[::-1, ::-1]) if turned else m for m in collection]
        found = match_motifs(queries, collection)
        itself = found["query"] == found["target"]
        # The others are pairs of one family whose columns score alike.
        assert itself.mean() > 0.99
        assert (found["p_adjusted"] < 0.05).mean() > 0.95
        assert (found["overlap"] >= 5).all()
    assert found["reverse"].all()


def test_noise_has_matches_as_often_as_p_values_say(collection):
    columns = np.concatenate([m.counts / m.counts.sum(0) for m in collection], 1)
    rng = np.random.default_rng(1)
    queries = [
        Motif("", columns[:, rng.integers(columns.shape[1], size=15)] + 1e-6) for _ in range(300)
    ]
    every = match_motifs(queries, collection, nearest=len(collection))
    assert len(every) == 300 * len(collection)
    assert 0.005 < (every["p_value"] < 0.01).mean() < 0.015
    best = match_motifs(queries, collection)
    # 15 of 300 are to be expected at most; four standard deviations more are 30.
    assert (best["e_value"] < 0.05).sum() <= 30
    assert (best["p_adjusted"] < 0.05).sum() <= 1
    assert best["e_value"].to_numpy() == pytest.approx(best["p_value"] * 879)


def test_nearest_matches_come_in_order_and_a_query_alone_is_as_among_others(collection):
    few = match_motifs(collection[:5], collection, nearest=3)
    assert few.groupby("query")["p_value"].apply(lambda p: p.is_monotonic_increasing).all()
    alone = match_motifs(collection[2:3], collection, nearest=3)
    among = few[few["query"] == 2].reset_index(drop=True)
    for column in ("match", "reverse", "overlap", "p_value", "e_value"):
        assert alone[column].tolist() == among[column].tolist()


def test_a_small_collection_and_a_missing_library_are_refused_in_words(collection, monkeypatch):
    with pytest.raises(InputError, match="a collection of 49 motifs is too small"):
        match_motifs(collection[:1], collection[:49])
    none = match_motifs([], collection)
    assert none.empty
    assert list(none) == list(match_motifs(collection[:1], collection))
    monkeypatch.setitem(sys.modules, "memelite", None)
    with pytest.raises(InputError, match=r"pip install 'seqnorm\[motifs\]'"):
        match_motifs(collection[:1], collection)
