"""Measures and baselines where something is missing."""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from seqnorm import metrics
from seqnorm.holdout import measures
from seqnorm.holdout.baselines import GC_ALONE, features
from seqnorm.holdout.design import folds_of
from seqnorm.holdout.load import load_spec
from seqnorm.holdout.windows import WindowSet


def evaluation_table() -> pd.DataFrame:
    """Validation with its negatives in one of two blocks, and a test chromosome of ten blocks."""
    rng = np.random.default_rng(0)
    validation = pd.DataFrame(
        {"part": "validation", "chrom": "chr21", "label": [0] * 50 + [1] * 50}
    ).assign(block=lambda table: table["label"])
    test = pd.DataFrame(
        {"part": "test", "chrom": "chr19", "label": rng.integers(0, 2, 400)}
    ).assign(block=np.arange(400) // 40)
    table = pd.concat([validation, test], ignore_index=True)
    return table.assign(gc=rng.uniform(0.3, 0.6, len(table)))


def test_a_resample_without_a_threshold_has_no_false_alarm_rate_in_any_decile(demo: Path) -> None:
    spec = load_spec(
        demo, ["split.test=['chr19']", "split.primary=['chr19']", "evaluation.resamples=100"]
    )
    table = evaluation_table()
    scores = np.random.default_rng(1).normal(size=len(table))
    (fold,) = folds_of(spec)
    gc = table.loc[(table["part"] == "test") & (table["label"] == 0), "gc"].to_numpy()
    found = measures.measure(spec, fold, table, scores, measures.gc_decile_edges(gc))
    weights = metrics.block_weights(2, 100, zlib.crc32(b"validation"))
    without = weights[:, 0] == 0
    assert 0 < without.sum() < 101
    assert np.isnan(found.deciles[:, without]).all()
    rate = found.resampled[1, measures.METRICS.index("false_alarm_rate")]
    assert np.isnan(rate[without]).all()
    negatives = (table["part"] == "test") & (table["label"] == 0)
    assert found.deciles[:, 0].mean() == pytest.approx(
        (scores[negatives.to_numpy()] > found.thresholds[0]).mean(), abs=0.01
    )


def test_the_gc_of_a_window_without_a_known_base_is_a_number_to_the_baseline() -> None:
    codes = np.array([[4, 4, 4, 4], [1, 1, 2, 0]], dtype=np.uint8)
    windows = WindowSet(pd.DataFrame({"label": [1, 0]}), codes, 0)
    assert features(GC_ALONE, None, windows).ravel().tolist() == [0.5, 0.75]
