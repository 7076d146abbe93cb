"""Filters whose motif is known: it is found, on either strand, and scored as by brute force."""

from dataclasses import fields, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save

from data_tools.motifs import Motif, read_motif
from seqnorm.holdout.draw import evaluation_file
from seqnorm.holdout.filter_matches import match_filters, matches_view
from seqnorm.holdout.filters import find_filters, likeness, weighted
from seqnorm.holdout.load import load_spec
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import Tables, sections
from seqnorm.holdout.trial import Trial, model_of
from seqnorm.holdout.windows import WindowSet

Floats = NDArray[np.float64]
WIDTH = 60


def motifs(columns: int) -> st.SearchStrategy[Floats]:
    return st.integers(0, 2**32 - 1).map(
        lambda seed: np.random.default_rng(seed).gamma(0.3, 10, size=(4, columns)) + 0.01
    )


def by_hand(own: Floats, known: Floats, overlap: int) -> float:
    """Every offset of both strands written out, the columns beside each other in one table."""
    found = []
    for strand in (own, own[::-1, ::-1]):
        for offset in range(overlap - own.shape[1], known.shape[1] - overlap + 1):
            first, last = min(0, offset), max(known.shape[1], offset + own.shape[1])
            table = np.zeros((2, 4, last - first))
            table[0, :, -first : known.shape[1] - first] = known
            table[1, :, offset - first : offset - first + own.shape[1]] = strand
            found.append(float(np.corrcoef(table.reshape(2, -1))[0, 1]))
    return max(found)


@given(motifs(7), motifs(9))
def test_likeness_is_the_largest_correlation_over_offsets_and_strands(
    own: Floats, known: Floats
) -> None:
    score, _ = likeness(weighted(own), weighted(known))
    assert score == pytest.approx(by_hand(weighted(own), weighted(known), 5), abs=1e-9)
    assert -1 <= score <= 1


@given(motifs(8), st.integers(0, 4), st.integers(0, 4))
def test_a_motif_is_like_its_reverse_complement_amid_flat_columns(
    counts: Floats, left: int, right: int
) -> None:
    wide = np.pad(counts[::-1, ::-1], ((0, 0), (left, right)), constant_values=5.0)
    score, reverse = likeness(weighted(wide), weighted(counts))
    assert score == pytest.approx(1, abs=1e-9)
    assert reverse or likeness(weighted(counts[::-1, ::-1]), weighted(counts))[0] > 1 - 1e-9


@pytest.fixture(scope="module")
def spec(demo: Path, small: list[str]) -> Spec:
    norms = "norms=['batch', 'background@first', 'instance@input', 'batch+adapted']"
    return load_spec(demo, [*small, norms])


@pytest.fixture(scope="module")
def motif(spec: Spec) -> Motif:
    assert spec.motif is not None
    return read_motif(spec.motif)


def run_with_a_planted_filter(spec: Spec, motif: Motif, folder: Path) -> Tables:
    """Random windows, a site in each on a random strand; filter 2 scores the motif's complement."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, size=(300, WIDTH), dtype=np.uint8)
    chances = motif.counts / motif.counts.sum(0)
    for row, (start, reverse) in zip(
        codes, zip(rng.integers(0, 40, 300), rng.random(300) < 0.5, strict=True), strict=True
    ):
        site = np.array([rng.choice(4, p=column) for column in chances.T], dtype=np.uint8)
        row[start : start + len(site)] = 3 - site[::-1] if reverse else site
    codes[:5, :3] = 4
    table = pd.DataFrame(
        {"part": "test", "chrom": "chr19", "start": np.arange(300), "end": np.arange(300) + WIDTH}
    ).assign(label=np.arange(300) % 2, gc=0.5, block=0)
    file = evaluation_file(folder, "main", "all")
    file.parent.mkdir(parents=True)
    WindowSet(table, codes, 0).save(file)
    rows = []
    for norm in spec.norms:
        rows.append(("cnn", "random", norm, "all", 0, 0.01))
        if norm == "batch+adapted":
            continue
        trial = Trial("cnn", "random", norm, 0.01, 0)
        state = model_of(spec, trial).state_dict()
        name = "model.norms.0.filters" if "background" in norm else "model.convs.0.weight"
        state[name] = torch.randn(state[name].shape, generator=torch.Generator().manual_seed(1))
        wanted = torch.from_numpy(motif.log_odds()[::-1, ::-1].copy())
        state[name][2] = 0
        state[name][2, :, 3 : 3 + wanted.shape[1]] = wanted
        (folder / "trials" / trial.id).mkdir(parents=True)
        (folder / "trials" / trial.id / "model.safetensors").write_bytes(save(state))
    columns = ["model", "negatives", "norm", "fold", "seed", "learning_rate"]
    empty = {item.name: pd.DataFrame() for item in fields(Tables)}
    return Tables(**empty | {"trials": pd.DataFrame(rows, columns=columns)})


def test_the_filter_that_scores_the_motif_is_found_turned_to_its_strand_and_above_chance(
    spec: Spec, motif: Motif, tmp_path: Path
) -> None:
    tables = run_with_a_planted_filter(spec, motif, tmp_path)
    found = find_filters(spec, tmp_path, tables, sections(spec)[0])
    assert found.skipped == ()
    assert list(found.best) == ["batch", "background@first", "instance@input"]
    for best in found.best.values():
        assert best.number == 2
        assert best.sites == 100
        assert best.score is not None
        assert best.score > 0.9 > best.chance > 0
        forward = by_hand(weighted(best.counts), weighted(motif.counts), 15)
        assert best.score == pytest.approx(forward, abs=1e-9)


COLLECTION = (
    Path(__file__).parents[3] / "examples" / "data" / "JASPAR2024_CORE_vertebrates.jaspar.gz"
)


def test_filters_are_looked_up_in_a_collection_and_the_planted_one_is_surest(
    spec: Spec, motif: Motif, tmp_path: Path
) -> None:
    pytest.importorskip("memelite")
    spec = replace(spec, evaluation=replace(spec.evaluation, motifs=str(COLLECTION)))
    tables = run_with_a_planted_filter(spec, motif, tmp_path)
    found = find_filters(spec, tmp_path, tables, sections(spec)[0])
    assert found.skipped == ()
    assert found.matches is not None
    for norm, mine in found.matches.groupby("norm"):
        best = mine.iloc[0]
        assert (best["filter"], best["match"]) == (3, motif.name), norm
        assert best["p_adjusted"] < 1e-6
        assert mine["p_value"].is_monotonic_increasing
        assert mine["filter"].is_unique
        assert (mine["p_adjusted"] <= 1).all()
    rows = matches_view(found.matches, 0.95)
    assert [row["norm"] for row in rows] == list(found.best)
    assert all(row["best"][0][0] == motif.name for row in rows)
    assert all(1 <= row["sure"] <= row["filters"] for row in rows)


def test_what_keeps_filters_from_being_looked_up_is_told_and_the_rest_stays(
    spec: Spec, motif: Motif, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = run_with_a_planted_filter(spec, motif, tmp_path)
    few = replace(spec, evaluation=replace(spec.evaluation, motifs=spec.motif))
    found = find_filters(few, tmp_path, tables, sections(spec)[0])
    assert found.matches is None
    assert "a collection of 1 motifs is too small" in found.skipped[0]
    assert len(found.best) == 3

    def fails(*_: object) -> None:
        raise RuntimeError("cannot cache\nmore lines")

    monkeypatch.setattr("seqnorm.holdout.filter_matches.match_motifs", fails)
    whole = replace(spec, evaluation=replace(spec.evaluation, motifs=str(COLLECTION)))
    found = find_filters(whole, tmp_path, tables, sections(spec)[0])
    assert found.skipped == ("The filters are not looked up in the collection (cannot cache).",)
    assert len(found.best) == 3


def test_filters_with_a_column_of_unknown_bases_are_left_out_and_none_make_an_empty_table() -> None:
    pytest.importorskip("memelite")
    hole = np.ones((4, 8))
    hole[:, 3] = 0
    table = match_filters(
        {"batch": {0: (hole, 100), 4: (np.eye(4)[:, [0, 1, 2, 3, 0]], 50)}}, COLLECTION
    )
    assert table["filter"].tolist() == [5]
    none = match_filters({}, COLLECTION)
    assert none.empty
    assert none.dtypes.to_dict() == table.dtypes.to_dict()


def test_a_match_is_sure_by_both_p_values_and_a_norm_without_one_stays() -> None:
    table = pd.DataFrame(
        [
            ("batch", "A", 1e-5, 0.01),
            ("batch", "A", 1e-3, 0.01),
            ("batch", "B", 1e-9, 0.02),
            ("layer", "B", 0.2, 0.01),
        ],
        columns=["norm", "match", "p_adjusted", "p_shuffled"],
    )
    assert matches_view(table, 0.95) == [
        {"norm": "batch", "filters": 3, "sure": 2, "motifs": 1, "best": [("A", 2, 1e-5)]},
        {"norm": "layer", "filters": 1, "sure": 0, "motifs": 0, "best": []},
    ]


def test_what_cannot_be_read_is_told_and_the_other_norms_stay(
    spec: Spec, motif: Motif, tmp_path: Path
) -> None:
    tables = run_with_a_planted_filter(spec, motif, tmp_path)
    trials = tmp_path / "trials"
    (trials / "cnn-random-batch-lr0.01-s0" / "model.safetensors").unlink()
    broken = trials / "cnn-random-background@first-lr0.01-s0" / "model.safetensors"
    broken.write_bytes(b"\x00" * 40)
    found = find_filters(spec, tmp_path, tables, sections(spec)[0])
    assert list(found.best) == ["instance@input"]
    assert "batch: the weights are gone." in found.skipped
    assert any(
        line.startswith("background@first: the weights do not fit") for line in found.skipped
    )
    evaluation_file(tmp_path, "main", "all").write_bytes(b"PK no archive")
    found = find_filters(spec, tmp_path, tables, sections(spec)[0])
    assert found.best == {}
    assert "cannot be read" in found.skipped[0]


def test_a_filter_that_responds_to_nothing_has_no_motif(
    spec: Spec, motif: Motif, tmp_path: Path
) -> None:
    tables = run_with_a_planted_filter(spec, motif, tmp_path)
    for norm, name in product(("batch", "instance@input"), ("model.convs.0.weight",)):
        trial = Trial("cnn", "random", norm, 0.01, 0)
        state = model_of(spec, trial).state_dict()
        state[name] = torch.zeros_like(state[name])
        (tmp_path / "trials" / trial.id / "model.safetensors").write_bytes(save(state))
    found = find_filters(spec, tmp_path, tables, sections(spec)[0])
    assert list(found.best) == ["background@first"]
    assert "batch: no filter responds to anything." in found.skipped
