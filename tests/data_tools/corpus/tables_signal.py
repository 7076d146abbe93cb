"""Odd and broken bedGraph files; see `tables_intervals`. Rows are the values of chr1:0-6."""

import gzip

READER = "signal"
NAN = float("nan")
FILE = b"chr1\t0\t2\t1.5\nchr1\t3\t1000\t-2\n"
GOOD = [[1.5, 1.5, NAN, -2, -2, -2]]

CASES = [
    ("plain", "a.bedgraph", FILE, {}, GOOD),
    ("CRLF", "a.bedgraph", FILE.replace(b"\n", b"\r\n"), {}, GOOD),
    ("called .bw", "a.bw", FILE, {}, GOOD),
    ("gzip", "a.bedgraph.gz", gzip.compress(FILE), {}, GOOD),
    ("gzip cut", "a.bedgraph.gz", gzip.compress(FILE)[:-5], {}, (None, "broken gzip")),
    ("not sorted", "a.bedgraph", b"\n".join(FILE.split(b"\n")[::-1]), {}, GOOD),
    ("track line", "a.bedgraph", b"track type=bedGraph name=x\n" + FILE, {}, GOOD),
    ("overlap", "a.bedgraph", FILE + b"chr1\t1\t2\t5\n", {}, (3, "overlaps line 1")),
    ("same twice", "a.bedgraph", FILE + b"chr1\t0\t2\t1.5\n", {}, (3, "overlaps line 1")),
    ("nan", "a.bedgraph", b"chr1\t0\t2\tnan\n", {}, (1, "value is not a number")),
    ("inf", "a.bedgraph", b"chr1\t0\t2\t-inf\n", {}, (1, "value is not a number")),
    ("overflow", "a.bedgraph", b"chr1\t0\t2\t1e999\n", {}, (1, "value is too large")),
    ("comma", "a.bedgraph", b"chr1\t0\t2\t1,5\n", {}, (1, "value is not a number")),
    ("reversed", "a.bedgraph", b"chr1\t2\t1\t5\n", {}, (1, "end is not above start")),
    (
        "past the end",
        "a.bedgraph",
        FILE + b"chr1\t1000\t1001\t1\n",
        {"genome": 1},
        (None, "chr1 is 1001 long, chr1 of the genome 1000"),
    ),
    (
        "style",
        "a.bedgraph",
        FILE.replace(b"chr", b""),
        {"genome": 1},
        (None, "chrom_style='match'"),
    ),
    ("wig", "a.wig", b"variableStep chrom=chr1\n1 5\n", {}, (1, "1 columns, bedGraph has 4")),
    ("BED3", "a.bed", b"chr1\t1\t2\n", {}, (1, "3 columns, bedGraph has 4")),
    ("empty", "a.bedgraph", b"", {}, (None, "holds no interval")),
    ("bigWig cut", "a.bw", b"\x26\xfc\x8f\x88\x04\x00", {}, (None, "broken bigWig")),
    (
        "bigWig of zeros",
        "a.bw",
        b"\x26\xfc\x8f\x88\x04\x00" + bytes(500),
        {},
        (None, "broken bigWig"),
    ),
    (
        "bigWig of ones",
        "a.bw",
        b"\x26\xfc\x8f\x88\x04\x00" + b"\xff" * 500,
        {},
        (None, "broken bigWig"),
    ),
]
