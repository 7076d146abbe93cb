"""The report is drawn from made-up tables, so that what it must say is known."""

import dataclasses
import html.parser
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest

from data_tools.errors import InputError
from seqnorm.holdout.answer import compose
from seqnorm.holdout.build import build_tables
from seqnorm.holdout.design import Cell
from seqnorm.holdout.filters import Found
from seqnorm.holdout.load import as_toml, load_spec
from seqnorm.holdout.measures import DECILES, METRICS, POINTS, Measures
from seqnorm.holdout.methods import methods
from seqnorm.holdout.report import write_report
from seqnorm.holdout.run import read_tables, write_tables
from seqnorm.holdout.schedule import Results
from seqnorm.holdout.spec import Spec, Task
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
    chosen = {
        (Cell("main", "cnn", kind, norm), "all"): 0.01
        for kind, norm in product(spec.negatives.kinds, spec.norms)
    }
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
    for place, (kind, norm) in enumerate(product(spec.negatives.kinds, spec.norms)):
        for seed in spec.training.seeds:
            trial = Trial("cnn", kind, norm, 0.01, seed)
            rate = rates[norm] if kind == "random" else rates[kind]
            measured[trial] = measures(rate, noise, 10 * place + seed)
            curve = [{"train_loss": 0.5, "validation_loss": 0.5, "validation_score": 0.4}]
            tuned.append(Trained(trial, 0.4, 0, False, curve, 1.0, 100))
    for seed in spec.training.seeds:
        measured[Trial(BASELINE, "random", "gc", 0.0, seed)] = measures(0.1, noise, 99)
    return build_tables(spec, {"main": evaluation_table()}, results(spec, measured, tuned))


@pytest.fixture(scope="module")
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
            tuned.append(Trained(trial, 0.4, 0, False, curve, 1.0, 100))
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


def test_norms_are_called_equivalent_by_the_adjusted_interval_alone(spec: Spec) -> None:
    tables = made_up(spec, dict.fromkeys(spec.norms, 0.05))
    assert "equivalent within 1 point: LayerNorm" in compose(spec, tables).sentence
    tables.differences["high_adjusted"] = 0.0101
    assert "equivalent" not in compose(spec, tables).sentence


def test_a_slope_is_told_as_a_rise_only_where_its_interval_leaves_out_0(spec: Spec) -> None:
    tables = made_up(spec, dict.fromkeys(spec.norms, 0.05))
    batch = tables.slopes["norm"] == "batch"
    ends = ["estimate", "low", "high"]
    for values, said in (
        ((0.4, 0.3, 0.5), "False alarms of BatchNorm rise with the chromosomes' GC (+0.40 points"),
        ((-0.4, -0.5, -0.3), "False alarms of BatchNorm fall"),
        (
            (0.4, -0.1, 0.9),
            "Whether false alarms of BatchNorm change with the chromosomes' GC is o",
        ),
        ((0.4, -np.inf, np.inf), "too few blocks for an interval"),
    ):
        tables.slopes.loc[batch, ends] = values
        assert said in "\n".join(compose(spec, tables).details)


def test_another_slope_is_one_whose_adjusted_interval_leaves_out_0(spec: Spec) -> None:
    tables = made_up(spec, dict.fromkeys(spec.norms, 0.05))
    layer = (tables.slopes["norm"] == "layer") & (tables.slopes["kind"] == "difference")
    plain, wide = ["low", "high"], ["low_adjusted", "high_adjusted"]
    tables.slopes.loc[layer, [*plain, *wide]] = (-0.5, -0.1, -0.7, 0.1)
    assert "the slope is another" not in "\n".join(compose(spec, tables).details)
    tables.slopes.loc[layer, wide] = (-0.6, -0.05)
    said = "\n".join(compose(spec, tables).details)
    assert "the slope is another with LayerNorm over channels" in said
    assert "−0.60 to −0.05 (intervals adjusted for 3 comparisons)" in said


def test_intervals_of_single_norms_say_that_they_are_not_adjusted(spec: Spec) -> None:
    tables = made_up(spec, dict.fromkeys(spec.norms, 0.05))
    lines = [line for line in compose(spec, tables).details if line.startswith("LayerNorm over")]
    assert lines
    assert all(line.endswith("(intervals not adjusted).") for line in lines)


@pytest.mark.parametrize("task", ["1", "NA", "null"])
def test_names_that_look_like_numbers_or_gaps_are_read_back_as_names(
    spec: Spec, tmp_path: Path, task: str
) -> None:
    tables = made_up(spec, dict.fromkeys(spec.norms, 0.05))
    expected = compose(spec, tables)
    renamed = [getattr(tables, item.name).assign(task=task) for item in dataclasses.fields(tables)]
    write_tables(Tables(*renamed), tmp_path)
    other = dataclasses.replace(spec, tasks=(Task(task),))
    assert compose(other, read_tables(tmp_path)) == expected


def with_norms(spec: Spec, *norms: str) -> Spec:
    return dataclasses.replace(spec, norms=norms)


def test_the_control_of_a_norm_against_itself_is_judged_by_its_interval(spec: Spec) -> None:
    aa = with_norms(spec, "batch", "layer", "batch+again")
    sound = made_up(aa, dict.fromkeys(aa.norms, 0.05))
    assert "so no difference is found where there is none" in "\n".join(compose(aa, sound).details)
    off = made_up(aa, {"batch": 0.05, "layer": 0.05, "batch+again": 0.09}, noise=0.0001)
    said = "\n".join(compose(aa, off).details)
    assert "which leaves out 0 where there is no difference, as 5 % of such intervals do" in said
    assert "Of its 5 other metrics" not in said
    rows = (sound.differences["metric"] == "auroc") & (sound.differences["norm"] == "batch+again")
    sound.differences.loc[rows, ["estimate", "low", "high"]] = (-0.004, -0.006, -0.002)
    said = "\n".join(compose(aa, sound).details)
    assert "Of its 5 other metrics 1 leaves out 0 (AUROC −0.004, −0.006 to −0.002)" in said


@pytest.mark.parametrize(("auroc", "held"), [(0.5, 2), (0.7, 0)])
def test_permuted_labels_are_reported_by_how_many_intervals_hold_one_half(
    spec: Spec, auroc: float, held: int
) -> None:
    two = with_norms(spec, "batch", "layer")
    tables = made_up(two, dict.fromkeys(two.norms, 0.05))
    rows = tables.summary["metric"] == "auroc"
    tables.summary.loc[rows, ["estimate", "low", "high"]] = (auroc, auroc - 0.02, auroc + 0.02)
    control = dataclasses.replace(two, tasks=(Task("main", control="permuted"),))
    said = "\n".join(compose(control, tables).details)
    assert f"{held} of 2 intervals of the primary mean of AUROC hold 0.5" in said
    assert f"those of {held * 3} of 6 single chromosomes; 95 % of them are to be expected" in said
    assert ("BatchNorm 0.700" in said) is (held == 0)


def test_every_other_section_has_its_own_sentence_table_and_line_of_the_overview(
    spec: Spec, tmp_path: Path
) -> None:
    several = dataclasses.replace(
        with_norms(spec, "batch", "layer"), tasks=(Task("main"), Task("other"))
    )
    tables = made_up(several, {"batch": 0.05, "layer": 0.05})
    worse = made_up(several, {"batch": 0.09, "layer": 0.02})
    both = Tables(
        **{
            item.name: pd.concat(
                [
                    getattr(tables, item.name),
                    getattr(worse, item.name).assign(task="other")
                    if len(getattr(worse, item.name))
                    else None,
                ],
                ignore_index=True,
            )
            for item in dataclasses.fields(Tables)
        }
    )
    both = dataclasses.replace(both, hypotheses=tables.hypotheses)
    answer = compose(several, both)
    assert "no norm changes it clearly" in answer.sentence
    assert len(answer.others) == 1
    assert answer.others[0].startswith("other: CNN, trained with random negatives: Yes, false")
    assert "(−7.0 points" in answer.others[0]
    write_report(run_folder(several, both, tmp_path))
    parser = parsed(tmp_path)
    assert {"main-cnn-random", "other-cnn-random", "overview"} <= set(parser.ids)
    assert "**other: CNN, trained with random negatives**" in (tmp_path / "summary.md").read_text()
    assert (tmp_path / "figures" / "other-cnn-random-differences.svg").is_file()


def test_what_other_negatives_change_is_said_with_its_interval_and_shown(
    spec: Spec, tmp_path: Path
) -> None:
    negatives = dataclasses.replace(spec.negatives, kinds=("random", "gc_matched"))
    both = dataclasses.replace(with_norms(spec, "batch", "layer"), negatives=negatives)
    tables = made_up(both, {"batch": 0.05, "layer": 0.02, "gc_matched": 0.02})
    said = [line for line in compose(both, tables).details if line.startswith("With GC-matched")]
    assert len(said) == 1
    assert said[0].startswith(
        "With GC-matched training negatives in place of random training negatives the "
        "false-alarm rate changes: BatchNorm −3.0 points, 95 % interval "
    )
    assert "LayerNorm over channels 0.0 points" in said[0]
    write_report(run_folder(both, tables, tmp_path))
    parser = parsed(tmp_path)
    assert "factors" in parser.ids
    assert "Other negatives, other models" in parser.text


def test_the_methods_cite_what_they_name_and_name_what_they_cite(spec: Spec) -> None:
    record = {"sessions": [{"seqnorm": "1", "python": "3", "libraries": {"torch": "2"}}]}
    by_chromosome = dataclasses.replace(spec.evaluation, unit="chromosome")
    looked_up = dataclasses.replace(spec.evaluation, motifs="some/JASPAR.gz")
    for chosen in (
        spec,
        with_norms(spec, "batch", "layer", "batch+adapted"),
        dataclasses.replace(spec, evaluation=looked_up),
        dataclasses.replace(spec, evaluation=by_chromosome),
    ):
        text, references = methods(chosen, record)
        cited = {f"{name} {year}" for name, year in CITED.findall(" ".join(text))}
        listed = {f"{line.split()[0]} {LISTED.findall(line)[0]}" for line in references}
        assert cited == listed
        assert "3 seeds" in " ".join(text)
        assert "torch 2" in text[-1]
    left_out = dataclasses.replace(
        spec, split=dataclasses.replace(spec.split, design="leave_one_out")
    )
    assert "was left out in turn" in " ".join(methods(left_out, record).paragraphs)


def test_matches_of_filters_are_shown_written_and_gone_when_there_are_none(
    spec: Spec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = dataclasses.replace(spec.evaluation, motifs="some/JASPAR.gz")
    spec = dataclasses.replace(spec, evaluation=looked_up)
    matches = pd.DataFrame(
        [
            ("batch", 3, 100, 9.5, "MA1 <b>CTCF", True, 12, 1e-12, 1e-9, 3e-8, 0.01),
            ("batch", 1, 100, 2.5, "=B", True, 12, 1e-12, 1e-9, 3e-8, 0.5),
            ("layer", 1, 100, 2.5, "B", True, 12, 0.1, 50, 1.0, 0.5),
        ],
        columns=[
            *("norm", "filter", "sites", "information", "match", "reverse", "overlap"),
            *("p_value", "e_value", "p_adjusted", "p_shuffled"),
        ],
    )
    found = Found(None, {}, (), matches)
    monkeypatch.setattr("seqnorm.holdout.report.find_filters", lambda *_: found)
    write_report(run_folder(spec, made_up(spec, RATES), tmp_path))
    parser, page = parsed(tmp_path), (tmp_path / "report.html").read_text()
    assert "filters" in parser.ids
    assert "looked up in JASPAR.gz with TOMTOM" in parser.text
    assert "MA1 <b>CTCF (1 filter, p 3e−08)" in parser.text
    assert "<b>" not in page
    assert "filters.csv" in parser.links
    written = pd.read_csv(tmp_path / "filters.csv")
    assert written["match"].tolist() == ["MA1 <b>CTCF", "'=B", "B"]
    pd.testing.assert_frame_equal(
        written.drop(columns="match"), matches.drop(columns="match"), check_dtype=False
    )
    monkeypatch.setattr("seqnorm.holdout.report.find_filters", lambda *_: Found(None, {}, ()))
    write_report(tmp_path)
    assert not (tmp_path / "filters.csv").exists()
    assert "TOMTOM" in parsed(tmp_path).text  # the methods say what was asked for


CITED = re.compile(r"([A-Z][a-z]+)(?: et al\.| & [A-Z][a-z]+)? \(?([12][0-9]{3})\b")
LISTED = re.compile(r"\(([12][0-9]{3})\)")


def test_rates_and_levels_below_a_percent_are_not_rounded_away(spec: Spec) -> None:
    finer = dataclasses.replace(
        spec,
        evaluation=dataclasses.replace(spec.evaluation, false_alarm_rate=0.001, confidence=0.999),
    )
    answer = compose(finer, made_up(finer, dict.fromkeys(spec.norms, 0.05))).sentence
    assert "threshold that gives 0.1 % on validation" in answer
    assert "99.9 % interval" in answer


class Parser(html.parser.HTMLParser):
    """What a reader of the page meets."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.scopes: list[str | None] = []
        self.pictures = 0
        self.text = ""
        self._silent = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.links += [v for k in ("src", "href") if (v := found.get(k)) is not None]
        self.ids += [name] if (name := found.get("id")) else []
        self._silent = tag in ("script", "style")
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append(int(tag[1]))
        if tag == "th":
            self.scopes.append(found.get("scope"))
        if tag == "img":
            self.pictures += 1
            assert len(found.get("alt") or "") > 30
        assert not [name for name in found if name.startswith("on") or name == "style"]

    def handle_endtag(self, tag: str) -> None:
        self._silent = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data


RATES = {"batch": 0.05, "layer": 0.09, "instance": 0.02, "rms": 0.06}


@pytest.fixture(scope="module")
def reported(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that several tests look at."""
    folder = tmp_path_factory.mktemp("reported")
    write_report(run_folder(spec, made_up(spec, RATES), folder))
    return folder


def parsed(folder: Path) -> Parser:
    parser = Parser()
    parser.feed((folder / "report.html").read_text())
    return parser


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


def test_the_report_is_one_self_contained_page_that_links_to_its_own_files_alone(
    spec: Spec, reported: Path
) -> None:
    parser = parsed(reported)
    assert parser.pictures >= 7
    assert parser.tags.count("table") >= 8
    for link in parser.links:
        kind, _, rest = link.partition(":")
        if kind == "data":
            assert rest.startswith("image/svg+xml,%3C")
        elif link.startswith("#"):
            assert link[1:] in parser.ids
        else:
            assert re.fullmatch(r"figures/[\w.+-]+\.(svg|csv)", link)
            assert (reported / link).is_file()
    assert parser.tags.count("script") == 1
    answer = compose(spec, read_tables(reported))
    for sentence in (answer.sentence, *answer.details):
        assert sentence in parser.text.replace("\u00a0", " ")
    assert not re.search(r"\b(nan|inf)\b", parser.text.lower())


def test_every_figure_is_a_file_beside_its_numbers_and_the_same_inside_the_page(
    reported: Path,
) -> None:
    tables = read_tables(reported)
    parser = parsed(reported)
    drawn = {unquote(link.partition(",")[2]) for link in parser.links if link[:5] == "data:"}
    files = sorted((reported / "figures").glob("*.svg"))
    assert {file.read_text() for file in files} == drawn
    for file in files:
        assert ElementTree.fromstring(file.read_text()).tag.endswith("svg")
        assert len(pd.read_csv(file.with_suffix(".csv")))
    strips = pd.read_csv(reported / "figures" / "cnn-random-false_alarms_by_chromosome.csv")
    row = strips.query("norm == 'layer' and chrom == 'chr19'").iloc[0]
    known = tables.summary.query(
        "norm == 'layer' and chrom == 'chr19' and metric == 'false_alarm_rate'"
    ).iloc[0]
    assert row[["estimate", "low", "high"]].tolist() == known[["estimate", "low", "high"]].tolist()


def test_headings_come_in_order_and_every_header_cell_names_its_scope(
    reported: Path,
) -> None:
    parser = parsed(reported)
    assert parser.headings[0] == 1
    assert parser.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(parser.headings, parser.headings[1:], strict=False))
    assert set(parser.scopes) == {"col", "row"}
    assert len(parser.ids) == len(set(parser.ids))
    assert parser.tags.count("caption") == parser.tags.count("table")


HOSTILE = "<script>alert(1)</script> & more"


def test_what_a_user_names_is_escaped_in_the_page_the_figures_and_the_tables(
    spec: Spec, demo: Path, tmp_path: Path
) -> None:
    claim = {
        "name": HOSTILE,
        "text": "<img src=x>",
        "norm": "layer",
        "reference": "batch",
        "metric": "false_alarm_rate",
        "direction": "lower",
        "smallest_effect": 0.02,
        "margin": 0.01,
    }
    hostile = load_spec(
        demo,
        [
            *(f"norms={list(spec.norms)}", "training.seeds=[0]", "evaluation.resamples=100"),
            "split.test=['chr4', 'chr3', 'chr19']",
            "split.primary=['chr3', 'chr19']",
            "training.learning_rates=[0.01]",
            f"question={HOSTILE}",
            f"evaluation.stopping={HOSTILE}",
            "hypotheses=[{"
            + ", ".join(f"{key}={json.dumps(value)}" for key, value in claim.items())
            + "}]",
        ],
    )
    tables = made_up(hostile, dict.fromkeys(spec.norms, 0.05))
    odd = "=cmd|'<svg onload=x>$a$'!A1"
    for table in (tables.trials, tables.summary, tables.chromosomes, tables.differences):
        table["chrom"] = table["chrom"].replace("chr4", odd)
    split = dataclasses.replace(hostile.split, test=(odd, "chr3", "chr19"))
    hostile = dataclasses.replace(hostile, split=split)
    folder = run_folder(hostile, tables, tmp_path)
    record = json.loads((folder / "run.json").read_text())
    record["sessions"][0]["libraries"] = {"<b>torch": "</script><b>"}
    (folder / "run.json").write_text(json.dumps(record))
    write_report(folder)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<script") == 1
    assert not re.search("<b>|<svg|<img src=x", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page
    for file in (tmp_path / "figures").glob("*.svg"):
        assert not [n for n in ElementTree.fromstring(file.read_text()).iter() if n.get("onload")]
    for file in (tmp_path / "figures").glob("*.csv"):
        assert not [
            value
            for line in pd.read_csv(io.StringIO(file.read_text()), dtype=str).to_numpy()
            for value in line
            if isinstance(value, str) and value.startswith("=")
        ]


def test_the_same_tables_give_the_same_bytes(reported: Path) -> None:
    files = [reported / "report.html", reported / "summary.md", *reported.glob("figures/*")]
    first = [file.read_bytes() for file in files]
    write_report(reported)
    assert [file.read_bytes() for file in files] == first


def test_a_folder_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no finished run here \(run.json is missing\)"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="no finished run here"):
        write_report(tmp_path / "nowhere")


PRESS = """<iframe id=f src=report.html></iframe><script>
f.onload = () => {
  const inside = f.contentDocument, table = inside.querySelectorAll("table.sortable")[1];
  const button = table.querySelectorAll("th[scope=col] button")[1], head = button.closest("th");
  const states = [];
  for (let time = 0; time < 2; time++) {
    button.focus();
    states.push(inside.activeElement === button);
    button.click();
    states.push(head.getAttribute("aria-sort"));
    states.push([...table.tBodies[0].rows].map(row => Number(row.cells[1].dataset.sort)));
  }
  document.title = JSON.stringify(states);
}</script>"""


@pytest.mark.browser
def test_a_button_in_a_header_cell_sorts_the_table_and_says_so(
    reported: Path, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("needs Chromium")
    shutil.copy(reported / "report.html", tmp_path)
    (tmp_path / "press.html").write_text(PRESS)
    switches = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    switches += ["--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}"]
    switches += ["--virtual-time-budget=5000", "--dump-dom", (tmp_path / "press.html").as_uri()]
    found = subprocess.run(
        [browser, *switches], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    title = re.search(r"<title>(.*?)</title>", found)
    assert title
    focused, up, rising, again, down, falling = json.loads(title[1])
    assert (focused, again) == (True, True)
    assert (up, down) == ("ascending", "descending")
    assert len(rising) == 3
    assert rising == sorted(rising)
    assert falling == rising[::-1]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_scrolls_sideways_in_a_browser(
    reported: Path, tmp_path: Path, width: int, width_needed: Callable[[Path, int], int]
) -> None:
    shutil.copy(reported / "report.html", tmp_path)
    assert width_needed(tmp_path / "report.html", width) <= width
