"""Every base of a chromosome is in one part and in one part only."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.errors import InputError, unknown_chromosome
from data_tools.splits import (
    block_split,
    check_chromosomes,
    check_disjoint,
    chromosome_folds,
    whole_chromosomes,
)

LENGTHS = {"chr1": 25, "chr2": 10, "chr3": 7}


def rows(frame):
    return list(frame.itertuples(index=False, name=None))


# --- names -----------------------------------------------------------------------------------


def test_an_unknown_chromosome_is_told_in_the_words_of_every_other_part():
    with pytest.raises(InputError) as caught:
        check_chromosomes(["chr1", "3"], LENGTHS)
    assert str(caught.value).endswith(unknown_chromosome("3", LENGTHS))
    assert "did you mean 'chr3'" in str(caught.value)


def test_known_chromosomes_pass():
    assert check_chromosomes(["chr3", "chr1"], LENGTHS) is None
    assert check_chromosomes([], LENGTHS) is None


def test_parts_that_share_a_chromosome_are_an_error_that_names_both():
    assert check_disjoint(train=["chr1"], validation=[], test=["chr2", "chr3"]) is None
    with pytest.raises(InputError, match="'chr2' is in both train and test"):
        check_disjoint(train=["chr1", "chr2"], validation=["chr3"], test=["chr2"])


# --- whole chromosomes -----------------------------------------------------------------------


def test_whole_chromosomes_run_from_end_to_end_in_the_order_asked_for():
    found = whole_chromosomes(["chr3", "chr1"], LENGTHS)
    assert rows(found) == [("chr3", 0, 7), ("chr1", 0, 25)]
    assert [str(found[c].dtype) for c in ("start", "end")] == ["int64", "int64"]


@pytest.mark.parametrize("split", [whole_chromosomes, block_split])
def test_a_chromosome_that_is_given_twice_is_an_error(split):
    with pytest.raises(InputError, match="'chr2' is given twice"):
        split(["chr2", "chr1", "chr2"], LENGTHS)


@pytest.mark.parametrize("split", [whole_chromosomes, block_split])
def test_an_unknown_chromosome_is_an_error(split):
    with pytest.raises(InputError, match="unknown chromosome 'chrX'"):
        split(["chrX"], LENGTHS)


# --- blocks ----------------------------------------------------------------------------------


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 60), min_size=1),
    st.integers(1, 25),
    st.integers(2, 6),
    st.data(),
)
def test_the_two_parts_together_cover_every_base_of_the_chromosomes_once(
    lengths, block, every, data
):
    offset = data.draw(st.integers(0, every - 1))
    chroms = data.draw(st.permutations(list(lengths)))[: data.draw(st.integers(1, len(lengths)))]
    kept, aside = block_split(chroms, lengths, block=block, every=every, offset=offset)
    part = {}
    for name, regions in (("kept", kept), ("aside", aside)):
        for chrom, start, end in rows(regions):
            for base in range(start, end):
                assert part.setdefault((chrom, base), name) == name
                assert (base // block % every == offset) == (name == "aside")
    assert len(part) == sum(len(range(s, e)) for _, s, e in rows(pd.concat([kept, aside])))
    assert part.keys() == {(chrom, base) for chrom in chroms for base in range(lengths[chrom])}


def test_every_nth_block_from_the_offset_is_set_aside_and_the_last_may_be_short():
    kept, aside = block_split(["chr1"], LENGTHS, block=10, every=3, offset=2)
    assert rows(kept) == [("chr1", 0, 10), ("chr1", 10, 20)]
    assert rows(aside) == [("chr1", 20, 25)]


@pytest.mark.parametrize(
    "wrong",
    [{"every": 1}, {"every": 0}, {"offset": 5}, {"offset": -1}, {"block": 0}],
    ids=str,
)
def test_an_impossible_cut_is_an_error_that_states_it(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(InputError, match=f"{name}={value}"):
        block_split(["chr1"], LENGTHS, **wrong)


# --- folds -----------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=12).map(
        lambda sizes: {f"chr{i}": size for i, size in enumerate(sizes)}
    ),
    st.data(),
)
def test_each_chromosome_is_in_one_fold_and_folds_differ_by_at_most_the_longest(lengths, data):
    k = data.draw(st.integers(2, len(lengths)))
    folds = chromosome_folds(lengths, k)
    assert len(folds) == k
    assert all(folds)
    assert sorted(chrom for fold in folds for chrom in fold) == sorted(lengths)
    totals = [sum(lengths[chrom] for chrom in fold) for fold in folds]
    assert max(totals) - min(totals) <= max(lengths.values())


def test_as_many_folds_as_chromosomes_leave_one_chromosome_out_at_a_time():
    assert chromosome_folds(LENGTHS, 3) == [["chr1"], ["chr2"], ["chr3"]]


def test_folds_do_not_depend_on_the_order_of_the_lengths():
    turned = dict(reversed(list(LENGTHS.items())))
    assert chromosome_folds(turned, 2) == chromosome_folds(LENGTHS, 2)


@pytest.mark.parametrize("k", [0, 1, 4])
def test_fewer_than_2_folds_or_more_than_there_are_chromosomes_are_an_error(k):
    with pytest.raises(InputError, match=f"cannot make {k} folds of 3 chromosomes"):
        chromosome_folds(LENGTHS, k)
