"""Rows that share sequence are one group, and no client holds a part of one."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.encode import encode, reverse_complement
from data_tools.errors import InputError
from federated.partition import (
    IID,
    LinkedRowsError,
    Partition,
    PartitionError,
    check_partition,
    linked_groups,
    partition,
)

PLACES = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.integers(1, 12)),
    min_size=1,
    max_size=25,
)


def table(places):
    chrom, start, width = zip(*places, strict=True)
    return pd.DataFrame({"chrom": chrom, "start": start, "end": np.add(start, width)})


def slow_groups(linked):
    """Connected components of an (N, N) relation by repeated joining."""
    reach = linked | np.eye(len(linked), dtype=bool)
    for _ in range(len(linked)):
        reach = reach @ reach
    return reach


def same(groups):
    return groups[:, None] == groups[None, :]


@given(PLACES)
def test_groups_of_windows_are_the_components_of_the_overlap_graph(places):
    rows = table(places)
    chrom, start, end = (rows[name].to_numpy()[:, None] for name in ("chrom", "start", "end"))
    overlap = (chrom == chrom.T) & (start < end.T) & (end > start.T)
    assert (same(linked_groups(rows)) == slow_groups(overlap)).all()


@given(PLACES, st.randoms(use_true_random=False))
def test_groups_of_windows_do_not_depend_on_the_order_of_the_rows(places, random):
    rows = table(places)
    order = random.sample(range(len(rows)), len(rows))
    assert (linked_groups(rows.iloc[order]) == linked_groups(rows)[order]).all()


@given(st.data(), st.integers(1, 4))
def test_groups_join_overlaps_equal_sequences_and_reverse_complements(data, width):
    count = data.draw(st.integers(1, 20))
    start = np.array(data.draw(st.lists(st.integers(0, 80), min_size=count, max_size=count)))
    bases = st.lists(st.integers(0, 4), min_size=width, max_size=width)
    codes = np.array(data.draw(st.lists(bases, min_size=count, max_size=count)), dtype=np.uint8)
    rows = pd.DataFrame({"chrom": "a", "start": start, "end": start + width})
    forward = [tuple(c) for c in codes.tolist()]
    reverse = [tuple(c) for c in reverse_complement(codes).tolist()]
    linked = np.array(
        [
            [
                abs(start[i] - start[j]) < width
                or forward[i] == forward[j]
                or forward[i] == reverse[j]
                for j in range(count)
            ]
            for i in range(count)
        ]
    )
    assert (same(linked_groups(rows, codes)) == slow_groups(linked)).all()


def test_equal_ends_alone_link_nothing():
    ends = "ACGTTGCAACGGTTAACCGATCGATTA"
    rows = pd.DataFrame({"id": [0, 1, 2]})
    middle = ["A" * 9, "C" * 9, "T" * 9]
    codes = np.stack([encode(ends + m + reverse_complement(ends)) for m in middle])
    assert linked_groups(rows, codes).tolist() == [0, 1, 0]


def test_windows_that_touch_are_not_linked_but_their_margins_link_them():
    rows = pd.DataFrame({"chrom": "a", "start": [0, 4], "end": [4, 8]})
    assert linked_groups(rows).tolist() == [0, 1]
    codes = np.array([[0, 0, 1, 0, 1, 0], [0, 0, 0, 0, 2, 0]], dtype=np.uint8)
    assert linked_groups(rows, codes).tolist() == [0, 0]


def test_rows_without_coordinates_stand_alone():
    assert linked_groups(pd.DataFrame({"age": [40, 40, 61]})).tolist() == [0, 1, 2]


@pytest.mark.parametrize("clients", [2, 5])
def test_linked_rows_stay_with_one_client(windows, clients):
    rows = windows(400, crowded=True)
    split = partition(rows, IID(clients=clients))
    check_partition(split, rows)
    owner, group = split.owners(), linked_groups(rows)
    assert group.max() + 1 < len(rows)
    assert pd.Series(owner).groupby(group).nunique().max() == 1


def test_parted_rows_are_an_error_that_names_both_rows_and_clients():
    rows = pd.DataFrame({"chrom": "a", "start": [0, 50, 5], "end": [9, 59, 14]})
    none = pd.DataFrame({"row": [], "reason": []})
    held = (np.array([0, 1]), np.array([2]))
    split = Partition(("x", "y"), held, IID(clients=2), ("x", "y"), none)
    with pytest.raises(LinkedRowsError, match=r"row 0 \(a:0-9\) of x and row 2 \(a:5-14\) of y"):
        check_partition(split, rows)
    codes = np.array([encode("AAC"), encode("GTT")])
    split = Partition(("x", "y"), (np.array([0]), np.array([1])), IID(clients=2), ("x", "y"), none)
    with pytest.raises(LinkedRowsError, match="row 0 of x and row 1 of y"):
        check_partition(split, pd.DataFrame({"age": [1, 2]}), codes)


WINDOW = pd.DataFrame({"chrom": ["a", "a"], "start": [0, 50], "end": [4, 54]})


@pytest.mark.parametrize(
    ("rows", "codes", "message"),
    [
        (WINDOW.iloc[:0], None, "no rows"),
        (WINDOW.assign(start=[0, None]), None, "row 1 .*'start': the value is missing"),
        (WINDOW.assign(start=[0, 0.5]), None, "row 1 .*'start': 0.5 is no whole number"),
        (WINDOW.assign(start="x"), None, "'start' holds .* a window needs numbers"),
        (WINDOW.assign(end=[4, 50]), None, "row 1 .*a:50-50 is empty"),
        (WINDOW.assign(chrom=["a", None]), None, "row 1 .*'chrom': the value is missing"),
        (WINDOW, np.zeros((1, 4), np.uint8), r"shape \(1, 4\), the table has 2 rows"),
        (WINDOW, np.zeros((2, 5), np.uint8), "row 0 .*4 bases wide, its codes 5"),
        (WINDOW.assign(end=[4, 52]), np.zeros((2, 4), np.uint8), "row 1 .*2 bases wide"),
        (WINDOW, np.full((2, 4), 7, np.uint8), "codes are integers 0 to 4"),
    ],
)
def test_a_table_that_is_wrong_is_an_error_that_says_where(rows, codes, message):
    with pytest.raises(InputError, match=message) as caught:
        linked_groups(rows, codes)
    assert "\n" not in str(caught.value)
    assert codes is not None or isinstance(caught.value, PartitionError)
