"""Windows that may leave their chromosome, and those that are fit to be learnt from."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.counts import Counts, DroppedWarning
from data_tools.encode import encode
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.window_choice import ambiguous_share, choose_windows, masked_share
from data_tools.windows import summit_windows, window_codes

LETTERS = {"a": "ACGTNNacgtnRyTTGCA", "b": "ccccGGGG"}
SCRIPT = Path(sys.executable).with_name("data-tools")


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genome")
    path = folder / "two.fa"
    path.write_text("".join(f">{name}\n{text}\n" for name, text in LETTERS.items()))
    with Genome(path, cache_dir=folder) as opened:
        yield opened


@given(st.data())
def test_padded_codes_are_the_letters_with_n_wherever_the_chromosome_has_none(genome, data):
    size = data.draw(st.integers(1, 12))
    rows = data.draw(st.lists(st.tuples(st.sampled_from("ab"), st.integers(-30, 30)), max_size=6))
    table = pd.DataFrame(rows, columns=["chrom", "start"]).astype({"start": "int64"})
    table = table.assign(end=table["start"] + size)
    found = window_codes(genome, table, outside="pad")
    for (chrom, start), codes in zip(rows, found, strict=True):
        around = "N" * 60 + LETTERS[chrom] + "N" * 60
        assert codes.tolist() == encode(around[60 + start : 60 + start + size]).tolist()


def test_a_window_past_the_end_is_an_error_unless_it_is_dropped_or_padded(genome):
    peaks = pd.DataFrame({"chrom": ["a", "b"], "start": [8, 0], "end": [9, 2]})
    with pytest.raises(InputError, match="leaves its chromosome of 8 bases"):
        summit_windows(peaks, genome.lengths, 4)
    dropped, padded = Counts(), Counts()
    assert len(summit_windows(peaks, genome.lengths, 4, on_edge="drop", counts=dropped)) == 1
    kept = summit_windows(peaks, genome.lengths, 4, on_edge="pad", counts=padded)
    assert kept["start"].tolist() == [6, -1]
    assert dropped == {"windows: dropped, past the end of the chromosome": 1}
    assert padded == {"windows: padded, past the end of the chromosome": 1}
    with pytest.raises(InputError, match="start is below 0"):
        window_codes(genome, kept)
    assert window_codes(genome, kept, outside="pad")[1].tolist() == [4, 1, 1, 1]


@given(st.lists(st.integers(0, 12), max_size=6), st.floats(0, 1), st.floats(0, 1))
def test_windows_are_kept_by_the_shares_counted_letter_by_letter(genome, starts, n, masked):
    table = pd.DataFrame({"chrom": "a", "start": np.array(starts, dtype=np.int64)})
    table = table.assign(end=table["start"] + 6)
    counts = Counts()
    found = choose_windows(
        genome, table, max_ambiguous=n, max_masked=masked, duplicates="drop", counts=counts
    )
    expected = []
    for start in dict.fromkeys(starts):
        text = LETTERS["a"][start : start + 6]
        known = sum(letter in "ACGTacgt" for letter in text) / 6
        lower = sum(letter.islower() for letter in text) / 6
        if 1 - known <= n + 1e-12 and lower <= masked:
            expected.append(start)
    assert found["start"].tolist() == expected
    assert sum(counts.values()) == len(starts) - len(expected)


def test_shares_of_no_window_are_none(genome):
    none = pd.DataFrame({"chrom": [], "start": [], "end": []})
    assert ambiguous_share(genome, none).shape == masked_share(genome, none).shape == (0,)


def test_duplicates_are_an_error_that_names_the_first_and_what_nobody_counts_is_a_warning(genome):
    table = pd.DataFrame({"chrom": "a", "start": [0, 1, 1, 1], "end": [4, 5, 5, 5]})
    with pytest.raises(InputError, match=r"a:1-5 stands twice \(2 such windows in all\)"):
        choose_windows(genome, table, duplicates="error")
    with pytest.warns(DroppedWarning, match="duplicates: 2"):
        assert len(choose_windows(genome, table, duplicates="drop")) == 2


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"max_ambiguous": -0.1}, "max_ambiguous is a share of bases, 0 to 1"),
        ({"max_masked": 1.1}, "max_masked is a share of bases, 0 to 1"),
        ({"duplicates": "skip"}, "duplicates='skip' does not exist"),
    ],
)
def test_a_wrong_argument_is_an_error_that_states_it(genome, wrong, fault):
    with pytest.raises(InputError, match=fault):
        choose_windows(genome, pd.DataFrame({"chrom": [], "start": [], "end": []}), **wrong)


def test_the_command_writes_what_it_counted(tmp_path):
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("ACGT"), 4000))
    (tmp_path / "g.fa").write_text(f">chr1\n{text[:1000]}{'N' * 50}{text[1050:]}\n")
    rows = [(500, 600), (500, 600), (980, 1100), (3990, 4000), (5000, 5100)]
    bed = "".join(f"1\t{start}\t{end}\n" for start, end in rows) + "7\t1\t2\n"
    (tmp_path / "p.bed").write_text(bed)
    done = subprocess.run(
        [
            SCRIPT, "windows", "g.fa", "p.bed", "--width", "100", "--out", "w.csv",
            "--chrom-style", "match", "--unknown-chrom", "drop", "--out-of-range", "drop",
            "--duplicates", "drop", "--max-ambiguous", "0.1", "--summary", "counts.json",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads((tmp_path / "counts.json").read_text())
    dropped = {what: number for what, number in counts.items() if "dropped" in what and number}
    assert sum(dropped.values()) == 5
    assert counts["peaks: kept"] == 1
    assert all(f"{what}: {number}" in done.stderr for what, number in dropped.items())
