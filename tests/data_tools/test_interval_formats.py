"""All formats of intervals, the quick way of reading them, and the policies."""

import gzip
import os
import random
import re
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_tools.counts import Counts, DroppedWarning
from data_tools.errors import FormatError, InputError
from data_tools.faults import Faults
from data_tools.formats import bed
from data_tools.formats.bed import read_rows
from data_tools.formats.fields import Fields
from data_tools.intervals import read_intervals

BED6 = "c\t10\t30\tp\t5\t+"
EXONS = BED6 + "\t12\t28\t255,0,128\t3\t5,4,2,\t0,8,18,"
BROAD = BED6 + "\t1.5\t2\t-1"
NARROW = BROAD + "\t4"


def read(tmp_path, content, name="x.bed", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_intervals(path, **options)


# --- BED8, BED9, BED12, broadPeak -----------------------------------------------------------


@pytest.mark.parametrize("count", [8, 9, 12])
def test_bed_of_8_9_and_12_columns_is_read_with_its_columns(tmp_path, count):
    table = read(tmp_path, "\t".join(EXONS.split("\t")[:count]))
    values = ["c", 10, 30, "p", 5, "+", 12, 28, "255,0,128", 3, (5, 4, 2), (0, 8, 18)]
    assert table.iloc[0].tolist() == values[:count]
    assert list(table.columns) == list(bed.BED[:count])


def test_lists_of_blocks_are_read_with_and_without_the_last_comma(tmp_path):
    bare = EXONS.replace("5,4,2,", "5,4,2").replace("0,8,18,", "0,8,18")
    table = read(tmp_path, f"{EXONS}\n{bare}\n")
    assert table["block_sizes"].tolist() == [(5, 4, 2)] * 2
    assert table["block_starts"].tolist() == [(0, 8, 18)] * 2


def test_broad_peak_is_read_with_its_columns(tmp_path):
    table = read(tmp_path, BROAD + "\n")
    assert list(table.columns[6:]) == ["signal", "p_value", "q_value"]
    assert table.iloc[0, 6:].tolist() == [1.5, 2.0, -1.0]


@pytest.mark.parametrize(
    ("name", "row", "options", "is_peak"),
    [
        ("x.bed", BED6 + "\t10\t30\t0", {}, False),
        ("x.bed", BED6 + "\t10\t30\t1,2,3", {}, False),
        ("x.bed", BED6 + "\t10.0\t30\t0", {}, True),
        ("x.bed", BED6 + "\t9\t30\t0", {}, True),
        ("x.bed", BED6 + "\t12\t11\t0", {}, True),
        ("x.bed", BED6 + "\t12\t13\t-1", {}, True),
        ("x.broadPeak", BED6 + "\t10\t30\t0", {}, True),
        ("x.BROADPEAK.gz", BED6 + "\t10\t30\t0", {}, True),
        ("x.broadPeak", BED6 + "\t10\t30\t0", {"format": "bed"}, False),
        ("x.bed", BED6 + "\t10\t30\t0", {"format": "broadPeak"}, True),
    ],
)
def test_nine_columns_are_told_by_argument_then_name_then_first_row(
    tmp_path, name, row, options, is_peak
):
    assert ("signal" in read(tmp_path, row, name, **options)) == is_peak


WRONG = {
    "thick before start": (EXONS.replace("\t12\t", "\t9\t"), "thick_start .* outside"),
    "thick past end": (EXONS.replace("\t28\t", "\t31\t"), "thick_end .* outside"),
    "thick reversed": (EXONS.replace("\t12\t28", "\t20\t19"), "before thick_start"),
    "thick float": (EXONS.replace("\t12\t", "\t12.0\t"), "thick_start is not an integer"),
    "colour of 256": (EXONS.replace("255,0,128", "256,0,128"), "item_rgb .* 255,0,0"),
    "colour of two": (EXONS.replace("255,0,128", "255,0"), "item_rgb"),
    "colour by name": (EXONS.replace("255,0,128", "red"), "item_rgb"),
    "too few sizes": (EXONS.replace("5,4,2,", "5,4,"), "block_sizes .* 2 numbers, block_count"),
    "too few starts": (EXONS.replace("0,8,18,", "0,8,"), "block_starts .* 2 numbers"),
    "two last commas": (EXONS.replace("5,4,2,", "5,4,2,,"), "not a list of integers"),
    "blank in a list": (EXONS.replace("5,4,2,", "5, 4,2,"), "not a list of integers"),
    "no blocks": (EXONS.replace("\t3\t5,4,2,\t0,8,18,", "\t0\t\t"), "not a list"),
    "size 0": (EXONS.replace("5,4,2,", "5,0,2,"), "no length"),
    "first block": (EXONS.replace("0,8,18,", "1,8,18,"), "does not begin at 0"),
    "last block": (EXONS.replace("0,8,18,", "0,8,17,"), "does not end at end"),
    "overlap": (EXONS.replace("5,4,2,", "9,4,2,"), "overlap or are not in order"),
    "order": (EXONS.replace("0,8,18,", "0,18,8,"), "overlap or are not in order"),
    "below 0": (EXONS.replace("0,8,18,", "0,-8,18,"), "not a list of integers"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_column_from_7_on_is_named_with_what_the_file_was_taken_for(tmp_path, fault):
    row, words = WRONG[fault]
    with pytest.raises(FormatError, match=r"x\.bed:2: .*" + words) as caught:
        read(tmp_path, f"{EXONS}\n{row}\n")
    assert str(caught.value).endswith("(its 12 columns are read as BED12)")


@pytest.mark.parametrize("count", [10, 11])
def test_bed_of_10_or_11_columns_does_not_exist(tmp_path, count):
    row = "\t".join(EXONS.split("\t")[:count])
    with pytest.raises(FormatError, match=f"{count} columns, supported are"):
        read(tmp_path, row, format="bed")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="format 'gff' does not exist: choose one of bed"):
        read(tmp_path, BED6, format="gff")


# --- scores that are no integers from 0 to 1000 -----------------------------------------------


@pytest.mark.parametrize("score", ["22.9613", "1001", "-0.5", "3e-7", ".5"])
def test_a_score_that_is_any_number_is_refused_with_the_remedy_and_read_with_it(tmp_path, score):
    text = f"c\t1\t9\tp\t5\nc\t1\t9\tp\t{score}\n"
    with pytest.raises(FormatError, match=r"x\.bed:2: score .*, or pass score='number'"):
        read(tmp_path, text)
    table = read(tmp_path, text, score="number")
    assert table["score"].dtype == np.float64
    assert table["score"].tolist() == [5.0, float(score)]


@pytest.mark.parametrize("score", ["nan", "inf", "1e999", ".", "", "1,5", "0x1"])
def test_a_score_that_is_no_finite_number_is_refused_all_the_same(tmp_path, score):
    with pytest.raises(FormatError, match=r"x\.bed:1: score is (not a number|too large)"):
        read(tmp_path, f"c\t1\t9\tp\t{score}\n", score="number")


def test_a_peak_file_takes_any_score_with_the_same_word(tmp_path):
    row = NARROW.replace("\tp\t5\t", "\tp\t1234.5\t")
    assert read(tmp_path, row, score="number")["score"].tolist() == [1234.5]


def test_a_policy_for_scores_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match="choose 'integer' or 'number'"):
        read(tmp_path, BED6, score="float")


@pytest.mark.skipif("SEQNORM_SHARED_DATA" not in os.environ, reason="needs SEQNORM_SHARED_DATA")
def test_real_files_of_peaks_with_fractional_scores_are_read_as_they_stand():
    folder = Path(os.environ["SEQNORM_SHARED_DATA"]) / "human_chrom" / "peaks_genomewide"
    files = sorted(folder.glob("*.bed.gz"))
    assert len(files) == 22
    for path in files:
        table = read_intervals(path, score="number")
        with gzip.open(path, "rt") as stream:
            rows = [line.rstrip("\n").split("\t") for line in stream if line[0] != "#"]
        assert table["score"].tolist() == [float(row[4]) for row in rows]
        assert table["start"].tolist() == [int(row[1]) for row in rows]


# --- the quick way gives what the exact way gives -------------------------------------------

names = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=16
)
chroms = names.filter(lambda name: not name.startswith("#"))
digits = st.integers(0, 12).flatmap(lambda n: st.integers(0, 10**n))
floats = st.one_of(
    st.floats(-1e6, 1e6).map(repr),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(-(10**8), 10**8, places=4).map(lambda d: f"{d:f}"),
    st.sampled_from(["0", "-0", "+1.5", ".5", "5.", "1e3", "007", "0.1", "123456789.123456789"]),
)
level = st.one_of(st.just("-1"), floats.map(lambda text: text.lstrip("-")))


@st.composite
def rows(draw, layout):
    start = draw(digits)
    end = start + draw(st.integers(1, 10**6))
    low = draw(st.integers(start, end))
    fields = {
        "chrom": draw(st.one_of(st.sampled_from(["chr1", "chr2", "chrUn_GL000220v1"]), chroms)),
        "start": start,
        "end": end,
        "name": draw(names),
        "score": draw(floats if layout.score == "number" else st.integers(0, 1000)),
        "strand": draw(st.sampled_from("+-.")),
        "thick_start": low,
        "thick_end": draw(st.integers(low, end)),
        "item_rgb": draw(st.sampled_from(["0", "255,0,0", "1,20,199"])),
        "block_count": 1,
        "block_sizes": f"{end - start},",
        "block_starts": "0",
        "signal": draw(floats),
        "p_value": draw(level),
        "q_value": draw(level),
        "summit": draw(st.integers(-1, end - start - 1)),
    }
    return "\t".join(str(fields[name]) for name in layout.columns)


LAYOUTS = [
    bed.Layout("bed", bed.BED[:3]),
    bed.Layout("bed", bed.BED[:6]),
    bed.Layout("bed", bed.BED[:7]),
    bed.Layout("bed", bed.BED),
    bed.Layout("broadPeak", bed.PEAK),
    bed.Layout("narrowPeak", (*bed.PEAK, "summit")),
    bed.Layout("bed", bed.BED[:5], "number"),
    bed.Layout("narrowPeak", (*bed.PEAK, "summit"), "number"),
]


def assert_same(quick, exact):
    assert list(quick) == list(exact)
    for name, column in exact.items():
        assert quick[name].dtype == column.dtype, name
        if column.dtype == np.float64:
            assert quick[name].tobytes() == column.tobytes(), name
        else:
            assert quick[name].tolist() == column.tolist(), name


def both(data, layout):
    lines = np.arange(1, data.count(b"\n") + 1)
    faults = Faults(Path("x"), keep=1)
    exact, _ = bed.exact(data, lines, layout, 1, faults)
    return bed.quick(data, layout), exact, faults


@given(st.data(), st.sampled_from(LAYOUTS))
def test_the_quick_way_gives_the_values_of_the_exact_way_bit_for_bit(data, layout):
    lines = data.draw(st.lists(rows(layout), min_size=1, max_size=6))
    text = "".join(line + "\n" for line in lines).encode()
    quick, exact, faults = both(text, layout)
    assert faults.count == 0
    assert quick is not None
    assert_same(quick, exact)


@given(st.data(), st.sampled_from(LAYOUTS))
def test_the_quick_way_never_accepts_what_the_exact_way_refuses(data, layout):
    lines = data.draw(st.lists(rows(layout), min_size=1, max_size=4))
    text = bytearray("".join(line + "\n" for line in lines).encode())
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, len(text) - 1))
        put = data.draw(st.sampled_from([*b"0159-+.,eE_ \tax\n/:;", None]))
        text[place : place + data.draw(st.integers(0, 1))] = b"" if put is None else bytes([put])
    raw = bytes(text)
    try:
        raw.decode()
    except UnicodeDecodeError:
        return
    raw = raw if raw.endswith(b"\n") else raw + b"\n"
    raw = b"".join(line for line in raw.splitlines(keepends=True) if line != b"\n")
    if not raw or raw.count(b"\n") != len(raw.decode().split("\n")) - 1:
        return
    quick, exact, faults = both(raw, layout)
    if quick is not None:
        assert faults.count == 0
        assert_same(quick, exact)


@pytest.mark.parametrize("storage", ["python", "pyarrow"])
def test_strings_are_those_of_the_exact_way_however_pandas_keeps_them(storage):
    if storage == "pyarrow":
        pytest.importorskip("pyarrow")
    names = ["chr1", "chr1", "NA", "chré", "c" * 70]
    text = "".join(
        f"{name}\t{at}\t9\ta b{at}é\t0\t{'+-.'[at % 3]}\n" for at, name in enumerate(names)
    )
    with pd.option_context("mode.string_storage", storage):
        quick, exact, _ = both(text.encode(), bed.Layout("bed", bed.BED[:6]))
        assert_same(quick, exact)


@pytest.mark.parametrize("chrom", ["chr 1", "chr\u00a01", "\u3000", ""])
def test_a_blank_of_any_alphabet_in_a_chromosome_is_not_read_the_quick_way(chrom):
    quick, _, faults = both(f"c\t1\t2\n{chrom}\t1\t2\n".encode(), bed.Layout("bed", bed.BED[:3]))
    assert quick is None
    assert faults.kept[0].startswith("x:2: chrom is empty or holds a blank")


def test_every_byte_in_a_number_is_looked_at():
    for length in range(1, 14):
        for place in range(length):
            digits = bytearray(b"1234567890123"[:length])
            for byte in range(11, 256):
                digits[place] = byte
                fields = Fields.of(bytes(digits) + b"\n", 1)
                found = fields.integers(0)
                if 48 <= byte <= 57:
                    assert found.tolist() == [int(digits)]
                else:
                    assert found is None


@example("99999999999999999", "0")
@given(floats, floats)
def test_decimals_are_rounded_as_float_rounds_them(first, second):
    fields = Fields.of(f"{first}\t{second}\n".encode(), 2)
    for column, text in enumerate((first, second)):
        values, rest = fields.decimals(column)
        if not rest.size:
            assert values.tobytes() == np.float64(float(text)).tobytes()


def test_many_short_decimals_side_by_side_are_those_of_float_and_none_is_left_over():
    draw = random.Random(1)
    texts = []
    for _ in range(20_000):
        digits = "".join(draw.choices("0123456789", k=draw.randint(1, 17)))
        dot = draw.choice(["", "."])
        place = draw.randint(0, len(digits))
        sign = draw.choice(["", "", "-", "+"])
        texts.append(sign + digits[:place] + dot + digits[place:])
    values, rest = Fields.of("".join(f"{text}\n" for text in texts).encode(), 1).decimals(0)
    expected = np.array(list(map(float, texts)))
    left = np.zeros(len(texts), dtype=bool)
    left[rest] = True
    assert values[~left].tobytes() == expected[~left].tobytes()
    assert left.tolist() == [sum(c.isdigit() for c in text) > 15 for text in texts]


def test_what_is_no_decimal_is_left_to_the_caller_whatever_stands_beside_it():
    draw = random.Random(2)
    texts = ["".join(draw.choices("0159.-+e ", k=draw.randint(0, 10))) for _ in range(20_000)]
    texts += ["1.5:", "5/", "1é.5", "/.5", "1.:", ".", "-", "", "1..2", "1.2.3"]
    _, rest = Fields.of("".join(f"{text}\n" for text in texts).encode(), 1).decimals(0)
    plain = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)")
    assert rest.tolist() == [i for i, text in enumerate(texts) if not plain.fullmatch(text)]


def test_a_file_of_many_blocks_is_read_as_one(tmp_path, monkeypatch):
    draw = random.Random(0)
    lines, expected = [], []
    for i in range(500):
        if draw.random() < 0.1:
            lines.append(draw.choice(["#comment", "", "track name=x", "browser hide"]))
        start = draw.randrange(10**9)
        expected.append([f"chr{draw.randrange(3)}", start, start + 5, f"peak{i}"])
        lines.append("\t".join(map(str, expected[-1])))
    path = tmp_path / "x.bed"
    path.write_text("\r\n".join(lines))
    for size in (7, 100, 1 << 20):
        _, columns, numbers = read_rows(path, Faults(path), size=size)
        assert [list(row) for row in zip(*columns.values(), strict=True)] == expected
        assert [lines[i - 1] for i in numbers] == ["\t".join(map(str, row)) for row in expected]


def test_the_line_of_a_fault_does_not_depend_on_blocks(tmp_path):
    path = tmp_path / "x.bed"
    path.write_text("#\n" + "c\t1\t2\n" * 50 + "c\t2\t1\n" + "c\t1\t2\n" * 50 + "c\t1\n")
    for size in (1, 30, 1 << 20):
        with pytest.raises(FormatError, match=r"x\.bed:52: end is not above start: '1'"):
            read_rows(path, Faults(path), size=size)
        faults = Faults(path, keep=5)
        assert len(read_rows(path, faults, size=size)[2]) == 100
        assert [fault.split(": ")[1][:9] for fault in faults.kept] == ["end is no", "2 columns"]


def test_memory_is_a_small_multiple_of_the_table(tmp_path):
    path = tmp_path / "x.bed"
    path.write_text("".join(f"chr1\t{i}\t{i + 9}\n" for i in range(1_000_000, 1_400_000)))
    tracemalloc.start()
    try:
        table = read_intervals(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(table) == 400_000
    assert peak < 200 << 20


# --- policies --------------------------------------------------------------------------------

GENOME = SimpleNamespace(lengths={"chr1": 100, "chr2": 50, "chrM": 16})
STRAY = "chr1\t0\t10\nchr9\t1\t2\nchr2\t49\t51\nchr1\t0\t10\nchr1\t5\t6\n"


def test_what_does_not_fit_the_genome_is_dropped_and_counted_on_request(tmp_path):
    counts = Counts()
    table = read(
        tmp_path,
        STRAY,
        genome=GENOME,
        unknown_chrom="drop",
        out_of_range="drop",
        duplicates="drop",
        counts=counts,
    )
    assert table.to_numpy().tolist() == [["chr1", 0, 10], ["chr1", 5, 6]]
    assert list(table.index) == [0, 1]
    path = tmp_path / "x.bed"
    assert counts == {
        f"{path}: rows": 5,
        f"{path}: dropped, on a chromosome that the genome lacks": 1,
        f"{path}: dropped, past the end of the chromosome": 1,
        f"{path}: dropped, duplicates": 1,
    }


@pytest.mark.filterwarnings("always::data_tools.counts.DroppedWarning")
def test_what_is_dropped_and_not_counted_is_a_warning(tmp_path):
    with pytest.warns(DroppedWarning, match=r"x\.bed: dropped, duplicates: 1"):
        read(tmp_path, STRAY, duplicates="drop")


def test_a_file_of_which_nothing_is_left_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"x\.bed: no interval is left"):
        read(tmp_path, "1\t0\t5\n", genome=GENOME, unknown_chrom="drop", counts=Counts())


def test_duplicates_are_kept_and_counted_unless_they_are_an_error(tmp_path):
    counts = Counts()
    assert len(read(tmp_path, STRAY, counts=counts)) == 5
    assert counts[f"{tmp_path / 'x.bed'}: kept, duplicates"] == 1
    with pytest.raises(InputError, match=r"x\.bed:4: the same place as line 1"):
        read(tmp_path, STRAY, duplicates="error")


def test_rows_that_differ_in_strand_summit_or_blocks_are_no_duplicates(tmp_path):
    strands = "c\t1\t9\ta\t0\t+\nc\t1\t9\tb\t0\t-\nc\t1\t9\tb\t5\t-\n"
    table = read(tmp_path, strands, duplicates="drop", counts=Counts())
    assert table["strand"].tolist() == ["+", "-"]
    other = NARROW[:-1] + "5"
    assert len(read(tmp_path, f"{NARROW}\n{other}\n", duplicates="error")) == 2
    other = EXONS.replace("5,4,2,", "6,4,2,")
    assert len(read(tmp_path, f"{EXONS}\n{other}\n", duplicates="error")) == 2


def test_summits_that_are_missing_or_outside_follow_their_policies(tmp_path):
    text = "\n".join([NARROW, NARROW[:-1] + "-1", NARROW[:-1] + "20", NARROW[:-1] + "-2"])
    options = {"counts": Counts()}
    dropped = read(tmp_path, text, summit_outside="drop", **options)
    assert dropped["summit"].tolist()[0] == 14
    assert dropped["summit"].isna().tolist() == [False, True]
    kept = read(tmp_path, text, summit_outside="missing", **options)
    assert kept["summit"].isna().tolist() == [False, True, True, True]
    none = read(tmp_path, text, summit_outside="missing", summit_missing="drop", **options)
    assert none["summit"].tolist() == [14]
    assert str(none["summit"].dtype) == "int64"
    with pytest.raises(FormatError, match=r"x\.bed:2: summit \(column 10\) is missing"):
        read(tmp_path, text, summit_outside="drop", summit_missing="error", **options)
    with pytest.raises(FormatError, match=r"x\.bed:3: summit .* outside the interval: '20'"):
        read(tmp_path, text, **options)


def test_names_of_chromosomes_are_matched_on_request_alone_and_the_error_says_how(tmp_path):
    text = "1\t0\t5\nMT\t1\t2\nchr2\t3\t4\n"
    with pytest.raises(InputError, match=r"did you mean 'chr1'.*pass chrom_style='match' to read"):
        read(tmp_path, text, genome=GENOME)
    table = read(tmp_path, text, genome=GENOME, chrom_style="match")
    assert table["chrom"].tolist() == ["chr1", "chrM", "chr2"]
    with pytest.raises(InputError, match="'1' and 'chr1' both mean 'chr1'"):
        read(tmp_path, "1\t0\t5\nchr1\t0\t5\n", genome=GENOME, chrom_style="match")
    both = SimpleNamespace(lengths={"M": 16, "MT": 16})
    with pytest.raises(InputError, match="'chrM' may be 'MT' or 'M'"):
        read(tmp_path, "chrM\t0\t5\n", genome=both, chrom_style="match")


@pytest.mark.parametrize(
    "name",
    ["unknown_chrom", "out_of_range", "duplicates", "summit_missing", "summit_outside"],
)
def test_an_unknown_policy_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"{name}='ignore' does not exist: choose 'error'|'keep'"):
        read(tmp_path, BED6, **{name: "ignore"})


def test_the_columns_of_text_have_pandas_type_of_strings(tmp_path):
    table = read(tmp_path, BED6 + "\n" + BED6.replace("\tp\t", "\tNA\t"))
    assert table["name"].tolist() == ["p", "NA"]
    assert table["chrom"].dtype == pd.Series(["x"]).dtype
