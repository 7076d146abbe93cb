"""A table of windows is read as it stands, or the first row that is none is named."""

import gzip
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools import window_table
from data_tools.errors import FormatError, InputError
from data_tools.window_table import read_scores, read_windows

HEAD = "chrom,start,end,label,gc\n"


def written(tmp_path, text, name="windows.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_names_that_look_like_nothing_stay_names_and_empty_numbers_are_nan(tmp_path):
    table = read_windows(written(tmp_path, HEAD + "NA,0,5,1,\nnan,007,9,0,0.25\n"), "label", "gc")
    assert table["chrom"].tolist() == ["NA", "nan"]
    assert table["start"].tolist() == [0, 7]
    assert table["gc"].isna().tolist() == [True, False]


def test_text_columns_stay_text_and_tabs_and_gzip_are_understood(tmp_path):
    path = tmp_path / "windows.tsv.gz"
    path.write_bytes(gzip.compress(b"chrom\tstart\tend\tsite\nchr1\t0\t5\t01a\n"))
    assert read_windows(path)["site"].tolist() == ["01a"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("chrom,start\nchr1,0\n", ":1: no column 'end'"),
        (HEAD + "chr1,0,5,1,1\nchr1,-1,5,1,1\n", ":3: start is no whole number: '-1'"),
        (HEAD + "chr1,0,5.0,1,1\n", ":2: end is no whole number: '5.0'"),
        (HEAD + "chr1,5,5,1,1\n", ":2: end is not above start"),
        (HEAD + "chr1,0,5,2,1\n", ":2: label is neither 0 nor 1: '2'"),
        (HEAD + ",0,5,1,1\n", ":2: chrom is empty"),
        (HEAD + "chr1,0,5,1,1\n\nchr1,0,5,1,1\n", ":3: an empty line"),
        (HEAD, "holds no window"),
        ("", "is empty"),
        (HEAD + "chr1,0,5,1,1,7\n", ":2: 6 columns, the first line has 5"),
        (HEAD + "chr1,0,99999999999999,1,1\n", ":2: end is no whole number"),
    ],
)
def test_a_row_that_is_no_window_is_named_by_file_and_line(tmp_path, text, fault):
    path = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_windows(path, "label")
    assert str(caught.value).startswith(str(path))
    assert fault in str(caught.value)


def test_a_file_that_is_none_and_one_of_another_kind_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_windows(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"is a \.csv or \.tsv file"):
        read_windows(written(tmp_path, "chr1\t0\t5\n", "peaks.bed"))
    with pytest.raises(InputError, match="holds no window"):
        read_windows(written(tmp_path, "no gzip", "windows.csv.gz"))


READS = [lambda path: read_windows(path), lambda path: read_scores(path, "gc", 1)]
STRICT = {
    "short row": (HEAD + "chr1,0,5,1,.5\nchr1,0,5,1\n", ":3: 4 columns, the first line has 5"),
    "long row": (HEAD + "chr1,0,5,1,.5,7\n", ":2: 6 columns"),
    "empty line": (HEAD + "chr1,0,5,1,.5\n\n", ":3: an empty line"),
    "empty first line": ("\n" + HEAD + "chr1,0,5,1,.5\n", ":1: an empty line"),
    "two of a name": (HEAD.replace("label", "gc") + "chr1,0,5,1,.5\n", ":1: the name of column 5"),
    "no name": (HEAD.replace("label", "") + "chr1,0,5,1,.5\n", ":1: the name of column 4"),
    "NUL": (HEAD + "chr1,0,5,1,.\x005\n", ":2: control character"),
    "open quote": (HEAD + 'chr1,0,5,1,".5\n', ":2: broken quoting"),
    "text after a quote": (HEAD + 'chr1,0,5,1,".5"0\n', ":2: broken quoting"),
    "latin-1": (HEAD.encode() + b"chr\xe4,0,5,1,.5\n", ":2: not UTF-8"),
    "bomb": (gzip.compress(HEAD.encode() + b"chr1,0,5,1,.5\n" * 2_000_000), ": inflates to more"),
    "broken gzip": (gzip.compress(HEAD.encode())[:-4], ": broken gzip"),
}


@pytest.mark.parametrize("read", READS, ids=["windows", "scores"])
@pytest.mark.parametrize("fault", STRICT)
def test_what_common_readers_pass_over_is_refused_by_file_and_line(tmp_path, fault, read):
    content, words = STRICT[fault]
    path = tmp_path / "x.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FormatError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}{words}")
    assert "\n" not in str(caught.value)


def test_a_quoted_line_feed_does_not_shift_the_line_of_a_later_fault(tmp_path):
    text = 'chrom,start,end,note\nc,0,5,"two\nlines"\nc,0,x,\n'
    with pytest.raises(FormatError, match=r":4: end is no whole number: 'x'"):
        read_windows(written(tmp_path, text))


def test_a_byte_order_mark_and_windows_line_ends_are_understood(tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(b"\xef\xbb\xbfchrom,start,end\r\nc,0,5\r\n")
    assert read_windows(path).to_numpy().tolist() == [["c", 0, 5]]


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        (["1", "-007"], [1, -7]),
        (["1", ""], [1.0, math.nan]),
        (["", ""], [math.nan] * 2),
        (["1e3", "+.5"], [1000.0, 0.5]),
        (["9" * 18, "9" * 19], [1e18, 1e19]),
        (["1", "nan"], ["1", "nan"]),
        (["1", "inf"], ["1", "inf"]),
        (["1", "1e999"], ["1", "1e999"]),
        (["1", " 2"], ["1", " 2"]),
        (["1", "2_0"], ["1", "2_0"]),
        (["0x1", "2"], ["0x1", "2"]),
        (["True", "2"], ["True", "2"]),
    ],
)
def test_a_column_is_numbers_only_where_all_of_its_fields_are_plain_decimal_numbers(
    tmp_path, fields, values
):
    text = "chrom,start,end,x\n" + "".join(f"c,0,5,{field}\n" for field in fields)
    found = read_windows(written(tmp_path, text))["x"].tolist()
    assert [type(value) for value in found] == [type(value) for value in values]
    np.testing.assert_array_equal(found, values)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_scores_are_the_nearest_floats_to_what_stands_there(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "scores.csv"
    path.write_text("score\n" + "".join(f"{value!r}\n" for value in values))
    assert read_scores(path, "score", len(values)).tobytes() == np.array(values).tobytes()


@pytest.mark.parametrize("score", ["", "nan", "inf", "1e999", "0x1", "1_0", " 1", "١"])
def test_a_score_that_is_no_finite_number_is_refused(tmp_path, score):
    with pytest.raises(FormatError, match=r":3: (score is no|an empty line)"):
        read_scores(written(tmp_path, f"score\n1\n{score}\n"), "score", 2)


def test_a_table_of_several_parts_is_read_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(window_table, "_ROWS", 3)
    rows = "".join(f"c,{i},{i + 9},n{i}\n" for i in range(10))
    table = read_windows(written(tmp_path, "chrom,start,end,x\n" + rows))
    assert table["start"].tolist() == list(range(10))
    assert table["x"].tolist() == [f"n{i}" for i in range(10)]
    with pytest.raises(FormatError, match=":12: start is no"):
        read_windows(written(tmp_path, "chrom,start,end,x\n" + rows + "c,x,5,\n"))
