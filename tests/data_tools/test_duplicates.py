"""Near-duplicates, against the same definition written with sets and loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools import duplicates
from data_tools.duplicates import near_duplicates
from data_tools.encode import decode, reverse_complement
from data_tools.errors import InputError


def random_windows(seed, count, length):
    return np.random.default_rng(seed).integers(0, 4, (count, length), dtype=np.uint8)


def mix(number):
    mask = 2**64 - 1
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & mask
    number = (number ^ number >> 27) * 0x94D049BB133111EB & mask
    return number ^ number >> 31


def reference_minimizers(codes, k, span):
    letters = decode(codes)
    hashes = []
    for at in range(len(letters) - k + 1):
        word = letters[at : at + k]
        if "N" in word:
            hashes.append(2**64 - 1)
            continue
        readings = [word, reverse_complement(word)]
        hashes.append(
            mix(
                min(
                    sum("ACGT".index(c) * 4 ** (k - 1 - i) for i, c in enumerate(r))
                    for r in readings
                )
            )
        )
    span = min(span, len(hashes))
    chosen = {min(hashes[i : i + span]) for i in range(len(hashes) - span + 1)}
    return chosen - {2**64 - 1}


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 6),
    span=st.integers(1, 9),
    threshold=st.sampled_from([0.1, 0.5, 1.0]),
    ambiguous=st.booleans(),
    pairs_at_a_time=st.sampled_from([1, 7, 1 << 22]),
)
def test_the_pairs_found_are_those_of_a_comparison_of_all_with_all(
    seed, k, span, threshold, ambiguous, pairs_at_a_time
):
    rng = np.random.default_rng(seed)
    pool = rng.integers(0, 5 if ambiguous else 4, (6, 24), dtype=np.uint8)
    left, right = pool[rng.integers(0, 6, 5)], pool[rng.integers(0, 6, 4)].copy()
    right[0, :12] = rng.integers(0, 4, 12)
    right[1] = reverse_complement(right[1])
    expected = []
    sides = [[reference_minimizers(row, k, span) for row in side] for side in (left, right)]
    for i, mine in enumerate(sides[0]):
        scores = [len(mine & other) / max(1, min(len(mine), len(other))) for other in sides[1]]
        if max(scores) >= threshold:
            expected.append((i, int(np.argmax(scores)), max(scores)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "_PAIRS_AT_A_TIME", pairs_at_a_time)
        found = near_duplicates(left, right, threshold=threshold, k=k, span=span)
    assert list(found.itertuples(index=False, name=None)) == expected


def test_a_shifted_window_on_the_other_strand_is_found_and_random_ones_are_not():
    genome = random_windows(0, 1, 5000)[0]
    left = np.stack([genome[:1000], genome[3000:4000]])
    right = np.stack([reverse_complement(genome[200:1200]), random_windows(1, 1, 1000)[0]])
    found = near_duplicates(left, right)
    assert found[["window", "other"]].to_numpy().tolist() == [[0, 0]]
    assert found["similarity"].item() == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("share", [0.01, 0.03])
def test_the_similarity_of_mutated_windows_is_that_of_the_docstring(share):
    left = random_windows(2, 200, 1000)
    rng = np.random.default_rng(3)
    hit = rng.random(left.shape) < share
    right = np.where(hit, (left + rng.integers(1, 4, left.shape)) % 4, left).astype(np.uint8)
    found = near_duplicates(left, right, threshold=0.01, span=1)
    assert (found["window"] == found["other"]).all()
    assert found["similarity"].mean() == pytest.approx((1 - share) ** 21, abs=0.02)


def test_windows_of_a_satellite_are_found_without_a_table_of_all_pairs():
    satellite = np.tile(random_windows(4, 1, 171), (1, 6))[:, :1000]
    many = np.repeat(satellite, 3000, axis=0)
    found = near_duplicates(many, many)
    assert len(found) == 3000
    assert (found["similarity"] == 1).all()


def test_windows_without_a_known_base_equal_nothing():
    blank = np.full((2, 100), 4, dtype=np.uint8)
    assert near_duplicates(blank, blank).empty
    assert near_duplicates(blank[:0], blank).empty


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"threshold": 0}, "above 0 to 1, not 0"),
        ({"k": 32}, "k is 1 to 31"),
        ({"span": 0}, "span 1 or more"),
        ({"k": 21}, "windows of 20 bases hold no k-mer of 21"),
    ],
)
def test_a_wrong_argument_is_an_error_that_states_it(wrong, fault):
    windows = random_windows(5, 2, 20)
    with pytest.raises(InputError, match=fault):
        near_duplicates(windows, windows, **({"k": 5} | wrong))
