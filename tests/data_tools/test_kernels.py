"""The compiled loops do what NumPy does, bit for bit, and refuse what would leave an array."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools import eulerian, kernels
from data_tools.encode import CODE_TABLE
from data_tools.formats import text
from data_tools.formats.fields import Fields
from data_tools.kernels import bases, fields, library, trails
from data_tools.shuffle import kmer_shuffle

compiled = pytest.mark.skipif(not kernels.available(), reason="the compiled loops were not built")


@pytest.mark.skipif(
    not (shutil.which("c++") or shutil.which("g++")), reason="no compiler, so no compiled loops"
)
def test_where_there_is_a_compiler_the_loops_are_there():
    assert kernels.available()


@compiled
@given(
    st.integers(1, 6),
    st.lists(st.text("ACGTN", min_size=1, max_size=60), min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_shuffles_are_the_same_with_and_without_the_compiled_loops(k, texts, count):
    width = max(map(len, texts))
    codes = np.array([["ACGTN".index(c) for c in text.ljust(width, "N")] for text in texts])
    expected = kmer_shuffle(codes.astype(np.uint8), k, count, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "available", lambda: False)
        plain = kmer_shuffle(codes.astype(np.uint8), k, count, seed=3)
        patch.setattr(eulerian, "_PART", 3)
        parts = kmer_shuffle(codes.astype(np.uint8), k, count, seed=3)
        patch.setattr(eulerian, "_FEW_ROWS", 0)
        together = kmer_shuffle(codes.astype(np.uint8), k, count, seed=3)
    np.testing.assert_array_equal(expected, plain)
    np.testing.assert_array_equal(expected, parts)
    np.testing.assert_array_equal(expected, together)


@compiled
def test_what_would_leave_an_array_is_refused():
    sound = {
        "counts": np.array([[[1, 2, 0, 0], [1, 0, 0, 0], [0] * 4, [0] * 4]], np.int32),
        "edges": np.array([4]),
        "first": np.array([0]),
        "rows": np.array([0]),
        "exits": np.array([[1, 4, 4, 4]], np.uint8),
        "keys": np.array([7], np.uint64),
    }
    walked = trails.draw_trails(**sound)
    assert sorted(walked[0].tolist()) == [0, 0, 1, 1]
    assert walked[0, -1] == 1
    for wrong in (
        {"counts": sound["counts"] + 1},
        {"counts": -sound["counts"]},
        {"counts": sound["counts"][:, :3]},
        {"edges": np.array([3])},
        {"edges": np.array([5])},
        {"first": np.array([4])},
        {"first": np.array([-1])},
        {"exits": np.array([[3, 4, 4, 4]], np.uint8)},
        {"exits": np.array([[4, 4, 4, 1]], np.uint8)},
        # From a vertex without edges nothing leads on.
        {"first": np.array([3])},
    ):
        with pytest.raises(RuntimeError, match="do not fit"):
            trails.draw_trails(**sound | wrong)


@compiled
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_edges_that_are_none_are_refused(dtype):
    kmers = np.array([[1, 0, 9]], dtype=dtype)
    assert trails.count_edges(kmers, np.array([2]), 3).tolist() == [[1, 1, 0]]
    with pytest.raises(RuntimeError, match="too large"):
        trails.count_edges(kmers, np.array([3]), 4)
    with pytest.raises(RuntimeError, match="too large"):
        trails.count_edges(kmers, np.array([4]), 10)
    with pytest.raises(RuntimeError, match="not int64"):
        trails.count_edges(kmers.astype(np.int64), np.array([3]), 10)


def test_without_the_library_the_loops_say_so(monkeypatch):
    monkeypatch.setattr(library, "_library", lambda: None)
    assert not kernels.available()
    with pytest.raises(RuntimeError, match="are not there"):
        trails.count_edges(np.zeros((1, 1), np.uint8), np.array([1]), 1)


@compiled
@given(st.binary(max_size=3), st.integers(0, 80))
def test_text_is_sound_with_and_without_the_compiled_loops(odd, before):
    data = b"chr1\t" * (before // 5) + odd + b"a\n" * (before % 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "available", lambda: False)
        expected = text._sound(data)
    assert text._sound(data) == expected


@compiled
def test_every_byte_is_a_field_border_or_not_wherever_it_stands():
    for byte in range(256):
        for place in range(70):
            data = bytearray(b"x" * 70 + b"\n")
            data[place] = byte
            found = Fields.of(bytes(data), 2)
            assert (found is not None) == (byte == ord("\t"))
            if found is not None:
                assert (found.starts.tolist(), found.ends.tolist()) == (
                    [[0], [place + 1]],
                    [[place], [70]],
                )


@compiled
def test_no_column_is_refused():
    assert fields.find_fields(np.frombuffer(b"a\n", np.uint8), 1, 0) is None


field = st.one_of(
    st.integers(-(10**14), 10**14).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-(10**9), 10**9, places=5).map(str),
    st.text("0123456789.+-eE", max_size=18),
    st.text("abc_\u00e9", max_size=20),
)


@compiled
@given(st.integers(1, 4), st.data())
def test_fields_are_the_same_with_and_without_the_compiled_loops(columns, data):
    rows = data.draw(st.lists(st.lists(field, min_size=columns, max_size=columns), max_size=8))
    text = "".join("\t".join(row) + "\n" for row in rows)
    if data.draw(st.booleans()):
        text = (
            text.replace("\t", "\n", 1) if data.draw(st.booleans()) else text.replace("\t", "", 1)
        )
    found = Fields.of(text.encode(), columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "available", lambda: False)
        plain = Fields.of(text.encode(), columns)
    assert (found is None) == (plain is None)
    if found is None or plain is None:
        return
    for column in range(columns):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "available", lambda: False)
            expected = [plain.integers(column), plain.integers(column, signed=True)]
            values, rest = plain.decimals(column)
            raw, bounds = plain.joined(column)
        for signed, other in zip((False, True), expected, strict=True):
            mine = found.integers(column, signed=signed)
            assert (mine is None) == (other is None)
            assert mine is None or mine.tolist() == other.tolist()
        mine_values, mine_rest = found.decimals(column)
        # Both may leave a number to the caller, but not give another.
        both = np.setdiff1d(np.arange(len(values)), np.union1d(rest, mine_rest))
        assert mine_values[both].view(np.int64).tolist() == values[both].view(np.int64).tolist()
        for row in np.setdiff1d(np.arange(len(values)), mine_rest).tolist():
            assert repr(float(mine_values[row])) == repr(float(found.text(row, column)))
        assert (found.joined(column)[0], found.joined(column)[1].tolist()) == (raw, bounds.tolist())


@compiled
@given(
    st.text("ACGTacgtNnRy", min_size=1, max_size=200),
    st.integers(1, 70),
    st.sampled_from([b"\n", b"\r\n"]),
    st.data(),
)
def test_lines_are_read_as_codes_or_refused_as_translate_has_it(text, width, line_end, data):
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    raw = line_end.join(line.encode() for line in lines)
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))

    def place(letter):
        return letter + letter // width * len(line_end)

    stretch = raw[place(start) : place(end - 1) + 1]
    found = bases.line_codes(stretch, start % width, width, line_end, CODE_TABLE, end - start)
    assert found is not None
    assert found.tobytes() == text[start:end].encode().translate(CODE_TABLE)
    # One byte changed, lost or added is another letter, or no such text.
    at = data.draw(st.integers(0, len(stretch) - 1))
    byte = data.draw(st.sampled_from([b"", b"\n", b"-", b"\x00", b"A", b"AA", b"n\n", b"\xc1"]))
    broken = stretch[:at] + byte + stretch[at + 1 :]
    again = bases.line_codes(broken, start % width, width, line_end, CODE_TABLE, end - start)
    fits = len(broken) == len(stretch) and all(
        (broken[i] == stretch[i]) if stretch[i : i + 1] in b"\r\n" else CODE_TABLE[broken[i]] <= 4
        for i in range(len(stretch))
    )
    assert (again is not None) == fits


@compiled
def test_long_text_in_lines_of_any_width_is_read_as_codes():
    rng = np.random.default_rng(0)
    for letters in (b"ACGT", b"ACGTN"):
        text = np.frombuffer(letters, np.uint8)[rng.integers(0, len(letters), 50_000)].tobytes()
        for width in (1, 7, 60, 4096, 8191, 8192, 50_000):
            raw = b"\n".join(text[at : at + width] for at in range(0, len(text), width))
            found = bases.line_codes(raw, 0, width, b"\n", CODE_TABLE, len(text))
            assert found.tobytes() == text.translate(CODE_TABLE)
            assert bases.line_codes(raw[:-1], 0, width, b"\n", CODE_TABLE, len(text)) is None
            assert bases.line_codes(raw + b"A", 0, width, b"\n", CODE_TABLE, len(text)) is None


@compiled
def test_windows_outside_their_array_are_refused():
    codes, out = np.arange(10, dtype=np.uint8), np.zeros((2, 4), np.uint8)
    bases.gather(codes, np.array([6, 0]), out, np.array([1, 0]))
    assert out.tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    for offsets, rows in (([7], [0]), ([-1], [0]), ([0], [2]), ([0], [-1])):
        with pytest.raises(RuntimeError, match="outside its array"):
            bases.gather(codes, np.array(offsets), out, np.array(rows))
    with pytest.raises(RuntimeError, match="contiguous"):
        bases.gather(codes[::2], np.array([0]), out, np.array([0]))
