"""Signal is what the file holds, to the bit; what it does not hold is missing, never zero."""

import gzip
import random
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pybigtools
import pyBigWig
import pytest

from data_tools.errors import FormatError, InputError, RangeError
from data_tools.formats.bigwig import BigWigFile
from data_tools.signal import open_signal

LENGTHS = {"chr1": 5000, "chr2": 70_000, "chr10": 300, "empty": 10}


def random_rows(seed, lengths, density=0.6):
    draw = random.Random(seed)
    rows = []
    for chrom, length in lengths.items():
        place = draw.randrange(50)
        while chrom != "empty":
            end = place + draw.randint(1, 30)
            if end > length:
                break
            rows.append((chrom, place, end, np.float32(draw.gauss(0, 100)).item()))
            place = end + (0 if draw.random() < density else draw.randint(1, 200))
    return rows


ROWS = random_rows(0, LENGTHS)


def dense(rows, chrom, length, missing=np.nan):
    out = np.full(length, missing, dtype=np.float32)
    for name, start, end, value in rows:
        if name == chrom:
            out[start:end] = value
    return out


def by_pybigwig(path, rows):
    with pyBigWig.open(str(path), "w") as handle:
        handle.addHeader(list(LENGTHS.items()))
        chroms, starts, ends, values = map(list, zip(*rows, strict=True))
        handle.addEntries(chroms, starts, ends=ends, values=values)


def by_pybigtools(path, rows):
    made = path.with_suffix(".bw")
    pybigtools.open(str(made), "w").write(LENGTHS, [tuple(row) for row in sorted(rows)])
    made.rename(path)


def by_text(path, rows):
    path.write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))


def by_shuffled_gzip(path, rows):
    rows = random.Random(1).sample(rows, len(rows))
    text = "track type=bedGraph\n" + "".join("\t".join(map(str, row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()))


WRITERS = {
    "pyBigWig": by_pybigwig,
    "pybigtools": by_pybigtools,
    "bedGraph": by_text,
    "shuffled": by_shuffled_gzip,
}


@pytest.fixture(scope="module", params=list(WRITERS))
def file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("signal") / "track"
    WRITERS[request.param](path, ROWS)
    return path


def test_every_base_has_the_value_of_the_file(file):
    with open_signal(file, SimpleNamespace(lengths=LENGTHS)) as signal:
        for chrom, length in LENGTHS.items():
            found = signal.values(chrom, 0, length)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, dense(ROWS, chrom, length))


def test_windows_and_means_are_those_of_the_bases(file):
    draw = np.random.default_rng(0)
    start = draw.integers(0, 70_000 - 240, 200)
    table = pd.DataFrame({"chrom": "chr2", "start": start, "end": start + 240})
    truth = np.stack([dense(ROWS, "chr2", 70_000)[s : s + 240] for s in start])
    with open_signal(file) as signal:
        np.testing.assert_array_equal(signal.windows(table), truth)
        np.testing.assert_array_equal(
            signal.windows(table, missing=-1), np.where(np.isnan(truth), -1, truth)
        )
        for bins in (1, 8, 240):
            parts = truth.reshape(200, bins, -1).astype(np.float64)
            full = np.nan_to_num(parts, nan=0.0)
            np.testing.assert_allclose(
                signal.windows(table, bins=bins, missing=0), full.mean(axis=2), rtol=2e-6, atol=1e-5
            )
            with np.errstate(invalid="ignore"):
                mean = full.sum(axis=2) / (~np.isnan(parts)).sum(axis=2)
            np.testing.assert_allclose(signal.windows(table, bins=bins), mean, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("writer", [by_pybigwig, by_pybigtools])
def test_the_libraries_read_the_same_from_a_bigwig(tmp_path, writer):
    writer(tmp_path / "a.bw", ROWS)
    with (
        open_signal(tmp_path / "a.bw") as signal,
        pyBigWig.open(str(tmp_path / "a.bw")) as oracle,
        pybigtools.open(str(tmp_path / "a.bw")) as other,
    ):
        assert dict(oracle.chroms()) == {c: signal.lengths[c] for c in oracle.chroms()}
        for chrom, length in oracle.chroms().items():
            for low, high in ((0, length), (length // 3, length // 2), (length - 1, length)):
                found = signal.values(chrom, low, high)
                expected = oracle.values(chrom, low, high, numpy=True)
                np.testing.assert_array_equal(found, expected)
                np.testing.assert_array_equal(
                    found, other.values(chrom, low, high, fillna=np.nan).astype(np.float32)
                )


def test_all_three_kinds_of_sections_are_read(tmp_path):
    with pyBigWig.open(str(tmp_path / "a.bw"), "w") as handle:
        handle.addHeader([("c", 1000)])
        handle.addEntries(["c"], [5], ends=[9], values=[1.5])
        handle.addEntries("c", [20, 40], values=[2.0, 3.0], span=5)
        handle.addEntries("c", 100, values=[4.0, 5.0, 6.0], span=2, step=10)
    rows = [("c", 5, 9, 1.5), ("c", 20, 25, 2.0), ("c", 40, 45, 3.0)]
    rows += [("c", 100 + 10 * i, 102 + 10 * i, 4.0 + i) for i in range(3)]
    with open_signal(tmp_path / "a.bw") as signal:
        np.testing.assert_array_equal(signal.values("c", 0, 1000), dense(rows, "c", 1000))


# --- what does not fit ------------------------------------------------------------------------


def bedgraph(tmp_path, text):
    path = tmp_path / "x.bedgraph"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("c\t0\t5\t1\nc\t4\t6\t1\n", r"x\.bedgraph:2: overlaps line 1: a base"),
        ("c\t4\t6\t1\nd\t0\t9\t1\nc\t0\t5\t1\n", ":3: overlaps line 1"),
        ("c\t0\t9\t1\nc\t1\t2\t1\n", ":2: overlaps line 1"),
        ("c\t0\t5\t1\nc\t0\t5\t1\n", ":2: overlaps line 1"),
        ("c\t0\t5\n", ":1: 3 columns, bedGraph has 4"),
        ("c\t0\t5\t1\nc\t5\t6\tnan\n", ":2: value is not a number: 'nan'"),
        ("c\t0\t5\t1e39\n", ":1: value is too large for float32"),
        ("c\t0\t5\t\n", ":1: value is not a number"),
        ("c\t-1\t5\t1\n", ":1: start is below 0"),
        ("c 0 5 1\n", ":1: 1 columns"),
        ("", "holds no interval"),
        ("fixedStep chrom=c start=1\n1\n", ":1: 1 columns"),
    ],
)
def test_a_wrong_bedgraph_is_refused_by_file_and_line(tmp_path, text, words):
    with pytest.raises(FormatError, match=words):
        open_signal(bedgraph(tmp_path, text))


def test_signal_of_another_assembly_or_style_is_refused_with_the_cure(tmp_path):
    graph = bedgraph(tmp_path, "1\t0\t5\t2\n")
    genome = SimpleNamespace(lengths={"chr1": 5, "chr2": 9})
    with pytest.raises(InputError, match=r"unknown chromosome '1'.*chrom_style='match'"):
        open_signal(graph, genome)
    signal = open_signal(graph, genome, chrom_style="match")
    assert signal.values("chr1", 3, 5).tolist() == [2, 2]
    assert np.isnan(signal.values("chr2", 0, 9)).all()
    with pytest.raises(InputError, match="1 is 5 long, 1 of the genome 4: check"):
        open_signal(graph, SimpleNamespace(lengths={"1": 4}))
    by_pybigwig(tmp_path / "a.bw", ROWS)
    with pytest.raises(InputError, match="chr1 is 5000 long, chr1 of the genome 5001"):
        open_signal(tmp_path / "a.bw", SimpleNamespace(lengths={"chr1": 5001}))


def test_what_is_asked_for_must_exist(tmp_path):
    signal = open_signal(bedgraph(tmp_path, "c\t0\t5\t2\n"))
    for arguments, words in [
        (("d", 0, 1), "unknown chromosome 'd'"),
        (("c", 0, 6), "c:0-6 is not within 0 to 5"),
        (("c", -1, 2), "not within"),
        (("c", 3, 2), "not within"),
    ]:
        with pytest.raises(RangeError, match=words):
            signal.values(*arguments)
    table = pd.DataFrame({"chrom": "c", "start": [0, 0], "end": [4, 3]})
    with pytest.raises(InputError, match="row 0 has 4 bases, row 1 has 3"):
        signal.windows(table)
    with pytest.raises(InputError, match="4 bases cannot be cut into 3"):
        signal.windows(table[:1], bins=3)
    assert signal.windows(table[:0]).shape[0] == 0


# --- lying and damaged bigWig -----------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "a.bw"
    by_pybigwig(path, ROWS)
    return path.read_bytes()


def header(raw):
    return dict(
        zip(
            ("magic", "version", "zooms", "chroms", "data", "index"),
            struct.unpack_from("<IHHQQQ", raw),
            strict=True,
        )
    )


def changed(raw, place, form, *values):
    out = bytearray(raw)
    struct.pack_into(form, out, place, *values)
    return bytes(out)


def first_section(raw):
    """Place of the first leaf of the index."""
    place = header(raw)["index"] + 48
    while not raw[place]:
        (place,) = struct.unpack_from("<Q", raw, place + 4 + 16)
    return place + 4


LIES = {
    "no file": (lambda r: r[:3], "not UTF-8"),
    "header cut": (lambda r: r[:40], "the header"),
    "version": (lambda r: changed(r, 4, "<H", 99), "version 99"),
    "chromosomes past the end": (lambda r: changed(r, 8, "<Q", 1 << 60), "list of chromosomes"),
    "chromosomes elsewhere": (lambda r: changed(r, 8, "<Q", 70), "not where the header says"),
    "index past the end": (lambda r: changed(r, 24, "<Q", len(r) - 2), "past the end"),
    "index elsewhere": (lambda r: changed(r, 24, "<Q", 100), "the index is not where"),
    "key of 4 GB": (lambda r: changed(r, header(r)["chroms"] + 8, "<I", 1 << 31), "not where"),
    "chromosomes by the billion": (
        lambda r: changed(r, header(r)["chroms"] + 16, "<Q", 1 << 50),
        "claims 1,125,899,906,842,624 chromosomes",
    ),
    "one chromosome too many": (
        lambda r: changed(r, header(r)["chroms"] + 16, "<Q", 5),
        "holds 4, it claims 5",
    ),
    "items past the end": (
        lambda r: changed(r, header(r)["chroms"] + 34, "<H", 65_535),
        "list of chromosomes .* past the end",
    ),
    "name of blanks": (lambda r: changed(r, header(r)["chroms"] + 36, "<4s", b"a b\n"), "no name"),
    "section past the end": (
        lambda r: changed(r, first_section(r) + 16, "<Q", len(r)),
        "section lies past the end of the file",
    ),
    "section of exabytes": (
        lambda r: changed(r, first_section(r) + 24, "<Q", 1 << 63),
        "section lies past the end of the file",
    ),
    "section on no chromosome": (
        lambda r: changed(r, first_section(r), "<I", 77),
        "chromosome that the file does not list",
    ),
    "section reversed": (lambda r: changed(r, first_section(r) + 4, "<I", 1 << 31), "reversed"),
    "sections out of order": (
        lambda r: changed(r, first_section(r) + 4, "<II", 4998, 0)[: len(r)],
        "not in order|reversed",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_with_the_remedy(tmp_path, good, lie):
    change, words = LIES[lie]
    (tmp_path / "x.bw").write_bytes(change(good))
    with pytest.raises(FormatError, match=words) as caught:
        open_signal(tmp_path / "x.bw")
    assert str(caught.value).startswith(str(tmp_path / "x.bw"))


def test_a_tree_that_leads_in_a_circle_is_refused(tmp_path, good):
    root = header(good)["index"] + 48
    loop = changed(good, root, "<BBHIIIIQ", 0, 0, 1, 0, 0, 0, 5000, root)
    (tmp_path / "x.bw").write_bytes(loop)
    with pytest.raises(FormatError, match="the index leads in a circle"):
        open_signal(tmp_path / "x.bw")


def test_a_section_that_inflates_without_end_is_refused_within_bounded_memory(tmp_path, good):
    bomb = zlib.compress(bytes(300 << 20), 9)
    leaf = first_section(good)
    raw = changed(good, leaf + 16, "<QQ", len(good), len(bomb)) + bomb
    (tmp_path / "x.bw").write_bytes(raw)
    with pytest.raises(FormatError, match="longer than a section can be"):
        open_signal(tmp_path / "x.bw").values("chr1", 0, 5000)


def test_a_damaged_file_gives_the_right_values_or_an_error_never_others(tmp_path, good):
    """Flips in what the sums of zlib protect, and cuts, anywhere."""
    draw = random.Random(3)
    path = tmp_path / "x.bw"
    truth = {chrom: dense(ROWS, chrom, length) for chrom, length in LENGTHS.items()}
    outcomes = {"right": 0, "refused": 0}
    start, end = header(good)["data"] + 8, header(good)["index"]
    for _ in range(300):
        raw = bytearray(good)
        if draw.random() < 0.3:
            raw = raw[: draw.randrange(len(raw))]
        else:
            raw[draw.randrange(start, end)] ^= 1 << draw.randrange(8)
        path.write_bytes(raw)
        try:
            with open_signal(path) as signal:
                for chrom, length in signal.lengths.items():
                    found = signal.values(chrom, 0, length)
                    np.testing.assert_array_equal(found, truth[chrom])
            outcomes["right"] += 1
        except InputError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 100


def test_any_change_of_bytes_is_an_input_error_or_a_signal(tmp_path, good):
    draw = random.Random(4)
    path = tmp_path / "x.bw"
    tables = [*range(64), *range(header(good)["chroms"], header(good)["data"])]
    tables += range(header(good)["index"], min(len(good), header(good)["index"] + 300))
    for _ in range(600):
        raw = bytearray(good)
        for _ in range(draw.randint(1, 3)):
            raw[draw.choice(tables)] = draw.choice([0, 1, 255, draw.randrange(256)])
        path.write_bytes(raw)
        try:
            with open_signal(path) as signal:
                for chrom, length in signal.lengths.items():
                    signal.values(chrom, 0, min(length, 5000))
        except InputError:
            continue


def test_a_section_that_goes_past_its_chromosome_or_its_place_in_the_index_is_refused(
    tmp_path, good
):
    names = header(good)["chroms"] + 32 + 4
    width = struct.unpack_from("<I", good, header(good)["chroms"] + 8)[0]
    short = changed(good, names + width, "<II", 0, 4000)
    (tmp_path / "x.bw").write_bytes(short)
    with pytest.raises(FormatError, match="goes past the end of its chromosome"):
        BigWigFile(tmp_path / "x.bw").check()
    late = changed(good, first_section(good) + 4, "<I", 60)
    (tmp_path / "x.bw").write_bytes(late)
    with pytest.raises(FormatError, match="section 0 is not what the index says"):
        open_signal(tmp_path / "x.bw").values("chr1", 0, 5000)


def test_big_endian_files_are_read(tmp_path):
    """Made by hand: one chromosome, one section that is not compressed."""
    section = struct.pack(">IIIIIBBH", 0, 2, 6, 0, 0, 1, 0, 1) + struct.pack(">IIf", 2, 6, 7.5)
    chroms = struct.pack(">IIIIQQ", 0x78CA8C91, 1, 1, 8, 1, 0)
    chroms += struct.pack(">BBH1sII", 1, 0, 1, b"c", 0, 10)
    data = 64 + len(chroms)
    index = data + 8 + len(section)
    tree = struct.pack(">IIQIIIIQII", 0x2468ACE0, 1, 1, 0, 2, 0, 6, index, 1, 0)
    tree += struct.pack(">BBHIIIIQQ", 1, 0, 1, 0, 2, 0, 6, data + 8, len(section))
    head = struct.pack(">IHHQQQHHQQIQ", 0x888FFC26, 4, 0, 64, data, index, 0, 0, 0, 0, 0, 0)
    path = Path(tmp_path / "x.bw")
    path.write_bytes(head + chroms + struct.pack(">Q", 1) + section + tree)
    with open_signal(path) as signal:
        expected = dense([("c", 2, 6, 7.5)], "c", 10)
        np.testing.assert_array_equal(signal.values("c", 0, 10), expected)
    assert BigWigFile(path).check() == 1
