"""A matrix is read as it stands or refused, and scanned as Biopython scans it, both strands."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from Bio import motifs as bio_motifs
from Bio.Seq import Seq
from hypothesis import given
from hypothesis import strategies as st

from data_tools.encode import decode, encode, reverse_complement
from data_tools.errors import InputError
from data_tools.logo import motif_logo
from data_tools.motif_scan import best_match, scan
from data_tools.motifs import Motif, read_motif, read_motifs

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
        ("", "holds no matrix"),
        ("A [1 2]\nC [3 4]\nG [5 6]\nT [7 8]\n", "not a JASPAR matrix (4 lines"),
        (GOOD + GOOD, "2 matrices"),
        (GOOD + ">M2\tY\nA [1 2]\n", "not a JASPAR matrix (2 lines"),
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
        (b"\xff\xfe\x00>", "not a file of matrices"),
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


# --- MEME and HOCOMOCO, many motifs, logos --------------------------------------------------------

MEME = """MEME version 4

ALPHABET= ACGT

strands: + -

Background letter frequencies
A 0.25 C 0.25 G 0.25 T 0.25

MOTIF AHR.H13CORE.0.P.B
letter-probability matrix: alength= 4 w= 2 nsites= 1003
0.1754735792622134\t0.3060817547357926\t0.390827517447657\t0.127617148554337
1.0\t0.0\t0.0\t0.0
URL https://hocomoco13.autosome.org/motif/AHR

MOTIF second other_name
letter-probability matrix: alength= 4 w= 1
0.2 0.3 0.4 0.1
"""


@pytest.mark.parametrize("squeeze", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_the_frequencies_of_a_meme_file_are_not_rounded(tmp_path, squeeze):
    path = tmp_path / "m.meme"
    path.write_bytes(squeeze(MEME.encode()))
    first, second = read_motifs(path)
    assert first.name == "AHR.H13CORE.0.P.B"
    expected = 1003 * np.array([0.1754735792622134, 0.3060817547357926, 0.390827517447657])
    np.testing.assert_allclose(first.counts[:3, 0], expected, rtol=1e-8)
    assert first.counts[:, 1].tolist() == [1003, 0, 0, 0]
    np.testing.assert_allclose(second.counts[:, 0], [4, 6, 8, 2])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("0.2 0.3 0.4 0.1", "0.2 0.3 0.4 0.3"), "the frequencies of column 1 do not sum to 1"),
        (("0.2 0.3", "0.2 three"), "not a MEME file"),
        (("ALPHABET= ACGT", "ALPHABET= ACDEFGHIKLMNPQRSTVWY"), "not a MEME file"),
        (("1.0\t0.0\t0.0\t0.0", "1.5\t-0.5\t0.0\t0.0"), "count -501.5 of C in column 2"),
    ],
)
def test_a_bad_meme_file_is_an_error_that_names_file_and_fault(tmp_path, change, fault):
    path = tmp_path / "m.meme"
    path.write_text(MEME.replace(*change))
    with pytest.raises(InputError) as caught:
        read_motifs(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert fault in str(caught.value)


def test_a_file_that_inflates_without_end_is_refused_in_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("data_tools.motifs._LARGEST", 1 << 16)
    path = tmp_path / "m.meme.gz"
    path.write_bytes(gzip.compress(MEME.encode() + b"#" * (1 << 20)))
    with pytest.raises(InputError, match="inflates to more than"):
        read_motifs(path)
    path.write_bytes(gzip.compress(MEME.encode())[:-9])
    with pytest.raises(InputError, match="broken gzip"):
        read_motifs(path)


def test_several_jaspar_matrices_are_read_in_order(tmp_path):
    path = tmp_path / "m.jaspar"
    path.write_text(GOOD + GOOD.replace("M1", "M2"))
    assert [motif.name for motif in read_motifs(path)] == ["M1 X", "M2 X"]


def test_log_odds_against_a_background_are_those_of_biopython():
    motif = Motif("x", np.array([[5.0, 0], [1, 2], [0, 9], [3, 1]]))
    background = (0.3, 0.2, 0.1, 0.4)
    matrix = bio_motifs.Motif(counts={b: motif.counts[i] for i, b in enumerate("ACGT")})
    pseudo = {b: 4 * 0.5 * f for b, f in zip("ACGT", background, strict=True)}
    expected = matrix.counts.normalize(pseudo).log_odds(dict(zip("ACGT", background, strict=True)))
    found = motif.log_odds(0.5, background)
    np.testing.assert_allclose(found, [expected[b] for b in "ACGT"], rtol=1e-6)
    for wrong in [(0.5, 0.5), (0.5, 0.5, 0, 0), (1, 1, 1, np.nan)]:
        with pytest.raises(InputError, match="a background has four frequencies"):
            motif.log_odds(background=wrong)


def brute_force(codes, matrix):
    """Best (score, start, reverse) of one window, looking at every site."""
    width = matrix.shape[1]
    extended = np.vstack([matrix, matrix.min(axis=0)])
    best = (-np.inf, 0, False)
    for start in range(len(codes) - width + 1):
        site = codes[start : start + width]
        for reverse, letters in ((False, site), (True, reverse_complement(site))):
            score = sum(float(extended[b, k]) for k, b in enumerate(letters))
            if score > best[0] + 1e-9:
                best = (score, start, reverse)
    return best


@given(st.integers(0, 10**6), st.sampled_from([1, 1 << 24]))
def test_a_scan_finds_what_a_look_at_every_site_finds(seed, floats_at_a_time):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 5, (5, 9), dtype=np.uint8)
    # Weights that sums in any order keep exact, and many ties.
    matrices = [rng.integers(-3, 4, (4, k)).astype(np.float32) for k in (1, 4, 9, 2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_tools.motif_scan._FLOATS_AT_A_TIME", floats_at_a_time)
        found = scan(codes, matrices)
    for n, window in enumerate(codes):
        for m, matrix in enumerate(matrices):
            expected = brute_force(window, matrix)
            assert (found.score[n, m], found.start[n, m], found.reverse[n, m]) == expected


def test_a_scan_of_one_motif_scores_as_best_match_does():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (50, 200), dtype=np.uint8)
    matrix = rng.normal(size=(4, 11)).astype(np.float32)
    np.testing.assert_allclose(scan(codes, [matrix]).score[:, 0], best_match(codes, matrix), 1e-5)


def test_a_scan_without_motifs_is_an_error():
    with pytest.raises(InputError, match="no motif"):
        scan(np.zeros((1, 5), np.uint8), [])


def test_the_letters_of_a_logo_fill_the_information_of_their_column():
    motif = Motif("x $1$", np.array([[90.0, 25], [5, 25], [5, 25], [0, 25]]))
    figure = motif_logo(motif, pseudocount=0.5)
    boxes = [patch.get_extents().transformed(figure.axes[0].transData.inverted())
             for patch in figure.axes[0].patches]  # fmt: skip
    heights = sorted(box.height for box in boxes if box.x1 < 1.5)
    share = np.sort((motif.counts + 0.5)[:, 0] / 102)
    np.testing.assert_allclose(heights, share * motif.information(0.5)[0], rtol=1e-3)
    assert max(box.y1 for box in boxes) == pytest.approx(motif.information(0.5)[0], rel=1e-3)
    assert motif.information(0.5)[1] == pytest.approx(0, abs=1e-12)
