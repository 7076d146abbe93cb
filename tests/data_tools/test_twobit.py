"""A 2bit genome gives exactly its bases, or an error: whatever its header claims."""

import os
import pickle
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from Bio import SeqIO, bgzf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twobit_files import record_bytes, twobit_bytes

from data_tools.encode import encode
from data_tools.errors import ChangedFileError, FormatError, InputError, RangeError
from data_tools.formats import byte_source, packed_bases, twobit, twobit_blocks
from data_tools.formats.byte_source import PlainBytes
from data_tools.genome import Genome

RECORDS = {"chrA": "ACGTNNacgtnnT" * 30, "chrB": "G", "chrC": "TTGACCAnN" * 61}
LENGTHS = {name: len(seq) for name, seq in RECORDS.items()}

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
sequences = st.text("ACGTNacgtn", min_size=1, max_size=120)
names = st.lists(
    st.text("abcXYZ019_.|:-", min_size=1, max_size=8), min_size=1, max_size=5, unique=True
)


@pytest.fixture(params=["<", ">"])
def path(request, tmp_path):
    path = tmp_path / "x.2bit"
    path.write_bytes(twobit_bytes(RECORDS, request.param))
    return path


# --- right bases -----------------------------------------------------------------------------


@quick
@given(
    names=names,
    data=st.data(),
    order=st.sampled_from("<>"),
    version=st.sampled_from([0, 1]),
    page=st.integers(1, 5),
    packed=st.booleans(),
)
def test_any_stretch_of_any_2bit_equals_the_truth_and_what_biopython_reads(
    names, data, order, version, page, packed, tmp_path_factory
):
    records = {name: data.draw(sequences) for name in names}
    raw = twobit_bytes(records, order, version)
    path = tmp_path_factory.mktemp("made") / "x.fa"
    if packed:
        with bgzf.BgzfWriter(str(path), "wb") as stream:
            stream.write(raw)
    else:
        path.write_bytes(raw)
    chrom = data.draw(st.sampled_from(sorted(records)))
    start = data.draw(st.integers(0, len(records[chrom])))
    end = data.draw(st.integers(start, len(records[chrom])))
    truth = records[chrom][start:end]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twobit_blocks, "_PAGE", page)
        patch.setattr(twobit_blocks, "_CHECKED", 2 * page)
        patch.setattr(packed_bases, "_PIECE", page)
        patch.setattr(twobit, "_BUFFER", page)
        with Genome(path) as genome:
            assert list(genome.lengths.items()) == [(n, len(s)) for n, s in records.items()]
            assert genome.fetch(chrom, start, end) == truth
            assert genome.codes(chrom, start, end).tolist() == encode(truth).tolist()
    if version == 0 and not packed:
        with path.open("rb") as stream:
            oracle = {record.id: record.seq for record in SeqIO.parse(stream, "twobit")}
            assert str(oracle[chrom][start:end]) == truth


def test_single_reads_equal_those_of_py2bit(tmp_path):
    py2bit = pytest.importorskip("py2bit")
    path, seq = tmp_path / "x.2bit", random_sequence(20_000)
    path.write_bytes(twobit_bytes({"chr": seq}))
    oracle = py2bit.open(str(path), True)
    with Genome(path) as genome:
        for start in range(0, 19_000, 397):
            assert genome.fetch("chr", start, start + 991) == seq[start : start + 991]
            # It gives masked N as N; Biopython, and twoBitToFa, as n.
            found = oracle.sequence("chr", start, start + 991)
            assert found == seq[start : start + 991].replace("n", "N")
    oracle.close()


def random_sequence(size, seed=3):
    """Give stretches of letters in both cases and of N, of 1 to 60 bases each."""
    rng = np.random.default_rng(seed)
    parts, made = [], 0
    while made < size:
        kind = rng.choice(["ACGT", "acgt", "N", "n"], p=[0.6, 0.3, 0.05, 0.05])
        parts.append("".join(rng.choice(list(kind), rng.integers(1, 60))))
        made += len(parts[-1])
    return "".join(parts)[:size]


def test_windows_in_any_order_equal_one_by_one_reads(path):
    rng = np.random.default_rng(1)
    chroms = rng.choice(["chrA", "chrC"], 200).tolist()
    starts = [int(rng.integers(0, LENGTHS[chrom] - 50)) for chrom in chroms]
    with Genome(path) as genome:
        found = genome.windows(chroms, starts, 50)
    truth = [encode(RECORDS[c][s : s + 50]) for c, s in zip(chroms, starts, strict=True)]
    assert np.array_equal(found, np.stack(truth))


def test_codes_may_be_written_to_without_changing_what_is_read_next(path):
    with Genome(path) as genome:
        genome.codes("chrA", 0, 5)[:] = 4
        assert genome.codes("chrA", 0, 5).tolist() == [0, 1, 2, 3, 4]


def test_a_2bit_file_needs_and_leaves_no_index(path, tmp_path):
    Genome(path, cache_dir=tmp_path / "cache").close()
    assert [p.name for p in tmp_path.iterdir()] == ["x.2bit"]


@pytest.mark.parametrize(
    ("chrom", "start", "end", "words"),
    [
        ("chrZ", 0, 1, "unknown chromosome 'chrZ'"),
        ("chrB", -1, 1, "start is below 0"),
        ("chrB", 0, 2, r"past the end of chrB \(1 bases\)"),
        ("chrA", 3, 2, "start is above end"),
    ],
)
def test_a_wrong_stretch_is_refused_with_the_reason(path, chrom, start, end, words):
    with Genome(path) as genome:
        for method in (genome.fetch, genome.codes):
            with pytest.raises(RangeError, match=words):
                method(chrom, start, end)


# --- files that lie --------------------------------------------------------------------------

ONE = {"a": "ACGTNNacgt"}
TWO = {"a": "ACGTACGT", "b": "TTTT"}
HUGE = 0xFFFFFFFF
# The file, and what the error says of it.
LIES = {
    "no record": (twobit_bytes({}), "header: no record"),
    "version 2": (b"\x43\x27\x41\x1a" + b"\x02\0\0\0\x01\0\0\0\0\0\0\0" + bytes(99), "version 2"),
    "reserved": (twobit_bytes(ONE, reserved=1), "header: version 0, reserved 1"),
    "more records": (twobit_bytes(ONE, count=2), "index entry 2: name"),
    "countless records": (twobit_bytes(ONE, count=HUGE), "4294967295 records are claimed"),
    "fewer records": (twobit_bytes(TWO, count=1), "record 'a'|follow the last record"),
    "name twice": (twobit_bytes(TWO, names=[b"a", b"a"]), "record 'a': the name occurs twice"),
    "empty name": (twobit_bytes(TWO, names=[b"a", b""]), "index entry 2: name ''"),
    "foreign name": (twobit_bytes(ONE, names=[b"\xe4"]), "index entry 1: name 'ä'"),
    "line in a name": (twobit_bytes(ONE, names=[b"a\nb"]), r"name 'a\\nb'"),
    "blank in a name": (twobit_bytes(ONE, names=[b"a b"]), "name 'a b'"),
    "offset past the end": (twobit_bytes(ONE, offsets=[9999]), "record 'a': lies past the end"),
    "64-bit offset past the end": (
        twobit_bytes(ONE, ">", 1, offsets=[(1 << 64) - 2]),
        "record 'a': lies past the end",
    ),
    "offset in the header": (twobit_bytes(ONE, offsets=[8]), "record 'a'"),
    "two names of one record": (
        twobit_bytes(TWO, offsets=[28, 28]),
        "record 'b': it begins inside",
    ),
    "empty record": (twobit_bytes({"a": ""}), "record 'a': it is empty"),
    "longer": (twobit_bytes(ONE, lies={"a": {"length": 17}}), "17 bases are claimed"),
    "longest": (twobit_bytes(ONE, lies={"a": {"length": HUGE}}), "4294967295 bases are claimed"),
    "longer into the next": (
        twobit_bytes(TWO, lies={"a": {"length": 11}}),
        "record 'b': it begins inside",
    ),
    "shorter": (twobit_bytes(ONE, lies={"a": {"length": 8, "mask": []}}), "follow the last record"),
    "countless N blocks": (twobit_bytes(ONE, lies={"a": {"n_count": HUGE}}), "'a': 4294967295 N"),
    "N blocks past the end": (twobit_bytes(ONE, lies={"a": {"n_count": 8}}), "8 N blocks"),
    "countless mask blocks": (twobit_bytes(ONE, lies={"a": {"mask_count": HUGE}}), "HUGE mask"),
    "more blocks than bases": (
        twobit_bytes({"a": "A"}, lies={"a": {"n": [(0, 1), (0, 1)]}}),
        "2 N blocks",
    ),
    "reserved in a record": (twobit_bytes(ONE, lies={"a": {"reserved": 7}}), "reserved is 7"),
    "block past the end": (
        twobit_bytes(ONE, lies={"a": {"n": [(4, 7)]}}),
        r"N block 1 \(4-11\).*past the end \(10\)",
    ),
    "block that wraps round": (
        twobit_bytes(ONE, lies={"a": {"n": [(4, HUGE)]}}),
        r"N block 1 \(4-4294967299\)",
    ),
    "empty block": (twobit_bytes(ONE, lies={"a": {"mask": [(4, 0)]}}), r"mask block 1 \(4-4\)"),
    "blocks unsorted": (
        twobit_bytes(ONE, lies={"a": {"mask": [(6, 2), (1, 2)]}}),
        r"mask block 2 \(1-3\).*after the one before",
    ),
    "blocks over each other": (
        twobit_bytes(ONE, lies={"a": {"n": [(1, 3), (3, 2)]}}),
        r"N block 2 \(3-5\)",
    ),
    "bytes after the end": (twobit_bytes(ONE) + b"\0", "1 bytes follow the last record"),
    "two files joined": (twobit_bytes(ONE) * 2, "follow the last record"),
}


@pytest.mark.parametrize("page", [1, 1 << 10])
@pytest.mark.parametrize("lie", LIES)
def test_a_2bit_file_that_lies_is_refused_by_its_part(tmp_path, monkeypatch, lie, page):
    monkeypatch.setattr(twobit_blocks, "_PAGE", page)
    monkeypatch.setattr(twobit_blocks, "_CHECKED", page)
    raw, words = LIES[lie]
    path = tmp_path / "x.2bit"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=words.replace("HUGE", str(HUGE))) as caught:
        Genome(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: 2bit ")
    assert message.endswith("make it anew with faToTwoBit")
    assert "\n" not in message


@pytest.fixture
def no_waiting(monkeypatch):
    """Fresh files are not waited for: many are opened."""
    monkeypatch.setattr(byte_source, "_TICK_SECONDS", 0)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("version", [0, 1])
def test_a_2bit_file_cut_at_any_byte_is_refused(tmp_path, version):
    whole = twobit_bytes(RECORDS, version=version)
    path = tmp_path / "cut.2bit"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            Genome(path)


@pytest.mark.usefixtures("no_waiting")
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_bytes_changed_anywhere_give_an_error_or_a_genome_that_can_be_read(data, tmp_path_factory):
    raw = bytearray(
        twobit_bytes({"a": "ACGTNNacgt", "b": "TTnnAA"}, data.draw(st.sampled_from("<>")))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(4, len(raw) - 1))] = data.draw(
            st.sampled_from([0, 1, 5, 128, 255])
        )
    path = tmp_path_factory.getbasetemp() / "changed.2bit"
    path.write_bytes(raw)
    try:
        genome = Genome(path)
    except FormatError:
        return
    with genome:
        for name, length in genome.lengths.items():
            letters = genome.fetch(name, 0, length)
            assert len(letters) == length
            assert genome.codes(name, 0, length).tolist() == encode(letters).tolist()


def test_more_records_than_a_memory_holds_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(twobit, "RECORDS_MAX", 2)
    path = tmp_path / "x.2bit"
    path.write_bytes(twobit_bytes(dict.fromkeys("abc", "ACGT")))
    with pytest.raises(FormatError, match="header: 3 records, more than 2, keep the longest"):
        Genome(path)


def test_a_header_that_claims_everything_takes_no_memory(tmp_path):
    path = tmp_path / "x.2bit"
    lies = {"a": {"length": HUGE, "n_count": HUGE, "mask_count": HUGE}}
    path.write_bytes(twobit_bytes(ONE, lies=lies))
    tracemalloc.start()
    try:
        with pytest.raises(FormatError):
            Genome(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_records_that_share_a_long_table_are_refused_before_it_is_read(tmp_path, monkeypatch):
    blocks = [(2 * i, 1) for i in range(5000)]
    record = record_bytes("A" * 10_000, n=blocks)
    index = b"".join(
        bytes([4]) + b"%04d" % i + (16 + 9 * 500).to_bytes(4, "little") for i in range(500)
    )
    head = b"\x43\x27\x41\x1a" + bytes(4) + (500).to_bytes(4, "little") + bytes(4)
    path = tmp_path / "x.2bit"
    path.write_bytes(head + index + record)
    sizes = []
    read = PlainBytes.read
    monkeypatch.setattr(
        PlainBytes, "read", lambda self, a, b: (sizes.append(b - a), read(self, a, b))[1]
    )
    with pytest.raises(FormatError, match="record '0001': it begins inside"):
        Genome(path)
    assert sum(sizes) < 4 * path.stat().st_size


def test_a_long_table_of_blocks_stays_in_the_file(tmp_path):
    record = record_bytes("A" * 800_000, n=[(2 * i, 1) for i in range(400_000)])
    head = twobit_bytes({"a": ""})[:16] + b"\x01a" + (22).to_bytes(4, "little")
    path = tmp_path / "x.2bit"
    path.write_bytes(head + record)
    tracemalloc.start()
    try:
        with Genome(path) as genome:
            held = tracemalloc.get_traced_memory()[0]
            codes = genome.codes("a", 99_999, 100_003)
    finally:
        tracemalloc.stop()
    assert held < 1 << 17
    assert codes.tolist() == [0, 4, 0, 4]


# --- files that change, and many at once ------------------------------------------------------


def edit_in_place(path, raw):
    """Overwrite the file and put the time stamps back."""
    times = path.stat()
    with path.open("r+b") as stream:
        stream.write(raw)
        stream.truncate()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


OTHER = {
    "N elsewhere": RECORDS | {"chrA": "NNACGTnnacgtT" * 30},
    "other name": {name.replace("B", "D"): seq for name, seq in RECORDS.items()},
    "mask elsewhere": RECORDS | {"chrA": "ACGTNNACGTnnT" * 30},
}


@pytest.mark.parametrize("other", OTHER)
def test_records_that_move_under_an_open_genome_are_an_error(tmp_path, other):
    path = tmp_path / "x.2bit"
    before, after = twobit_bytes(RECORDS), twobit_bytes(OTHER[other])
    assert len(before) == len(after)
    path.write_bytes(before)
    with Genome(path) as genome:
        packed = pickle.dumps(genome)
        edit_in_place(path, after)
        for read in (genome.fetch, genome.codes):
            with pytest.raises(ChangedFileError, match="open it again"):
                read("chrA", 0, 9)
        with pytest.raises(ChangedFileError, match="open it again"):
            pickle.loads(packed)


def test_a_touched_file_is_read_on_and_an_edited_base_as_it_now_stands(path):
    raw = bytearray(path.read_bytes())
    with Genome(path) as genome:
        os.utime(path)
        assert genome.fetch("chrC", 0, 7) == "TTGACCA"
        raw[-(len(RECORDS["chrC"]) + 3) // 4] = 0
        edit_in_place(path, raw)
        assert genome.fetch("chrC", 0, 7) == "TTTTCCA"


@pytest.mark.parametrize("change", ["cut", "grown", "emptied"])
def test_a_file_of_another_size_is_an_error_at_the_next_read(path, change):
    whole = path.read_bytes()
    with Genome(path) as genome:
        edit_in_place(path, {"cut": whole[:-9], "grown": whole + b"A", "emptied": b""}[change])
        with pytest.raises(ChangedFileError, match="open it again"):
            genome.windows("chrA", [0], 10)


def test_a_2bit_file_replaced_by_fasta_is_refused_when_a_pickle_is_opened(path):
    with Genome(path) as genome:
        packed = pickle.dumps(genome)
    path.write_text(">chrA\nACGT\n")
    with pytest.raises(ChangedFileError, match="open it again"):
        pickle.loads(packed)
    with Genome(path) as genome:
        packed = pickle.dumps(genome)
    path.write_bytes(twobit_bytes(RECORDS))
    with pytest.raises(ChangedFileError, match="open it again"):
        pickle.loads(packed)


def test_a_pickled_genome_opens_the_file_itself_and_reads_the_same(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with Genome("x.2bit") as genome:
        packed = pickle.dumps(genome)
    monkeypatch.chdir("/")
    with pickle.loads(packed) as again:
        assert again.lengths == LENGTHS
        assert again.fetch("chrC", 5, 300) == RECORDS["chrC"][5:300]


def test_a_closed_genome_says_so(path):
    with Genome(path) as genome:
        pass
    with pytest.raises(InputError, match="is closed"):
        genome.codes("chrA", 0, 1)


def test_threads_that_share_one_genome_all_find_the_blocks_of_their_pages(path, monkeypatch):
    monkeypatch.setattr(twobit_blocks, "_PAGE", 4)
    monkeypatch.setattr(twobit_blocks, "_CHECKED", 8)

    def read_many(seed):
        for start in np.random.default_rng(seed).integers(0, 300, 300).tolist():
            assert genome.fetch("chrA", start, start + 90) == RECORDS["chrA"][start : start + 90]

    with Genome(path) as genome, ThreadPoolExecutor(4) as pool:
        list(pool.map(read_many, range(4)))
