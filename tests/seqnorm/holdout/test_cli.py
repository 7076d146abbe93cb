import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def seqnorm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / "seqnorm"), *arguments], capture_output=True, text=True)


def test_help_names_every_command_with_an_example() -> None:
    shown = seqnorm("--help").stdout
    for name in ("holdout", "report", "norms"):
        assert f"seqnorm {name}" in shown
    assert "Example: seqnorm holdout" in seqnorm("holdout", "--help").stdout


def test_norms_lists_every_kind_place_and_variant() -> None:
    starts = {line.split(" ")[0] for line in seqnorm("norms").stdout.splitlines()}
    assert starts >= {"batch", "layer", "layer_seq", "group:8", "instance", "rms", "none"}
    assert starts >= {"background", "@input", "@first", "@every", "@head", "+adapted", "+again"}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["split.test=['chr99']", "split.primary=['chr99']"], "chr99"),
        (["training.epohs=3"], "did you mean 'epochs'"),
        (["split.test=['chr21']"], "in both train and test"),
        (["norms=['layr']"], "did you mean 'layer'"),
        (["data.width=3000000"], "window"),
        (["data.peaks=missing.bed"], "no such file"),
        (["training.device=cuda:99"], "cuda:99"),
        (["training.device=abacus"], "abacus"),
    ],
)
def test_a_mistake_is_one_line_on_stderr_with_exit_code_2(
    demo: Path, small: list[str], tmp_path: Path, overrides: list[str], said: str
) -> None:
    done = seqnorm(
        "holdout", str(demo), "--out", str(tmp_path / "r"), "--override", *small, *overrides
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_no_workers_is_a_mistake(demo: Path, small: list[str], tmp_path: Path) -> None:
    done = seqnorm(
        *("holdout", str(demo), "--out", str(tmp_path / "r"), "--workers", "0"),
        *("--override", *small),
    )
    assert done.returncode == 2
    assert "worker" in done.stderr


def test_repeated_overrides_add_up(demo: Path, tmp_path: Path) -> None:
    done = seqnorm(
        *("holdout", str(demo), "--out", str(tmp_path)),
        *("--override", "training.epochs=0", "name=odd", "--override", "training.batch_size=0"),
    )
    assert done.returncode == 2
    assert "key 'training.epochs'" in done.stderr
    assert "(and 1 more)" in done.stderr


def test_an_unknown_option_or_missing_spec_ends_with_exit_code_2(tmp_path: Path) -> None:
    assert seqnorm("holdout", str(tmp_path / "none.toml")).returncode == 2
    assert "no such spec" in seqnorm("holdout", str(tmp_path / "none.toml")).stderr
    for mistake in (["holdout", "x.toml", "--resum"], ["holdot"], [], ["holdout"]):
        done = seqnorm(*mistake)
        assert done.returncode == 2
        assert len(done.stderr.strip().splitlines()) == 1
    assert seqnorm("report", str(tmp_path)).returncode == 2
