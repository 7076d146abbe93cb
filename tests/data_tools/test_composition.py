"""Fractions of strand-symmetric dinucleotides, against counting by hand."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.composition import DINUCLEOTIDES, dinucleotide_fractions
from data_tools.encode import encode, reverse_complement
from data_tools.errors import InputError

letters = st.text("ACGTN", min_size=2, max_size=40)


@given(letters)
def test_the_fractions_are_those_of_counting_pairs_on_both_strands(sequence):
    pairs = Counter()
    for strand in (sequence, reverse_complement(sequence)):
        pairs.update(a + b for a, b in pairwise(strand) if "N" not in a + b)
    found = dinucleotide_fractions(encode(sequence)[None])[0]
    total = pairs.total()
    if not total:
        assert np.isnan(found).all()
        return
    for name, share in zip(DINUCLEOTIDES, found, strict=True):
        both = {name, reverse_complement(name)}
        assert share == pytest.approx(sum(pairs[pair] for pair in both) / total)


@given(letters)
def test_a_window_and_its_reverse_complement_are_made_of_the_same(sequence):
    codes = encode(sequence)
    both = dinucleotide_fractions(np.stack([codes, reverse_complement(codes)]))
    np.testing.assert_array_equal(both[0], both[1])


def test_there_are_ten_dinucleotides_and_none_is_the_reverse_complement_of_another():
    assert len(DINUCLEOTIDES) == 10
    assert len({frozenset((n, reverse_complement(n))) for n in DINUCLEOTIDES}) == 10


def test_codes_of_one_sequence_without_a_first_axis_are_refused():
    with pytest.raises(InputError, match=r"shape \(N, L\), got \(4,\)"):
        dinucleotide_fractions(encode("ACGT"))
