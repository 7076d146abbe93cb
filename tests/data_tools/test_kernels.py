"""The compiled loops do what NumPy does, bit for bit, and refuse what would leave an array."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools import eulerian, kernels
from data_tools.shuffle import kmer_shuffle

compiled = pytest.mark.skipif(not kernels.available(), reason="the compiled loops were not built")


@pytest.mark.skipif(
    not (shutil.which("c++") or shutil.which("g++")), reason="no compiler, so no compiled loops"
)
def test_where_there_is_a_compiler_the_loops_are_there():
    assert kernels.available()


@compiled
@given(
    st.integers(1, 6),
    st.lists(st.text("ACGTN", min_size=1, max_size=60), min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_shuffles_are_the_same_with_and_without_the_compiled_loops(k, texts, count):
    width = max(map(len, texts))
    codes = np.array([["ACGTN".index(c) for c in text.ljust(width, "N")] for text in texts])
    expected = kmer_shuffle(codes.astype(np.uint8), k, count, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "available", lambda: False)
        plain = kmer_shuffle(codes.astype(np.uint8), k, count, seed=3)
        patch.setattr(eulerian, "_FEW_ROWS", 0)
        together = kmer_shuffle(codes.astype(np.uint8), k, count, seed=3)
    np.testing.assert_array_equal(expected, plain)
    np.testing.assert_array_equal(expected, together)


@compiled
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_would_leave_an_array_is_refused(dtype):
    order = np.array([[1, 0, 9]], dtype=dtype)
    starts = np.array([[0, 1]], dtype=np.int32)
    graph, first = np.array([0]), np.array([0])
    assert kernels.walk(order, starts, graph, first, np.array([2])).tolist() == [[1, 0, 0]]
    for wrong in (
        {"order": np.array([[9, 9, 9]], dtype=dtype), "edges": np.array([3])},
        {"edges": np.array([4])},
        {"first": np.array([2]), "edges": np.array([1])},
        {"starts": np.array([[3, 3]], np.int32), "edges": np.array([1])},
    ):
        given = {"order": order, "starts": starts, "graph": graph, "first": first} | wrong
        with pytest.raises(RuntimeError, match="do not fit"):
            kernels.walk(**given)
    with pytest.raises(RuntimeError, match="too large"):
        kernels.count_edges(order, np.array([3]), 4)
    with pytest.raises(RuntimeError, match="too large"):
        kernels.count_edges(order, np.array([4]), 10)
    with pytest.raises(RuntimeError, match="not int64"):
        kernels.count_edges(order.astype(np.int64), np.array([3]), 10)


def test_without_the_library_the_loops_say_so(monkeypatch):
    monkeypatch.setattr(kernels, "_library", lambda: None)
    assert not kernels.available()
    with pytest.raises(RuntimeError, match="are not there"):
        kernels.count_edges(np.zeros((1, 1), np.uint8), np.array([1]), 1)
