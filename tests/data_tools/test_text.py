"""Text is given as it stands in the file, or the file is refused; memory stays bounded."""

import gzip
import os
import threading
import tracemalloc
from pathlib import Path

import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.errors import FormatError, InputError
from data_tools.faults import Faults
from data_tools.formats import text
from data_tools.formats.text import text_blocks


def lines_of(path, size=text.BLOCK, keep=None, **options):
    """Every line with its number, put together from the blocks."""
    faults = Faults(Path(path), keep)
    found = {}
    for block in text_blocks(Path(path), faults, size=size, **options):
        assert block.data.endswith(b"\n")
        for number, line in enumerate(block.data.removesuffix(b"\n").split(b"\n"), block.first):
            assert number not in found
            found[number] = line.decode()
    return found, faults


def written(tmp_path, raw, name="x.txt"):
    path = tmp_path / name
    path.write_bytes(raw)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("text")


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]))),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(1, 40),
    st.booleans(),
)
def test_the_lines_and_their_numbers_do_not_depend_on_the_size_of_a_block(
    folder, lines, end, mark, size, compressed
):
    raw = (b"\xef\xbb\xbf" if mark else b"") + end.join(lines).encode()
    path = written(folder, gzip.compress(raw) if compressed else raw)
    found, _ = lines_of(path, size=size)
    expected = dict(enumerate(lines, start=1))
    if lines and not lines[-1]:
        expected.pop(len(lines))
    assert found == expected


def test_bgzip_is_read_whole(tmp_path):
    rows = [f"line {i}" for i in range(30_000)]
    path = tmp_path / "x.gz"
    with pysam.BGZFile(str(path), "w") as handle:
        handle.write("\n".join(rows).encode())
    assert list(lines_of(path)[0].values()) == rows


def test_bgzip_without_its_end_block_is_refused(tmp_path):
    path = tmp_path / "x.gz"
    with pysam.BGZFile(str(path), "w") as handle:
        handle.write(b"a\n" * 100_000)
    raw = path.read_bytes()
    path.write_bytes(raw[:-28])
    # What Python's gzip makes of it: all seems well.
    assert gzip.decompress(path.read_bytes()) == b"a\n" * 100_000
    with pytest.raises(FormatError, match="end marker of bgzip is lacking"):
        lines_of(path)


GZIP = gzip.compress(b"one\ntwo\n" * 100)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (GZIP[:-1], "broken gzip"),
        (GZIP[:-8], "broken gzip"),
        (GZIP[:15], "broken gzip"),
        (GZIP[:2], "broken gzip"),
        (GZIP[:-8] + bytes(4) + GZIP[-4:], "CRC"),
        (GZIP[:-4] + b"\1\0\0\0", "length"),
        (GZIP + b"more", "broken gzip"),
        (GZIP + GZIP[:-3], "broken gzip"),
        (GZIP[:30] + b"\xff\xff\xff" + GZIP[33:], "broken gzip"),
    ],
    ids=["cut by 1", "no sums", "cut early", "magic", "CRC", "size", "trailer", "member", "flip"],
)
def test_broken_gzip_is_refused_with_the_remedy(tmp_path, raw, words):
    path = written(tmp_path, raw)
    with pytest.raises(FormatError, match=words) as caught:
        lines_of(path)
    assert str(caught.value).startswith(f"{path}: broken gzip (")
    assert "compress the file again" in str(caught.value)


def test_gzip_may_be_padded_with_zeros_and_have_many_members(tmp_path):
    raw = b"".join(gzip.compress(b"%d\n" % i) for i in range(500)) + bytes(512)
    assert list(lines_of(written(tmp_path, raw))[0].values()) == [str(i) for i in range(500)]


def test_a_small_file_that_inflates_without_end_is_refused_within_bounded_memory(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=9) as handle:
        for _ in range(60):
            handle.write(b"a\tb\n" * (1 << 18))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match="inflates to more than"):
            for _ in text_blocks(path, Faults(path)):
                pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


def test_the_limit_on_what_is_inflated_is_an_argument(tmp_path):
    path = written(tmp_path, gzip.compress(b"a\n" * 500))
    with pytest.raises(FormatError, match=r"more than 999 bytes from \d+.* max_inflated="):
        lines_of(path, max_inflated=999)
    assert len(lines_of(path, max_inflated=1000)[0]) == 500


def test_the_limit_grows_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "FREE", 1000)
    noise = os.urandom(3000).hex().encode() + b"\n"
    assert len(lines_of(written(tmp_path, gzip.compress(noise)))[0]) == 1
    with pytest.raises(FormatError, match="inflates to more than"):
        lines_of(written(tmp_path, gzip.compress(b"a\n" * 300_000)))


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "LINE_MAX", 1000)
    path = written(tmp_path, b"a\nb\n" + b"c" * 3000)
    with pytest.raises(FormatError, match=r"x\.txt:3: a line of more than"):
        lines_of(path, size=256)


def test_all_faults_are_noted_where_they_are_kept_and_the_other_lines_given(tmp_path):
    path = written(tmp_path, b"good\nb\x00d\nfine\n\xff\xfe\nlast\x7f")
    found, faults = lines_of(path, keep=2)
    assert found == {1: "good", 2: "", 3: "fine", 4: "", 5: ""}
    assert [fault.split(": ")[0] for fault in faults.kept] == [f"{path}:2", f"{path}:4"]
    assert (faults.further, faults.count) == (1, 3)


def test_a_named_pipe_is_read_like_a_file(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(GZIP,))
    writer.start()
    assert len(lines_of(path)[0]) == 200
    writer.join()


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        lines_of(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        lines_of(tmp_path)
