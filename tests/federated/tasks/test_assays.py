"""Clients whose assays differ: what they learn from changes, what they are measured by does not."""

import numpy as np
import pandas as pd
import pytest

from federated.partition import AssayShift
from federated.setting import settings_of
from federated.spec import SpecError
from federated.tasks import prepare_task
from federated.tasks.assays import with_assays
from federated.tasks.draw import draw_windows
from federated.tasks.task import TEST


def test_missed_peaks_are_negatives_to_train_on_and_no_test_window_changes(small):
    plain = draw_windows(small())
    shifted = draw_windows(small("assay={dial=2.0,seed=3}"))
    before, after = plain.rows, shifted.rows
    assert np.array_equal(plain.codes, shifted.codes)
    same = [name for name in before if name != "label"]
    pd.testing.assert_frame_equal(before[same], after[same])
    tested = before["part"] == TEST
    assert (before["label"][tested] == after["label"][tested]).all()
    assert (after["label"] <= before["label"]).all()
    missed = (before["label"] - after["label"]).groupby(before["client"]).sum()
    table = shifted.assays.set_index("client")
    assert (missed[table.index] == table["missed"]).all()
    assert 0 < table["missed"].sum() < table["peaks"].sum()
    # As often as the assay says: five standard deviations of a sum of draws.
    for client, line in table.iterrows():
        shift = AssayShift(**line[["gain", "offset", "gc_bias", "gc_optimum", "depth"]])
        mine = (before["client"] == client) & ~tested & (before["label"] == 1)
        called = shift.detection(before["gc"][mine])
        assert line["peaks"] == mine.sum()
        spread = np.sqrt((called * (1 - called)).sum())
        assert abs(line["missed"] - (1 - called).sum()) <= 5 * spread + 1e-9


def test_a_dial_of_0_changes_nothing(small):
    pd.testing.assert_frame_equal(
        draw_windows(small()).rows, draw_windows(small("assay={dial=0.0}")).rows
    )
    assert draw_windows(small()).assays is None


def test_clients_of_a_batch_have_one_assay(small):
    assay = "assay={dial=1.0}"
    scheme = 'partition={scheme="batch_confounded",clients=4,rho=0.1}'
    table = draw_windows(small(scheme, assay)).assays
    assert table["depth"].tolist() == table["depth"].iloc[[0, 0, 2, 2]].tolist()
    assert table["depth"].nunique() == 2


def test_who_has_which_assay_is_kept_with_the_rows(small, tmp_path):
    (tmp_path / "data").mkdir()
    prepare_task(small("assay={dial=1.0}"), tmp_path)
    kept = pd.read_csv(tmp_path / "data" / "assays.csv")
    assert kept.columns.tolist() == [
        "client", "gain", "offset", "gc_bias", "gc_optimum", "depth", "peaks", "missed",
    ]  # fmt: skip


def test_features_are_read_with_gain_and_offset_but_those_of_two_values():
    draw = np.random.default_rng(0)
    x = np.column_stack([draw.normal(5, 3, 400), draw.integers(0, 2, 400)]).astype(np.float32)
    client = np.repeat(["a", "b"], 200)
    found = with_assays(x, client, {"a": AssayShift(), "b": AssayShift(gain=2.0, offset=-0.5)})
    assert np.array_equal(found[:200], x[:200])
    assert np.array_equal(found[:, 1], x[:, 1])
    wanted = 2 * x[200:, 0].astype(np.float64) - 0.5 * x[:, 0].std(dtype=np.float64)
    assert found[200:, 0] == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_a_study_may_vary_the_assays_instead_of_the_partition(small, tmp_path):
    spec = small('study={skews=[0.0,1.5],skew_of="assay"}', "assay={dial=1.0,seed=7}")
    found = settings_of(spec, tmp_path, study=True)
    assert [(s.spec.assay.dial, s.spec.assay.seed) for s in found] == [(0.0, 7), (1.5, 7)]
    assert {s.spec.partition for s in found} == {spec.partition}
    with pytest.raises(SpecError, match=r"'study\.skews': 6 is no dial of an assay"):
        small('study={skews=[6.0],skew_of="assay"}')
    with pytest.raises(SpecError, match=r"assay\.dial"):
        small("assay={dial=-1.0}")
