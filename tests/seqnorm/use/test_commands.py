"""The commands, on files, as somebody calls them."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pybigtools
import pytest

from data_tools.genome import Genome
from data_tools.signal import open_signal
from seqnorm import cli
from seqnorm.use.explain import explain_windows
from seqnorm.use.predict import predict_tiles
from seqnorm.use.scorer import Scorer

HEAD = "##fileformat=VCFv4.3\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["seqnorm", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def expected(model_folder: Path, genome: Genome) -> pd.DataFrame:
    """Windows of the whole genome, 20 bases apart."""
    parts = predict_tiles(Scorer.load(model_folder, batch=32), genome, step=20)
    return pd.concat(list(parts), ignore_index=True)


def test_a_tsv_of_a_genome_holds_every_window_that_has_a_score(
    call, model_folder: Path, fasta: Path, tmp_path: Path, expected: pd.DataFrame
) -> None:
    out = tmp_path / "a.tsv"
    code, said = call(
        *("predict", model_folder, "--genome", fasta, "--step", 20, "--out", out, "--batch", 32)
    )
    assert code == 0
    known = expected.dropna(subset="score").reset_index(drop=True)
    found = pd.read_csv(out, sep="\t").astype({"score": np.float32})
    pd.testing.assert_frame_equal(found, known, check_exact=True, check_dtype=False)
    assert f"scored: {len(known)}" in said
    assert f"without a score, with N or past the end of a chromosome: {62 // 20}" in said


@pytest.mark.parametrize("ending", ["bw", "bedgraph"])
def test_a_track_gives_each_score_to_the_middle_of_its_window(
    call,
    model_folder: Path,
    fasta: Path,
    tmp_path: Path,
    genome: Genome,
    ending: str,
    expected: pd.DataFrame,
) -> None:
    out = tmp_path / f"a.{ending}"
    code, _ = call(
        *("predict", model_folder, "--genome", fasta, "--step", 20, "--out", out, "--batch", 32)
    )
    assert code == 0
    wanted = {name: np.full(size, np.nan, np.float32) for name, size in genome.lengths.items()}
    for row in expected.itertuples():
        wanted[row.chrom][row.start + 20 : row.start + 40] = row.score
    with open_signal(out, genome) as signal:
        for chrom in ("chrB", "chrA"):
            found = signal.values(chrom, 0, genome.lengths[chrom])
            np.testing.assert_array_equal(found, wanted[chrom])
    if ending == "bw":
        with pybigtools.open(str(out)) as other:
            assert dict(other.chroms())["chrB"] == 3003
            rows = list(other.records("chrB", 0, 3003))
        assert [wanted["chrB"][start] for start, _, _ in rows] == [value for _, _, value in rows]
        assert sum(end - start for start, end, _ in rows) == np.isfinite(wanted["chrB"]).sum()


def test_the_same_command_writes_the_same_bytes(
    call, model_folder: Path, fasta: Path, tmp_path: Path
) -> None:
    for ending in ("bw", "bedgraph", "tsv"):
        for name in ("a", "b"):
            out = tmp_path / f"{name}.{ending}"
            assert call("predict", model_folder, "--genome", fasta, "--out", out)[0] == 0
        assert (tmp_path / f"a.{ending}").read_bytes() == out.read_bytes()


def test_rows_of_a_bed_file_keep_their_order_in_a_tsv_and_are_sorted_in_a_track(
    call, model_folder: Path, fasta: Path, tmp_path: Path
) -> None:
    bed = tmp_path / "a.bed"
    bed.write_text("chrA\t500\t540\tx\nchrB\t1000\t1002\tn\nchrA\t100\t140\ty\nchrB\t10\t90\tz\n")
    table = tmp_path / "a.tsv"
    code, said = call("predict", model_folder, "--genome", fasta, "--bed", bed, "--out", table)
    assert code == 0
    assert "scored: 3" in said
    assert "without a score, with N or past the end of a chromosome: 1" in said
    found = pd.read_csv(table, sep="\t")
    assert found["name"].tolist() == ["x", "n", "y", "z"]
    assert found["score"].isna().tolist() == [False, True, False, False]
    track = tmp_path / "a.bedgraph"
    assert call("predict", model_folder, "--genome", fasta, "--bed", bed, "--out", track)[0] == 0
    rows = [line.split("\t") for line in track.read_text().splitlines()]
    assert [row[:3] for row in rows] == [
        ["chrB", "10", "90"],
        ["chrA", "100", "140"],
        ["chrA", "500", "540"],
    ]
    assert [np.float32(row[3]) for row in rows] == [
        np.float32(found["score"][at]) for at in (3, 2, 0)
    ]


def test_a_track_without_room_for_a_score_leaves_no_file_behind(
    call, model_folder: Path, fasta: Path, tmp_path: Path
) -> None:
    bed = tmp_path / "a.bed"
    bed.write_text("chrA\t100\t200\nchrA\t150\t250\n")
    for ending in ("bw", "bedgraph"):
        out = tmp_path / f"a.{ending}"
        out.write_text("what was there before")
        code, said = call("predict", model_folder, "--genome", fasta, "--bed", bed, "--out", out)
        assert (code, "overlaps what is before it" in said) == (2, True)
        assert out.read_text() == "what was there before"
    bed.write_text("chrB\t1000\t1002\n")
    for ending in ("bw", "bedgraph", "tsv"):
        out = tmp_path / f"none.{ending}"
        code, said = call("predict", model_folder, "--genome", fasta, "--bed", bed, "--out", out)
        assert (code, "nothing to score" in said) == (2, True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.bed", "a.bedgraph", "a.bw"]


def test_ctrl_c_in_the_middle_leaves_no_file_behind(
    call, model_folder: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Scorer.scores, iter(range(100))

    def interrupted(self: Scorer, codes: np.ndarray) -> np.ndarray:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real(self, codes)

    monkeypatch.setattr("seqnorm.use.scorer.CODES", 1000)
    monkeypatch.setattr(Scorer, "scores", interrupted)
    code, said = call(
        *("predict", model_folder, "--genome", fasta, "--step", 1, "--out", tmp_path / "a.bw")
    )
    assert (code, "stopped" in said) == (130, True)
    assert not list(tmp_path.iterdir())


def test_without_pybigtools_a_bigwig_is_refused_before_any_work(
    call, model_folder: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, said = call("predict", "nothing", "--genome", fasta, "--out", tmp_path / "a.bw")
    assert (code, "pip install seqnorm[formats]" in said) == (2, True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--out", "a.wig"], "give a name that ends in"),
        (["--out", "nowhere/a.tsv"], "there is no folder nowhere"),
        (["--out", "a.tsv", "--step", "0"], "step must be at least 1"),
        (["--out", "a.tsv", "--batch", "0"], "batch must be at least 1"),
        (["--out", "a.tsv", "--width", "0"], "width must be at least 1"),
        (["--out", "a.tsv", "--width", "2"], "2 bases"),
        (["--out", "a.tsv", "--width", "5000"], "nothing to score"),
        (["--out", "a.tsv", "--chroms", "chrC"], "unknown chromosome 'chrC'"),
        (["--out", "a.tsv", "--output", "CTCF"], "has no output 'CTCF'; it has logit"),
        (["--out", "a.tsv", "--device", "abacus"], "abacus"),
        (["--out", "a.tsv", "--bed", "none.bed"], "none.bed"),
        (["--out", "a.tsv", "--bed", "none.bed", "--step", "5"], "leave it out with --bed"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(
    call,
    model_folder: Path,
    fasta: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, told = call("predict", model_folder, "--genome", fasta, *more)
    assert code == 2
    assert said in told
    assert len(told.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_explain_writes_arrays_a_table_logos_and_a_page(
    call, model_folder: Path, fasta: Path, tmp_path: Path, genome: Genome
) -> None:
    bed, out = tmp_path / "a.bed", tmp_path / "out"
    bed.write_text("chrA\t500\t540\t<b>x</b>\nchrB\t990\t1002\tn\nchrA\t100\t140\ty\n")
    code, said = call(
        *("explain", model_folder, "--genome", fasta, "--bed", bed, "--out", out),
        *("--logos", 1, "--logo-width", 30, "--method", "gradient"),
    )
    assert code == 0
    assert "windows: explained: 2" in said
    assert "windows: dropped, with N or past the end: 1" in said
    codes = genome.windows("chrA", [490, 90], 60)
    wanted = explain_windows(Scorer.load(model_folder), codes, "gradient")
    with np.load(out / "explanation.npz", allow_pickle=False) as found:
        assert found["chrom"].tolist() == ["chrA", "chrA"]
        assert found["start"].tolist() == [490, 90]
        for name in ("codes", "scores", "effects", "hypothetical", "contributions"):
            np.testing.assert_array_equal(found[name], getattr(wanted, name))
    table = pd.read_csv(out / "explanation.tsv", sep="\t")
    assert "".join(table["base"]) == "".join(genome.fetch("chrA", at, at + 60) for at in (490, 90))
    assert table["start"].tolist() == [*range(490, 550), *range(90, 150)]
    np.testing.assert_allclose(table["contribution"], wanted.contributions.ravel(), rtol=1e-7)
    np.testing.assert_allclose(table["effect_G"], wanted.effects[:, 2].ravel(), rtol=1e-7)
    assert [file.suffix for file in (out / "logos").iterdir()] == [".svg"]
    page = (out / "index.html").read_text()
    assert "<b>x" not in page
    assert "&lt;b&gt;x&lt;/b&gt;: chrA:" in page
    again = call("explain", model_folder, "--genome", fasta, "--bed", bed, "--out", out)
    assert again[0] == 2
    assert "holds something already" in again[1]


def test_variants_writes_a_row_an_allele_that_pandas_reads(
    call, model_folder: Path, fasta: Path, tmp_path: Path, genome: Genome
) -> None:
    vcf, out = tmp_path / "a.vcf", tmp_path / "a.tsv"
    ref = genome.fetch("chrA", 499, 500)
    other = [base for base in "ACGT" if base != ref]
    lines = [
        f"chrA\t500\trs1\t{ref}\t{other[0]},{other[1]}TT,<DEL>\t.\t.\t.",
        "chrB\t1001\t.\tN\tA\t.\t.\t.",
        f"chrA\t700\t.\t{genome.fetch('chrA', 699, 799)}\tA\t.\t.\t.",
        f"chrA\t900\twrong\t{'A' if genome.fetch('chrA', 899, 900) != 'A' else 'C'}\tG\t.\t.\t.",
    ]
    vcf.write_text(HEAD + "\n".join(lines) + "\n")
    arguments = ("variants", model_folder, vcf, "--genome", fasta, "--out", out)
    code, said = call(*arguments)
    assert (code, "REF" in said or "sequence" in said) == (2, True)
    assert not out.exists()
    code, said = call(
        *arguments, "--ref-mismatch", "drop", "--not-sequence", "drop", "--shifts", -5, 0, 5
    )
    assert code == 0, said
    found = pd.read_csv(out, sep="\t")
    assert found["pos"].tolist() == [500, 500, 1001, 700]
    assert found["allele"].tolist() == [1, 2, 1, 1]
    assert found["effect"].isna().tolist() == [False, False, True, False]
    assert found["effect"].equals(found["effect"].astype(float))
    for told in ("dropped, REF is not", "wider than the window, which shows their middle: 1"):
        assert told in said
    change = found["alt_score"] - found["ref_score"]
    np.testing.assert_allclose(change.dropna(), found["effect"].dropna(), atol=1e-6)
