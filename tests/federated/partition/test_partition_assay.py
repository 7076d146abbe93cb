"""At dial 0 an assay changes no bit; beyond it peaks are missed as often as the law says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from federated.partition import AssayShift, AssayVariation, PartitionError, assay_shifts

CLIENTS = ("a", "b", "c")


@given(
    values=arrays(np.float32, st.integers(0, 30), elements=st.floats(width=32)),
    seed=st.integers(0, 2**31),
)
def test_at_dial_0_signals_and_labels_keep_their_bits(values, seed):
    labels = np.random.default_rng(seed).integers(0, 2, 50)
    gc = np.linspace(0, 1, 50)
    for shift in assay_shifts(AssayVariation(dial=0), CLIENTS, seed).values():
        assert shift == AssayShift()
        assert shift.signal(values).tobytes() == values.tobytes()
        assert (shift.labels(labels, gc, seed) == labels).all()


@given(seed=st.integers(0, 2**31), dial=st.floats(0, 5))
def test_every_draw_is_a_valid_assay_that_further_clients_do_not_move(seed, dial):
    shifts = assay_shifts(AssayVariation(dial=dial), CLIENTS, seed)
    assert list(shifts) == list(CLIENTS)
    more = assay_shifts(AssayVariation(dial=dial), ("z", *CLIENTS), seed)
    assert all(more[name] == shifts[name] for name in CLIENTS)


def test_clients_of_one_batch_have_one_assay():
    shifts = assay_shifts(AssayVariation(dial=1), CLIENTS, 0, batches=("x", "x", "y"))
    assert shifts["a"] == shifts["b"] != shifts["c"]


def test_log_gains_and_offsets_have_the_stated_spread():
    names = [str(k) for k in range(4000)]
    shifts = assay_shifts(AssayVariation(dial=0.5), names, 3).values()
    gains = np.log([shift.gain for shift in shifts])
    assert abs(gains.mean()) < 4 * 0.2 / np.sqrt(4000)
    assert gains.std() == pytest.approx(0.2, rel=0.05)
    assert np.std([shift.offset for shift in shifts]) == pytest.approx(0.25, rel=0.05)
    assert np.mean([shift.gc_bias for shift in shifts]) == pytest.approx(0.25, rel=0.05)


def test_a_larger_dial_stretches_the_same_draw():
    small, large = (assay_shifts(AssayVariation(dial=d), CLIENTS, 5) for d in (0.5, 1.0))
    for name in CLIENTS:
        assert large[name].offset == pytest.approx(2 * small[name].offset)
        assert np.log(large[name].gain) == pytest.approx(2 * np.log(small[name].gain))
        assert large[name].depth < small[name].depth < 1


def test_signals_are_an_affine_map_in_the_type_of_the_values():
    shift = AssayShift(gain=2, offset=-1)
    values = np.array([[0.5, 3.0]], dtype=np.float32)
    assert shift.signal(values).tolist() == [[0.0, 5.0]]
    assert shift.signal(values).dtype == np.float32
    assert shift.signal(np.array([1, 2])).tolist() == [1.0, 3.0]


def test_detection_is_unimodal_in_gc_with_its_peak_at_the_optimum():
    gc = np.linspace(0, 1, 101)
    found = AssayShift(gc_bias=0.7, gc_optimum=0.4, depth=0.9).detection(gc)
    assert found.argmax() == 40
    assert found.max() == pytest.approx(0.9)
    assert (np.diff(found[:41]) > 0).all()
    assert (np.diff(found[40:]) < 0).all()


def test_peaks_are_missed_as_often_as_depth_and_gc_say():
    shift = AssayShift(gc_bias=1, gc_optimum=0.45, depth=0.8)
    count = 40_000
    gc = np.random.default_rng(0).choice([0.45, 0.6], count)
    labels = np.ones(count, dtype=np.int8)
    found = shift.labels(labels, gc, seed=1)
    assert found.dtype == np.int8
    for value, rate in ((0.45, 0.8), (0.6, 0.8 * np.exp(-1.125))):
        here = found[gc == value]
        error = 4 * np.sqrt(rate * (1 - rate) / len(here))
        assert here.mean() == pytest.approx(rate, abs=error)
    assert labels.all()


def test_windows_without_a_peak_gain_none_and_missed_sets_are_nested():
    gc = np.full(500, 0.5)
    labels = np.arange(500) % 2
    deep = AssayShift(depth=0.9).labels(labels, gc, 4)
    shallow = AssayShift(depth=0.4).labels(labels, gc, 4)
    assert (shallow <= deep).all()
    assert (deep <= labels).all()
    assert (AssayShift(depth=0.4).labels(labels, gc, 5) != shallow).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AssayShift(gain=0), "gain = 0: give a finite number above 0"),
        (lambda: AssayShift(offset=np.inf), "offset = inf"),
        (lambda: AssayShift(gc_bias=-1), "gc_bias = -1"),
        (lambda: AssayShift(gc_optimum=2), "gc_optimum = 2"),
        (lambda: AssayShift(depth=1.5), "depth = 1.5: give a finite number above 0 up to 1"),
        (lambda: AssayVariation(dial=-0.1), "dial = -0.1"),
        (lambda: assay_shifts(AssayVariation(dial=1), CLIENTS, -1), "seed = -1"),
        (lambda: assay_shifts(AssayVariation(dial=1), CLIENTS, 1, ("x",)), "3 clients, 1 batches"),
        (lambda: AssayShift().signal(np.array(["a"])), "a signal holds numbers"),
        (lambda: AssayShift().detection([0.5, np.nan]), "row 1 .*gc = nan"),
        (lambda: AssayShift().labels(np.array([0, 2]), [0.5, 0.5], 0), "row 1 .*label .*2"),
        (lambda: AssayShift().labels(np.array([0]), [0.5, 0.5], 0), r"shape \(1,\), gc \(2,\)"),
        (lambda: AssayShift().labels(np.array([0]), [0.5], -2), "seed = -2"),
    ],
)
def test_an_assay_that_cannot_be_is_an_error(make, message):
    with pytest.raises(PartitionError, match=message):
        make()
