"""Sequences come with the names and labels that stand in the file, or the file is refused."""

import gzip
import io

import pandas as pd
import pyarrow as pa
import pytest
from Bio.Seq import Seq
from Bio.SeqIO import write
from Bio.SeqRecord import SeqRecord
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from data_tools.counts import Counts
from data_tools.errors import FormatError, InputError
from data_tools.sequences import read_sequences

FASTA = ">NA bound=1 site=x\nACGT\nac\n>b\tsite=NA\tbound=0\nTTN\n"
ROWS = [["NA", "ACGTac", 1, "x"], ["b", "TTN", 0, "NA"]]


def read(tmp_path, content, name="x.fa", **options):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_sequences(path, **options)


def genbank(*pairs):
    records = [
        SeqRecord(
            Seq(letters),
            id=name,
            name=name,
            description="a clone",
            annotations={"molecule_type": "DNA", "organism": "Homo sapiens"},
        )
        for name, letters in pairs
    ]
    out = io.StringIO()
    write(records, out, "genbank")
    return out.getvalue()


# --- right files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.fa", FASTA),
        ("x.FASTA", FASTA.replace("\n", "\r\n")),
        ("x.fa.gz", gzip.compress(FASTA.encode(), mtime=0)),  # its name must be one every time
        ("x.tsv", "name\tsequence\tbound\tsite\nNA\tACGTac\t1\tx\nb\tTTN\t0\tNA\n"),
        ("x.csv", "site,bound,sequence,name\nx,1,ACGTac,NA\n\nNA,0,TTN,b\n"),
        ("x.csv", '"site","bound","sequence","name"\n"x",1,ACGTac,"NA"\nNA,"0",TTN,b\n'),
    ],
)
def test_every_format_gives_one_table(tmp_path, name, text):
    table = read(tmp_path, text, name)
    assert table[["name", "sequence", "bound", "site"]].to_numpy().tolist() == ROWS
    assert str(table["bound"].dtype) == "int64"


def test_parquet_gives_the_same_table(tmp_path):
    path = tmp_path / "x.parquet"
    columns = {"name": ["NA", "b"], "sequence": ["ACGTac", "TTN"], "bound": [True, False]}
    parquet.write_table(pa.table(columns | {"gc": [0.5, 0.25]}), path)
    table = read_sequences(path)
    assert table.to_numpy().tolist() == [["NA", "ACGTac", 1, 0.5], ["b", "TTN", 0, 0.25]]


def test_genbank_gives_organism_type_and_description(tmp_path):
    table = read(tmp_path, genbank(("A1", "ACGT" * 40), ("B2", "TTT")), "x.gb")
    assert table["sequence"].tolist() == ["ACGT" * 40, "TTT"]
    assert table["name"].tolist() == ["A1", "B2"]
    assert table.iloc[0, 2:].tolist() == ["Homo sapiens", "DNA", "a clone"]


def test_rows_of_a_table_without_names_are_called_by_their_lines(tmp_path):
    table = read(tmp_path, "seq,y\nAC,1.5\nGT,2\n", "x.csv", sequence="seq")
    assert table["name"].tolist() == ["2", "3"]
    assert table["y"].tolist() == [1.5, 2.0]


def test_a_quoted_field_may_hold_separators_and_line_ends_and_lines_are_still_counted(tmp_path):
    text = 'name,sequence,note\n"a,b",AC,"two\nlines"\n"c ""d""",GT,plain\nlast,XX,e\n'
    with pytest.raises(FormatError, match=r"x\.csv:5: 'last' holds the illegal character 'X'"):
        read(tmp_path, text, "x.csv")
    table = read(tmp_path, text.replace("XX", "AA"), "x.csv")
    assert table["name"].tolist() == ["a,b", 'c "d"', "last"]
    assert table["note"][0] == "two\nlines"


def test_a_name_may_be_anything_that_is_text(tmp_path):
    names = ["../../etc/passwd", "<script>alert(1)</script>", "NA", "nan", "None", "1e5", "TRUE"]
    text = "".join(f">{name}\nACGT\n" for name in names)
    assert read(tmp_path, text)["name"].tolist() == names


labels = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)


@given(
    st.lists(
        st.tuples(labels, st.text("ACGTNacgtn", min_size=1)), min_size=1, unique_by=lambda t: t[0]
    )
)
def test_any_names_and_sequences_come_back_from_tables(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("sequences")
    frame = pd.DataFrame(rows, columns=["name", "sequence"])
    for name, separator in (("x.csv", ","), ("x.tsv", "\t")):
        frame.to_csv(folder / name, sep=separator, index=False)
        table = read_sequences(folder / name)
        assert list(zip(table["name"], table["sequence"], strict=True)) == rows


# --- labels of a second table -----------------------------------------------------------------


def test_labels_are_joined_by_name_from_a_second_table(tmp_path):
    (tmp_path / "y.csv").write_text("name,class\nb,2\nNA,1\nother,3\n")
    table = read(tmp_path, FASTA, labels=tmp_path / "y.csv")
    assert table["class"].tolist() == [1, 2]


def test_a_label_that_the_header_and_the_table_have_is_refused(tmp_path):
    (tmp_path / "y.tsv").write_text("name\tsite\nb\t2\nNA\t1\n")
    with pytest.raises(InputError, match=r"the label 'site' is in .*y\.tsv as well"):
        read(tmp_path, FASTA, labels=tmp_path / "y.tsv")


def test_a_sequence_without_label_is_refused_or_dropped(tmp_path):
    (tmp_path / "y.tsv").write_text("name\tclass\nb\t2\n")
    with pytest.raises(InputError, match=r"x\.fa:1: 'NA' has no label in .*y\.tsv"):
        read(tmp_path, FASTA, labels=tmp_path / "y.tsv")
    counts = Counts()
    table = read(tmp_path, FASTA, labels=tmp_path / "y.tsv", unlabelled="drop", counts=counts)
    assert table["name"].tolist() == ["b"]
    assert sum(n for what, n in counts.items() if "without a label" in what) == 1


def test_a_name_that_is_labelled_twice_is_refused(tmp_path):
    (tmp_path / "y.csv").write_text("name,class\nb,2\nb,1\n")
    with pytest.raises(FormatError, match=r"y\.csv:3: 'b' has labels on line 2 already"):
        read(tmp_path, FASTA, labels=tmp_path / "y.csv")


# --- policies ---------------------------------------------------------------------------------


def test_duplicates_and_ambiguous_letters_follow_their_policies(tmp_path):
    text = ">a\nAC\n>b\nAN\n>a\nGG\n"
    with pytest.raises(InputError, match=r"x\.fa:5: the name 'a' occurs twice"):
        read(tmp_path, text)
    assert read(tmp_path, text, duplicates="keep")["name"].tolist() == ["a", "b", "a"]
    counts = Counts()
    table = read(tmp_path, text, duplicates="drop", ambiguous="drop", counts=counts)
    assert table["sequence"].tolist() == ["AC"]
    assert [n for what, n in counts.items() if "dropped" in what] == [1, 1]
    with pytest.raises(InputError, match=r"x\.fa:3: 'b' holds letters other than A, C, G, T"):
        read(tmp_path, text, ambiguous="error")


# --- wrong files ------------------------------------------------------------------------------

FAULTS = {
    "no header": ("x.fa", "ACGT\n", ":1: no header"),
    "empty": ("x.fa", "", ": holds no sequence"),
    "no name": ("x.fa", ">\nAC\n", ":1: the name is empty"),
    "blank before the name": ("x.fa", "> a\nAC\n", ":1: the name is empty"),
    "no sequence": ("x.fa", ">a\n>b\nAC\n", ":1: 'a' has no sequence"),
    "gap": ("x.fa", ">a\nAC-T\n", ":1: 'a' holds the illegal character '-' at position 3"),
    "blank": ("x.fa", ">a\nAC GT\n", "illegal character ' '"),
    "RNA": ("x.fa", ">a\nACGU\n", "this is RNA, write T for U"),
    "not ASCII": ("x.fa", ">a\nACÄ\n", "illegal character 'Ä' at position 3"),
    "label lacking": ("x.fa", ">a x=1\nAC\n>b\nAC\n", ":3: 'b' has the labels"),
    "label empty": ("x.fa", ">a x=\nAC\n", ":1: the label 'x' is empty"),
    "label twice": ("x.fa", ">a x=1 x=2\nAC\n", ":1: the label 'x=2' has no name or occurs"),
    "label called name": ("x.fa", ">a name=1\nAC\n", "a label cannot be called 'name'"),
    "no column": ("x.csv", "name,seq\na,AC\n", ":1: no column 'sequence' among 'name', 'seq'"),
    "column twice": (
        "x.csv",
        "name,sequence,x,x\na,AC,1,2\n",
        ":1: the name of column 4, 'x', is empty or",
    ),
    "ragged": ("x.csv", "name,sequence\na,AC\nb\n", ":3: 1 columns, the first line has 2"),
    "open quote": ("x.csv", 'name,sequence\n"a,AC\nb,GT\n', ":2: broken quoting"),
    "text after a quote": ("x.csv", 'name,sequence\n"a"b,AC\n', ":2: broken quoting"),
    "empty sequence": ("x.tsv", "name\tsequence\na\t\n", ":2: 'a' has no sequence"),
    "parquet": ("x.parquet", b"PAR1" + bytes(50) + b"PAR1", ": broken parquet"),
    "no parquet": ("x.parquet", b"name,sequence\n", ": broken parquet"),
    "GenBank cut": ("x.gb", genbank(("A", "ACGT" * 30))[:-20], ":1: the record does not end"),
    "GenBank short": (
        "x.gb",
        genbank(("A", "ACGT" * 40)).replace("      121 ", "//\n      121 "),
        ":1: ",
    ),
    "GenBank of text": ("x.gb", "hello\n//\n", ":1: a GenBank record begins with LOCUS"),
    "unknown": ("x.doc", "hello", ": unknown format of a sequence file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_file_is_refused_by_file_and_line(tmp_path, fault):
    name, content, words = FAULTS[fault]
    with pytest.raises(InputError) as caught:
        read(tmp_path, content, name)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_parquet_that_inflates_beyond_bounds_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "x.parquet"
    table = pa.table({"name": ["a"] * 10**6, "sequence": ["ACGT" * 50] * 10**6})
    parquet.write_table(table, path, compression="gzip", use_dictionary=False)
    with pytest.raises(FormatError, match=r"inflates to .* max_inflated="):
        read_sequences(path)


def test_missing_values_of_parquet_are_refused(tmp_path):
    path = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"name": ["a", "b"], "sequence": ["A", None]}), path)
    with pytest.raises(FormatError, match="row 2: the column 'sequence' holds no text"):
        read_sequences(path)
