"""Odd and broken tables of sequences; see `tables_intervals`. Rows are name, sequence, labels."""

import gzip

READER = "sequences"
CSV = b"name,sequence,y\na,ACGT,1\nb,TT,0\n"
GOOD = [["a", "ACGT", 1], ["b", "TT", 0]]
FASTA = b">a y=1\nAC\nGT\n>b y=0\nTT\n"

CASES = [
    ("CSV", "a.csv", CSV, {}, GOOD),
    ("TSV", "a.tsv", CSV.replace(b",", b"\t"), {}, GOOD),
    ("CRLF", "a.csv", CSV.replace(b"\n", b"\r\n"), {}, GOOD),
    ("byte order mark", "a.csv", b"\xef\xbb\xbf" + CSV, {}, GOOD),
    ("gzip", "a.csv.gz", gzip.compress(CSV), {}, GOOD),
    ("gzip cut", "a.csv.gz", gzip.compress(CSV)[:-2], {}, (None, "broken gzip")),
    ("UTF-16", "a.csv", CSV.decode().encode("utf-16"), {}, (1, "not UTF-8")),
    ("quoted", "a.csv", b'name,sequence,y\n"a","ACGT","1"\nb,TT,0\n', {}, GOOD),
    ("quoted separator", "a.csv", b'name,sequence\n"a,b",AC\n', {}, [["a,b", "AC"]]),
    ("open quote", "a.csv", b'name,sequence\n"a,AC\n', {}, (2, "broken quoting")),
    ("semicolons", "a.csv", CSV.replace(b",", b";"), {}, (1, "no column 'sequence'")),
    ("ragged", "a.csv", CSV + b"c,AC\n", {}, (4, "2 columns, the first line has 3")),
    ("empty", "a.csv", b"", {}, (None, "holds no sequence")),
    ("header alone", "a.csv", b"name,sequence\n", {}, (None, "holds no sequence")),
    ("NA as a name", "a.csv", b"name,sequence\nNA,AC\n", {}, [["NA", "AC"]]),
    ("NA as a label", "a.csv", b"name,sequence,y\na,AC,NA\n", {}, [["a", "AC", "NA"]]),
    ("formula", "a.csv", b"name,sequence\n=1+1,AC\n", {}, [["=1+1", "AC"]]),
    ("HTML", "a.csv", b"name,sequence\n<b>,AC\n", {}, [["<b>", "AC"]]),
    ("empty label", "a.csv", b"name,sequence,y\na,AC,\n", {}, (2, "the label 'y' is empty")),
    ("illegal letter", "a.csv", CSV.replace(b"TT", b"TZ"), {}, (3, "illegal character 'Z'")),
    ("duplicate", "a.csv", CSV + b"a,GG,1\n", {}, (4, "the name 'a' occurs twice")),
    ("FASTA", "a.fa", FASTA, {}, GOOD),
    ("FASTA of CRLF", "a.fa", FASTA.replace(b"\n", b"\r\n"), {}, GOOD),
    ("FASTA of CR", "a.fa", FASTA.replace(b"\n", b"\r"), {}, (1, "control character")),
    ("no header", "a.fa", b"ACGT\n", {}, (1, "no header")),
    ("protein", "a.fa", b">a\nMEEPQSDPSV\n", {}, (1, "illegal character 'E'")),
    ("gap", "a.fa", b">a\nAC-GT\n", {}, (1, "illegal character '-' at position 3")),
    ("empty record", "a.fa", b">a\n>b\nAC\n", {}, (1, "'a' has no sequence")),
    ("cut after a header", "a.fa", FASTA + b">c y=1", {}, (6, "'c' has no sequence")),
    ("FASTQ", "a.fa", b"@r\nACGT\n+\nIIII\n", {}, (1, "no header")),
    ("parquet cut", "a.parquet", b"PAR1\x15\x04", {}, (None, "broken parquet")),
    (
        "GenBank cut",
        "a.gb",
        b"LOCUS       A  4 bp DNA linear UNA\nORIGIN\n",
        {},
        (1, "does not end with //"),
    ),
]
