"""Motifs looked up in a collection are found again; noise matches as often as it says."""

import subprocess
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
        some = [collection[number] for number in range(0, len(collection), 6)]
        queries = [Motif("", m.counts[::-1, ::-1]) if turned else m for m in some]
        found = match_motifs(queries, collection)
        itself = 6 * found["query"] == found["target"]
        # The others are pairs of one family whose columns score alike.
        assert itself.mean() > 0.98
        assert (found["p_adjusted"] < 0.05).mean() > 0.95
        assert (found["overlap"] >= 5).all()
    assert found["reverse"].all()


def test_noise_has_matches_as_often_as_p_values_say(collection):
    columns = np.concatenate([m.counts / m.counts.sum(0) for m in collection], 1)
    rng = np.random.default_rng(1)
    queries = [
        Motif("", columns[:, rng.integers(columns.shape[1], size=15)] + 1e-6) for _ in range(120)
    ]
    every = match_motifs(queries, collection, nearest=len(collection))
    assert len(every) == 120 * len(collection)
    assert 0.005 < (every["p_value"] < 0.01).mean() < 0.015
    best = every.groupby("query").head(1)
    # 6 of 120 are to be expected at most; four standard deviations more are 16.
    assert (best["e_value"] < 0.05).sum() <= 16
    assert (best["p_adjusted"] < 0.05).sum() <= 1
    assert best["e_value"].to_numpy() == pytest.approx(best["p_value"] * 879)


@pytest.mark.parametrize("base", [(0.25,) * 4, (0.1, 0.4, 0.4, 0.1), (0.35, 0.15, 0.15, 0.35)])
def test_what_has_no_order_passes_tomtom_and_not_the_shuffles(collection, base):
    """Counts of 100 sites drawn with the same frequencies in all columns."""
    rng = np.random.default_rng(2)
    queries = [Motif("", rng.multinomial(100, base, size=15).T + 0.01) for _ in range(20)]
    found = match_motifs(queries, collection)
    assert (found["p_adjusted"] < 0.05).mean() > 0.9
    # .01 is to be expected; four of twenty happen by chance once in 10,000.
    assert (found["p_shuffled"] < 0.015).sum() <= 3
    assert found["p_shuffled"].mean() > 0.3


def test_true_motifs_pass_the_shuffles(collection):
    found = match_motifs(collection[:100], collection)
    assert (found["p_shuffled"] < 0.015).mean() > 0.9
    assert found["p_shuffled"].between(0.01, 1).all()


def test_nearest_matches_come_in_order_and_a_query_alone_is_as_among_others(collection):
    few = match_motifs(collection[:5], collection, nearest=3)
    assert few.groupby("query")["p_value"].apply(lambda p: p.is_monotonic_increasing).all()
    alone = match_motifs(collection[2:3], collection, nearest=3)
    among = few[few["query"] == 2].reset_index(drop=True)
    for column in ("match", "reverse", "overlap", "p_value", "e_value"):
        assert alone[column].tolist() == among[column].tolist()


def test_what_cannot_be_looked_up_is_refused_in_words(collection, monkeypatch):
    with pytest.raises(InputError, match="a collection of 49 motifs is too small"):
        match_motifs(collection[:1], collection[:49])
    none = match_motifs([], collection)
    assert none.empty
    assert none.dtypes.to_dict() == match_motifs(collection[:1], collection).dtypes.to_dict()
    with pytest.raises(InputError, match="must be at least 1, not 0"):
        match_motifs(collection[:1], collection, nearest=0)
    hole = Motif("hole", np.array([[1.0, 0.0]] * 4))
    with pytest.raises(InputError, match="motif hole: column 2 has no count"):
        match_motifs([hole], collection)
    monkeypatch.setattr("data_tools.motif_matches.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'seqnorm\[motifs\]'"):
        match_motifs(collection[:1], collection)


@pytest.mark.usefixtures("collection")
def test_the_threads_of_torch_stay_as_many_as_they_were():
    """Numba, which memelite is built with, sets the number for OpenMP once in a process."""
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "torch.get_num_threads()  # the first call sets it anew\n"
        "from data_tools.motif_matches import match_motifs\n"
        "from data_tools.motifs import read_motifs\n"
        "motifs = read_motifs(sys.argv[1])\n"
        "match_motifs(motifs[:2], motifs)\n"
        "print(torch.get_num_threads())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(FILE)], capture_output=True, text=True, check=True
    )
    assert told.stdout == "1\n"
