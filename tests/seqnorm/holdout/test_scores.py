"""Scores with adapted statistics are those of a model that was measured again on each part."""

import numpy as np
import pandas as pd
import pytest
import torch

from seqnorm.batches import LabelledWindows
from seqnorm.holdout.scores import adapted_scores, scores_of
from seqnorm.holdout.windows import WindowSet, picked
from seqnorm.models import ReverseComplementAverage, build_model
from seqnorm.surgery import recalibrate

WIDTH = 60


@pytest.fixture
def model() -> ReverseComplementAverage:
    built = build_model("cnn", "batch", seed=0, channels=4)
    assert isinstance(built, ReverseComplementAverage)
    return built.eval()


def windows(parts: list[tuple[str, str, float]], each: int = 40) -> WindowSet:
    """So many windows of each (part, chromosome, GC), mixed."""
    rng = np.random.default_rng(1)
    rows, codes = [], []
    for part, chrom, gc in parts:
        rows += [{"part": part, "chrom": chrom, "start": n, "label": n % 2} for n in range(each)]
        chances = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
        codes.append(rng.choice(4, (each, WIDTH), p=chances).astype(np.uint8))
    order = rng.permutation(len(rows))
    return WindowSet(
        pd.DataFrame(rows).iloc[order].reset_index(drop=True), np.concatenate(codes)[order], 0
    )


def test_each_part_is_scored_with_its_own_statistics(model: ReverseComplementAverage) -> None:
    both = windows([("validation", "chr21", 0.4), ("test", "chr21", 0.5), ("test", "chr19", 0.6)])
    logits, features = adapted_scores(model, both, "float32")
    for part, chrom in (("validation", "chr21"), ("test", "chr21"), ("test", "chr19")):
        mine = (both.table["part"] == part) & (both.table["chrom"] == chrom)
        rows = np.flatnonzero(mine)
        own = picked(both, rows)
        labelled = LabelledWindows(
            torch.from_numpy(own.codes), torch.from_numpy(own.table["label"].to_numpy("f4")), 0
        )
        again, _ = recalibrate(model, [x for x, _ in labelled.in_order(64, torch.device("cpu"))])
        wanted = scores_of(again, own, "float32")
        np.testing.assert_array_equal(logits[rows], wanted[0])
        np.testing.assert_array_equal(features[rows], wanted[1])


def test_the_same_windows_have_the_same_scores_for_choosing_and_for_testing(
    model: ReverseComplementAverage,
) -> None:
    """Where nothing shifts, a threshold on validation gives its rate on the test chromosome."""
    one = windows([("validation", "chr21", 0.4)])
    table = pd.concat([one.table, one.table.assign(part="test", chrom="chr1")], ignore_index=True)
    both = WindowSet(table, np.concatenate([one.codes, one.codes]), 0)
    logits, _ = adapted_scores(model, both, "float32")
    np.testing.assert_array_equal(logits[: len(one.table)], logits[len(one.table) :])
    plain, _ = scores_of(model, both, "float32")
    assert not np.allclose(logits, plain)
