"""What `check_file` tells of genomes: every fault with its line, of either format."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twobit_files import twobit_bytes

from data_tools.checking import check_file
from data_tools.errors import InputError
from data_tools.formats import byte_source
from data_tools.genome import Genome

MANY = b""">a
ACGT
ACXT
AC!?
A
>b
ACGT

AC
AC
>b
ACG
ACGT
AC
ACGT
>
AC
>c
>d
AUG
AC\r
>e\x01
AC
"""
TOLD = [
    (3, "record 'a': illegal character 'X'"),
    (4, "record 'a': illegal character '!'"),
    (8, "record 'b': a blank line inside a record"),
    (11, "record 'b': the name occurs twice"),
    (13, "record 'b': its length differs"),
    (16, "empty name"),
    (18, "record 'c': the record is empty"),
    (20, "record 'd': illegal character 'U': only IUPAC letters; this is RNA"),
    (21, "record 'd': LF and CRLF line ends are mixed"),
    (22, "record 'd': a control character"),
]


def written(folder, raw, name="g.fa"):
    path = folder / name
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("chunk", [3, 7, 50, 1 << 21])
def test_every_fault_of_a_fasta_file_is_told_with_its_line(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(byte_source, "CHUNK", chunk)
    path = written(tmp_path, MANY)
    told = check_file(path).faults
    assert len(told) == len(TOLD)
    for found, (line, words) in zip(told, TOLD, strict=True):
        assert found.startswith(f"{path}:{line}: {words}")
    few = check_file(path, limit=2)
    assert few.faults == told[:2]
    assert few.further == len(TOLD) - 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fasta")


@given(st.lists(st.sampled_from([">a\n", ">b x\n", "ACGT\n", "AC\n", "\n", "AX\n", "AC\r\n", ">"])))
def test_check_finds_a_fault_where_genome_refuses_and_its_first_is_that_of_genome(folder, lines):
    path = written(folder, "".join(lines).encode())
    told = check_file(path)
    first = ""
    try:
        Genome(path, cache_dir=folder).close()
    except InputError as error:
        first = str(error)
    assert told.faults[:1] == ((first,) if first else ())


def test_a_2bit_file_is_told_by_its_content_and_checked(tmp_path):
    written(tmp_path, twobit_bytes({"a": "ACGTNNac", "b": "TT"}), "x.bed")
    told = check_file(tmp_path / "x.bed")
    assert told.good
    assert told.summary == "2 records, 10 bases"
    cut = written(tmp_path, (tmp_path / "x.bed").read_bytes()[:-1], "cut.bed")
    (fault,) = check_file(cut).faults
    assert fault.startswith(f"{cut}: 2bit record 'b': ")


def test_fasta_in_plain_gzip_is_told_with_the_remedy(tmp_path):
    path = written(tmp_path, gzip.compress(b">a\nACGT\n"), "g.fa.gz")
    (fault,) = check_file(path).faults
    assert fault.startswith(f"{path}: gzip but not bgzip")
    assert "gunzip -c g.fa.gz | bgzip > new.fa.gz" in fault


def test_a_fractional_score_is_a_fault_unless_any_number_is_asked_for(tmp_path):
    path = written(tmp_path, b"c\t1\t9\tp\t0.5\n", "p.bed")
    assert "score='number'" in check_file(path).faults[0]
    assert check_file(path, score="number").good
