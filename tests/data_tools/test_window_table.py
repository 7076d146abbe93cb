"""A table of windows is read as it stands, or the first row that is none is named."""

import gzip

import pytest

from data_tools.errors import InputError
from data_tools.window_table import read_windows

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
        (HEAD + "chr1,0,5,1,1\n\nchr1,0,5,1,1\n", ":3: chrom is empty"),
        (HEAD, "holds no window"),
        ("", "is empty"),
        (HEAD + "chr1,0,5,1,1,7\n", "cannot be read as a table"),
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
    with pytest.raises(InputError, match="cannot be read"):
        read_windows(written(tmp_path, "no gzip", "windows.csv.gz"))
