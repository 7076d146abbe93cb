"""Folds share chromosomes out so that none is in two parts."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.errors import InputError
from data_tools.folds import Fold, gc_stress_fold, k_folds, read_fold, write_fold

genomes = st.dictionaries(
    st.text("abcxyz123", min_size=1, max_size=4), st.integers(1, 1000), min_size=3, max_size=12
)


@given(genomes, st.data())
def test_each_chromosome_tests_once_validates_once_and_trains_otherwise(lengths, data):
    k = data.draw(st.integers(3, len(lengths)))
    folds = k_folds(lengths, k)
    assert len(folds) == k
    for name in lengths:
        parts = sorted(str(fold.part_of(name)) for fold in folds)
        assert parts == sorted(["test", "valid"] + ["train"] * (k - 2))


def test_as_many_folds_as_chromosomes_leave_one_out_at_a_time():
    folds = k_folds({"a": 3, "b": 2, "c": 1, "d": 1}, 4)
    assert sorted(fold.test for fold in folds) == [("a",), ("b",), ("c",), ("d",)]


@given(genomes, st.data())
def test_a_gc_stress_fold_tests_on_the_richest_and_its_reverse_on_the_poorest(lengths, data):
    gc = {name: data.draw(st.floats(0.3, 0.6)) for name in lengths}
    for direction in ("poor", "rich"):
        try:
            fold = gc_stress_fold(lengths, gc, train_on=direction)
        except InputError as err:
            assert "nothing is left to train on" in str(err)  # noqa: PT017 - either may be right
            continue
        rest = [gc[name] for name in (*fold.train, *fold.valid)]
        test = [gc[name] for name in fold.test]
        assert max(rest) <= min(test) if direction == "poor" else min(rest) >= max(test)
        assert sum(lengths[name] for name in fold.test) >= 0.2 * sum(lengths.values())
        assert sum(lengths[name] for name in fold.valid) >= 0.1 * sum(lengths.values())
        assert sorted((*fold.train, *fold.valid, *fold.test)) == sorted(lengths)


def test_a_fold_comes_back_from_its_file_which_is_what_chrombpnet_writes(tmp_path):
    fold = Fold(("chr2", "chr4"), ("chr8",), ("chr1", "chr3"))
    path = tmp_path / "fold_0.json"
    write_fold(path, fold)
    assert json.loads(path.read_text()) == {
        "train": ["chr2", "chr4"], "valid": ["chr8"], "test": ["chr1", "chr3"],
    }  # fmt: skip
    assert read_fold(path) == fold


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"train": ["a"], "valid": ["b"]}', "no list of chromosomes under 'test'"),
        ('{"train": ["a"], "valid": ["b"], "test": "c"}', "no list of chromosomes under 'test'"),
        ('{"train": ["a"], "valid": ["b"], "test": [1]}', "no list of chromosomes under 'test'"),
        ('{"train": ["a"], "valid": ["b"], "test": ["c"], "tst": []}', "unknown key 'tst'"),
        ('{"train": ["a"], "valid": ["b"], "test": []}', "test has none"),
        ('{"train": ["a"], "valid": ["b"], "test": ["a"]}', "'a' is in both train and test"),
        ('{"train": ["a", "a"], "valid": ["b"], "test": ["c"]}', "'a' stands twice in train"),
        ('{"train": ["a"], "valid": ["b"], "test": ["z"]}', "unknown chromosome 'z'"),
        ('{"train": ["a"], "train": ["b"], "valid": ["c"]}', "the key 'train' occurs twice"),
        ('{"train": [""], "valid": ["b"], "test": ["c"]}', "'' under 'train' is no name"),
        ('{"train": ["a b"], "valid": ["b"], "test": ["c"]}', "'a b' under 'train' is no name"),
        ('{"train": ["a"], "valid": ["b"], "test": ["\\u0000"]}', "under 'test' is no name"),
        ('{"train": ["a"], "valid": ["b"], "test": ["\\ud800"]}', "under 'test' is no name"),
        ("[]", "no list of chromosomes under 'train'"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_fold_file_is_an_error_that_names_file_and_fault(tmp_path, content, fault):
    path = tmp_path / "fold.json"
    path.write_text(content)
    with pytest.raises(InputError, match=fault) as caught:
        read_fold(path, {"a": 1, "b": 1, "c": 1})
    assert str(caught.value).startswith(str(path))


def test_a_missing_fold_file_is_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_fold(Path(tmp_path) / "none.json")


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        (lambda: k_folds({"a": 1, "b": 1, "c": 1}, 2), "k is at least 3"),
        (lambda: k_folds({"a": 1, "b": 1, "c": 1}, 4), "cannot make 4 folds of 3"),
        (lambda: gc_stress_fold({"a": 1}, {"a": 0.5}), "nothing is left to train on"),
        (lambda: gc_stress_fold({"a": 1}, {"a": 0.5}, test_share=1), "must be above 0"),
        (lambda: gc_stress_fold({"a": 1}, {"a": 0.5}, train_on="x"), "choose one of poor, rich"),
        (lambda: gc_stress_fold({"a": 1}, {"b": 0.5}), "unknown chromosome 'b'"),
    ],
)
def test_what_cannot_be_split_is_an_error_that_says_why(call, fault):
    with pytest.raises(InputError, match=fault):
        call()
