"""`Genome` gives exactly the bases of the file, or an error: never fewer, never others."""

import gzip
import itertools
import json
import multiprocessing
import os
import pickle
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyfaidx
import pysam
import pytest
from Bio import bgzf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twobit_files import twobit_bytes

from data_tools import genome as genome_module
from data_tools.encode import encode
from data_tools.errors import ChangedFileError, FormatError, InputError, RangeError
from data_tools.faults import Faults
from data_tools.formats import byte_source, fasta_index
from data_tools.formats.byte_source import BgzfBytes, PlainBytes, open_source
from data_tools.genome import Genome

DEMO = Path(__file__).parents[2] / "examples" / "data" / "human_demo" / "human7.fa.gz"
RECORDS = {"chrA": "ACGTNacgtnRYKM" * 30, "chrB": "G" * 7, "chrC": "TTGACCA" * 61}

quick = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQNORM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with Genome(DEMO, cache_dir=tmp_path_factory.mktemp("cache")) as genome:
        yield genome


def fasta_bytes(records, width=60, end="\n", last=True):
    parts = []
    for name, seq in records.items():
        parts.append(f">{name} about {name}{end}")
        parts += [seq[i : i + width] + end for i in range(0, len(seq), width)]
    text = "".join(parts)
    return (text if last else text.removesuffix(end)).encode()


def write_bgzf(path, raw, block=100):
    """Write many small blocks, so that short reads cross them."""
    with bgzf.BgzfWriter(str(path), "wb") as stream:
        for i in range(0, len(raw), block):
            stream.write(raw[i : i + block])
            stream.flush()
    return path


def write(path, records=RECORDS, **layout):
    raw = fasta_bytes(records, **layout)
    if path.suffix == ".gz":
        return write_bgzf(path, raw)
    path.write_bytes(raw)
    return path


@pytest.fixture(params=["plain.fa", "blocks.fa.gz"])
def fasta(request, tmp_path):
    return write(tmp_path / request.param)


names = st.lists(
    st.text("abcXYZ019_.|:-", min_size=1, max_size=8), min_size=1, max_size=5, unique=True
)
sequences = st.text("ACGTRYSWKMBDHVNacgtryswkmbdhvn", min_size=1, max_size=200)


@st.composite
def fasta_files(draw):
    records = {name: draw(sequences) for name in draw(names)}
    layout = {
        "width": draw(st.integers(1, 70)),
        "end": draw(st.sampled_from(["\n", "\r\n"])),
        "last": draw(st.booleans()),
    }
    return records, layout, draw(st.sampled_from(["x.fa", "x.fa.gz"]))


# --- right bases -----------------------------------------------------------------------------


@quick
@given(made=fasta_files(), data=st.data())
def test_any_stretch_of_any_fasta_equals_the_truth_and_what_pysam_and_pyfaidx_read(
    made, data, tmp_path_factory
):
    records, layout, name = made
    path = write(tmp_path_factory.mktemp("made") / name, records, **layout)
    chrom = data.draw(st.sampled_from(sorted(records)))
    start = data.draw(st.integers(0, len(records[chrom])))
    end = data.draw(st.integers(start, len(records[chrom])))
    truth = records[chrom][start:end]
    with Genome(path) as genome:
        assert genome.lengths == {n: len(s) for n, s in records.items()}
        assert list(genome.lengths) == list(records)
        assert genome.fetch(chrom, start, end) == truth
        assert genome.codes(chrom, start, end).tolist() == encode(truth).tolist()
    with pysam.FastaFile(str(path)) as oracle:
        assert oracle.fetch(chrom, start, end) == truth
    if path.suffix == ".fa":
        with pyfaidx.Fasta(str(path), one_based_attributes=False) as second:
            assert str(second[chrom][start:end]) == truth


@quick
@given(made=fasta_files(), chunk=st.integers(1, 50), data=st.data())
def test_windows_in_any_order_equal_one_by_one_reads_whatever_the_span_and_the_chunk(
    made, chunk, data, tmp_path_factory
):
    records, layout, name = made
    path = write(tmp_path_factory.mktemp("made") / name, records, **layout)
    width = data.draw(st.integers(1, min(len(s) for s in records.values())))
    chroms = data.draw(st.lists(st.sampled_from(sorted(records)), max_size=12))
    starts = [data.draw(st.integers(0, len(records[c]) - width)) for c in chroms]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_source, "CHUNK", chunk)
        patch.setattr(genome_module, "_SPAN", chunk)
        patch.setattr(genome_module, "_GAP", chunk // 2)
        patch.setattr(genome_module, "_GATHER_BYTES", chunk)
        with Genome(path) as genome:
            found = genome.windows(chroms, starts, width)
    truth = [
        encode(records[c][s : s + width]).tolist() for c, s in zip(chroms, starts, strict=True)
    ]
    assert found.dtype == np.uint8
    assert found.shape == (len(chroms), width)
    assert found.tolist() == truth


def test_the_human_demo_reads_like_pysam_everywhere(demo, tmp_path):
    link = tmp_path / "human7.fa.gz"
    link.symlink_to(DEMO)
    rng = np.random.default_rng(1)
    with pysam.FastaFile(str(link)) as oracle:
        assert demo.lengths == dict(zip(oracle.references, oracle.lengths, strict=True))
        for chrom, length in demo.lengths.items():
            places = [0, length - 1000, *rng.integers(0, length - 1000, 12).tolist()]
            truth = [oracle.fetch(chrom, s, s + 1000) for s in places]
            assert [demo.fetch(chrom, s, s + 1000) for s in places] == truth
            windows = demo.windows(chrom, places, 1000)
            assert np.array_equal(windows, np.stack([encode(t) for t in truth]))
        assert demo.fetch("chr19", 0, demo.lengths["chr19"]) == oracle.fetch("chr19")


def test_a_whole_chromosome_as_codes_equals_its_letters_encoded(demo):
    length = demo.lengths["chr3"]
    assert np.array_equal(demo.codes("chr3", 0, length), encode(demo.fetch("chr3", 0, length)))


def test_codes_may_be_written_to_without_changing_what_is_read_next(fasta):
    with Genome(fasta) as genome:
        first = genome.codes("chrA", 0, 5)
        first[:] = 4
        assert genome.codes("chrA", 0, 5).tolist() == [0, 1, 2, 3, 4]


def test_windows_far_apart_do_not_read_what_lies_between(demo, monkeypatch):
    sizes = []
    read = BgzfBytes.read
    monkeypatch.setattr(
        BgzfBytes, "read", lambda self, a, b: (sizes.append(b - a), read(self, a, b))[1]
    )
    demo.windows(["chr22", "chr21", "chr22"], [50_000_000, 20_000_000, 20_000_000], 1000)
    assert len(sizes) == 3
    assert sum(sizes) < 4000


def test_no_window_gives_an_array_of_no_rows(demo):
    assert demo.windows([], [], 10).shape == (0, 10)


def test_blank_lines_between_records_and_at_the_end_change_nothing(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(b">a\nACGT\nAC\n\n\n>b\nGG\nT\n\n")
    with Genome(path) as genome:
        assert genome.lengths == {"a": 6, "b": 3}
        assert genome.fetch("a", 2, 6) + genome.fetch("b", 0, 3) == "GTACGGT"


def test_bgzip_files_joined_by_cat_are_read_as_one(tmp_path):
    one = write_bgzf(tmp_path / "1.gz", b">a\nACGT\nAC").read_bytes()
    two = write_bgzf(tmp_path / "2.gz", b"GT\nA\n").read_bytes()
    path = tmp_path / "both.fa.gz"
    path.write_bytes(one + two)
    with Genome(path) as genome:
        assert genome.fetch("a", 0, 9) == "ACGTACGTA"


def test_a_bgzip_block_may_carry_further_gzip_fields(tmp_path):
    raw = b">a\nACGTACGT\n"
    packer = zlib.compressobj(wbits=-15)
    body = packer.compress(raw) + packer.flush()
    fields = b"XX\x03\x00abc" + b"BC\x02\x00"
    size = 12 + len(fields) + 2 + len(body) + 8
    head = b"\x1f\x8b\x08\x04" + bytes(6) + struct.pack("<H", len(fields) + 2)
    block = head + fields + struct.pack("<H", size - 1) + body
    block += struct.pack("<II", zlib.crc32(raw), len(raw))
    path = tmp_path / "x.fa.gz"
    path.write_bytes(block + byte_source.END_BLOCK)
    with Genome(path) as genome:
        assert genome.fetch("a", 2, 6) == "GTAC"


# --- wrong requests --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chrom", "start", "end", "words"),
    [
        ("chrZ", 0, 1, "unknown chromosome 'chrZ', did you mean 'chr"),
        ("A", 0, 1, "did you mean 'chrA'"),
        (None, 0, 1, "unknown chromosome None"),
        ("chrB", -1, 1, "start is below 0"),
        ("chrB", 0, 8, r"past the end of chrB \(7 bases\)"),
        ("chrB", 8, 8, "past the end"),
        ("chrB", 3, 2, "start is above end"),
        ("chrB", 0.0, 1, "start is an integer, got 0.0"),
        ("chrB", 0, "1", "end is an integer"),
        ("chrB", False, 1, "start is an integer, got False"),
        ("chrB", 0, np.float64(2), "end is an integer"),
    ],
)
def test_a_wrong_stretch_is_refused_with_the_reason(fasta, chrom, start, end, words):
    with Genome(fasta) as genome:
        for method in (genome.fetch, genome.codes):
            with pytest.raises(RangeError, match=words) as caught:
                method(chrom, start, end)
            assert str(caught.value).startswith(f"{fasta}: ")


@pytest.mark.parametrize(
    ("chroms", "starts", "width", "words"),
    [
        (["chrA", "chrX"], [0, 0], 3, "window 1: unknown chromosome 'chrX'"),
        (["chrA", None], [0, 0], 3, "window 1: unknown chromosome None"),
        (["chrA", "chrB"], [0, 5], 3, r"chrB:5-8: past the end.*\(window 1\)"),
        ("chrA", [0, -1], 3, r"below 0.*\(window 1\)"),
        ("chrA", [0.5], 3, "starts are integers, got float64"),
        ("chrA", [True], 3, "starts are integers, got bool"),
        ("chrA", [[0]], 3, r"shape \(N,\)"),
        (["chrA"], [0, 1], 3, "1 chromosomes for 2 starts"),
        ("chrA", [0], 0, "width 0"),
        ("chrA", [0], 1.5, "width is an integer"),
    ],
)
def test_a_wrong_window_is_refused_and_named(fasta, chroms, starts, width, words):
    with Genome(fasta) as genome, pytest.raises(InputError, match=words):
        genome.windows(chroms, starts, width)


def test_numpy_integers_and_an_empty_stretch_are_fine(fasta):
    with Genome(fasta) as genome:
        assert genome.fetch("chrA", np.int32(1), np.uint64(4)) == "CGT"
        assert genome.fetch("chrB", 7, 7) == ""


def test_a_closed_genome_says_so(fasta):
    with Genome(fasta) as genome:
        pass
    genome.close()
    with pytest.raises(InputError, match="is closed"):
        genome.fetch("chrA", 0, 1)


# --- wrong files -----------------------------------------------------------------------------

FAULTS = {
    "empty file": (b"", None, "the file is empty"),
    "no header": (b"ACGT\n", 1, "no header"),
    "blank first": (b"\n>a\nAC\n", 1, "no header"),
    "byte order mark": (b"\xef\xbb\xbf>a\nAC\n", 1, "byte order mark"),
    "fastq": (b"@r\nAC\n+\nII\n", 1, "FASTQ"),
    "name twice": (b">a\nAC\n>b\nAC\n>a x\nAC\n", 5, "record 'a': the name occurs twice"),
    "empty name": (b">a\nAC\n>\nAC\n", 3, "empty name"),
    "blank before name": (b"> a\nAC\n", 1, "empty name"),
    "foreign name": (">ä\nAC\n".encode(), 1, "not ASCII"),
    "empty record": (b">a\n>b\nAC\n", 1, "record 'a': the record is empty"),
    "blank record": (b">a\nA\n>b\n\n>c\nC\n", 3, "record 'b': the record is empty"),
    "empty last record": (b">a\nAC\n>b\n", 3, "record 'b': the record is empty"),
    "header only": (b">a", 1, "the record is empty"),
    "short line": (b">a\nACG\nAC\nACG\n", 3, r"record 'a': its length differs.*\(3 letters\)"),
    "long line": (b">a\nACG\nACG\nACGT\n", 4, "its length differs"),
    "two short lines": (b">a\nACG\nA\nA\n", 3, "its length differs"),
    "long last line, cut": (b">a\nACG\nACGT", 3, "its length differs"),
    "blank inside": (b">a\nACG\n\nACG\n", 3, "a blank line inside"),
    "blank after header": (b">a\n\nACG\n", 2, "a blank line inside"),
    "CRLF then LF": (b">a\r\nACG\r\nACG\nACG\n", 3, "LF and CRLF"),
    "LF then CRLF": (b">a\nACG\nACG\r\n", 3, "LF and CRLF"),
    "old Mac": (b">a\rACG\rACG\r", 1, "control character"),
    "lone return": (b">a\nAC\rG\n", 2, r"illegal character '\\r'"),
    "return at the end": (b">a\nACG\nAC\r", 3, "carriage return without a newline"),
    "gap": (b">a\nACG\nA-G\n", 3, "record 'a': illegal character '-'"),
    "stop": (b">a\nAC*\n", 2, r"illegal character '\*'"),
    "RNA": (b">a\nACU\n", 2, "write T for U"),
    "protein": (b">a\nACG\n>p\nMEL\n", 4, "record 'p': illegal character 'E'"),
    "trailing blank": (b">a\nACG \n", 2, "illegal character ' '"),
    "header inside a line": (b">a\nACG>b\n", 2, "illegal character '>'"),
    "NUL": (b">a\nAC\x00\n", 2, "illegal character"),
    "UTF-16": (">a\nAC\n".encode("utf-16"), 1, "no header"),
    "NUL in a header": (b">a\x00\nAC\n", 1, "control character"),
}


@pytest.mark.parametrize("chunk", [1, 3, 1 << 21])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_no_strict_fasta_is_refused_at_its_line(tmp_path, monkeypatch, fault, chunk):
    monkeypatch.setattr(byte_source, "CHUNK", chunk)
    raw, line, words = FAULTS[fault]
    for path in (tmp_path / "x.fa", tmp_path / "x.fa.gz"):
        if path.suffix == ".gz":
            write_bgzf(path, raw)
        else:
            path.write_bytes(raw)
        with pytest.raises(FormatError, match=words) as caught:
            Genome(path)
        message = str(caught.value)
        assert message.startswith(f"{path}:{line}:" if line else f"{path}: ")
        assert "\n" not in message


class Chunks:
    """A source that needs no file."""

    path = Path("x.fa")

    def __init__(self, *chunks):
        self.pieces, self.size = chunks, sum(map(len, chunks))

    def read(self, start, stop):
        return b"".join(self.pieces[:8])[start:stop]

    def digest(self):
        return "none"

    def stamp(self):
        return (0, 0, 0)

    def chunks(self):
        yield from self.pieces


def slow_lengths(raw):
    """Read strict FASTA line by line; None if it is not."""
    lines = raw.split(b"\n")
    ended = [True] * (len(lines) - 1) + [False]
    records, found = [], {}
    for line, whole in zip(lines, ended, strict=True):
        bare = line.removesuffix(b"\r") if whole else line
        if bare[:1] == b">":
            records.append((bare, []))
        elif records and (bare or whole):
            records[-1][1].append((bare, whole, bare != line))
        elif bare or whole:
            return None
    for header, body in records:
        while body and not body[-1][0]:
            body.pop()
        name = header[1:].split(b" ")[0].decode()
        sizes = [len(bare) for bare, _, _ in body]
        if (
            not name
            or name in found
            or not body
            or b"\r" in header
            or any(size != sizes[0] for size in sizes[:-1])
            or not 0 < sizes[-1] <= sizes[0]
            or len({returns for _, whole, returns in body if whole}) > 1
            or set(b"".join(bare for bare, _, _ in body)) - set(b"ACNacn")
        ):
            return None
        found[name] = sum(sizes)
    return found or None


@settings(max_examples=1500, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [b">a", b">b", b">", b"\n", b"\r\n", b"\r", b"AC", b"AC\n", b"N", b" ", b"-"]
        ),
        max_size=14,
    ),
    cuts=st.lists(st.integers(1, 30), max_size=6),
)
def test_the_scan_takes_and_refuses_what_a_slow_reader_line_by_line_does(parts, cuts):
    raw = b"".join([b">a\n", *parts])
    places = [0, *sorted(c for c in set(cuts) if c < len(raw)), len(raw)]
    source = Chunks(*(raw[a:b] for a, b in itertools.pairwise(places)))
    try:
        found = {r.name: r.length for r in fasta_index.index_of(source).records}
    except FormatError:
        found = None
    assert found == slow_lengths(raw)


@st.composite
def many_short_records(draw):
    """Draw a file of short records, some of which may have something wrong with them."""
    end = draw(st.sampled_from([b"\n", b"\r\n"]))
    raw = b""
    for number in range(draw(st.integers(1, 12))):
        line = draw(st.sampled_from([b"A", b"ACG", b"ACGTN"]))
        lines = [line] * draw(st.integers(1, 3)) + draw(st.sampled_from([[], [b"A"]]))
        if draw(st.integers(0, 7)) == 0:
            odd = [
                b"",
                b"ACGTACGT",
                b"A!",
                b"A\rC",
                b">",
                b">r1 again",
                b">x\x01",
                b"> x",
                b">\xe9",
            ]
            lines.insert(draw(st.integers(0, len(lines))), draw(st.sampled_from(odd)))
        about = draw(st.sampled_from([b"", b" about it", b"\tabout", b"\r"]))
        raw += end.join([b">r%d" % number + about, *lines, b""])
    return raw if draw(st.booleans()) else raw.removesuffix(end)


@settings(max_examples=600, deadline=None)
@given(raw=many_short_records(), cuts=st.lists(st.integers(1, 200), max_size=4))
def test_short_records_are_found_all_at_once_as_they_are_one_by_one(raw, cuts):
    places = [0, *sorted(c for c in set(cuts) if c < len(raw)), len(raw)]
    chunks = [raw[a:b] for a, b in itertools.pairwise(places)]
    found = []
    for quick in (True, False):
        faults = Faults(Path("x.fa"), keep=99)
        with pytest.MonkeyPatch.context() as patch:
            if not quick:
                patch.setattr(fasta_index, "short_records", lambda *_: [])
            found.append((fasta_index.scanned(Chunks(*chunks), faults), faults.kept))
    assert found[0] == found[1]


def test_short_records_without_fault_do_not_go_the_slow_way(monkeypatch):
    raw = b"".join(b">r%d about it\nACGT\nAC\n" % i for i in range(1000))
    begun = []
    begin = fasta_index._Scanner._begin
    monkeypatch.setattr(
        fasta_index._Scanner, "_begin", lambda *given: (begun.append(given), begin(*given))[1]
    )
    assert len(fasta_index.scanned(Chunks(raw), Faults(Path("x.fa")))) == 1000
    assert len(begun) == 1


def test_a_header_without_end_is_refused_before_it_fills_the_memory(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(b">a\nAC\n>" + b"b" * (5 << 20))
    with pytest.raises(FormatError, match=r":3: .*header of more than 1 MiB"):
        Genome(path)


@pytest.mark.parametrize("chunk", [1, 1 << 21])
def test_more_records_than_a_memory_holds_are_refused_at_the_first_of_them(
    tmp_path, monkeypatch, chunk
):
    monkeypatch.setattr(byte_source, "CHUNK", chunk)
    monkeypatch.setattr(fasta_index, "RECORDS_MAX", 2)
    path = tmp_path / "x.fa"
    path.write_bytes(b">a\nA\n>b\nA\n")
    Genome(path).close()
    path.write_bytes(b">a\nA\n>b\nA\n>c\nA\n")
    with pytest.raises(FormatError, match=r":5: record 'c': .* more than 2: keep the longest"):
        Genome(path)


def test_a_missing_file_is_an_input_error_and_a_file_not_found_error(tmp_path):
    for kind in (InputError, FileNotFoundError):
        with pytest.raises(kind, match="no such file"):
            Genome(tmp_path / "none.fa")


def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InputError, match="not a regular file"):
            Genome(path)


def test_gzip_that_is_not_bgzip_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "x.fa.gz"
    path.write_bytes(gzip.compress(fasta_bytes(RECORDS)))
    with pytest.raises(FormatError, match=r"gunzip -c x\.fa\.gz \| bgzip"):
        Genome(path)


def test_a_bgzip_file_cut_at_any_byte_is_refused(tmp_path):
    whole = write_bgzf(tmp_path / "x.fa.gz", fasta_bytes({"a": "ACGT" * 60})).read_bytes()
    path = tmp_path / "cut.fa.gz"
    for size in range(2, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError, match="bgzip"):
            Genome(path)


def test_no_flipped_byte_in_a_bgzip_file_gives_other_bases(tmp_path):
    truth = "ACGTTGCA" * 30
    whole = write_bgzf(tmp_path / "x.fa.gz", fasta_bytes({"a": truth})).read_bytes()
    path = tmp_path / "flipped.fa.gz"
    refused = 0
    for at in range(len(whole)):
        raw = bytearray(whole)
        raw[at] ^= 0x41
        path.write_bytes(raw)
        try:
            with Genome(path) as genome:
                assert genome.fetch("a", 0, len(truth)) == truth
        except FormatError:
            refused += 1
    # Only the bytes that gzip does not use (time, system, flags) may differ unnoticed.
    assert refused > 0.8 * len(whole)


def test_a_flipped_byte_found_only_at_reading_is_an_error(tmp_path):
    path = write(tmp_path / "x.fa.gz")
    with Genome(path) as genome:
        place = open_source(path)._places[2] + 3
        raw = bytearray(path.read_bytes())
        raw[place] ^= 0xFF
        with path.open("r+b") as stream:
            stream.write(raw)
        with pytest.raises(InputError, match=r"broken bgzip|changed"):
            genome.fetch("chrA", 0, 400)


# --- the kept index --------------------------------------------------------------------------


def kept_indexes(tmp_path):
    return sorted((tmp_path / "cache").glob("*"))


def no_scan(monkeypatch):
    def refuse(self, chunk):
        raise AssertionError("the file is scanned")

    monkeypatch.setattr(fasta_index._Scanner, "feed", refuse)


def test_the_second_open_does_not_scan_again(fasta, monkeypatch):
    Genome(fasta).close()
    no_scan(monkeypatch)
    with Genome(fasta) as genome:
        assert genome.fetch("chrC", 0, 427) == RECORDS["chrC"]


def test_the_index_is_one_json_file_and_nothing_lies_beside_it_or_the_fasta(fasta, tmp_path):
    Genome(fasta).close()
    (index,) = kept_indexes(tmp_path)
    assert json.loads(index.read_text())["index"]["path"] == str(fasta)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["cache", fasta.name])


@pytest.mark.parametrize("keep", [0, 1, 50, -1])
def test_a_cut_index_is_built_anew_without_a_word(fasta, tmp_path, keep):
    Genome(fasta).close()
    (index,) = kept_indexes(tmp_path)
    whole = index.read_bytes()
    index.write_bytes(whole[:keep])
    with Genome(fasta) as genome:
        assert genome.fetch("chrA", 0, 420) == RECORDS["chrA"]
    assert index.read_bytes() == whole


@pytest.mark.parametrize("text", ["[]", "null", '{"sha256": 1}', "[" * 100_000, '"x"'])
def test_an_index_of_another_shape_is_built_anew(fasta, tmp_path, text):
    Genome(fasta).close()
    (index,) = kept_indexes(tmp_path)
    index.write_text(text)
    with Genome(fasta) as genome:
        assert genome.fetch("chrB", 0, 7) == RECORDS["chrB"]


def test_an_index_with_an_altered_number_is_not_believed(fasta, tmp_path):
    Genome(fasta).close()
    (index,) = kept_indexes(tmp_path)
    body = json.loads(index.read_text())
    body["index"]["records"][0][1] -= 1
    index.write_text(json.dumps(body))
    with Genome(fasta) as genome:
        assert genome.lengths["chrA"] == 420


def test_a_cache_that_cannot_be_written_is_no_error(fasta, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with Genome(fasta, cache_dir=tmp_path / "file") as genome:
        assert genome.fetch("chrB", 0, 7) == RECORDS["chrB"]


def test_a_full_disk_leaves_no_half_index_and_is_no_error(fasta, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with Genome(fasta) as genome:
        assert genome.fetch("chrB", 0, 7) == RECORDS["chrB"]
    assert kept_indexes(tmp_path) == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SEQNORM_CACHE": "/s", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/s"),
        ({"SEQNORM_CACHE": "", "XDG_CACHE_HOME": "/x", "HOME": "/h"}, "/x/seqnorm"),
        ({"SEQNORM_CACHE": "", "XDG_CACHE_HOME": "rel", "HOME": "/h"}, "/h/.cache/seqnorm"),
    ],
)
def test_the_cache_folder_follows_the_environment(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert fasta_index.cache_folder(None) == Path(expected)
    assert fasta_index.cache_folder("/own") == Path("/own")


def test_a_wrong_fai_beside_the_file_is_never_used(fasta):
    for suffix in (".fai", ".gzi"):
        fasta.with_name(fasta.name + suffix).write_text("chrA\t5\t2\t3\t4\n")
    with Genome(fasta) as genome:
        assert genome.fetch("chrA", 0, 420) == RECORDS["chrA"]


# --- files that change -----------------------------------------------------------------------

BEFORE = b">a\n" + b"ACGTACGTA\n" * 6 + b">b\n" + b"GGGTTTCCC\n" * 2
# Each has the size of BEFORE and another layout.
MOVED = {
    "header further on": b">a\n" + b"ACGTACGTA\n" * 7 + b">b\n" + b"GGGTTTCCC\n",
    "lines twice as long": b">a\n" + (b"TTTTTTTTTTTTTTTTTTT\n") * 3 + b">b\n" + b"GGGTTTCCC\n" * 2,
    "lines half as long": b">a\n" + b"TTTT\n" * 12 + b">b\n" + b"GGGTTTCCC\n" * 2,
    "other name": b">c\n" + b"ACGTACGTA\n" * 6 + b">b\n" + b"GGGTTTCCC\n" * 2,
}


def edit_in_place(path, raw):
    """Overwrite with as many bytes and put the time stamps back."""
    times = path.stat()
    with path.open("r+b") as stream:
        stream.write(raw)
        stream.truncate()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def lying_stamps(monkeypatch):
    """A file system on which no edit ever changes a time stamp."""
    monkeypatch.setattr(PlainBytes, "stamp", lambda self: (self._disk_size, 0, 0))


def reread(path, name="a"):
    with Genome(path) as genome:
        return genome.fetch(name, 0, genome.lengths[name])


@pytest.mark.parametrize("moved", MOVED)
def test_a_stale_index_of_the_same_size_and_time_is_never_used(tmp_path, moved):
    path = tmp_path / "x.fa"
    path.write_bytes(BEFORE)
    assert reread(path) == "ACGTACGTA" * 6
    edit_in_place(path, MOVED[moved])
    name = "c" if moved == "other name" else "a"
    truth = MOVED[moved].split(b">b")[0][3:].replace(b"\n", b"").decode()
    assert reread(path, name) == truth


@pytest.mark.usefixtures("lying_stamps")
@pytest.mark.parametrize("moved", MOVED)
def test_a_stale_index_is_found_out_by_content_where_time_stamps_lie(tmp_path, moved):
    test_a_stale_index_of_the_same_size_and_time_is_never_used(tmp_path, moved)


@pytest.mark.usefixtures("lying_stamps")
def test_line_ends_that_moved_under_an_open_genome_are_an_error_even_where_stamps_lie(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(BEFORE)
    with Genome(path) as genome:
        edit_in_place(path, MOVED["lines half as long"])
        with pytest.raises(ChangedFileError, match=r"record 'a'.*open it again"):
            genome.fetch("a", 0, 20)
        with pytest.raises(ChangedFileError):
            genome.windows("a", [3], 9)


@pytest.mark.usefixtures("lying_stamps")
def test_a_letter_that_is_no_dna_is_never_given_out_even_where_stamps_lie(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(BEFORE)
    with Genome(path) as genome:
        edit_in_place(path, BEFORE.replace(b"ACGT", b"AC-T", 1))
        for read in (genome.fetch, genome.codes):
            with pytest.raises(ChangedFileError, match="record 'a'"):
                read("a", 0, 4)
        with pytest.raises(ChangedFileError, match="record 'a'"):
            genome.windows("a", [0], 4)


def test_a_fresh_file_is_stamped_only_once_a_later_edit_gets_another_stamp(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(BEFORE)
    PlainBytes(path).settled_stamp()
    assert time.time_ns() - path.stat().st_ctime_ns >= byte_source._TICK_SECONDS * 1e9


def test_a_bgzip_file_with_other_content_of_the_same_size_is_scanned_anew(tmp_path):
    path = tmp_path / "x.fa.gz"

    def stored(raw):
        packer = zlib.compressobj(0, wbits=-15)
        body = packer.compress(raw) + packer.flush()
        head = b"\x1f\x8b\x08\x04" + bytes(6) + b"\x06\x00BC\x02\x00"
        tail = struct.pack("<II", zlib.crc32(raw), len(raw))
        return head + struct.pack("<H", len(body) + 25) + body + tail + byte_source.END_BLOCK

    path.write_bytes(stored(BEFORE))
    assert reread(path) == "ACGTACGTA" * 6
    edit_in_place(path, stored(MOVED["lines twice as long"]))
    assert reread(path) == "T" * 57


@pytest.mark.parametrize("moved", MOVED)
def test_a_layout_that_moves_under_an_open_genome_is_an_error(tmp_path, moved):
    path = tmp_path / "x.fa"
    path.write_bytes(BEFORE)
    with Genome(path) as genome:
        edit_in_place(path, MOVED[moved])
        for _ in range(2):
            with pytest.raises(ChangedFileError, match="open it again"):
                genome.fetch("b", 0, 1)


def test_a_base_edited_under_an_open_genome_is_read_as_it_now_stands(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(BEFORE)
    with Genome(path) as genome:
        assert genome.fetch("a", 0, 4) == "ACGT"
        edit_in_place(path, BEFORE.replace(b"ACGT", b"TTTT", 1))
        assert genome.fetch("a", 0, 4) == "TTTT"


def test_an_illegal_letter_edited_in_is_an_error(tmp_path):
    path = tmp_path / "x.fa"
    path.write_bytes(BEFORE)
    with Genome(path) as genome:
        edit_in_place(path, BEFORE.replace(b"ACGT", b"AC-T", 1))
        with pytest.raises(InputError, match="illegal character '-'"):
            genome.fetch("a", 0, 4)


@pytest.mark.parametrize("change", ["cut", "grown", "emptied"])
def test_a_file_of_another_size_is_an_error_at_the_next_read(fasta, change):
    whole = fasta.read_bytes()
    with Genome(fasta) as genome:
        genome.fetch("chrA", 0, 10)
        edit_in_place(fasta, {"cut": whole[:-40], "grown": whole + b"A", "emptied": b""}[change])
        for read in (genome.fetch, genome.codes):
            with pytest.raises(ChangedFileError, match="open it again"):
                read("chrA", 0, 10)
        with pytest.raises(ChangedFileError, match="open it again"):
            genome.windows("chrA", [0], 10)


def test_a_touched_file_is_read_on_after_a_look_at_its_content(fasta):
    with Genome(fasta) as genome:
        genome.fetch("chrA", 0, 10)
        os.utime(fasta)
        assert genome.fetch("chrA", 0, 420) == RECORDS["chrA"]


def test_a_file_replaced_by_rename_is_still_read_as_it_was_opened(fasta, tmp_path):
    with Genome(fasta) as genome:
        write(tmp_path / f"new-{fasta.name}", {"chrA": "T" * 420}).replace(fasta)
        assert genome.fetch("chrA", 0, 420) == RECORDS["chrA"]
        with pytest.raises(ChangedFileError, match="open it again"):
            pickle.loads(pickle.dumps(genome))


def test_a_file_written_to_while_it_is_scanned_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.fa"
    path.write_bytes(BEFORE)
    feed = fasta_index._Scanner.feed

    def feed_and_write(self, chunk):
        edit_in_place(path, MOVED["other name"])
        feed(self, chunk)

    monkeypatch.setattr(fasta_index._Scanner, "feed", feed_and_write)
    with pytest.raises(ChangedFileError, match="written to while"):
        Genome(path)


# --- many at once ----------------------------------------------------------------------------


def check_many_reads(genome, truth, seed):
    rng = np.random.default_rng(seed)
    for start in rng.integers(0, len(truth) - 500, 300).tolist():
        assert genome.fetch("chr", start, start + 500) == truth[start : start + 500]
    starts = rng.integers(0, len(truth) - 50, 200)
    found = genome.windows("chr", starts, 50)
    assert np.array_equal(found, np.stack([encode(truth[s : s + 50]) for s in starts]))


def run_in_children(targets):
    children = [multiprocessing.get_context("fork").Process(target=t) for t in targets]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return [child.exitcode for child in children]


@pytest.fixture(params=["big.fa", "big.fa.gz", "big.2bit"])
def big(request, tmp_path):
    letters = np.frombuffer(b"ACGTacgtN", dtype="S1")
    truth = b"".join(np.random.default_rng(3).choice(letters, 100_000)).decode()
    path = tmp_path / request.param
    raw = fasta_bytes({"chr": truth})
    if path.suffix == ".gz":
        write_bgzf(path, raw, block=4000)
    else:
        path.write_bytes(twobit_bytes({"chr": truth}) if path.suffix == ".2bit" else raw)
    return path, truth


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_workers_that_share_one_genome_all_read_right_bases(big):
    path, truth = big
    with Genome(path) as genome:
        genome.fetch("chr", 0, 9000)
        codes = run_in_children([lambda i=i: check_many_reads(genome, truth, i) for i in range(4)])
        check_many_reads(genome, truth, 9)
    assert codes == [0] * 4


def test_threads_that_share_one_genome_all_read_right_bases(big, monkeypatch):
    path, truth = big
    monkeypatch.setattr(byte_source, "_KEPT_BLOCKS", 2)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with Genome(path) as genome, ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda seed: check_many_reads(genome, truth, seed), range(8)))
    finally:
        sys.setswitchinterval(switch)


class EmptiedByOthers(OrderedDict):
    """Kept blocks that other threads push out between any two steps."""

    def get(self, key):
        found = super().get(key)
        self.clear()
        return found

    def __len__(self):
        return byte_source._KEPT_BLOCKS + 1


def test_a_block_pushed_out_by_another_thread_is_no_error(tmp_path):
    raw = fasta_bytes(RECORDS)
    source = open_source(write_bgzf(tmp_path / "x.fa.gz", raw))
    source._kept = EmptiedByOthers()
    source._kept[0] = source._block(0)
    assert [source.read(i, i + 150) for i in (0, 0, 300)] == [raw[:150], raw[:150], raw[300:450]]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_sixteen_processes_may_open_an_unindexed_file_at_once(big, tmp_path):
    path, truth = big
    barrier = multiprocessing.get_context("fork").Barrier(16)

    def open_and_read():
        barrier.wait(30)
        with Genome(path) as genome:
            assert genome.fetch("chr", 0, len(truth)) == truth

    assert run_in_children([open_and_read] * 16) == [0] * 16
    assert len(kept_indexes(tmp_path)) == (path.suffix != ".2bit")


def test_a_pickled_genome_opens_the_file_itself_and_reads_the_same(fasta, tmp_path, monkeypatch):
    monkeypatch.chdir(fasta.parent)
    with Genome(fasta.name) as genome:
        packed = pickle.dumps(genome)
    monkeypatch.chdir("/")
    with pickle.loads(packed) as again:
        assert again.path == Path(fasta.name)
        assert again.lengths == {name: len(seq) for name, seq in RECORDS.items()}
        assert again.fetch("chrC", 5, 300) == RECORDS["chrC"][5:300]


def test_no_file_stays_open_after_closing_refusing_or_forgetting(fasta, tmp_path):
    folder = Path("/proc/self/fd")

    def held():
        return sum(1 for f in folder.iterdir() if f.exists() and f.resolve().parent == tmp_path)

    genome = Genome(fasta)
    assert held() == 1
    genome.close()
    assert held() == 0
    genome = Genome(fasta)
    del genome
    bad = tmp_path / "bad.fa"
    bad.write_bytes(b">a\n")
    cut = tmp_path / "cut.fa.gz"
    cut.write_bytes(b"\x1f\x8b\x08")
    for path in (bad, cut):
        with pytest.raises(FormatError):
            Genome(path)
    assert held() == 0


# --- cost ------------------------------------------------------------------------------------


def test_scanning_a_chromosome_on_one_line_takes_memory_for_chunks_only():
    pieces = [b">a\n"] + [b"ACGT" * (1 << 17)] * 64
    tracemalloc.start()
    try:
        (record,) = fasta_index.index_of(Chunks(*pieces)).records
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert record.length == record.width == 64 << 19
    assert peak < 16 << 20


def test_the_readers_do_not_load_torch():
    code = (
        "import sys, data_tools.genome, data_tools.intervals, data_tools.encode;"
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
