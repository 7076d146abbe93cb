"""A store gives the bases of the genome at any index, or an error; it is whole or not there."""

import json
import pickle
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools import window_store
from data_tools.errors import ChangedFileError, FormatError, InputError, RangeError
from data_tools.formats import window_files
from data_tools.genome import Genome
from data_tools.window_store import WindowStore, write_window_store
from data_tools.windows import window_codes

quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_genome(folder, lengths, unknown=0.02, seed=0):
    rng = np.random.default_rng(seed)
    letters = np.frombuffer(b"ACGTacgtNR", dtype="S1")
    share = [(1 - unknown) / 8] * 8 + [unknown / 2] * 2
    path = folder / "x.fa"
    with path.open("wb") as stream:
        for name, length in lengths.items():
            stream.write(f">{name}\n".encode() + b"".join(rng.choice(letters, length, p=share)))
            stream.write(b"\n")
    return Genome(path, cache_dir=folder / "cache")


def random_windows(lengths, count, width, margin=0, seed=1):
    rng = np.random.default_rng(seed)
    chrom = rng.choice(list(lengths), count)
    start = [int(rng.integers(margin, lengths[name] - width - margin + 1)) for name in chrom]
    table = pd.DataFrame({"chrom": chrom, "start": start})
    return table.assign(end=table["start"] + width, label=rng.integers(0, 2, count))


LENGTHS = {"chr2": 3000, "chr1": 2000}


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    with random_genome(tmp_path_factory.mktemp("genome"), LENGTHS) as genome:
        yield genome


@pytest.fixture
def written(genome, tmp_path):
    """A store of 100 windows of 50 bases with a margin of 7, and their table."""
    table = random_windows(LENGTHS, 100, 50, 7)
    write_window_store(tmp_path / "x.windows", genome, table, margin=7)
    return tmp_path / "x.windows", table


@quick
@given(
    width=st.integers(1, 30),
    margin=st.integers(0, 9),
    count=st.integers(1, 40),
    step=st.integers(1, 500),
    unknown=st.sampled_from([0, 0.02, 0.5, 1.0]),
    data=st.data(),
)
def test_any_index_gives_the_bases_of_the_genome(
    width, margin, count, step, unknown, data, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("made")
    table = random_windows(LENGTHS, count, width, margin)
    index = data.draw(st.lists(st.integers(0, count - 1), max_size=60))
    with random_genome(folder, LENGTHS, unknown) as genome, pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_store, "_BYTES", step)
        patch.setattr(window_files, "_CHUNK", 3)
        write_window_store(folder / "s", genome, table, margin=margin)
        store = WindowStore(folder / "s")
        truth = window_codes(genome, table, margin)
    found = store.codes(np.array(index, dtype=int))
    assert found.dtype == np.uint8
    assert found.shape == (len(index), width + 2 * margin)
    assert np.array_equal(found, truth[index])
    store.verify()


def test_a_store_knows_its_table_its_width_and_where_it_comes_from(written, genome):
    path, table = written
    store = WindowStore(path)
    pd.testing.assert_frame_equal(store.table(), table, check_dtype=False)
    assert (len(store), store.width, store.margin) == (100, 50, 7)
    assert store.source == {"path": str(genome.path), "digest": genome.digest}
    assert store.column("label").tolist() == table["label"].tolist()
    with pytest.raises(InputError, match="no column 'gc': it has 'chrom', 'start'"):
        store.column("gc")


def test_progress_is_told_up_to_the_last_window(genome, tmp_path, monkeypatch):
    monkeypatch.setattr(window_store, "_BYTES", 50 * 30)
    told = []
    table = random_windows(LENGTHS, 100, 50)
    write_window_store(tmp_path / "s", genome, table, progress=lambda *at: told.append(at))
    assert told == [(30, 100), (60, 100), (90, 100), (100, 100)]


def test_a_store_takes_two_bits_a_base_and_a_bit_more_where_some_are_unknown(tmp_path):
    table = random_windows({"a": 5000}, 50, 400)
    with random_genome(tmp_path, {"a": 5000}, unknown=0) as genome:
        write_window_store(tmp_path / "s", genome, table)
    assert (tmp_path / "s" / "bases.bin").stat().st_size == 50 * 100
    assert (tmp_path / "s" / "unknown.bin").stat().st_size == 0


def test_writing_takes_memory_for_a_part_of_the_windows_only(tmp_path, monkeypatch):
    monkeypatch.setattr(window_store, "_BYTES", 1 << 20)
    table = random_windows({"a": 300_000}, 20_000, 1000)
    with random_genome(tmp_path, {"a": 300_000}) as genome:
        tracemalloc.start()
        try:
            write_window_store(tmp_path / "s", genome, table)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 12 << 20


# --- wrong requests ---------------------------------------------------------------------------


@pytest.mark.parametrize("index", [[-1], [100], [0.0], [True], 3, [[1]], ["a"]])
def test_an_index_that_is_none_is_refused(written, index):
    with pytest.raises(RangeError, match=r"index"):
        WindowStore(written[0]).codes(index)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"end": [9, 8]}, "row 0 has 9 bases, row 1 has 8"),
        ({"end": [0, 0]}, "row 0 has 0 bases"),
        ({"chrom": ["chr1", "1"]}, r"row 1: unknown chromosome '1', did you mean 'chr1'"),
        ({"chrom": ["chr1", None]}, "column 'chrom' is neither"),
        ({"start": [1995, 0], "end": [2004, 9]}, r"row 0: chr1:1995-2004 .*\(1 such rows"),
        ({"start": [-1, -1], "end": [8, 8]}, r"row 0: chr1:-1-8 .*\(2 such rows"),
        ({"note": ["a", None]}, "column 'note' is neither"),
    ],
)
def test_a_table_that_cannot_be_written_is_refused_and_leaves_nothing(
    genome, tmp_path, change, words
):
    table = pd.DataFrame({"chrom": "chr1", "start": [0, 0], "end": [9, 9]}).assign(**change)
    with pytest.raises(InputError, match=words):
        write_window_store(tmp_path / "s", genome, table)
    assert list(tmp_path.iterdir()) == []


def test_no_window_and_a_margin_below_0_are_refused(genome, tmp_path):
    table = random_windows(LENGTHS, 3, 10)
    with pytest.raises(InputError, match="no window"):
        write_window_store(tmp_path / "s", genome, table.iloc[:0])
    with pytest.raises(InputError, match="margin -1"):
        write_window_store(tmp_path / "s", genome, table, margin=-1)


def test_what_stands_there_already_is_never_written_over(written, genome):
    path, table = written
    with pytest.raises(InputError, match="exists already"):
        write_window_store(path, genome, table)
    assert len(WindowStore(path)) == 100


# --- halves and lies --------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_write_that_is_stopped_leaves_nothing(genome, tmp_path, monkeypatch, stop):
    monkeypatch.setattr(window_store, "_BYTES", 50 * 30)
    calls = []

    def stopped(done, total):
        calls.append(done)
        if len(calls) > stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_window_store(
            tmp_path / "s", genome, random_windows(LENGTHS, 100, 50), progress=stopped
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["bases.bin", "rows.npy", "unknown.bin", "unknown_rows.npy", "column_1.npy"]
)
@pytest.mark.parametrize("change", ["cut", "grown", "gone"])
def test_a_store_with_a_part_that_is_not_whole_is_never_opened(written, name, change):
    path = written[0] / name
    raw = path.read_bytes()
    path.unlink()
    if change != "gone":
        path.write_bytes(raw[:-1] if change == "cut" else raw + b"\0")
    with pytest.raises(FormatError, match=name):
        WindowStore(written[0])


@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_store_whose_header_is_cut_is_never_opened(written, keep):
    path = written[0] / "header.json"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(FormatError, match="no store of windows"):
        WindowStore(written[0])


@pytest.mark.parametrize(
    ("name", "value"),
    [("count", 99), ("width", 64), ("margin", 0), ("columns", []), ("count", "100"), ("extra", 1)],
)
def test_a_header_that_was_altered_is_not_believed(written, name, value):
    path = written[0] / "header.json"
    told = json.loads(path.read_text())
    told["header"][name] = value
    path.write_text(json.dumps(told))
    with pytest.raises(FormatError, match="changed since it was written"):
        WindowStore(written[0])


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("count", 99, "rows.npy|bases.bin"),
        ("width", 64, "bases.bin: not 100 rows"),
        ("width", 10**12, "bases.bin: not 100 rows"),
        ("count", 0, "changed"),
        ("version", 2, "a store of version 2"),
        ("format", "x", "a store of version None"),
        ("columns", ["a"] * 9, "does not name column_4.npy"),
        ("files", {}, "does not name rows.npy"),
        ("files", {"../x": [1, 1]}, r"it names a file '\.\./x'"),
    ],
)
def test_a_header_that_lies_with_a_right_checksum_is_refused(written, name, value, words):
    path = written[0] / "header.json"
    header = json.loads(path.read_text())["header"] | {name: value}
    path.write_text(json.dumps({"sha256": window_files._checksum(header), "header": header}))
    with pytest.raises(FormatError, match=words):
        WindowStore(written[0])


@pytest.mark.parametrize("row", [-1, 100])
def test_a_row_that_leads_out_of_the_store_is_refused(written, row):
    rows = np.load(written[0] / "rows.npy")
    rows[5] = row
    np.save(written[0] / "rows.npy", rows)
    with pytest.raises(FormatError, match="a row outside of 0 to 99"):
        WindowStore(written[0])


def test_an_array_that_needs_pickle_is_refused(written):
    path = written[0] / "column_1.npy"
    size = path.stat().st_size
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    path.write_bytes(path.read_bytes().ljust(size, b"\0")[:size])
    with pytest.raises(FormatError, match=r"column_1\.npy"):
        WindowStore(written[0])


def test_a_flipped_bit_is_found_when_asked_for(written):
    store = WindowStore(written[0])
    store.verify()
    path = written[0] / "bases.bin"
    raw = bytearray(path.read_bytes())
    raw[40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=r"bases\.bin: its checksum"):
        WindowStore(written[0]).verify()


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        WindowStore(tmp_path / "none")
    with pytest.raises(FormatError, match="no store of windows"):
        WindowStore(tmp_path)


# --- many readers -----------------------------------------------------------------------------


def test_a_pickle_opens_the_same_store_and_refuses_another(written, genome):
    path, table = written
    store = WindowStore(path)
    packed = pickle.dumps(store)
    assert len(packed) < 1000
    assert np.array_equal(pickle.loads(packed).codes([3, 1]), store.codes([3, 1]))
    shutil.rmtree(path)
    write_window_store(path, genome, table.iloc[::-1], margin=7)
    with pytest.raises(ChangedFileError, match="another store"):
        pickle.loads(packed)


def test_threads_read_right_bases(written, genome):
    path, table = written
    store, truth = WindowStore(path), window_codes(genome, table, 7)

    def read(seed):
        for _ in range(50):
            index = np.random.default_rng(seed).integers(0, 100, 20)
            assert np.array_equal(store.codes(index), truth[index])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
