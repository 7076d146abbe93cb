"""The report is drawn from a made-up folder, so that what it must show is known."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from data_tools.errors import InputError
from federated.plots import partition_plot
from federated.report import write_report
from federated.spec import as_toml, load_spec

EXAMPLE = Path(__file__).parents[2] / "examples" / "federated_ctcf.toml"
NORMS, POLICIES = ("group:8", "batch"), ("fedavg", "fedbn")
HOSTILE = "<script>alert(1)</script>$x$"
SESSION: dict[str, Any] = {
    "updated": "2026-01-01T00:00:00+00:00",
    "workers": 2,
    "threads_per_worker": 1,
    "python": "3.11",
    "platform": "Linux x86_64",
    "seqnorm": "0",
    "git_revision": None,
    "libraries": {"torch": "2"},
}


class Parser(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.links += [v for k in ("src", "href") if (v := found.get(k)) is not None]
        assert tag != "img" or found.get("alt")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes most of the time, where it is not what is tested."""
    monkeypatch.setattr("federated.report.svg", lambda figure: "<svg/>")


def parsed(folder: Path) -> Parser:
    parser = Parser()
    parser.feed(write_report(folder).read_text())
    return parser


def rows_of(
    rounds: int, seeds: int, client: str = "site b"
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    clients, costs = [], []
    for norm in NORMS:
        for policy in POLICIES:
            for seed in range(seeds):
                for number in range(1, rounds + 1):
                    key = {"norm": norm, "policy": policy, "strategy": "fedavg"}
                    key |= {"learning_rate": 0.1, "seed": seed, "round": number}
                    value = 0.4 + 0.05 * number + 0.01 * seed
                    value += 0.1 * ((norm, policy) == ("batch", "fedbn"))
                    for name, part in (
                        *((who, part) for who in ("a", client) for part in ("validation", "test")),
                        ("unseen", "test"),
                    ):
                        row = {"client": name, "part": part, "examples": 12, "loss": 1 - value}
                        clients.append(key | row | {"auprc": value, "auroc": value})
                    costs.append(key | {"bytes_up": 2000, "bytes_down": 1000, "seconds": 1.5})
    return clients, costs


def run_folder(
    folder: Path, *overrides: str, rounds: int = 3, seeds: int = 2, client: str = "site b"
) -> Path:
    given = [
        f"norms={list(NORMS)}",
        f"policies={list(POLICIES)}",
        "training.rounds=3",
        "training.learning_rates=[0.1]",
        f"training.seeds={list(range(seeds))}",
        *overrides,
    ]
    spec = load_spec(EXAMPLE, given, runnable=False)
    (folder / "spec.toml").write_text(as_toml(spec))
    record = {"status": "complete", "sessions": [SESSION], "data_sha256": {"genome": "0" * 64}}
    (folder / "run.json").write_text(json.dumps(record))
    clients, costs = rows_of(rounds, seeds, client)
    event = costs[0] | {"client": client, "event": "refused", "reason": f"{client}: 3 NaN"}
    columns = ["norm", "policy", "strategy", "learning_rate", "seed", "round"]
    columns += ["client", "event", "reason"]
    written = {"clients": pd.DataFrame(clients), "rounds": pd.DataFrame(costs)}
    written["events"] = pd.DataFrame([event])[columns]
    for name, table in written.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.17g", na_rep="nan")
    return folder


def add_extras(folder: Path, client: str = "site b") -> Path:
    rows = pd.DataFrame(rows_of(2, 2, client)[0])
    rows = rows[rows["policy"] == "fedavg"].drop(columns=["policy", "strategy"])
    pd.concat([rows.assign(kind=kind) for kind in ("pooled", "local")]).to_csv(
        folder / "references.csv", index=False
    )
    held: dict[str, Any] = {"client": ["a", client], "batch": ["a", client], "rows": [40, 60]}
    held |= {"positives": [10, 30], "prevalence": [0.25, 0.5], "gc_mean": [0.4, 0.5]}
    pd.DataFrame(held | {"gc_sd": [0.02, 0.03]}).to_csv(folder / "partition.csv", index=False)
    fates = [("gamma", "local"), ("mean", "local"), ("parameter", "averaged")]
    manifest = [
        {"norm": "batch", "policy": "fedbn", "tensor": f"norm.{role}", "module": "norm"}
        | {"layer": "BatchNorm1d", "role": role, "first_round": 1, "fate": fate}
        for role, fate in fates
    ]
    pd.DataFrame(manifest).to_csv(folder / "manifests.csv", index=False)
    return folder


def test_the_report_is_one_self_contained_file_with_all_of_its_parts(tmp_path: Path) -> None:
    parser = parsed(add_extras(run_folder(tmp_path)))
    first = (tmp_path / "report.html").read_bytes()
    assert parser.tags.count("img") == 5
    assert all(link.startswith("data:image/svg+xml,%3C") for link in parser.links)
    assert "script" not in parser.tags
    assert not re.search(r"\b(nan|None)\b", parser.text)
    for part in (
        "The question",
        "The answer",
        "Against the baseline, GroupNorm (8) under fedavg",
        "Against fedavg, within each norm",
        "Against one model of everybody's rows pooled",
        "Against models that each client trains alone",
        "Round by round",
        "Client by client",
        "Who holds what",
        "What becomes of the norm layers",
        "site b: 3 NaN",
        "How learning rates were chosen",
        "What it cost",
        "The spec",
    ):
        assert part in parser.text
    assert "BatchNorm under fedbn1" in re.sub(r"\s", " ", parser.text)
    assert "not finished" not in parser.text
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert len(summary) == 8
    assert (tmp_path / "differences.csv").exists()
    assert write_report(tmp_path).read_bytes() == first


@pytest.mark.usefixtures("no_pictures")
def test_without_references_partition_and_manifests_the_rest_is_shown(tmp_path: Path) -> None:
    parser = parsed(run_folder(tmp_path))
    assert parser.tags.count("img") == 4
    assert "pooled" not in parser.text
    assert "Who holds what" not in parser.text
    assert "What becomes of" not in parser.text


def test_what_clients_and_users_write_is_escaped(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, f"question={HOSTILE} & more", client=HOSTILE)
    add_extras(folder, client=HOSTILE)
    page = write_report(folder).read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$x$ &amp; more" in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$x$: 3 NaN" in page


@pytest.mark.usefixtures("no_pictures")
def test_the_picture_of_the_partition_that_the_run_left_is_shown(tmp_path: Path) -> None:
    folder = add_extras(run_folder(tmp_path))
    (folder / "partition.png").write_bytes(b"\x89PNG\r\n")
    links = parsed(folder).links
    assert [link for link in links if link.startswith("data:image/png;base64,iVBORw0K")]


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_was_stopped_midway_is_reported_and_says_so(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "training.seeds=[0, 1, 2]", rounds=1)
    parser = parsed(folder)
    assert "not finished" in parser.text
    assert "12 runs of the spec are missing or were stopped midway" in parser.text
    assert "What is missing" in parser.text


def test_a_run_without_a_finished_round_is_reported_and_says_so(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    for name in ("clients", "rounds", "events"):
        header = (folder / f"{name}.csv").read_text().splitlines()[0]
        (folder / f"{name}.csv").write_text(header + "\n")
    parser = parsed(folder)
    assert "No round of any run is finished, so there is no answer yet." in parser.text
    assert "no reply was refused" in parser.text
    assert parser.tags.count("img") == 0


@pytest.mark.parametrize(("rounds", "seeds"), [(1, 1), (1, 2)])
def test_one_round_or_one_seed_is_enough_for_a_report(
    tmp_path: Path, rounds: int, seeds: int
) -> None:
    folder = run_folder(tmp_path, f"training.rounds={rounds}", rounds=rounds, seeds=seeds)
    parser = parsed(folder)
    assert "not finished" not in parser.text
    assert ("one seed: no interval" in parser.text) == (seeds == 1)
    assert not re.search(r"\bnan\b", parser.text)


def test_metrics_without_a_value_are_dashes(tmp_path: Path) -> None:
    folder = add_extras(run_folder(tmp_path))
    table = pd.read_csv(folder / "clients.csv")
    table.loc[table["norm"] == "batch", ["loss", "auprc"]] = float("nan")
    table.to_csv(folder / "clients.csv", index=False, na_rep="nan")
    assert not re.search(r"\bnan\b", parsed(folder).text)
    table["auprc"] = float("nan")
    table.to_csv(folder / "clients.csv", index=False, na_rep="nan")
    (folder / "references.csv").unlink()
    parser = parsed(folder)
    assert "No combination can be called the best" in parser.text
    assert not re.search(r"\bnan\b", parser.text + (folder / "summary.md").read_text())


@pytest.mark.usefixtures("no_pictures")
def test_shared_runs_are_counted_once_and_stopped_ones_explained(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "training.rounds=4")
    record = json.loads((folder / "run.json").read_text())
    twins = {f"group-8_fedbn_lr0.1_seed{n}": f"group-8_fedavg_lr0.1_seed{n}" for n in (0, 1)}
    record |= {"same_runs": twins, "stopped": {"batch_fedavg_lr0.1_seed0": HOSTILE}}
    (folder / "run.json").write_text(json.dumps(record))
    parser = parsed(folder)
    assert "they treat every tensor of the model alike, and are one run" in parser.text
    assert f"batch_fedavg_lr0.1_seed0: {HOSTILE}" in parser.text
    cost = parser.text[parser.text.index("What it cost") :]
    assert "GroupNorm (8) under fedavg" in cost
    assert "GroupNorm (8) under fedbn" not in cost


@pytest.mark.usefixtures("no_pictures")
def test_settings_of_a_study_have_sections_of_their_own(tmp_path: Path) -> None:
    folder = add_extras(run_folder(tmp_path))
    for name in ("clients", "rounds"):
        table = pd.read_csv(folder / f"{name}.csv")
        both = pd.concat([table.assign(skew=skew) for skew in (0.1, 0.9)])
        both = both[["skew", *table.columns]]
        both.to_csv(folder / f"{name}.csv", index=False, float_format="%.17g")
    text = parsed(folder).text
    assert "Results: skew = 0.1" in text
    assert "Results: skew = 0.9" in text
    summary = (folder / "summary.md").read_text()
    assert "**Skew = 0.1**" in summary
    assert "**Skew = 0.9**" in summary


@pytest.mark.usefixtures("no_pictures")
def test_the_summary_has_the_answer_and_a_row_for_what_differs(tmp_path: Path) -> None:
    folder = add_extras(run_folder(tmp_path))
    parser = parsed(folder)
    summary = (folder / "summary.md").read_text()
    assert summary.startswith("On validation, BatchNorm under fedbn is the best of ")
    assert summary.splitlines()[0].replace(" %", "\u00a0%") in parser.text
    rows = [line.strip("| ").split(" | ") for line in summary.splitlines() if line[:1] == "|"]
    assert rows[0][1:] == ["mean over clients", "worst client", "unseen site", "rate", "round"]
    # Two seeds, .65 and .66: t of one degree of freedom is 12.706, the standard error .005.
    found = "0.655 (0.591 to 0.719)"
    assert ["BatchNorm under fedbn", found, found, found, "0.1", "3.0"] in rows
    names = [row[0] for row in rows[2:]]
    assert "GroupNorm (8) under fedavg" in names
    assert "GroupNorm (8) under fedbn" not in names, "it equals fedavg"
    assert rows[-1][0] == "BatchNorm, each client alone"
    assert rows[-1][3:] == ["–", "0.1", "own"], "a client's own model is measured at no other site"


def test_the_picture_of_the_partition_tells_settings_apart() -> None:
    held = pd.DataFrame({"client": ["a", "b"], "rows": [40, 60], "positives": [10, 30]})
    names = [label.get_text() for label in partition_plot(held).axes[0].get_yticklabels()]
    assert names == ["a", "b"]
    both = pd.concat([held.assign(skew=skew) for skew in (0.0, 0.95)])
    figure = partition_plot(both[["skew", *held.columns]])
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["skew 0:  a", "skew 0:  b", "skew 0.95:  a", "skew 0.95:  b"]


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run to report here \(run.json is missing\)"):
        write_report(tmp_path)
    run_folder(tmp_path)
    (tmp_path / "clients.csv").unlink()
    with pytest.raises(InputError, match=r"clients.csv is missing"):
        write_report(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run.json: cannot be read"):
        write_report(tmp_path)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_scrolls_sideways_in_a_browser(
    tmp_path: Path, width: int, width_needed: Callable[[Path, int], int]
) -> None:
    write_report(add_extras(run_folder(tmp_path, client="w" * 150), client="w" * 150))
    assert width_needed(tmp_path / "report.html", width) <= width
