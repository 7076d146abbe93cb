"""The card's files: a page that escapes, JSON that is JSON, markdown that stays a table."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_tools.errors import InputError
from data_tools.genome import Genome
from seqnorm.robustness import audit, write_card
from seqnorm.robustness.words import cautions, markdown

SCRIPT = Path(sys.executable).with_name("seqnorm")


def windows(count=600, chroms=("chr1", "chr2")):
    rng = np.random.default_rng(0)
    starts = [*range(0, count * 9000, 9000)] * len(chroms)
    table = pd.DataFrame({"chrom": np.repeat(list(chroms), count), "start": starts})
    table = table.assign(end=table["start"] + 200, label=rng.integers(0, 2, len(table)))
    return table.assign(gc=rng.uniform(0.3, 0.6, len(table)))


def scored(table):
    return table["label"] + np.random.default_rng(1).normal(size=len(table))


def test_the_files_are_written_and_a_hostile_name_stays_text(tmp_path):
    name = '<script>alert("x")</script> | $a$ `b`'
    table = windows(chroms=("chr1", "<img src=x>"))
    card = audit(scored(table), table, name=name, resamples=20)
    html, data, text = write_card(card, tmp_path / "new")
    page = html.read_text()
    assert "<script>" not in page
    assert "<img src=x>" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert json.loads(data.read_text())["model"] == name
    assert "<script>" not in text.read_text()
    assert "<img src=x>" not in text.read_text()
    rows = [line for line in text.read_text().splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_json_has_no_nan_where_a_chromosome_has_too_few_windows(tmp_path):
    table = windows()
    table = table[~((table["chrom"] == "chr2") & (table["label"] == 1))]
    card = audit(scored(table), table, resamples=20)
    content = json.loads(write_card(card, tmp_path)[1].read_text())
    assert content["windows"][1]["gc_positives"] is None
    assert {row["metric"] for row in content["chromosomes"] if row["chrom"] == "chr2"} == {
        "false_alarm_rate", "threshold_shift",
    }  # fmt: skip


def test_a_threshold_from_the_audited_windows_themselves_is_said_to_be_so():
    table = windows()
    own = audit(scored(table), table, resamples=20)
    apart = audit(scored(table), table, reference=["chr1"], resamples=20)
    given = audit(scored(table), table, threshold=1.5, resamples=20)
    assert any("set on the audited windows themselves" in line for line in cautions(own))
    assert not any("themselves" in line for line in cautions(apart) + cautions(given))
    assert "which was given" in markdown(given)


def test_the_same_windows_give_the_same_card_whatever_their_order():
    table = windows()
    table["score"] = scored(table)
    mixed = table.sample(frac=1, random_state=3)
    one = audit(table["score"], table, resamples=20)
    other = audit(mixed["score"], mixed, resamples=20)
    key = ["chrom", "metric"]
    pd.testing.assert_frame_equal(
        one.chromosomes.sort_values(key, ignore_index=True),
        other.chromosomes.sort_values(key, ignore_index=True),
    )


# --- the command ----------------------------------------------------------------------------------


def call(*arguments):
    return subprocess.run(
        [SCRIPT, "audit", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_command_audits_a_file_of_scores(tmp_path):
    table = windows()
    table.to_csv(tmp_path / "windows.csv", index=False)
    pd.DataFrame({"score": scored(table)}).to_csv(tmp_path / "scores.csv", index=False)
    files = (tmp_path / "scores.csv", "--windows", tmp_path / "windows.csv")
    done = call(*files, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "False alarms:" in done.stdout
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "gc_card.html", "gc_card.json", "gc_card.md",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scores", "fault"),
    [
        ("score\n0.1\n", "1 scores for 1200 windows"),
        ("points\n0.1\n", "no column 'score'"),
        ("score\nhigh\n", ":2: score is no number: 'high'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(tmp_path, scores, fault):
    windows().to_csv(tmp_path / "windows.csv", index=False)
    (tmp_path / "scores.csv").write_text(scores)
    done = call(tmp_path / "scores.csv", "--windows", tmp_path / "windows.csv", "--out", tmp_path)
    assert done.returncode == 2
    assert fault in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_command_audits_a_model_in_a_file(tmp_path):
    letters = "".join(np.random.default_rng(0).choice(list("ACGT"), 60_000))
    (tmp_path / "g.fa").write_text(f">chr1\n{letters}\n")
    table = windows(chroms=("chr1",)).assign(start=range(0, 60_000, 100))
    table = table.assign(end=table["start"] + 50).drop(columns="gc")
    table.to_csv(tmp_path / "w.csv", index=False)
    model = torch.nn.Sequential(
        torch.nn.Conv1d(4, 2, 5), torch.nn.AdaptiveAvgPool1d(1), torch.nn.Flatten(),
        torch.nn.Linear(2, 1),
    ).eval()  # fmt: skip
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.onnx.export(
        model, (torch.zeros(3, 4, 50),), tmp_path / "m.onnx", dynamo=True,
        dynamic_shapes=({0: batch},), verbose=False,
    )  # fmt: skip
    arguments = ("--windows", tmp_path / "w.csv", "--genome", tmp_path / "g.fa")
    done = call(tmp_path / "m.onnx", *arguments, "--out", tmp_path / "out", "--resamples", 10)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "gc_card.json").read_text())
    with Genome(tmp_path / "g.fa", cache_dir=tmp_path) as genome:
        expected = audit(model, table, genome=genome, resamples=10)
    rates = [row["estimate"] for row in found["chromosomes"]]
    np.testing.assert_allclose(rates, expected.chromosomes["estimate"], atol=0.01)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [("m.onnx", b"no model", "not an ONNX model"), ("none.onnx", None, "no such file")],
)
def test_a_file_that_is_no_model_is_named(tmp_path, name, content, fault):
    windows().to_csv(tmp_path / "windows.csv", index=False)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = call(tmp_path / name, "--windows", tmp_path / "windows.csv", "--out", tmp_path)
    assert done.returncode == 2
    assert fault in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    table = windows()
    with pytest.raises(InputError, match="cannot be written"):
        write_card(audit(scored(table), table, resamples=5), tmp_path / "file")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_does_not_scroll_sideways_in_a_browser(tmp_path, width, width_needed):
    table = windows(chroms=("chr1", "w" * 150))
    html = write_card(audit(scored(table), table, resamples=20), tmp_path)[0]
    assert width_needed(html, width) <= width
