"""Variants are what the file says and what the genome has, or they are refused."""

import gzip
import math
import random

import numpy as np
import pandas as pd
import pysam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.counts import Counts
from data_tools.errors import FormatError, InputError
from data_tools.formats import vcf
from data_tools.formats.values import WrongRowError
from data_tools.genome import Genome
from data_tools.variants import read_variants

HEAD = "##fileformat=VCFv4.3\n##contig=<ID=c>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
LETTERS = "ACGTNACGTTGCAacgtRAAA"


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genome")
    (folder / "g.fa").write_text(f">chr1\n{LETTERS}\n>chrM\nACGT\n")
    with Genome(folder / "g.fa", cache_dir=folder) as source:
        yield source


def read(tmp_path, rows, head=HEAD, genome=None, **options):
    path = tmp_path / "x.vcf"
    text = head + "".join("\t".join(map(str, row)) + "\n" for row in rows)
    path.write_bytes(text.encode())
    return read_variants(path, genome, **options)


def row(chrom="chr1", pos=1, ref="A", alt="C", name=".", qual=".", passed="."):
    return [chrom, pos, name, ref, alt, qual, passed, "."]


def test_a_random_file_is_read_as_pysam_reads_it(tmp_path):
    draw = random.Random(1)
    rows, seen = [], set()
    while len(rows) < 300:
        ref = "".join(draw.choices("ACGT", k=draw.randint(1, 4)))
        alts = {"".join(draw.choices("ACGT", k=draw.randint(1, 4))) for _ in range(3)} - {ref}
        pos = draw.randint(1, 10**8)
        if not alts or pos in seen:
            continue
        seen.add(pos)
        found = row("c", pos, ref, ",".join(sorted(alts)), f"rs{pos}", draw.choice([".", "29.5"]))
        rows.append([*found, "GT", "0/1"])
    head = HEAD.replace("INFO\n", "INFO\tFORMAT\tme\n").replace(
        "##contig", '##FORMAT=<ID=GT,Number=1,Type=String,Description="g">\n##contig'
    )
    table = read(tmp_path, rows, head)
    expected = []
    with pysam.VariantFile(str(tmp_path / "x.vcf")) as handle:
        for record in handle:
            for at, alt in enumerate(record.alts, start=1):
                quality = math.nan if record.qual is None else record.qual
                expected.append(
                    ["c", record.start, record.stop, record.id, record.ref, alt, at, quality]
                )
    names = ["chrom", "start", "end", "name", "ref", "alt", "allele", "qual"]
    pd.testing.assert_frame_equal(
        table[names], pd.DataFrame(expected, columns=names), check_dtype=False
    )


@pytest.mark.parametrize("form", ["gzip", "bgzip", "CRLF", "mark"])
def test_the_table_does_not_depend_on_the_form_of_the_file(tmp_path, form):
    raw = (HEAD + "c\t5\tNA\ta\tC,G\t3e1\tq10;s50\tX=1\n").encode()
    path = tmp_path / "x.vcf"
    if form == "bgzip":
        with pysam.BGZFile(str(path), "w") as handle:
            handle.write(raw)
    else:
        change = {
            "gzip": gzip.compress,
            "CRLF": lambda text: text.replace(b"\n", b"\r\n"),
            "mark": lambda text: b"\xef\xbb\xbf" + text,
        }[form]
        path.write_bytes(change(raw))
    table = read_variants(path)
    assert table.to_numpy().tolist() == [
        ["c", 4, 5, "NA", "A", "C", 1, 30.0, "q10;s50"],
        ["c", 4, 5, "NA", "A", "G", 2, 30.0, "q10;s50"],
    ]


def test_what_is_a_dot_is_missing(tmp_path):
    table = read(tmp_path, [row()])
    assert table[["name", "qual", "filter"]].isna().all(axis=None)


def test_a_file_without_variants_is_an_empty_table(tmp_path):
    table = read(tmp_path, [])
    assert len(table) == 0
    assert "alt" in table


FAULTS = {
    "no fileformat": ("#CHROM\tPOS\n", 1, "not VCF 4"),
    "version 3": ("##fileformat=VCFv3.3\n", 1, "not VCF 4"),
    "no header": ("##fileformat=VCFv4.2\nc\t1\t.\tA\tC\t.\t.\t.\n", 2, "header line is not"),
    "short header": (HEAD.replace("\tINFO", ""), 3, "header line is not"),
    "blanks in the header": (HEAD.replace("\t", " "), 3, "header line is not"),
    "no FORMAT": (HEAD.replace("INFO", "INFO\tme"), 3, "header line is not"),
    "sample twice": (HEAD.replace("INFO", "INFO\tFORMAT\tx\tx"), 3, "'x' occurs twice"),
    "short row": (HEAD + "c\t1\t.\tA\tC\t.\t.\n", 4, "7 columns, the header has 8"),
    "long row": (HEAD + "c\t1\t.\tA\tC\t.\t.\t.\tGT\n", 4, "9 columns, the header has 8"),
    "blanks for tabs": (HEAD + "c 1 . A C . . .\n", 4, "1 columns"),
    "late header": (HEAD + "c\t1\t.\tA\tC\t.\t.\t.\n##x\n", 5, "header line among the rows"),
    "no chrom": (HEAD + "\t1\t.\tA\tC\t.\t.\t.\n", 4, "CHROM is empty"),
    "blank in ID": (HEAD + "c\t1\ta b\tA\tC\t.\t.\t.\n", 4, "ID is empty or holds a blank"),
    "POS float": (HEAD + "c\t1.0\t.\tA\tC\t.\t.\t.\n", 4, "POS is not an integer"),
    "POS below 0": (HEAD + "c\t-1\t.\tA\tC\t.\t.\t.\n", 4, "POS is below 0"),
    "no REF": (HEAD + "c\t1\t.\t\tC\t.\t.\t.\n", 4, "REF holds something else"),
    "dot REF": (HEAD + "c\t1\t.\t.\tC\t.\t.\t.\n", 4, "REF holds something else"),
    "REF of R": (HEAD + "c\t1\t.\tR\tC\t.\t.\t.\n", 4, "REF holds something else"),
    "RNA": (HEAD + "c\t1\t.\tU\tC\t.\t.\t.\n", 4, "REF holds something else"),
    "same": (HEAD + "c\t1\t.\tA\ta\t.\t.\t.\n", 4, "ALT is the same as REF"),
    "no ALT": (HEAD + "c\t1\t.\tA\t\t.\t.\t.\n", 4, "ALT is neither"),
    "empty ALT": (HEAD + "c\t1\t.\tA\tC,\t.\t.\t.\n", 4, "ALT is neither"),
    "odd ALT": (HEAD + "c\t1\t.\tA\tC/G\t.\t.\t.\n", 4, "ALT is neither"),
    "half symbolic": (HEAD + "c\t1\t.\tA\t<DEL\t.\t.\t.\n", 4, "ALT is neither"),
    "QUAL": (HEAD + "c\t1\t.\tA\tC\tnan\t.\t.\n", 4, "QUAL is not a number"),
    "no FILTER": (HEAD + "c\t1\t.\tA\tC\t.\t\t.\n", 4, "FILTER is empty"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_line_stops_the_reading_and_is_named_by_file_and_line(tmp_path, fault):
    text, line, words = FAULTS[fault]
    path = tmp_path / "x.vcf"
    path.write_text(text)
    with pytest.raises(FormatError, match=words) as caught:
        read_variants(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "##fileformat=VCFv4.2\n##x\n"])
def test_a_file_that_is_cut_before_its_header_line_is_refused(tmp_path, text):
    (tmp_path / "x.vcf").write_text(text)
    with pytest.raises(FormatError, match="no header line"):
        read_variants(tmp_path / "x.vcf")


@pytest.mark.parametrize(
    ("alt", "kind"),
    [
        ("<DEL>", "symbolic allele"),
        ("<INS:ME:ALU>", "symbolic allele"),
        ("*", r"allele \*"),
        (".", "no alternative allele"),
        ("A[chr2:5[", "breakend"),
        ("]chr2:5]A", "breakend"),
        ("A.", "breakend"),
        (".A", "breakend"),
    ],
)
def test_what_is_no_sequence_is_refused_or_dropped_and_the_other_alleles_stay(tmp_path, alt, kind):
    rows = [row(alt=f"C,{alt}" if alt != "." else "."), row(pos=2, ref="C", alt="T")]
    with pytest.raises(InputError, match=rf"x\.vcf:4: {kind} .*not_sequence='drop'"):
        read(tmp_path, rows)
    counts = Counts()
    table = read(tmp_path, rows, not_sequence="drop", counts=counts)
    assert table["alt"].tolist() == (["C", "T"] if alt != "." else ["T"])
    dropped = [what for what in counts if "dropped" in what and counts[what]]
    assert dropped == [f"{tmp_path / 'x.vcf'}: dropped, {kind.replace(chr(92), '')}"]


def test_ref_is_what_the_genome_has_whatever_the_case(tmp_path, genome):
    rows = [
        row(pos=1, ref="acg", alt="a"),
        row(pos=4, ref="TN", alt="T"),
        row(pos=14, ref="A", alt="T"),
        row(pos=18, ref="N", alt="T"),
    ]
    table = read(tmp_path, rows, genome=genome)
    assert table["ref"].tolist() == ["ACG", "TN", "A", "N"]
    assert table["end"].tolist() == [3, 5, 14, 18]


def test_a_ref_that_the_genome_has_not_is_refused_or_dropped_and_counted(tmp_path, genome):
    rows = [row(), row(pos=2, ref="G", alt="T"), row(pos=6, ref="ACGA", alt="A")]
    with pytest.raises(InputError, match=r"x\.vcf:5: REF 'G' but the genome has 'C' at chr1:2"):
        read(tmp_path, rows, genome=genome)
    counts = Counts()
    assert len(read(tmp_path, rows, genome=genome, ref_mismatch="drop", counts=counts)) == 1
    assert counts[f"{tmp_path / 'x.vcf'}: dropped, REF is not what the genome has"] == 2


def test_the_check_of_ref_agrees_with_a_lookup_of_each(tmp_path, genome):
    draw = random.Random(2)
    rows = []
    for _ in range(200):
        start = draw.randrange(len(LETTERS))
        ref = "".join(draw.choices("ACGTN", k=draw.randint(1, 3)))
        rows.append(row(pos=start + 1, ref=ref, alt="A" * 9))
    options = {"out_of_range": "drop", "ref_mismatch": "drop", "duplicates": "keep"}
    table = read(tmp_path, rows, genome=genome, counts=Counts(), **options)
    plain = LETTERS.upper().replace("R", "N")
    expected = [(r[1] - 1, r[3]) for r in rows if plain[r[1] - 1 :][: len(r[3])] == r[3]]
    assert list(zip(table["start"], table["ref"], strict=True)) == expected
    assert 5 < len(expected) < 150


def test_what_does_not_lie_on_the_genome_is_refused_with_the_cure_or_dropped(tmp_path, genome):
    far = row(pos=21, ref="AC", alt="T")
    with pytest.raises(InputError, match=r"x\.vcf:4: the end of REF, 22, is past .* chr1 \(21\)"):
        read(tmp_path, [far], genome=genome)
    with pytest.raises(InputError, match="no allele is left"):
        read(tmp_path, [far], genome=genome, out_of_range="drop", counts=Counts())
    with pytest.raises(InputError, match=r"unknown chromosome '1'.*chrom_style='match'"):
        read(tmp_path, [row("1")], genome=genome)
    both = [row("1"), row("MT", 2, "C", "A"), row("9")]
    options = {"chrom_style": "match", "unknown_chrom": "drop", "counts": Counts()}
    table = read(tmp_path, both, genome=genome, **options)
    assert table["chrom"].tolist() == ["chr1", "chrM"]


def test_duplicates_are_refused_dropped_or_kept(tmp_path):
    rows = [row(alt="C,G"), row(alt="g"), row(alt="T")]
    with pytest.raises(InputError, match=r"x\.vcf:5: the allele occurs before"):
        read(tmp_path, rows)
    assert len(read(tmp_path, rows, duplicates="keep")) == 4
    assert read(tmp_path, rows, duplicates="drop", counts=Counts())["alt"].tolist() == list("CGT")


def test_a_position_of_0_is_no_sequence(tmp_path):
    with pytest.raises(InputError, match="position 0"):
        read(tmp_path, [row(pos=0)])


def test_many_samples_do_not_have_to_be_read(tmp_path):
    names = "\t".join(f"s{i}" for i in range(2000))
    head = HEAD.replace("INFO\n", f"INFO\tFORMAT\t{names}\n")
    calls = ["GT", *["0|1"] * 2000]
    table = read(tmp_path, [[*row(pos=i), *calls] for i in range(1, 300)], head)
    assert table["start"].tolist() == np.arange(299).tolist()


# --- the quick way gives what the exact way gives -------------------------------------------

vcf_bases = st.text("ACGTNacgtn", min_size=1, max_size=12)
vcf_rows = st.tuples(
    st.sampled_from(["chr1", "2", "HLA*01"]),
    st.one_of(st.integers(0, 3).map(str), st.integers(1, 10**9).map(str)),
    st.sampled_from([".", "rs1", "a;b"]),
    vcf_bases,
    st.one_of(vcf_bases, st.sampled_from(["A,C", "<DEL>", "*", ".", "A,<INS>", "]c:5]T", "T."])),
    st.sampled_from([".", "30", "1e3", "12.125", "-1.5"]),
    st.sampled_from([".", "PASS", "q10;s50"]),
    st.sampled_from([".", "DP=3;AF=0.5"]),
).map("\t".join)


def both_ways(text):
    """What the two ways give for rows without a header; the exact one with its first fault."""
    alleles, fault = [], None
    for line, row in enumerate(text.removesuffix("\n").split("\n"), start=5):
        try:
            alleles += vcf.row_alleles(row, line, 8)
        except WrongRowError as wrong:
            fault = wrong
    return vcf.quick(text.encode(), 5, 8), vcf.as_table(alleles), fault


@given(st.lists(vcf_rows, min_size=1, max_size=6))
def test_rows_read_at_once_have_the_values_of_rows_read_one_by_one(rows):
    quick, exact, fault = both_ways("".join(row + "\n" for row in rows))
    assert (quick is None) >= (fault is not None)
    if quick is not None:
        pd.testing.assert_frame_equal(quick, exact)


def test_rows_of_one_allele_are_read_at_once_beside_others():
    row = "c\t{}\t.\tA\t{}\t.\tPASS\t."
    quick, exact, fault = both_ways(row.format(1, "t") + "\n" + row.format(2, "C,<DEL>,G") + "\n")
    assert fault is None
    assert quick is not None
    pd.testing.assert_frame_equal(quick, exact)


@given(st.lists(vcf_rows, min_size=1, max_size=4), st.data())
def test_rows_read_at_once_are_never_rows_that_are_refused_one_by_one(rows, data):
    text = "".join(row + "\n" for row in rows)
    place = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from([*"019.,-+e# \tAx\n<é", ""]))
    text = text[:place] + put + text[place + data.draw(st.integers(0, 1)) :]
    text = text if text.endswith("\n") else text + "\n"
    quick, exact, fault = both_ways(text)
    if quick is not None:
        assert fault is None
        pd.testing.assert_frame_equal(quick, exact)
