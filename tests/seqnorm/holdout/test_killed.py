"""A run that is killed again and again, at moments that chance picks."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 10


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_writes_the_same_tables_byte_for_byte(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    # Longer than the small one, so that kills fall into training, and every kind of norm there is.
    longer = [*small, "training.epochs=8", "training.patience=8"]

    def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
        program = str(Path(sys.executable).parent / "seqnorm")
        command = [program, "holdout", str(demo), "--out", str(folder), "--workers", "2", *options]
        return subprocess.Popen(
            [*command, "--override", *longer],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    began, stamp = time.monotonic(), time.time()
    assert start(whole).wait() == 0
    took = time.monotonic() - began
    starting = (whole / "windows.csv").stat().st_mtime - stamp
    chance = random.Random(0)
    hits, standing = 0, []
    for _ in range(KILLS):
        process = start(killed, "--resume")
        try:
            # Every session has its start, where it may be killed too, and a share of the rest.
            process.wait(chance.uniform(0, starting + 0.3 * (took - starting)))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            hits += 1
        standing.append(len(list(killed.glob("trials/*/trained.json"))))
    assert hits >= KILLS // 2
    assert start(killed, "--resume").wait() == 0
    assert standing == sorted(standing), "a resumed run loses nothing"
    expected = {path.name: path.read_bytes() for path in whole.glob("*.csv")}
    assert len(expected) > 5
    assert {path.name: path.read_bytes() for path in killed.glob("*.csv")} == expected
