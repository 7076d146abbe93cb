"""A matrix is read as it stands or refused, and scanned as Biopython scans it, both strands."""

from pathlib import Path

import numpy as np
import pytest
from Bio import motifs as bio_motifs
from Bio.Seq import Seq
from hypothesis import given
from hypothesis import strategies as st

from data_tools.encode import decode, encode, reverse_complement
from data_tools.errors import InputError
from data_tools.motifs import Motif, best_match, read_motif

CTCF = Path(__file__).parents[2] / "examples" / "data" / "MA0139.2.jaspar"
GOOD = ">M1\tX\nA [1 2]\nC [3 4]\nG [5 6]\nT [7 8]\n"


@pytest.fixture(scope="module")
def reference():
    with CTCF.open() as handle:
        return bio_motifs.read(handle, "jaspar")


def pssm_of(reference, pseudocount):
    return reference.counts.normalize(pseudocounts=pseudocount).log_odds()


def bio_best(pssm, letters):
    """Best score over both strands, by Biopython's own scan."""
    sequence = Seq(letters)
    strands = (pssm, pssm.reverse_complement())
    return max(np.max(strand.calculate(sequence)) for strand in strands)


# --- reading ---------------------------------------------------------------------------------


def test_the_ctcf_matrix_is_read_number_for_number():
    motif = read_motif(CTCF)
    lines = CTCF.read_text().splitlines()[1:]
    expected = [[float(v) for v in line.strip(" ]").split("[")[1].split()] for line in lines]
    assert motif.name == "MA0139.2 CTCF"
    assert motif.counts.tolist() == expected
    assert motif.counts.shape == (4, 15)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.rstrip(),
        GOOD + "\n\n",
        ">M1\tX\n1 2\n3 4\n5 6\n7 8\n",
        ">M1\tX\nT [7 8]\nC [3 4]\nG [5 6]\nA [1 2]\n",
        "\ufeff" + GOOD,
    ],
    ids=["plain", "CRLF", "no last newline", "empty lines", "no letters", "other order", "BOM"],
)
def test_a_matrix_does_not_depend_on_the_form_of_its_file(tmp_path, text):
    path = tmp_path / "m.jaspar"
    path.write_bytes(text.encode())
    motif = read_motif(path)
    assert motif.name == "M1 X"
    assert motif.counts.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "0 matrices"),
        ("A [1 2]\nC [3 4]\nG [5 6]\nT [7 8]\n", "0 matrices"),
        (GOOD + GOOD, "2 matrices"),
        (GOOD + ">M2\tY\nA [1 2]\n", "2 matrices"),
        (GOOD.replace("T [7 8]\n", ""), "4 lines"),
        (GOOD + "A [9 9]\n", "6 lines"),
        (GOOD.replace("C [3 4]", "C [3 4 5]"), "inconsistent lengths"),
        (GOOD.replace("C [3 4]", "A [3 4]"), "not a JASPAR matrix"),
        (GOOD.replace("T [7 8]", "U [7 8]"), "not a JASPAR matrix"),
        (GOOD.replace("3", "three"), "not a JASPAR matrix"),
        (GOOD.replace("3", "-3"), "count -3"),
        (GOOD.replace("3", "nan"), "count nan"),
        (GOOD.replace("3", "inf"), "count inf"),
        (">M1\tX\nA [0 2]\nC [0 4]\nG [0 6]\nT [0 8]\n", "column 1 "),
        (">M1\tX\nA []\nC []\nG []\nT []\n", "no column"),
        (">chr1\nACGT\nACGT\nACGT\nACGT\n", "not a JASPAR matrix"),
        (b"\xff\xfe\x00>", "not a JASPAR matrix"),
    ],
    ids=[
        "empty", "no header", "two", "one and a half", "a row short", "a row more", "ragged",
        "a row twice", "RNA", "word", "negative", "nan", "inf", "empty column", "no column",
        "FASTA", "binary",
    ],
)  # fmt: skip
def test_a_bad_file_is_an_error_of_one_line_that_names_file_and_fault(tmp_path, text, fault):
    path = tmp_path / "m.jaspar"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        read_motif(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert fault in message
    assert "\n" not in message


def test_a_missing_file_and_a_folder_are_errors(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_motif(tmp_path / "none.jaspar")
    with pytest.raises(InputError, match="cannot be read"):
        read_motif(tmp_path)


# --- log-odds --------------------------------------------------------------------------------


@pytest.mark.parametrize("pseudocount", [0.25, 0.8, 5.0])
def test_log_odds_are_those_of_biopython_with_the_same_pseudocount(reference, pseudocount):
    pssm = pssm_of(reference, pseudocount)
    expected = np.array([pssm[base] for base in "ACGT"])
    found = read_motif(CTCF).log_odds(pseudocount)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("pseudocount", [-0.1, 0.0, float("nan"), float("inf")])
def test_a_pseudocount_that_leaves_a_frequency_of_0_or_none_is_an_error(pseudocount):
    with pytest.raises(InputError, match="pseudocount"):
        Motif("x", np.array([[8.0], [0.0], [0.0], [0.0]])).log_odds(pseudocount)


def test_no_pseudocount_is_needed_where_no_count_is_0():
    np.testing.assert_array_equal(Motif("x", np.full((4, 2), 3.0)).log_odds(0.0), np.zeros((4, 2)))


# --- scanning --------------------------------------------------------------------------------


def test_best_match_is_that_of_biopython_over_both_strands(reference):
    pssm = pssm_of(reference, 0.8)
    codes = np.random.default_rng(0).integers(0, 4, (200, 60), dtype=np.uint8)
    site = encode("TGGCCACCAGGGGGCGCTA")
    codes[:50, 20:39] = site
    codes[50:100, 7:26] = reverse_complement(site)
    expected = [bio_best(pssm, decode(row)) for row in codes]
    found = best_match(codes, read_motif(CTCF).log_odds(0.8))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert found[:100].min() > found[100:].max()


@given(st.text("ACGTN", min_size=3, max_size=30), st.integers(0, 1000))
def test_an_ambiguous_base_scores_as_the_worst_of_its_column_on_either_strand(letters, seed):
    weights = np.random.default_rng(seed).normal(size=(4, 3)).astype(np.float32)
    scores = []
    for strand in (letters, reverse_complement(letters)):
        for start in range(len(letters) - 2):
            site = strand[start : start + 3]
            column = [
                weights[:, k].min() if base == "N" else weights["ACGT".index(base), k]
                for k, base in enumerate(site)
            ]
            scores.append(sum(column))
    found = best_match(encode(letters)[None], weights)
    np.testing.assert_allclose(found, [max(scores)], rtol=0, atol=1e-5)


def test_a_window_and_its_reverse_complement_score_alike():
    codes = np.random.default_rng(1).integers(0, 5, (50, 40), dtype=np.uint8)
    weights = read_motif(CTCF).log_odds()
    turned = best_match(reverse_complement(codes), weights)
    np.testing.assert_allclose(turned, best_match(codes, weights), rtol=0, atol=1e-4)


def test_scores_do_not_depend_on_the_other_windows():
    codes = np.random.default_rng(2).integers(0, 4, (9000, 500), dtype=np.uint8)
    weights = np.random.default_rng(2).normal(size=(4, 2)).astype(np.float32)
    together = best_match(codes, weights)
    picked = [0, 7999, 8000, 8999]
    assert together[picked].tolist() == [best_match(codes[i], weights)[0] for i in picked]


def test_a_window_as_wide_as_the_motif_has_one_site_on_each_strand():
    weights = np.array([[1, 0], [0, 2], [0, 4], [8, 0]], dtype=np.float32)
    assert best_match(encode("AC"), weights).tolist() == [3.0]
    assert best_match(encode("CA"), weights).tolist() == [12.0]
    assert best_match(np.empty((0, 2), dtype=np.uint8), weights).tolist() == []


@pytest.mark.parametrize(
    ("codes", "weights", "fault"),
    [
        (np.zeros((2, 3), np.uint8), np.zeros((4, 4), np.float32), "window of 3 bases is shorter"),
        (np.zeros((2, 9), np.uint8), np.zeros((5, 4), np.float32), r"shape \(4, K\).*\(5, 4\)"),
        (np.zeros((2, 9), np.uint8), np.zeros((4, 0), np.float32), r"shape \(4, K\).*\(4, 0\)"),
        (np.zeros((2, 9), np.uint8), np.zeros(4, np.float32), r"shape \(4, K\).*\(4,\)"),
        (np.full((2, 9), 5, np.uint8), np.zeros((4, 4), np.float32), "0 to 4, got the value 5"),
        (np.full((2, 9), -1), np.zeros((4, 4), np.float32), "0 to 4, got the value -1"),
        (np.zeros((2, 9, 4), np.uint8), np.zeros((4, 4), np.float32), r"\(N, L\).*\(2, 9, 4\)"),
    ],
    ids=["short", "5 rows", "no column", "1-d", "code 5", "code -1", "3-d"],
)
def test_windows_or_weights_that_do_not_fit_are_an_error(codes, weights, fault):
    with pytest.raises(InputError, match=fault):
        best_match(codes, weights)
