"""The report is drawn from made-up tables, so that what it must say is known."""

import dataclasses
import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_tools.errors import InputError
from seqnorm.holdout.answer import compose
from seqnorm.holdout.build import build_tables
from seqnorm.holdout.design import Cell
from seqnorm.holdout.load import as_toml, load_spec
from seqnorm.holdout.measures import DECILES, METRICS, POINTS, Measures
from seqnorm.holdout.report import write_report
from seqnorm.holdout.run import write_tables
from seqnorm.holdout.schedule import Results
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import Tables
from seqnorm.holdout.trial import BASELINE, Trained, Trial

CHROMS = ["chr4", "chr3", "chr19"]
RESAMPLES = 100


def evaluation_table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for chrom in ["chr21", *CHROMS]:
        for label, count in ((1, 60), (0, 200)):
            rows += [
                {
                    "part": "validation" if chrom == "chr21" else "test",
                    "chrom": chrom,
                    "start": 1000 * i,
                    "end": 1000 * i + 250,
                    "label": label,
                    "gc": rng.uniform(0.3, 0.6),
                    "block": i // 10,
                }
                for i in range(count)
            ]
    return pd.DataFrame(rows).assign(fold="all")


def results(spec: Spec, measured: dict[Trial, Measures], tuned: list[Trained]) -> Results:
    chosen = {(Cell("main", "cnn", "random", norm), "all"): 0.01 for norm in spec.norms}
    return Results(measured, tuned, chosen)


def measures(rate: float, noise: float, seed: int) -> Measures:
    rng = np.random.default_rng(seed)
    base = np.array([0.9, 0.6, rate, 0.5, 0.8, 0.6])
    resampled = np.broadcast_to(
        base[None, :, None], (1 + len(CHROMS), len(METRICS), RESAMPLES + 1)
    ).copy()
    resampled[..., 1:] += noise * rng.normal(size=resampled[..., 1:].shape)
    by_gc = np.full((2, DECILES, RESAMPLES + 1), 100.0)
    by_gc[0] *= rate
    return Measures(resampled, np.zeros((1 + len(CHROMS), len(POINTS))), by_gc, np.zeros(1))


def made_up(spec: Spec, rates: dict[str, float], noise: float = 0.001) -> Tables:
    measured: dict[Trial, Measures] = {}
    tuned = []
    for place, norm in enumerate(spec.norms):
        for seed in spec.training.seeds:
            trial = Trial("cnn", "random", norm, 0.01, seed)
            measured[trial] = measures(rates[norm], noise, 10 * place + seed)
            curve = [{"train_loss": 0.5, "validation_loss": 0.5, "validation_score": 0.4}]
            tuned.append(Trained(trial, 0.4, 0, False, curve, 1.0))
    for seed in spec.training.seeds:
        measured[Trial(BASELINE, "random", "gc", 0.0, seed)] = measures(0.1, noise, 99)
    return build_tables(spec, {"main": evaluation_table()}, results(spec, measured, tuned))


@pytest.fixture
def spec(demo: Path, small: list[str]) -> Spec:
    more = [
        "norms=['batch', 'layer', 'instance', 'rms']",
        "training.learning_rates=[0.01]",
        "training.seeds=[0, 1, 2]",
    ]
    return load_spec(demo, [*small, *more])


def test_the_answer_says_lower_higher_or_no_clear_difference_as_the_intervals_do(
    spec: Spec,
) -> None:
    rates = {"batch": 0.05, "layer": 0.03, "instance": 0.08, "rms": 0.05}
    answer = compose(spec, made_up(spec, rates)).sentence
    assert answer.startswith("Yes, false alarms rise")
    assert "LayerNorm over channels (−2.0 points" in answer
    assert re.search(r"LayerNorm over channels \([^)]*\) lowers it", answer)
    assert re.search(r"InstanceNorm \([^)]*\) raises it", answer)
    assert "no other norm changes it clearly (RMSNorm" in answer


def test_the_answer_is_no_where_nothing_differs_from_the_aim_or_the_reference(spec: Spec) -> None:
    rates = dict.fromkeys(spec.norms, 0.01)
    answer = compose(spec, made_up(spec, rates, noise=0.01)).sentence
    assert answer.startswith("No clear change of the false-alarm rate")
    assert "no norm changes it clearly (LayerNorm over channels" in answer
    assert "lower" not in answer
    assert "raise" not in answer
    fewer = compose(spec, made_up(spec, dict.fromkeys(spec.norms, 0.002), noise=0.0001)).sentence
    assert fewer.startswith("No, false alarms fall")


def test_a_difference_common_to_all_seeds_and_blocks_has_a_narrow_interval_when_paired(
    spec: Spec,
) -> None:
    """Noise that two norms share cancels; unpaired it would drown the difference."""
    measured: dict[Trial, Measures] = {}
    for seed in spec.training.seeds:
        shared = measures(0.05 + 0.02 * seed, 0.05, seed)
        for norm in spec.norms:
            shift = 0.01 if norm == "layer" else 0.0
            measured[Trial("cnn", "random", norm, 0.01, seed)] = Measures(
                shared.resampled + shift, shared.points, shared.by_gc, np.zeros(1)
            )
    tables = build_tables(spec, {"main": evaluation_table()}, results(spec, measured, []))
    which = "norm == 'layer' and chrom == 'chr19' and metric == 'false_alarm_rate'"
    row = tables.differences.query(which)
    assert row[["estimate", "low", "high"]].to_numpy() == pytest.approx(0.01)
    mean = tables.summary.query(which)
    assert float((mean["high"] - mean["low"]).iloc[0]) > 0.05


def test_the_primary_row_is_the_mean_of_the_primary_chromosomes(spec: Spec) -> None:
    summary = made_up(spec, dict.fromkeys(spec.norms, 0.05), noise=0.0).summary
    rows = summary.query("norm == 'batch' and metric == 'auroc'").set_index("chrom")["estimate"]
    assert rows["primary"] == pytest.approx((rows["chr3"] + rows["chr19"]) / 2)


def test_the_report_needs_no_metric_but_the_false_alarm_rate(spec: Spec, tmp_path: Path) -> None:
    """Where every chromosome has few positives, nothing else is measured."""
    measured: dict[Trial, Measures] = {}
    tuned = []
    for norm in spec.norms:
        for seed in spec.training.seeds:
            found = measures(0.05, 0.001, seed)
            found.resampled[:, [i for i, m in enumerate(METRICS) if m != "false_alarm_rate"]] = (
                np.nan
            )
            trial = Trial("cnn", "random", norm, 0.01, seed)
            measured[trial] = Measures(
                found.resampled, np.full_like(found.points, np.nan), found.by_gc, np.zeros(1)
            )
            curve = [{"train_loss": 0.5, "validation_loss": 0.5, "validation_score": 0.4}]
            tuned.append(Trained(trial, 0.4, 0, False, curve, 1.0))
    evaluation = evaluation_table()
    evaluation = evaluation[(evaluation["chrom"] != "chr4") | (evaluation["label"] == 0)]
    evaluation = evaluation.reset_index(drop=True)
    tables = build_tables(spec, {"main": evaluation}, results(spec, measured, tuned))
    write_report(run_folder(spec, tables, tmp_path))
    summary = (tmp_path / "summary.md").read_text()
    assert re.search(r"\| BatchNorm \|( 5\.0 % \|){3}( – \|){4}", summary)
    parser = Parser()
    parser.feed((tmp_path / "report.html").read_text())
    assert not re.search(r"\bnan\b", parser.text)


def test_the_answer_owns_up_to_few_blocks_one_seed_and_divergence(spec: Spec) -> None:
    rates = dict.fromkeys(spec.norms, 0.05)
    sound = "\n".join(compose(spec, made_up(spec, rates)).details)
    assert "Caution" not in sound
    one = dataclasses.replace(spec, training=dataclasses.replace(spec.training, seeds=(0,)))
    tables = made_up(one, rates)
    tables.chromosomes.loc[tables.chromosomes["chrom"].isin(["chr19", "chr4"]), "blocks"] = 3
    tables.tuning.loc[tables.tuning["norm"] == "rms", "diverged"] = True
    said = "\n".join(compose(one, tables).details)
    assert "fewer than 10 blocks to draw from (3 chr19)" in said
    assert "one seed, so the intervals hold no spread between seeds" in said
    assert "RMSNorm diverged with 1 of 1 seeds" in said


def test_rates_and_levels_below_a_percent_are_not_rounded_away(spec: Spec) -> None:
    finer = dataclasses.replace(
        spec,
        evaluation=dataclasses.replace(spec.evaluation, false_alarm_rate=0.001, confidence=0.999),
    )
    answer = compose(finer, made_up(finer, dict.fromkeys(spec.norms, 0.05))).sentence
    assert "threshold that gives 0.1 % on validation" in answer
    assert "99.9 % interval" in answer


class Parser(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.pictures = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.links += [v for k in ("src", "href") if (v := found.get(k)) is not None]
        if tag == "img":
            self.pictures += 1
            assert found.get("alt")

    def handle_data(self, data: str) -> None:
        self.text += data


def run_folder(spec: Spec, tables: Tables, folder: Path) -> Path:
    write_tables(tables, folder)
    (folder / "spec.toml").write_text(as_toml(spec))
    session = {
        "updated": "2026-01-01T00:00:00+00:00",
        "workers": 2,
        "threads_per_worker": 1,
        "python": "3.11",
        "seqnorm": "0",
        "git_revision": None,
        "libraries": {"torch": "2"},
        "seconds": 5,
        "peak_memory_mb_main": 1,
        "peak_memory_mb_largest_worker": 1,
    }
    record = {
        "status": "complete",
        "sessions": [session],
        "data_sha256": {"genome": "0" * 64},
        "window_counts": {"<b>odd</b> count": 1},
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_the_report_is_one_self_contained_file_with_pictures_and_tables(
    spec: Spec, tmp_path: Path
) -> None:
    tables = made_up(spec, dict.fromkeys(spec.norms, 0.05))
    said = write_report(run_folder(spec, tables, tmp_path))
    parser = Parser()
    parser.feed((tmp_path / "report.html").read_text())
    assert parser.pictures == 6
    assert parser.tags.count("table") >= 8
    assert all(link.startswith("data:image/svg+xml;base64,") for link in parser.links)
    assert "script" not in parser.tags
    assert said.splitlines()[0] in parser.text.replace("\u00a0", " ")
    assert "nan" not in parser.text.lower().split()


def test_what_a_user_names_is_escaped(spec: Spec, demo: Path, tmp_path: Path) -> None:
    hostile = load_spec(
        demo,
        [
            *(f"norms={list(spec.norms)}", "training.seeds=[0]", "evaluation.resamples=100"),
            "split.test=['chr4', 'chr3', 'chr19']",
            "split.primary=['chr3', 'chr19']",
            "training.learning_rates=[0.01]",
            "question=<script>alert(1)</script> & more",
        ],
    )
    tables = made_up(hostile, dict.fromkeys(spec.norms, 0.05))
    write_report(run_folder(hostile, tables, tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "<b>odd" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page


def test_the_same_tables_give_the_same_bytes(spec: Spec, tmp_path: Path) -> None:
    tables = made_up(spec, dict.fromkeys(spec.norms, 0.05))
    folder = run_folder(spec, tables, tmp_path)
    write_report(folder)
    first = (folder / "report.html").read_bytes()
    write_report(folder)
    assert (folder / "report.html").read_bytes() == first


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no finished run here \(run.json is missing\)"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="no finished run here"):
        write_report(tmp_path / "nowhere")


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_scrolls_sideways_in_a_browser(
    spec: Spec, tmp_path: Path, width: int, width_needed: Callable[[Path, int], int]
) -> None:
    tables = made_up(spec, dict.fromkeys(spec.norms, 0.05))
    write_report(run_folder(spec, tables, tmp_path))
    assert width_needed(tmp_path / "report.html", width) <= width
