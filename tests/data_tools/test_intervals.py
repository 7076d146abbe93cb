"""Every row of a BED or narrowPeak file is read as it stands, or the file is refused."""

import bz2
import gzip
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.errors import FormatError, InputError
from data_tools.interval_sets import complement, merge, overlaps, subtract
from data_tools.intervals import read_intervals

DEMO = Path(__file__).parents[2] / "examples" / "data" / "human_demo"
PEAK = "c\t10\t30\tp\t5\t+\t1.5\t2\t3e-1\t4"


def read(tmp_path, content, **options):
    path = tmp_path / "x.bed"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_intervals(path, **options)


# --- right files -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 8])
def test_bed_of_3_to_8_columns_is_read_with_its_columns(tmp_path, count):
    row = ["chr1", 5, 9, "peak 1", 1000, "-", 6, 8][:count]
    table = read(tmp_path, "\t".join(map(str, row)) + "\n")
    names = ["chrom", "start", "end", "name", "score", "strand", "thick_start", "thick_end"]
    assert list(table.columns) == names[:count]
    assert table.iloc[0].tolist() == row
    numbers = [c for c in ("start", "end", "score", "thick_start", "thick_end") if c in table]
    assert {str(table[c].dtype) for c in numbers} == {"int64"}


def test_narrow_peak_is_read_with_the_summit_as_an_absolute_position(tmp_path):
    table = read(tmp_path, PEAK + "\n" + PEAK.replace("\t4", "\t0"))
    assert list(table.columns[6:]) == ["signal", "p_value", "q_value", "summit"]
    assert table["summit"].tolist() == [14, 10]
    assert str(table["summit"].dtype) == "int64"
    assert table[["signal", "p_value", "q_value"]].iloc[0].tolist() == [1.5, 2.0, 0.3]


def test_a_summit_of_minus_1_is_missing_and_the_others_stay_integers(tmp_path):
    table = read(tmp_path, PEAK + "\n" + PEAK[:-1] + "-1\n")
    assert str(table["summit"].dtype) == "Int64"
    assert table["summit"].isna().tolist() == [False, True]
    assert table["summit"][0] == 14


def test_comments_track_browser_and_empty_lines_are_skipped(tmp_path):
    text = "browser position c:1-2\ntrack name=x\n#chrom\tstart\tend\n\nc\t1\t2\n#late\nd\t3\t4"
    assert read(tmp_path, text)["chrom"].tolist() == ["c", "d"]


def test_a_chromosome_that_is_called_track_is_no_track_line(tmp_path):
    assert read(tmp_path, "track\t1\t2\ntrack1\t1\t2\n")["chrom"].tolist() == ["track", "track1"]


@pytest.mark.parametrize(
    "form",
    [
        lambda raw: raw,
        lambda raw: raw.rstrip(),
        lambda raw: raw.replace(b"\n", b"\r\n"),
        lambda raw: b"\xef\xbb\xbf" + raw,
        gzip.compress,
        lambda raw: gzip.compress(raw[:4]) + gzip.compress(raw[4:]),
    ],
    ids=["plain", "no last newline", "CRLF", "byte order mark", "gzip", "two gzip members"],
)
def test_the_table_does_not_depend_on_the_form_of_the_file(tmp_path, form):
    found = read(tmp_path, form(b"c\t1\t2\tx\nd\t3\t4\ty\n"))
    expected = {"chrom": ["c", "d"], "start": [1, 3], "end": [2, 4], "name": ["x", "y"]}
    assert found.to_dict("list") == expected


def test_the_demo_files_are_read_whole():
    peaks = read_intervals(DEMO / "ctcf_k562.narrowPeak")
    assert len(peaks) == 25 + 15 + 611 + 82 + 1124 + 426 + 151
    raw = np.loadtxt(DEMO / "ctcf_k562.narrowPeak", dtype=str)
    assert peaks["chrom"].tolist() == raw[:, 0].tolist()
    assert (peaks["summit"] == raw[:, 1].astype(int) + raw[:, 9].astype(int)).all()
    assert (peaks["signal"] == raw[:, 6].astype(float)).all()
    excluded = read_intervals(DEMO / "exclude.bed")
    assert set(excluded["name"]) == {"blacklist", "other_ctcf"}


# --- wrong files -----------------------------------------------------------------------------

FAULTS = {
    "blanks for tabs": ("c 1 2\n", 1, "separated by tabs"),
    "two columns": ("c\t1\n", 1, "2 columns, supported are BED"),
    "eleven columns": ("\t".join(["c", "1", "2"] + ["0"] * 8), 1, "11 columns, supported are BED"),
    "BED12": ("\t".join(["c", "1", "2"] + ["0"] * 9), 1, "12 columns"),
    "nine columns": ("\t".join(["c", "1", "2"] + ["0"] * 6), 1, "9 columns"),
    "fewer later": ("c\t1\t2\tx\nc\t1\t2\n", 2, "3 columns, line 1 has 4"),
    "more later": ("#\nc\t1\t2\n\nc\t1\t2\tx\n", 4, "4 columns, line 2 has 3"),
    "tab at the end": ("c\t1\t2\nc\t1\t2\t\n", 2, "4 columns, line 1 has 3"),
    "line of blanks": ("c\t1\t2\n  \n", 2, "1 columns"),
    "header row": ("chrom\tstart\tend\nc\t1\t2\n", 1, "start is not an integer"),
    "no chromosome": ("\t1\t2\n", 1, "chrom is empty"),
    "blank in the chromosome": ("c\t1\t2\nc d\t1\t2\n", 2, "chrom is empty or holds a blank"),
    "empty name": ("c\t1\t2\t\n", 1, "name is empty"),
    "start below 0": ("c\t1\t2\nc\t-1\t2\n", 2, "start is below 0: '-1'"),
    "no length": ("c\t5\t5\n", 1, "end is not above start: '5'"),
    "backwards": ("c\t5\t4\n", 1, "end is not above start"),
    "float": ("c\t1.0\t2\n", 1, "start is not an integer"),
    "exponent": ("c\t1\t2e3\n", 1, "end is not an integer"),
    "thousands": ("c\t1\t2,000\n", 1, "end is not an integer"),
    "underscore": ("c\t1\t2_000\n", 1, "end is not an integer"),
    "plus sign": ("c\t+1\t2\n", 1, "start is not an integer"),
    "blank before a number": ("c\t 1\t2\n", 1, "start is not an integer"),
    "blank after a number": ("c\t1\t2 \n", 1, "end is not an integer"),
    "other digits": ("c\t1\t٢\n", 1, "end is not an integer"),
    "empty number": ("c\t\t2\n", 1, "start is not an integer"),
    "huge": ("c\t1\t99999999999999999999\n", 1, "end is not an integer of at most 13"),
    "score of a dot": ("c\t1\t2\tx\t.\n", 1, "score is not an integer"),
    "score of 1001": ("c\t1\t2\tx\t1001\n", 1, "score is outside 0 to 1000"),
    "score of -1": ("c\t1\t2\tx\t-1\n", 1, "score is outside 0 to 1000"),
    "score float": ("c\t1\t2\tx\t0.5\n", 1, "score is not an integer"),
    "strand": ("c\t1\t2\tx\t0\t*\n", 1, "strand is none of"),
    "no strand": ("c\t1\t2\tx\t0\t\n", 1, "strand is none of"),
    "summit on the end": (PEAK[:-1] + "20\n", 1, r"summit .* outside the interval: '20'"),
    "summit of -2": (PEAK[:-1] + "-2\n", 1, "summit"),
    "summit float": (PEAK[:-1] + "1.0\n", 1, "summit is not an integer"),
    "signal nan": (PEAK.replace("1.5", "nan"), 1, "signal is not a number"),
    "signal inf": (PEAK.replace("1.5", "inf"), 1, "signal is not a number"),
    "signal overflow": (PEAK.replace("1.5", "1e999"), 1, "signal is too large"),
    "p-value": (PEAK.replace("\t2\t", "\t-2\t"), 1, "p_value is below 0"),
    "q-value": (PEAK.replace("3e-1", "-0.5"), 1, "q_value is below 0"),
    "narrowPeak score": (PEAK.replace("\t5\t", "\t2000\t"), 1, "score is outside"),
    "NUL": ("c\t1\t2\nc\x00\t1\t2\n", 2, r"control character '\\x00'"),
    "old Mac": ("c\t1\t2\rc\t1\t2\r", 1, r"control character '\\r'"),
    "line separator": ("c\t1\t2\tx\u2028y\n", 1, "control character"),
    "vertical tab": ("c\t1\t2\tx\x0by\n", 1, "control character"),
    "latin-1": (b"c\t1\t2\nc\t1\t2\t\xe4\n", 2, "not UTF-8"),
    "UTF-16": ("c\t1\t2\n".encode("utf-16"), 1, "not UTF-8"),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_row_stops_the_reading_and_is_named_by_file_and_line(tmp_path, fault, compressed):
    content, line, words = FAULTS[fault]
    raw = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(FormatError, match=words) as caught:
        read(tmp_path, gzip.compress(raw) if compressed else raw)
    assert str(caught.value).startswith(f"{tmp_path / 'x.bed'}:{line}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "\n\n", "#only\ntrack x\n"])
def test_a_file_without_interval_is_refused(tmp_path, content):
    with pytest.raises(FormatError, match=r"x\.bed: holds no interval"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    "damage",
    [lambda raw: raw[:-9], lambda raw: raw[:12] + b"\xff" + raw[13:]],
    ids=["cut", "flipped byte"],
)
def test_a_damaged_gzip_file_is_refused(tmp_path, damage):
    with pytest.raises(FormatError, match="broken gzip"):
        read(tmp_path, damage(gzip.compress(b"c\t1\t2\n" * 50)))


def test_another_compression_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"x\.bed:1: "):
        read(tmp_path, bz2.compress(b"c\t1\t2\n"))


def test_a_file_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_intervals(tmp_path / "none.bed")
    with pytest.raises(FileNotFoundError):
        read_intervals(tmp_path / "none.bed")
    with pytest.raises(InputError, match="cannot be read"):
        read_intervals(tmp_path)


GENOME = SimpleNamespace(lengths={"chr1": 100, "chr2": 50})


def test_intervals_up_to_the_end_of_a_chromosome_fit_the_genome(tmp_path):
    table = read(tmp_path, "chr2\t0\t50\nchr1\t99\t100\n", genome=GENOME)
    assert table["end"].tolist() == [50, 100]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1\t0\t5", "unknown chromosome '1', did you mean 'chr1'"),
        ("chr2\t40\t51", r"end 51 is past the end of chr2 \(50\)"),
    ],
)
def test_an_interval_that_does_not_fit_the_genome_is_named_by_file_and_line(tmp_path, row, words):
    with pytest.raises(InputError, match=r"x\.bed:3: " + words):
        read(tmp_path, f"#\nchr1\t0\t100\n{row}\n", genome=GENOME)


def test_a_large_file_is_read_within_a_small_multiple_of_its_size(tmp_path):
    path = tmp_path / "large.narrowPeak"
    path.write_text((PEAK + "\n") * 20_000)
    tracemalloc.start()
    try:
        assert len(read_intervals(path)) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 * path.stat().st_size


# --- set algebra, against sets of positions --------------------------------------------------

rows = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(0, 30), st.integers(1, 8)), max_size=12
)


def table_of(triples):
    frame = pd.DataFrame(triples, columns=["chrom", "start", "end"])
    frame["end"] = frame["start"] + frame["end"]
    return frame.astype({"start": "int64", "end": "int64"})


def positions(table):
    return {
        (chrom, i)
        for chrom, start, end in table[["chrom", "start", "end"]].itertuples(index=False)
        for i in range(start, end)
    }


def assert_disjoint_with_gaps(table):
    for _, group in table.groupby("chrom"):
        assert (group["start"].to_numpy()[1:] > group["end"].to_numpy()[:-1]).all()
    assert (table["start"] < table["end"]).all()


@given(rows)
def test_merged_intervals_cover_the_same_positions_once_and_do_not_touch(triples):
    table = table_of(triples)
    merged = merge(table)
    assert positions(merged) == positions(table)
    assert_disjoint_with_gaps(merged)
    assert list(dict.fromkeys(merged["chrom"])) == list(dict.fromkeys(table["chrom"]))


@given(rows, rows)
def test_overlaps_is_true_where_a_row_shares_a_position_with_the_other_table(first, second):
    a, b = table_of(first), table_of(second)
    other = positions(b)
    expected = [bool(positions(a.iloc[[i]]) & other) for i in range(len(a))]
    found = overlaps(a, b)
    assert found.dtype == bool
    assert found.tolist() == expected


@given(rows, rows)
def test_subtract_leaves_the_positions_of_the_first_without_those_of_the_second(first, second):
    a, b = table_of(first), table_of(second)
    left = subtract(a, b)
    assert positions(left) == positions(a) - positions(b)
    assert_disjoint_with_gaps(left)


@given(rows)
def test_the_complement_covers_all_other_positions_of_the_chromosomes(triples):
    lengths = {"x": 40, "y": 45, "z": 39, "w": 3}
    table = table_of(triples)
    rest = complement(table, lengths)
    assert positions(rest) == {(c, i) for c in lengths for i in range(lengths[c])} - positions(
        table
    )
    assert_disjoint_with_gaps(rest)


def test_overlaps_keeps_the_order_of_rows_whatever_the_index():
    a = table_of([("x", 20, 5), ("x", 0, 5), ("y", 0, 5)]).set_index(pd.Index([7, 7, 1]))
    b = table_of([("x", 2, 1)])
    assert overlaps(a, b).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"chrom": ["x"], "start": [1]}, "lacks the column 'end'"),
        ({"chrom": ["x"], "start": [1.0], "end": [2]}, "'start' holds float64"),
        ({"chrom": ["x", "x"], "start": [1, 2], "end": [2, 2]}, "row 1 of the table"),
        ({"chrom": ["x"], "start": [-1], "end": [2]}, "row 0 of the table"),
        ({"chrom": ["x"], "start": pd.array([None], "Int64"), "end": [2]}, "'start' holds Int64"),
        ({"chrom": ["x", "y"], "start": [0, 0], "end": [1, 2**62]}, "too large"),
    ],
)
def test_a_table_that_holds_no_intervals_is_refused(table, words):
    good = table_of([("x", 0, 1)])
    for operation in (merge, lambda t: overlaps(good, t), lambda t: subtract(t, good)):
        with pytest.raises(InputError, match=words):
            operation(pd.DataFrame(table))


def test_the_complement_refuses_what_the_lengths_do_not_hold():
    with pytest.raises(InputError, match="unknown chromosome 'x'"):
        complement(table_of([("x", 0, 1)]), {"y": 5})
