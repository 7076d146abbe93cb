"""Windows a second: of what was trained, fold by fold, beside the bare loop."""

import pytest

from seqnorm.holdout.speed import BareLoop, Throughput
from seqnorm.holdout.trial import Trial

CHR1 = Trial("cnn", "random", "batch", 0.01, 0, fold="chr1")
CHRX = Trial("cnn", "random", "batch", 0.01, 0, fold="chrX")


def test_each_fold_counts_its_own_windows() -> None:
    found = Throughput()
    found.bare[CHR1] = BareLoop(training=900, validation=100, step=1 / 400, forward=1 / 1000)
    found.bare[CHRX] = BareLoop(training=1000, validation=0, step=1 / 500, forward=1 / 1000)
    found.note(CHR1, 3 * 900, 10.0)
    found.note(CHRX, 3 * 1000, 10.0)
    assert found.of_trials() == {CHR1.id: 270.0, CHRX.id: 300.0}


def test_a_trial_is_compared_with_the_loop_that_was_measured_right_before_it() -> None:
    """On a machine that has slowed down to a third, the share is the same."""
    found = Throughput()
    for trial, slower in ((CHR1, 1), (CHRX, 3)):
        step, forward = slower / 400, slower / 1000
        found.bare[trial] = BareLoop(training=800, validation=0, step=step, forward=forward)
        found.note(trial, 800, 2.5 * slower)
    (row,) = found.of_cells()
    assert row["share_bare"] == pytest.approx(0.8)
    assert row["bare_windows_per_second"] == pytest.approx((400 + 400 / 3) / 2, abs=0.1)


def test_the_share_of_bare_work_holds_the_passes_over_the_validation_windows() -> None:
    found = Throughput()
    found.bare[CHR1] = BareLoop(training=800, validation=400, step=1 / 400, forward=1 / 1000)
    found.note(CHR1, 2 * 800, 8.0)
    (row,) = found.of_cells()
    assert row["windows_per_second"] == 200.0
    assert row["bare_windows_per_second"] == 400.0
    assert row["share_bare"] == pytest.approx((800 / 400 + 400 / 1000) / 4)


def test_what_an_earlier_session_trained_tells_nothing_of_this_one() -> None:
    found = Throughput()
    found.note(CHR1, 100, 1.0)  # no bare loop was measured
    found.bare[CHR1] = BareLoop(training=1, validation=1, step=1.0, forward=1.0)
    found.note(CHR1, 0, 0.0)
    assert found.of_trials() == {}
    assert found.of_cells() == []
