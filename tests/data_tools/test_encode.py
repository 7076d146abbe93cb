"""Letters, codes and one-hot arrays stand for one another, and nothing else passes."""

import numpy as np
import pytest
from Bio.Seq import Seq
from hypothesis import given
from hypothesis import strategies as st

from data_tools.encode import decode, encode, gc_fraction, one_hot, reverse_complement
from data_tools.errors import InputError

LETTERS = "ACGTRYSWKMBDHVNacgtryswkmbdhvn"
dna = st.text(LETTERS, max_size=60)
some_dna = st.text(LETTERS, min_size=1, max_size=60)


@given(dna)
def test_codes_are_the_places_of_the_letters_in_acgt_and_4_for_ambiguity(seq):
    expected = ["ACGT".find(c) if c in "ACGT" else 4 for c in seq.upper()]
    for form in (seq, seq.encode()):
        codes = encode(form)
        assert codes.dtype == np.uint8
        assert codes.tolist() == expected


@given(dna)
def test_decoding_gives_back_the_letters_in_upper_case_with_n_for_ambiguity(seq):
    expected = "".join(c if c in "ACGT" else "N" for c in seq.upper())
    assert decode(encode(seq)) == expected


def test_encoded_letters_may_be_written_to():
    codes = encode("ACGT")
    codes[0] = 3
    assert decode(codes) == "TCGT"


@pytest.mark.parametrize("character", [chr(i) for i in range(256) if chr(i) not in LETTERS] + ["€"])
def test_every_other_character_is_refused_with_its_position(character):
    with pytest.raises(InputError, match=r"position 3 \(0-based\)") as caught:
        encode(f"ACG{character}T")
    assert repr(character) in str(caught.value)
    with pytest.raises(InputError):
        reverse_complement(f"ACG{character}T")


def test_an_illegal_byte_is_named():
    with pytest.raises(InputError, match="'-' at position 1"):
        encode(b"A-C")


def test_rna_is_refused_with_the_remedy():
    with pytest.raises(InputError, match="write T for U"):
        encode("ACU")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.uint8, np.int8, bool])
@given(some_dna)
def test_one_hot_has_a_one_in_the_row_of_the_base_and_zeros_elsewhere(dtype, seq):
    hot = one_hot(seq, dtype)
    assert hot.dtype == dtype
    expected = [[c == base for c in seq.upper()] for base in "ACGT"]
    assert hot.astype(bool).tolist() == expected
    assert set(np.unique(hot).tolist()) <= {0, 1}


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_one_hot_of_many_is_the_stack_of_one_by_one_whatever_the_form(dtype):
    rng = np.random.default_rng(0)
    # More than one block of the loop over rows, and a last block that is not full.
    codes = rng.integers(0, 5, (37, 9000), dtype=np.uint8)
    expected = np.stack([one_hot(row, dtype) for row in codes])
    texts = [decode(row) for row in codes]
    for form in (codes, codes.astype(np.int64), np.asfortranarray(codes), texts, tuple(texts)):
        found = one_hot(form, dtype)
        assert found.shape == (37, 4, 9000)
        assert np.array_equal(found, expected)
    assert np.array_equal(one_hot(np.array(texts), dtype), expected)


def test_one_hot_is_float32_if_nothing_is_said():
    assert one_hot("ACGT").dtype == np.float32


def test_an_empty_sequence_has_no_position():
    assert one_hot("").shape == (4, 0)
    assert one_hot(np.zeros((0, 7), np.uint8)).shape == (0, 4, 7)
    assert decode(encode("")) == ""


@pytest.mark.parametrize(
    ("seq", "words"),
    [
        ([], "the list is empty"),
        (["ACGT", "ACG"], "sequence 1 has length 3, sequence 0 has 4"),
        (["ACGT", "AC-T"], "sequence 1: illegal character '-' at position 2"),
        (["ACGT", 5], "sequence 1 is no string but int"),
        (np.array([0, 5]), "value 5"),
        (np.array([0, -1]), "value -1"),
        (np.array([0, 255], np.uint8), "value 255"),
        (np.array([0.0, 1.0]), "float64"),
        (np.array([True]), "bool"),
        (np.zeros((2, 2, 2), np.uint8), r"\(2, 2, 2\)"),
        (np.uint8(3), "got .*3"),
        (5, "got 5"),
    ],
)
def test_what_is_no_dna_is_refused_by_one_hot_with_the_reason(seq, words):
    with pytest.raises(InputError, match=words):
        one_hot(seq)


@pytest.mark.parametrize("dtype", ["U1", "S1", object])
def test_one_hot_refuses_a_type_that_holds_no_numbers(dtype):
    with pytest.raises(InputError, match="numbers"):
        one_hot("ACGT", dtype)


def test_decode_takes_one_sequence():
    with pytest.raises(InputError, match=r"shape \(L,\)"):
        decode(np.zeros((2, 2), np.uint8))


def test_encode_takes_letters_only():
    with pytest.raises(InputError, match="ndarray"):
        encode(np.zeros(3, np.uint8))


@given(dna)
def test_the_reverse_complement_is_that_of_biopython_case_and_ambiguity_kept(seq):
    assert reverse_complement(seq) == str(Seq(seq).reverse_complement())


@given(st.lists(st.lists(st.integers(0, 4), min_size=5, max_size=5), min_size=1, max_size=4))
def test_the_reverse_complement_of_codes_is_that_of_their_letters_row_by_row(rows):
    codes = np.array(rows, dtype=np.uint8)
    found = reverse_complement(codes)
    assert [decode(row) for row in found] == [reverse_complement(decode(row)) for row in codes]
    assert np.array_equal(reverse_complement(found), codes)


@given(some_dna)
def test_the_one_hot_of_the_reverse_complement_is_the_one_hot_turned_round(seq):
    assert np.array_equal(one_hot(reverse_complement(seq)), one_hot(seq)[::-1, ::-1])


@given(some_dna)
def test_the_gc_fraction_counts_known_bases_only(seq):
    known = [c for c in seq.upper() if c in "ACGT"]
    found = gc_fraction(encode(seq))
    assert found.shape == ()
    if known:
        assert found == sum(c in "GC" for c in known) / len(known)
    else:
        assert np.isnan(found)


def test_the_gc_fraction_runs_along_the_last_axis():
    codes = np.array([[[0, 1], [2, 1]], [[4, 1], [4, 4]]], dtype=np.uint8)
    expected = [[0.5, 1.0], [1.0, np.nan]]
    assert np.array_equal(gc_fraction(codes), expected, equal_nan=True)


def test_the_gc_fraction_of_nothing_is_refused_or_nan():
    assert np.isnan(gc_fraction(encode("")))
    with pytest.raises(InputError, match="single number"):
        gc_fraction(np.uint8(2))
