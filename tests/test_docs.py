"""What the documents say is so."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DATA_TOOLS = (ROOT / "docs" / "data_tools.md").read_text()
USE = (ROOT / "docs" / "use.md").read_text()


def blocks(language: str, page: str = README) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.M | re.S)
    return [text for name, text in found if name == language]


def test_the_readme_begins_with_the_two_commands() -> None:
    assert blocks("")[0] == "make demo\nmake test\n"


@pytest.mark.parametrize(
    "code",
    [*blocks("python"), *blocks("python", DATA_TOOLS), *blocks("python", USE)],
    ids=lambda code: code.split("\n")[0],
)
def test_the_python_of_the_pages_runs(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for said in re.findall(r"print\(.*# (\(.*?\)):", code):
        assert said in done.stdout


def test_the_commands_of_the_readme_exist() -> None:
    every = [*blocks(""), *blocks("", DATA_TOOLS), *blocks("", USE)]
    lines = [line for block in every for line in block.splitlines() if ".venv/bin/" in line]
    assert len(lines) >= 4
    for line in lines:
        words = line.removeprefix(".venv/bin/").split()
        program = Path(sys.executable).parent / words[0]
        shown = subprocess.run([program, words[1], "--help"], capture_output=True, text=True)
        assert shown.returncode == 0
        for option in (word for word in words if word.startswith("--")):
            assert option in shown.stdout


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_tree_in_the_architecture_names_every_module_and_no_other() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    tree = re.search(r"```\n(.*?)```", text, flags=re.S)
    assert tree
    modules = {
        path.name
        for package in ("data_tools", "seqnorm", "federated")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py" and not {"models", "layers", "backends"} & set(path.parts)
    }
    assert set(re.findall(r"\w+\.py", tree[1])) == modules


def test_versions_agree() -> None:
    from seqnorm import __version__

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = (ROOT / "CITATION.cff").read_text()
    assert project["version"] == __version__
    assert f"version: {__version__}" in citation
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


KEPT = sorted(path.parent for path in (ROOT / "docs" / "results").glob("*/hypotheses.csv"))


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_the_page_of_a_kept_study_says_what_its_tables_say(folder: Path) -> None:
    page = (folder / "README.md").read_text()
    assert json.loads((folder / "run.json").read_text())["status"] == "complete"
    for row in pd.read_csv(folder / "hypotheses.csv").itertuples():
        assert f"{row.verdict}.** {row.claim} {row.sentence}" in page
    assert f"{len(pd.read_csv(folder / 'tuning.csv'))} trained networks, " in page
    for figure in re.findall(r"!\[.*?\]\((.*?)\)", page):
        assert (folder / figure).is_file()


FEDERATED = ROOT / "docs" / "results" / "federated_study"


def test_the_page_of_the_federated_study_says_what_its_tables_say() -> None:
    page = (FEDERATED / "README.md").read_text()
    assert json.loads((FEDERATED / "run.json").read_text())["status"] == "complete"
    for row in pd.read_csv(FEDERATED / "summary.csv").to_dict("records"):
        told = [
            f"{row[m]:.3f} ({row[f'{m}_low']:.3f} to {row[f'{m}_high']:.3f})"
            for m in ("test", "worst")
        ]
        assert f"| {' | '.join(told)} |" in page, row


def test_the_index_of_the_studies_names_each() -> None:
    index = (ROOT / "docs" / "results" / "README.md").read_text()
    assert KEPT
    for folder in (*KEPT, FEDERATED):
        assert f"({folder.name}/README.md)" in index


def _triples() -> set[tuple[float, float, float]]:
    """Every estimate of the study with its interval, to three digits."""
    summary, differences = (
        pd.read_csv(FEDERATED / f"{name}.csv") for name in ("summary", "differences")
    )
    found = [differences[["estimate", "low", "high"]]]
    found += [summary[[m, f"{m}_low", f"{m}_high"]] for m in ("test", "worst", "unseen")]
    rows = np.concatenate([table.to_numpy(dtype=float) for table in found])
    return {tuple((np.round(row, 3) + 0.0).tolist()) for row in rows}


def test_the_figures_of_the_study_are_those_of_the_run_that_is_kept() -> None:
    page = (ROOT / "docs" / "federated.md").read_text()
    section = page.partition("## What the study found")[2].partition("\n## ")[0]
    number = r"([−+]?\d?\.\d{3})"
    told = re.findall(rf"{number}\s+\({number}\s+to\s+{number}\)", section)
    assert len(told) >= 10
    known = _triples()
    for words in told:
        triple = tuple(float(word.replace("−", "-")) + 0.0 for word in words)
        assert triple in known, words
