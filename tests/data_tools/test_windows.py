"""Windows lie where the summit says, or the table is refused; no row is moved or lost."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_tools.encode import decode, gc_fraction
from data_tools.errors import InputError, RangeError
from data_tools.genome import Genome
from data_tools.windows import inside, summit_windows, summits, window_codes, window_gc

LENGTHS = {"a": 100, "b": 30}


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genome")
    fasta = folder / "small.fa"
    fasta.write_text(">a\nACGTNACGGT\nccgatNNNNN\n>b\nGGGGGCATTA\n")
    with Genome(fasta, cache_dir=folder) as source:
        yield source


def table(*rows, columns=("chrom", "start", "end")):
    return pd.DataFrame(list(rows), columns=list(columns))


def peaks_at(*summit, chrom="a", dtype="int64"):
    peaks = pd.DataFrame({"chrom": chrom, "start": [0] * len(summit), "end": 100})
    return peaks.assign(summit=pd.array(list(summit), dtype=dtype))


def rows(frame):
    return list(frame.itertuples(index=False, name=None))


# --- summits ---------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 99)), max_size=8),
    st.integers(1, 40),
)
def test_the_summit_stands_at_half_the_width_and_windows_off_the_end_are_dropped(places, width):
    peaks = table(*[(c, 0, 100, s) for c, s in places], columns=("chrom", "start", "end", "summit"))
    peaks = peaks.astype({"summit": "int64"})
    expected = [
        (chrom, summit - width // 2, summit - width // 2 + width)
        for chrom, summit in places
        if summit - width // 2 >= 0 and summit - width // 2 + width <= LENGTHS[chrom]
    ]
    assert rows(summit_windows(peaks, LENGTHS, width, on_edge="drop")) == expected


@pytest.mark.parametrize(("width", "window"), [(1, (12, 13)), (6, (9, 15)), (7, (9, 16))])
def test_the_base_of_the_summit_is_in_the_window_also_where_the_width_is_odd(width, window):
    assert rows(summit_windows(peaks_at(12), LENGTHS, width)) == [("a", *window)]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [((3, None), "Int64"), ((3, None), "float64"), ((3, None), "object")],
    ids=["Int64", "float with nan", "object with None"],
)
def test_a_missing_summit_falls_back_to_the_middle_and_the_others_stay(values, dtype):
    peaks = pd.DataFrame({"chrom": "a", "start": [0, 10], "end": [100, 15]})
    found = summits(peaks.assign(summit=pd.array(list(values), dtype=dtype)))
    assert found.tolist() == [3, 12]
    assert found.dtype == np.int64


def test_without_any_summit_every_window_stands_on_the_middle():
    peaks = table(("a", 10, 15), ("b", 10, 20))
    assert summits(peaks).tolist() == [12, 15]
    missing = peaks.assign(summit=pd.array([None, None], dtype="Int64"))
    assert summits(missing).tolist() == [12, 15]


# --- chromosome ends -------------------------------------------------------------------------


def test_a_window_that_touches_both_ends_of_the_chromosome_is_kept():
    assert rows(summit_windows(peaks_at(50), LENGTHS, 100)) == [("a", 0, 100)]


@pytest.mark.parametrize(
    ("summit", "window"), [(4, "a:-1-9"), (96, "a:91-101")], ids=["left", "right"]
)
def test_one_base_past_an_end_is_an_error_that_names_window_length_number_and_remedy(
    summit, window
):
    message = (
        f"window {window} leaves its chromosome of 100 bases (2 such windows in all); "
        "use narrower windows or on_edge='drop'"
    )
    with pytest.raises(RangeError) as caught:
        summit_windows(peaks_at(5, summit, 95, summit), LENGTHS, 10)
    assert str(caught.value) == message


def test_dropping_keeps_the_order_and_numbers_the_rows_anew():
    found = summit_windows(peaks_at(95, 96, 4, 5), LENGTHS, 10, on_edge="drop")
    assert found.index.tolist() == [0, 1]
    assert found["start"].tolist() == [90, 0]


def test_no_peaks_give_no_windows():
    assert rows(summit_windows(peaks_at(), LENGTHS, 10)) == []
    assert rows(summit_windows(table(), LENGTHS, 10)) == []


def test_the_peaks_may_carry_any_index_and_are_left_as_they_are():
    peaks = peaks_at(20, 30).set_axis([7, 7])
    before = peaks.copy()
    assert summit_windows(peaks, LENGTHS, 10)["start"].tolist() == [15, 25]
    pd.testing.assert_frame_equal(peaks, before)


@pytest.mark.parametrize("width", [0, -5])
def test_a_width_below_1_is_an_error(width):
    with pytest.raises(InputError, match=f"at least 1 base wide, not {width}"):
        summit_windows(peaks_at(20), LENGTHS, width)


def test_an_unknown_chromosome_is_an_error_that_names_the_nearest():
    with pytest.raises(InputError, match="'chra', did you mean 'a'"):
        summit_windows(peaks_at(20, chrom="chra"), LENGTHS, 10, on_edge="drop")


def test_an_unknown_way_to_treat_edges_is_an_error_and_drops_nothing():
    with pytest.raises(
        InputError, match=r"on_edge='shift' does not exist: choose 'error', 'drop' or 'pad'"
    ):
        summit_windows(peaks_at(2), LENGTHS, 10, on_edge="shift")


# --- inside ----------------------------------------------------------------------------------


interval = st.tuples(st.sampled_from("abc"), st.integers(0, 20), st.integers(1, 12)).map(
    lambda v: (v[0], v[1], v[1] + v[2])
)


@example([("a", 12, 14)], [("a", 0, 20), ("a", 5, 10)], 0)
@given(st.lists(interval, max_size=8), st.lists(interval, max_size=6), st.integers(0, 3))
def test_inside_agrees_with_a_look_at_every_pair_whatever_the_regions(windows, regions, margin):
    expected = [
        any(c == rc and lo <= start - margin and end + margin <= hi for rc, lo, hi in regions)
        for c, start, end in windows
    ]
    assert inside(table(*windows), table(*regions), margin).tolist() == expected


def test_inside_does_not_look_at_the_index():
    windows = table(("a", 0, 4), ("b", 8, 12), ("a", 2, 6)).set_axis([3, 3, 1])
    assert inside(windows, table(("a", 0, 5))).tolist() == [True, False, False]


# --- bases -----------------------------------------------------------------------------------


def test_codes_come_in_the_order_of_the_table_and_widened_on_both_sides(genome):
    windows = table(("b", 4, 7), ("a", 3, 6), ("a", 1, 4))
    assert [decode(row) for row in window_codes(genome, windows)] == ["GCA", "TNA", "CGT"]
    wide = [decode(row) for row in window_codes(genome, windows, margin=1)]
    assert wide == ["GGCAT", "GTNAC", "ACGTN"]


def test_windows_of_unequal_width_are_an_error_that_names_the_row(genome):
    with pytest.raises(InputError, match="row 0 has 3 bases, row 2 has 4"):
        window_codes(genome, table(("a", 0, 3), ("b", 0, 3), ("a", 0, 4)))


@pytest.mark.parametrize("margin", [1, 20])
def test_a_margin_off_the_chromosome_is_an_error(genome, margin):
    with pytest.raises(RangeError, match="window 0"):
        window_codes(genome, table(("a", 0, 4)), margin)


def test_no_windows_have_no_codes_and_no_gc(genome):
    assert window_codes(genome, table()).shape[0] == 0
    assert window_gc(genome, table()).shape == (0,)


@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
def test_gc_is_that_of_the_known_bases_and_does_not_depend_on_how_much_is_read_at_once(
    genome, rows_at_once
):
    windows = table(("a", 0, 5), ("b", 0, 5), ("a", 15, 20), ("a", 10, 15))
    found = window_gc(genome, windows, rows=rows_at_once)
    np.testing.assert_array_equal(found, [0.5, 1.0, np.nan, 0.6])
    np.testing.assert_array_equal(found, gc_fraction(window_codes(genome, windows)))
