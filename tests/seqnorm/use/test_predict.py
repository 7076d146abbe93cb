"""Scores along chromosomes are those of the same windows taken one by one."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from data_tools.encode import encode, reverse_complement
from data_tools.errors import InputError
from data_tools.genome import Genome
from seqnorm.batches import LabelledWindows
from seqnorm.models import ReverseComplementAverage
from seqnorm.training import predict
from seqnorm.use.predict import as_bins, in_genome_order, predict_intervals, predict_tiles
from seqnorm.use.scorer import Scorer

WIDTH = 60
"""Of the fixtures' scorer."""
Small = Callable[..., ReverseComplementAverage]


def whole(parts: object) -> pd.DataFrame:
    return pd.concat(list(parts), ignore_index=True)  # type: ignore[call-overload]


def by_hand(scorer: Scorer, letters: list[str]) -> np.ndarray:
    codes = torch.from_numpy(np.stack([encode(text) for text in letters]))
    return predict(scorer.model, LabelledWindows(codes, torch.zeros(len(codes))))


@settings(max_examples=25, deadline=None)
@given(step=st.integers(1, 200), batch=st.integers(1, 70), width=st.integers(20, 90))
def test_tiles_are_every_window_that_fits_and_score_as_in_training(
    genome: Genome, scorer: Scorer, step: int, batch: int, width: int
) -> None:
    mine = Scorer(scorer.model.model, width, batch=batch)
    found = whole(predict_tiles(mine, genome, chroms=["tiny", "chrA"], step=step))
    expected = [
        (chrom, start)
        for chrom in ("tiny", "chrA")
        for start in range(0, genome.lengths[chrom] - width + 1, step)
    ]
    assert list(zip(found["chrom"], found["start"], strict=True)) == expected
    assert (found["end"] - found["start"] == width).all()
    letters = [genome.fetch(chrom, start, start + width) for chrom, start in expected]
    np.testing.assert_allclose(found["score"], by_hand(scorer, letters), rtol=0, atol=1e-6)


def test_scores_are_the_bits_of_training_where_the_batches_are_the_same(
    genome: Genome, scorer: Scorer
) -> None:
    mine = Scorer(scorer.model.model, WIDTH, batch=64)
    found = whole(predict_tiles(mine, genome, chroms=["chrA"], step=7))
    letters = [genome.fetch("chrA", start, start + WIDTH) for start in found["start"]]
    assert (found["score"].to_numpy() == by_hand(scorer, letters)).all()


def test_small_parts_give_what_one_part_gives(
    genome: Genome, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = whole(predict_tiles(scorer, genome, step=3))
    monkeypatch.setattr("seqnorm.use.scorer.CODES", 1000)
    parts = list(predict_tiles(scorer, genome, step=3))
    assert max(map(len, parts)) == scorer.rows == 32
    pd.testing.assert_frame_equal(whole(parts), once, rtol=0, atol=1e-6)


def test_windows_with_n_have_no_score_or_one_with_n_as_zeros(
    genome: Genome, scorer: Scorer
) -> None:
    skipped = whole(predict_tiles(scorer, genome, chroms=["chrB"], step=1))
    holds = (skipped["start"] < 1003) & (skipped["end"] > 1000)
    assert holds.sum() == WIDTH + 2
    assert (skipped["score"].isna() == holds).all()
    scored = whole(predict_tiles(scorer, genome, chroms=["chrB"], step=1, ambiguous="score"))
    letters = [genome.fetch("chrB", start, start + WIDTH) for start in scored["start"]]
    np.testing.assert_allclose(scored["score"], by_hand(scorer, letters), rtol=0, atol=1e-6)


def test_intervals_are_scored_around_their_summit_or_middle(genome: Genome, scorer: Scorer) -> None:
    table = pd.DataFrame(
        {
            "chrom": ["chrB", "chrA", "chrA", "chrA", "chrB"],
            "start": [500, 100, 0, 1990, 1001],
            "end": [511, 300, 4, 2000, 1002],
            "summit": pd.array([pd.NA, 120, pd.NA, 1999, pd.NA], dtype="Int64"),
        }
    )
    found = whole(predict_intervals(scorer, genome, table))
    assert found["window_start"].tolist() == [475, 90, -28, 1969, 971]
    assert found["score"].isna().tolist() == [False, False, True, True, True]
    assert found[["chrom", "start", "end"]].equals(table[["chrom", "start", "end"]])
    padded = whole(predict_intervals(scorer, genome, table, ambiguous="score"))
    letters = [
        genome.fetch("chrB", 475, 535),
        genome.fetch("chrA", 90, 150),
        "N" * 28 + genome.fetch("chrA", 0, 32),
        genome.fetch("chrA", 1969, 2000) + "N" * 29,
        genome.fetch("chrB", 971, 1031),
    ]
    np.testing.assert_allclose(padded["score"], by_hand(scorer, letters), rtol=0, atol=1e-6)


def test_both_strands_have_one_score(scorer: Scorer) -> None:
    codes = np.random.default_rng(0).integers(0, 5, (50, WIDTH)).astype(np.uint8)
    other = scorer.scores(reverse_complement(codes))
    np.testing.assert_allclose(scorer.scores(codes), other, rtol=0, atol=1e-6)


@given(width=st.integers(1, 50), step=st.integers(1, 70), count=st.integers(1, 20))
def test_bins_never_overlap_and_lie_in_their_windows(width: int, step: int, count: int) -> None:
    start = np.arange(count) * step
    part = pd.DataFrame({"chrom": "a", "start": start, "end": start + width, "score": 0.0})
    bins = as_bins(part, step)
    assert ((bins["start"] >= part["start"]) & (bins["end"] <= part["end"])).all()
    assert (bins["end"] - bins["start"] == min(width, step)).all()
    assert (bins["start"].to_numpy()[1:] >= bins["end"].to_numpy()[:-1]).all()


def test_genome_order_is_that_of_the_file(genome: Genome) -> None:
    table = pd.DataFrame({"chrom": ["chrA", "chrB", "chrA"], "start": [5, 9, 1], "end": 20})
    assert in_genome_order(table, genome)["start"].tolist() == [9, 1, 5]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"step": 0}, "step must be at least 1"),
        ({"chroms": ["chrC"]}, "unknown chromosome 'chrC'"),
        ({"chroms": ["chrA", "chrA"]}, "named twice"),
    ],
)
def test_what_cannot_be_tiled_is_told(
    genome: Genome, scorer: Scorer, options: dict[str, object], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        list(predict_tiles(scorer, genome, **options))  # type: ignore[arg-type]


def test_one_output_of_several_is_scored(small: Small, genome: Genome) -> None:
    model = small("batch", outputs=3)
    x = np.random.default_rng(1).integers(0, 4, (5, WIDTH)).astype(np.uint8)
    both = model(torch.eye(4)[torch.from_numpy(x).long()].transpose(1, 2))
    for output in range(3):
        found = Scorer(model, WIDTH, output=output).scores(x)
        np.testing.assert_allclose(found, both[:, output].detach(), rtol=0, atol=1e-6)


def test_scores_that_are_not_finite_do_not_pass_for_windows_without_one(
    genome: Genome, small: Small
) -> None:
    model = small("none")
    with torch.no_grad():
        model.model.head.bias.fill_(torch.nan)
    with pytest.raises(InputError, match="not finite"):
        list(predict_tiles(Scorer(model, WIDTH), genome))


class Share(nn.Module):
    """The share of A: quick, so that a long chromosome can be scored."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x[:, 0].mean(-1)


def test_memory_does_not_grow_with_the_chromosome(tmp_path: Path) -> None:
    peaks = []
    for length in (2_000_000, 8_000_000):
        fasta = tmp_path / f"{length}.fa"
        fasta.write_text(">a\n" + "ACGT" * (length // 4) + "\n")
        with Genome(fasta) as genome:
            scorer = Scorer(Share(), 500, batch=1024)
            tracemalloc.start()
            total = sum(len(part) for part in predict_tiles(scorer, genome, step=50))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert total == (length - 500) // 50 + 1
    assert peaks[1] < 1.2 * peaks[0] < 40e6
