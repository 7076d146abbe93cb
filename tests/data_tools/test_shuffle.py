"""Shuffles keep what they promise, reach everything that they may, equally often."""

import itertools
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from data_tools import eulerian, kernels, shuffle
from data_tools.counter_random import child_keys, uniforms, words
from data_tools.encode import decode, encode
from data_tools.errors import InputError
from data_tools.shuffle import kmer_shuffle


def kmers(letters, k):
    """Counts of the words without N."""
    found = (letters[i : i + k] for i in range(len(letters) - k + 1))
    return Counter(word for word in found if "N" not in word)


def all_shuffles(letters, k):
    """Every sequence that begins alike and has the same k-mers, by trying each letter in turn."""
    if k == 1:
        return {"".join(order) for order in itertools.permutations(letters)}
    complete = set()

    def grow(so_far, left):
        if not left:
            complete.add(so_far)
        for letter in "ACGT":
            word = (so_far + letter)[-k:]
            if left[word] > 0:
                grow(so_far + letter, +(left - Counter([word])))

    grow(letters[: k - 1], kmers(letters, k))
    return complete


def shuffled(letters, **options):
    return [decode(row) for row in kmer_shuffle(encode(letters)[None], **options)[0]]


# --- what is kept ----------------------------------------------------------------------------


@given(
    letters=st.lists(st.text("ACGTN", min_size=30, max_size=30), min_size=1, max_size=4)
    | st.lists(st.text("AC", min_size=30, max_size=30), min_size=1, max_size=4),
    k=st.integers(1, 6),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=150, deadline=None)
def test_every_kmer_of_every_stretch_is_counted_as_before_and_n_and_ends_stay(letters, k, seed):
    codes = np.stack([encode(row) for row in letters])
    before = codes.copy()
    result = kmer_shuffle(codes, k, 3, seed)
    np.testing.assert_array_equal(codes, before)
    assert result.shape == (len(letters), 3, 30)
    for old, news in zip(letters, result, strict=True):
        for new in map(decode, news):
            for was, now in zip(old.split("N"), new.split("N"), strict=True):
                assert len(was) == len(now)
                assert was[: k - 1] == now[: k - 1]
                assert was[max(0, len(was) - k + 1) :] == now[max(0, len(was) - k + 1) :]
                for size in range(1, k + 1):
                    if size == k or (k > 1 and len(was) >= k):
                        assert kmers(was, size) == kmers(now, size)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_long_sequences_walked_together_keep_their_counts_and_change(k):
    generator = np.random.default_rng(k)
    lengths = generator.integers(5, 400, 200)
    codes = generator.integers(0, 4, (200, 400), dtype=np.uint8)
    codes[np.arange(400) >= lengths[:, None]] = 4
    result = kmer_shuffle(codes, k, 2, 7)
    weights = 4 ** np.arange(k)
    for length, old, news in zip(lengths, codes, result, strict=True):
        assert (news[:, length:] == 4).all()
        windows = [
            np.sort(np.lib.stride_tricks.sliding_window_view(row[:length].astype(int), k) @ weights)
            for row in (old, *news)
        ]
        np.testing.assert_array_equal(windows[0], windows[1])
        np.testing.assert_array_equal(windows[0], windows[2])
    long = lengths > 300
    unmoved = (result == codes[:, None]).all(axis=2)[long]
    assert unmoved.mean() < (0.02 if k < 4 else 0.5 if k == 4 else 1.1)


def test_blocks_that_memory_bounds_do_not_change_the_bits(monkeypatch):
    codes = np.random.default_rng(4).integers(0, 5, (30, 200), dtype=np.uint8)
    whole = kmer_shuffle(codes, 2, 5)
    monkeypatch.setattr(shuffle, "_BLOCK", 100)
    np.testing.assert_array_equal(kmer_shuffle(codes, 2, 5), whole)


# --- uniform ---------------------------------------------------------------------------------

CASES = [
    ("ACACGTCAGA", 2),
    ("AATTGGCCAT", 2),
    ("ACGTACTG", 2),
    ("AAACAAGAAT", 2),
    ("CCGCTTCTCG", 2),
    ("ACGACTACGTACTA", 3),
    ("AAACAAACAATAAC", 3),
    ("ACAACAGACAACAT", 3),
    ("ACGTCA", 1),
]


@pytest.mark.parametrize(("letters", "k"), CASES)
@pytest.mark.parametrize("way", ["compiled", "together", "one by one"])
def test_every_sequence_with_the_same_counts_is_drawn_equally_often(letters, k, way, monkeypatch):
    if way == "compiled":
        if not kernels.available():
            pytest.skip("the compiled loops were not built")
    else:
        monkeypatch.setattr(kernels, "available", lambda: False)
        monkeypatch.setattr(eulerian, "_FEW_ROWS", 0 if way == "together" else 10**9)
    possible = sorted(all_shuffles(letters, k))
    assert len(possible) > 2
    draws = 60 * len(possible)
    found = Counter(shuffled(letters, k=k, count=draws, seed=11))
    assert set(found) == set(possible)
    assert chisquare([found[each] for each in possible]).pvalue > 1e-3


def test_stretches_between_n_are_shuffled_independently():
    parts = sorted(all_shuffles("ACGATAG", 2))
    found = Counter(shuffled("ACGATAGNNACGATAG", count=4000, seed=1))
    possible = [f"{left}NN{right}" for left in parts for right in parts]
    assert len(possible) > 2
    assert chisquare([found[each] for each in possible]).pvalue > 1e-3


def test_the_peer_misses_shuffles_that_are_reached_here():
    ersatz = pytest.importorskip("tangermeme.ersatz")
    torch = pytest.importorskip("torch")
    from data_tools.encode import one_hot

    letters = "ACGTACTGACTG"
    drawn = ersatz.dinucleotide_shuffle(
        torch.from_numpy(one_hot(letters)[None].astype(np.int8)), n=1500, random_state=0
    )[0]
    theirs = {decode(row) for row in drawn.argmax(1).numpy()}
    possible = all_shuffles(letters, 2)
    assert theirs < possible
    assert set(shuffled(letters, count=4000)) == possible


# --- seeds -----------------------------------------------------------------------------------


def test_a_shuffle_depends_on_its_own_sequence_stream_and_number_alone():
    codes = np.random.default_rng(0).integers(0, 4, (6, 80), dtype=np.uint8)
    whole = kmer_shuffle(codes, count=4, seed=9)
    np.testing.assert_array_equal(kmer_shuffle(codes, count=4, seed=9), whole)
    np.testing.assert_array_equal(kmer_shuffle(codes[:3], count=4, seed=9), whole[:3])
    np.testing.assert_array_equal(kmer_shuffle(codes, count=2, seed=9), whole[:, :2])
    some = kmer_shuffle(codes[[5, 2]], count=4, seed=9, streams=[5, 2])
    np.testing.assert_array_equal(some, whole[[5, 2]])
    assert (kmer_shuffle(codes, count=4, seed=10) != whole).any(axis=(1, 2)).all()
    assert len({row.tobytes() for row in whole[0]}) == 4


def test_equal_sequences_get_shuffles_of_their_own():
    codes = np.tile(np.random.default_rng(1).integers(0, 4, 60, dtype=np.uint8), (40, 1))
    assert len({row.tobytes() for row in kmer_shuffle(codes)[:, 0]}) == 40


def test_words_are_splitmix64_and_uniform_across_keys_and_counters():
    # The first outputs of the published generator from seed 1234567.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    key = np.array([1234567], dtype=np.uint64)
    np.testing.assert_array_equal(words(key, np.arange(4, dtype=np.uint64)), known)
    keys = child_keys(child_keys(np.array([0], np.uint64), np.arange(300)), 1)
    drawn = uniforms(keys[:, None], np.arange(300, dtype=np.uint64))
    for part in (drawn.ravel(), drawn[:, 0], drawn[0]):
        counts = np.histogram(part, 10, (0, 1))[0]
        assert chisquare(counts).pvalue > 1e-4
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.2


# --- the command -----------------------------------------------------------------------------


def call(*arguments):
    return subprocess.run(
        [Path(sys.executable).with_name("data-tools"), "shuffle", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_shuffles_records_whatever_stands_beside_them(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQNORM_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    records = {
        name: "".join(generator.choice(list("ACGTN"), size, p=[0.24, 0.24, 0.24, 0.24, 0.04]))
        for name, size in {"b": 150, "a": 60, "c": 77}.items()
    }
    one, two = tmp_path / "one.fa", tmp_path / "two.fa"
    one.write_text("".join(f">{name}\n{records[name]}\n" for name in "abc"))
    two.write_text("".join(f">{name}\n{records[name]}\n" for name in "cb"))
    out = tmp_path / "out.fa"
    finished = call(one, "--count", 2, "--seed", 3, "--out", out)
    assert (finished.returncode, finished.stdout) == (0, "")
    assert finished.stderr == "3 sequences, 2 shuffles each\n"
    found = {}
    for record in out.read_text().split(">")[1:]:
        name, *lines = record.splitlines()
        assert all(len(line) == 60 for line in lines[:-1])
        found[name] = "".join(lines)
    assert list(found) == [f"{name}_shuffle{number}" for name in "abc" for number in (1, 2)]
    for name, letters in records.items():
        for number in (1, 2):
            assert kmers(found[f"{name}_shuffle{number}"], 2) == kmers(letters, 2)
            assert found[f"{name}_shuffle{number}"] != letters
    again = call(two, "--seed", 3).stdout
    assert found["b_shuffle1"] in again.replace("\n", "")
    assert found["c_shuffle1"] in again.replace("\n", "")


def test_the_commands_mistakes_are_one_line_and_leave_no_file(tmp_path):
    wrong = call(tmp_path / "none.fa", "--k", 9, "--out", tmp_path / "out.fa")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "data-tools: error: k must be 1 to 6, not 9\n"
    assert not list(tmp_path.iterdir())


# --- edges and mistakes ----------------------------------------------------------------------


@pytest.mark.parametrize("letters", ["", "A", "AC", "NNN", "AAAAAAAA", "ACNNACNAN", "ACACACAC"])
def test_what_has_but_one_order_stays(letters):
    for k in (2, 3):
        assert shuffled(letters, k=k, count=2) == [letters] * 2


def test_no_sequence_gives_no_shuffle():
    assert kmer_shuffle(np.zeros((0, 7), np.uint8), count=3).shape == (0, 3, 7)


def test_one_vertex_that_hardly_leaves_itself_is_no_trouble():
    letters = "A" * 500 + "C" + "A" * 10 + "G"
    assert {kmers(row, 2) == kmers(letters, 2) for row in shuffled(letters, count=200)} == {True}


@pytest.mark.parametrize(
    ("codes", "options", "fault"),
    [
        (np.zeros(5, np.uint8), {}, r"shape \(N, L\), got \(5,\)"),
        (np.full((1, 5), 5, np.uint8), {}, "got the value 5"),
        (np.zeros((1, 5)), {}, "float64"),
        (np.zeros((1, 5), np.uint8), {"k": 0}, "k must be 1 to 6, not 0"),
        (np.zeros((1, 5), np.uint8), {"k": 7}, "k must be 1 to 6, not 7"),
        (np.zeros((1, 5), np.uint8), {"count": 0}, "at least 1, not 0"),
        (np.zeros((1, 5), np.uint8), {"seed": -1}, "0 or more.*not -1"),
        (np.zeros((1, 5), np.uint8), {"seed": 2**64}, r"below 2\*\*64"),
        (np.zeros((1, 5), np.uint8), {"streams": [1, 2]}, r"shape \(1,\)"),
        (np.zeros((1, 5), np.uint8), {"streams": [-1]}, "not -1"),
        (np.zeros((1, 5), np.uint8), {"streams": [0.5]}, "integers"),
    ],
)
def test_a_wrong_argument_is_an_error_that_says_what_to_give(codes, options, fault):
    with pytest.raises(InputError, match=fault):
        kmer_shuffle(codes, **options)
