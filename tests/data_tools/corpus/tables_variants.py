"""Odd and broken VCF files; see `tables_intervals`. Rows are chrom, start, end, ref, alt."""

import gzip

READER = "variants"
HEAD = b"##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
ROW = b"chr1\t5\trs1\tA\tC\t30\tPASS\t.\n"
FILE = HEAD + ROW
GOOD = [["chr1", 4, 5, "A", "C"]]
ZIPPED = gzip.compress(FILE)


def row(pos=b"5", ref=b"A", alt=b"C", chrom=b"chr1"):
    return HEAD + b"\t".join([chrom, pos, b".", ref, alt, b".", b".", b"."]) + b"\n"


CASES = [
    ("plain", "a.vcf", FILE, {}, GOOD),
    ("CRLF", "a.vcf", FILE.replace(b"\n", b"\r\n"), {}, GOOD),
    ("gzip", "a.vcf.gz", ZIPPED, {}, GOOD),
    ("gzip cut", "a.vcf.gz", ZIPPED[:-5], {}, (None, "broken gzip")),
    ("trailing garbage", "a.vcf.gz", ZIPPED + b"x", {}, (None, "broken gzip")),
    ("empty", "a.vcf", b"", {}, (None, "no header line")),
    ("cut in the header", "a.vcf", HEAD[:30], {}, (2, "header line is not")),
    ("cut in a row", "a.vcf", FILE[:-6], {}, (3, "7 columns|8")),
    ("no header", "a.vcf", ROW, {}, (1, "not VCF 4")),
    ("BCF", "a.bcf", b"BCF\x02\x02" + bytes(20), {}, (1, "control")),
    ("Latin-1", "a.vcf", HEAD + ROW.replace(b"rs1", b"\xe9"), {}, (3, "not UTF-8")),
    ("split", "a.vcf", row(alt=b"C,AT"), {}, [*GOOD, ["chr1", 4, 5, "A", "AT"]]),
    ("lower case", "a.vcf", row(ref=b"a", alt=b"c"), {}, GOOD),
    ("deletion", "a.vcf", row(ref=b"ACG", alt=b"A"), {"genome": 1}, [["chr1", 4, 7, "ACG", "A"]]),
    ("REF mismatch", "a.vcf", row(ref=b"G"), {"genome": 1}, (3, "REF 'G' but the genome has 'A'")),
    ("half past the end", "a.vcf", row(b"1000", b"TA"), {"genome": 1}, (3, "past the end of chr1")),
    ("past the end", "a.vcf", row(b"99999"), {"genome": 1}, (3, "past the end of chr1")),
    ("style", "a.vcf", row(chrom=b"1"), {"genome": 1}, (3, "pass chrom_style='match'")),
    ("matched", "a.vcf", row(chrom=b"1"), {"genome": 1, "chrom_style": "match"}, GOOD),
    ("position 0", "a.vcf", row(b"0"), {}, (3, "position 0")),
    ("negative", "a.vcf", row(b"-1"), {}, (3, "POS is below 0")),
    ("fractional", "a.vcf", row(b"5.0"), {}, (3, "POS is not an integer")),
    ("over 2^31", "a.vcf", row(b"2147483649"), {}, [["chr1", 2**31, 2**31 + 1, "A", "C"]]),
    ("over 2^63", "a.vcf", row(b"9223372036854775808"), {}, (3, "POS is not an integer")),
    ("symbolic", "a.vcf", row(alt=b"<DUP>"), {}, (3, "symbolic allele '<DUP>'")),
    ("script", "a.vcf", row(alt=b"<script>"), {}, (3, "symbolic allele")),
    ("breakend", "a.vcf", row(alt=b"]c:3]A"), {}, (3, "breakend")),
    ("star", "a.vcf", row(alt=b"C,*"), {}, (3, r"allele \*")),
    ("star dropped", "a.vcf", row(alt=b"C,*"), {"not_sequence": "drop"}, GOOD),
    ("dot", "a.vcf", row(alt=b"."), {}, (3, "no alternative allele")),
    ("empty alternative", "a.vcf", row(alt=b""), {}, (3, "ALT is neither")),
    ("same", "a.vcf", row(alt=b"A"), {}, (3, "ALT is the same as REF")),
    ("duplicate", "a.vcf", FILE + ROW, {}, (4, "occurs before")),
    ("duplicate in one row", "a.vcf", row(alt=b"C,C"), {}, (3, "occurs before")),
    (
        "not sorted",
        "a.vcf",
        FILE + ROW.replace(b"\t5\t", b"\t2\t"),
        {},
        [*GOOD, ["chr1", 1, 2, "A", "C"]],
    ),
    ("NA as a name", "a.vcf", row(chrom=b"NA"), {}, [["NA", 4, 5, "A", "C"]]),
    ("path as a name", "a.vcf", row(chrom=b"../x"), {}, [["../x", 4, 5, "A", "C"]]),
]
