"""The experiment end to end on small real data, in real processes that are really killed."""

import csv
import errno
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from as_command import begun, command, wait_for

import seqnorm
from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.negatives import Drawn
from seqnorm.holdout import genome_source
from seqnorm.holdout import run as run_module
from seqnorm.holdout.design import folds_of
from seqnorm.holdout.draw import evaluation_file
from seqnorm.holdout.genome_source import GenomeSource
from seqnorm.holdout.load import load_spec
from seqnorm.holdout.run import read_tables, run
from seqnorm.holdout.scores import tensors_of
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import Tables
from seqnorm.holdout.trial import Trial
from seqnorm.holdout.windows import WindowSet
from seqnorm.runs.record import locked
from seqnorm.saved import read_saved
from seqnorm.training import predict

TABLES = ["trials", "summary", "differences", "deciles", "tuning", "curves", "chromosomes"]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / f"{name}.csv").read_bytes() for name in TABLES}


def source_of(spec: Spec, genome: Genome) -> GenomeSource:
    assert spec.data is not None
    return GenomeSource(spec, spec.data, genome)


def genome_of(spec: Spec) -> Genome:
    assert spec.data is not None
    return Genome(spec.data.genome)


@pytest.fixture(scope="module")
def finished(
    demo: Path, small: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Tables]:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    tables = run(load_spec(demo, small), folder, workers=2, say=lambda line: None)
    return folder, tables


def test_every_trial_has_a_row_for_every_chromosome(finished: tuple[Path, Tables]) -> None:
    trials = finished[1].trials
    cells = trials.groupby(["model", "norm", "seed"])["chrom"].agg(list)
    assert len(cells) == 2 * 2 + 2 * 2
    assert all(chroms == ["validation", "chr4", "chr3", "chr19"] for chroms in cells)


def test_few_positives_leave_the_false_alarm_rate_alone(finished: tuple[Path, Tables]) -> None:
    few = finished[1].trials.query("chrom == 'chr4'")
    assert few["false_alarm_rate"].notna().all()
    assert few[["auroc", "auprc", "recall", "gc_auroc"]].isna().all(axis=None)


def test_the_validation_false_alarm_rate_is_at_most_the_one_aimed_at(
    finished: tuple[Path, Tables],
) -> None:
    assert (finished[1].trials.query("chrom == 'validation'")["false_alarm_rate"] <= 0.01).all()


def test_estimates_lie_inside_their_intervals_and_differences_are_differences_of_means(
    finished: tuple[Path, Tables],
) -> None:
    tables = finished[1]
    key = ["norm", "chrom", "metric"]
    means = tables.summary.query("model == 'cnn'").set_index(key)["estimate"]
    for row in tables.differences.to_dict("records"):
        there = means[row["norm"], row["chrom"], row["metric"]]
        reference = means["batch", row["chrom"], row["metric"]]
        assert row["estimate"] == pytest.approx(there - reference, abs=1e-12)
    both = tables.summary.dropna()
    assert (both["low"] <= both["high"]).all()
    by_seed = tables.trials.query("model == 'cnn'").groupby(["norm", "chrom"])["auroc"].mean()
    assert by_seed["layer", "chr19"] == pytest.approx(means["layer", "chr19", "auroc"])


def test_every_norm_tried_the_same_rates_on_the_same_seeds(
    finished: tuple[Path, Tables],
) -> None:
    tuning = finished[1].tuning.query("seed == 0")
    assert tuning.groupby("norm")["learning_rate"].agg(list).tolist() == [[0.01, 0.02]] * 2
    chosen = tuning.loc[tuning.groupby("norm")["validation_score"].idxmax()]
    assert chosen["chosen"].all()


def test_tables_read_back_as_they_were_written(finished: tuple[Path, Tables]) -> None:
    folder, tables = finished
    again = read_tables(folder)
    pd.testing.assert_frame_equal(again.trials, tables.trials, check_dtype=False)
    with (folder / "trials.csv").open() as stream:
        assert len(list(csv.reader(stream))) == len(tables.trials) + 1


def test_a_trained_trial_is_loaded_in_one_line_and_gives_its_scores(
    demo: Path, small: list[str], finished: tuple[Path, Tables]
) -> None:
    folder = finished[0]
    windows = WindowSet.load(evaluation_file(folder, "main", "all"))
    scored = 0
    for trial in sorted((folder / "trials").glob("cnn-*")):
        model = seqnorm.load_model(trial)
        assert read_saved(trial).width == load_spec(demo, small).data.width
        assert read_saved(trial).about == {"trial": trial.name}
        if (trial / "scores.npy").exists():
            logits = predict(model, tensors_of(windows))
            np.testing.assert_array_equal(logits, np.load(trial / "scores.npy"))
            scored += 1
    assert scored == 4


def test_run_json_records_versions_checksums_counts_and_status(
    finished: tuple[Path, Tables],
) -> None:
    record = json.loads((finished[0] / "run.json").read_text())
    assert record["status"] == "complete"
    parts = ("genome", "peaks", "exclude", "motif")
    assert set(record["data_sha256"]) == {f"data.{part}" for part in parts}
    assert record["window_counts"]["validation/chr21 positives"] > 50
    session = record["sessions"][-1]
    assert session["libraries"]["torch"].startswith("2.")
    assert session["instructions"] == torch.backends.cpu.get_cpu_capability()
    assert session["seconds"] > 0
    assert session["peak_memory_mb_main"] > 10
    assert len(record["trial_seconds"]) == 2 * 2 + 2


def test_training_validation_and_test_windows_share_no_base(
    finished: tuple[Path, Tables],
) -> None:
    windows = pd.read_csv(finished[0] / "windows.csv")
    chr21 = windows[windows["chrom"] == "chr21"]
    covered = {
        part: np.concatenate([np.arange(a, b) for a, b in zip(t["start"], t["end"], strict=True)])
        for part, t in chr21.groupby("part")
    }
    for part in ("train:random:seed0", "train:random:seed1"):
        assert not np.intersect1d(covered["validation"], covered[part]).size
    assert "test" not in covered


def test_seeds_draw_their_own_training_background_and_share_the_evaluation(
    demo: Path, small: list[str]
) -> None:
    spec = load_spec(demo, small)
    (fold,) = folds_of(spec)
    with genome_of(spec) as genome:
        source = source_of(spec, genome)
        first, again, other = (source.training(fold, "random", seed) for seed in (0, 0, 1))
        assert (first.codes == again.codes).all()
        negative = first.table["label"] == 0
        shared = set(first.table["start"][negative]) & set(other.table["start"][negative])
        assert len(shared) < 0.05 * negative.sum()
        assert (source.evaluation(fold).codes == source.evaluation(fold).codes).all()


def test_taking_a_test_chromosome_out_leaves_the_windows_of_the_others(
    demo: Path, small: list[str]
) -> None:
    spec = load_spec(demo, small)
    fewer = load_spec(demo, [*small, "split.test=['chr19']", "split.primary=['chr19']"])
    with genome_of(spec) as genome:
        both = [
            source_of(s, genome).evaluation(f).table for s in (spec, fewer) for f in folds_of(s)
        ]
    chr19 = [t[t["chrom"] == "chr19"].reset_index(drop=True) for t in both]
    pd.testing.assert_frame_equal(*chr19)


def test_a_run_killed_at_any_stage_resumes_to_the_same_tables(
    demo: Path, small: list[str], finished: tuple[Path, Tables], tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    stages = (
        lambda: (folder / "run.json").exists(),
        lambda: any(folder.glob("trials/*/checkpoint/state.json")),
        lambda: any(folder.glob("trials/*/trained.json")),
        lambda: any(folder.glob("trials/cnn*/measures.npz")),
    )
    for stage in stages:
        process = subprocess.Popen(
            command(demo, small, folder, "--resume", "--workers", "2"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(stage)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(
        command(demo, small, folder, "--resume", "--workers", "1"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # One worker here, two there: the tables do not depend on that either.
    assert contents(folder) == contents(finished[0])
    assert json.loads((folder / "run.json").read_text())["status"] == "complete"
    assert (folder / "report.html").exists()
    assert not list(folder.glob("**/checkpoint")), "checkpoints of finished trials are removed"


def test_what_a_kill_has_left_is_removed_when_the_run_is_resumed(
    demo: Path, small: list[str], finished: tuple[Path, Tables], tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(finished[0], folder)
    trial = min((folder / "trials").glob("cnn-*"))
    # Killed after it was trained, before its checkpoint was removed, and while its weights,
    # and the windows, were written.
    (trial / "checkpoint").mkdir()
    (trial / "checkpoint" / "state.json").write_text("{}")
    (trial / ".model.safetensors.0123abcd").write_bytes(b"half")
    (folder / ".windows.csv.89abcdef").write_text("half")
    run(load_spec(demo, small), folder, resume=True, workers=1, say=lambda line: None)
    assert not list(folder.rglob("checkpoint"))
    assert [path.name for path in folder.rglob(".*")] == [".lock"]
    assert contents(folder) == contents(finished[0])


def test_ctrl_c_leaves_a_run_that_says_how_to_resume_it(
    demo: Path, small: list[str], finished: tuple[Path, Tables], tmp_path: Path
) -> None:
    folder = tmp_path / "stopped"
    with begun(command(demo, small, folder, "--workers", "2")) as process:
        wait_for(lambda: any(folder.glob("trials/*/checkpoint/state.json")))
        # As a terminal does: to the whole process group, workers included.
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"--out {folder} --resume" in out
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    wait_for(lambda: not _group_alive(process.pid))
    run(load_spec(demo, small), folder, resume=True, workers=2, say=lambda line: None)
    assert contents(folder) == contents(finished[0])


def test_workers_end_when_the_main_process_is_killed(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "orphans"
    process = subprocess.Popen(
        command(demo, small, folder, "--workers", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: any(folder.glob("trials/*/checkpoint/state.json")))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not _group_alive(process.pid))


def _group_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_folder_with_a_run_is_not_overwritten(
    demo: Path, small: list[str], finished: tuple[Path, Tables]
) -> None:
    with pytest.raises(InputError, match="holds a run already; add --resume"):
        run(load_spec(demo, small), finished[0])


def test_resuming_with_another_spec_or_other_data_is_refused(
    demo: Path, small: list[str], finished: tuple[Path, Tables], tmp_path: Path
) -> None:
    changed = load_spec(demo, [*small, "training.epochs=4"])
    with pytest.raises(InputError, match=r"another spec \(now: epochs = 4\)"):
        run(changed, finished[0], resume=True)
    record = json.loads((finished[0] / "run.json").read_text())
    (tmp_path / "trials" / "one").mkdir(parents=True)
    (tmp_path / "run.json").write_text(json.dumps(record | {"data_sha256": {"data.genome": "0"}}))
    (tmp_path / "spec.toml").write_text((finished[0] / "spec.toml").read_text())
    with pytest.raises(InputError, match=r"the file of data\.genome has changed"):
        run(load_spec(demo, small), tmp_path, resume=True)


def test_resuming_with_a_program_that_draws_other_windows_is_refused(
    demo: Path, small: list[str], finished: tuple[Path, Tables], tmp_path: Path
) -> None:
    (tmp_path / "trials" / "one").mkdir(parents=True)
    for name in ("run.json", "spec.toml"):
        (tmp_path / name).write_text((finished[0] / name).read_text())
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"windows_sha256": "0"}))
    with pytest.raises(InputError, match="not those that this run began with"):
        run(load_spec(demo, small), tmp_path, resume=True, say=lambda line: None)


def test_a_run_that_ended_before_its_first_trial_can_be_begun_again(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    wrong = load_spec(demo, [*small, "split.test=['chr99']", "split.primary=['chr99']"])
    for _ in range(2):
        with pytest.raises(InputError, match="chr99"):
            run(wrong, tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["status"] == "failed"


def test_two_runs_cannot_share_a_folder(demo: Path, small: list[str], tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="another run is using this folder"):
        run(load_spec(demo, small), tmp_path)


def test_a_finished_run_resumes_at_once_to_the_same_tables(
    demo: Path, small: list[str], finished: tuple[Path, Tables]
) -> None:
    before = contents(finished[0])
    run(load_spec(demo, small), finished[0], resume=True, workers=1, say=lambda line: None)
    assert contents(finished[0]) == before


def test_what_is_left_to_the_device_is_settled_when_a_run_begins(
    demo: Path, small: list[str], finished: tuple[Path, Tables]
) -> None:
    chosen = load_spec(finished[0] / "spec.toml").training
    assert chosen.device in ("cpu", "cuda")
    assert chosen.precision == "float32"
    assert chosen.batch_size == 32
    if chosen.device == "cpu":
        # The same run: on a processor "auto" is float32 and batches of 64.
        auto = [*small, "training.precision=auto", "training.device=auto"]
        left = load_spec(demo, [*auto, "training.batch_size=auto"])
        with pytest.raises(InputError, match=r"another spec \(now: batch_size = 64\)"):
            run(left, finished[0], resume=True, workers=1, say=lambda line: None)
        left = load_spec(demo, auto)
        run(left, finished[0], resume=True, workers=1, say=lambda line: None)


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker_is_refused(
    demo: Path, small: list[str], tmp_path: Path, workers: int
) -> None:
    with pytest.raises(InputError, match=f"workers must be at least 1, not {workers}"):
        run(load_spec(demo, small), tmp_path, workers=workers)


def test_a_folder_that_cannot_be_made_is_refused(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another --out"):
        run(load_spec(demo, small), tmp_path / "file" / "run")


def test_a_full_disk_is_said_in_one_line(
    demo: Path, small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_module, "draw_windows", full)
    with pytest.raises(InputError, match="No space left on device; see to it and go on with"):
        run(load_spec(demo, small), tmp_path)


def test_trials_without_a_record_are_not_taken_for_those_of_this_spec(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    (tmp_path / "trials" / "cnn-random-batch-lr0.01-s0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds trials without the run\.json"):
        run(load_spec(demo, small), tmp_path, resume=True)


def test_a_motif_that_cannot_be_used_is_refused_before_any_training(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    motif = tmp_path / "motif.jaspar"
    motif.write_text(">x\nbad\n")
    with pytest.raises(InputError, match="not a JASPAR matrix"):
        run(load_spec(demo, [*small, f"data.motif={motif}"]), tmp_path / "a")
    motif.write_text(">x y\n" + "".join(f"{b} [ {'1 ' * 251}]\n" for b in "ACGT"))
    with pytest.raises(InputError, match="251 bases does not fit into windows of 250"):
        run(load_spec(demo, [*small, f"data.motif={motif}"]), tmp_path / "b")
    assert not (tmp_path / "a" / "trials").exists()
    assert not (tmp_path / "b" / "trials").exists()


def test_validation_without_a_positive_is_refused(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    """Every score would be 0 there, and the first epoch would win without a word."""
    spec = load_spec(demo, small)
    assert spec.data is not None
    split, rows = spec.split, Path(spec.data.peaks).read_text().splitlines()
    peaks = tmp_path / "peaks.bed"

    def aside(row: str) -> bool:
        chrom, start = row.split("\t")[:2]
        return chrom != "chr21" or int(start) // split.block % split.validation_every != 0

    peaks.write_text("".join("\t".join(r.split("\t")[:3]) + "\n" for r in rows if aside(r)))
    changed = load_spec(demo, [*small, f"data.peaks={peaks}"])
    (fold,) = folds_of(spec)
    with genome_of(spec) as genome:
        source = source_of(changed, genome)
        with pytest.raises(InputError, match="lies in the validation regions"):
            source.evaluation(fold)


def test_a_test_chromosome_without_room_for_negatives_is_named(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    spec = load_spec(demo, small)
    (fold,) = folds_of(spec)
    with genome_of(spec) as genome:
        end = genome.lengths["chr4"]
        exclude = tmp_path / "exclude.bed"
        exclude.write_text(f"chr4\t0\t{end}\n")
        source = source_of(load_spec(demo, [*small, f"data.exclude={exclude}"]), genome)
        with pytest.raises(InputError, match="test/chr4: no room for a background window"):
            source.evaluation(fold)


def test_training_positives_that_all_lack_partners_are_refused(
    demo: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(genome: object, positives: pd.DataFrame, *more: object, **options: object) -> Drawn:
        return Drawn(positives.head(0), len(positives), np.arange(len(positives)))

    monkeypatch.setattr(genome_source, "background_windows", none)
    spec = load_spec(demo, small)
    (fold,) = folds_of(spec)
    with genome_of(spec) as genome:
        source = source_of(spec, genome)
        with pytest.raises(InputError, match=r"lower negatives\.per_positive"):
            source.training(fold, "flank", 0)


def test_learning_rates_that_are_nearly_equal_have_folders_of_their_own() -> None:
    rates = (0.01, 0.01000001, 0.005, 1e-5, 1.0, 0.0)
    names = [Trial("cnn", "random", "batch", rate, 0).id for rate in rates]
    assert len(set(names)) == len(rates)
    assert names[0] == "cnn-random-batch-lr0.01-s0"
