"""What a run folder keeps of its sessions."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from seqnorm.runs.record import Record


def opened(folder: Path, *, resume: bool) -> Record:
    return Record.open(folder, "study", "a = 1\n", {}, parts="trials", resume=resume)


def sessions(folder: Path) -> list[dict[str, float]]:
    found: list[dict[str, float]] = json.loads((folder / "run.json").read_text())["sessions"]
    return found


@pytest.mark.parametrize("status", ["complete", "interrupted", "failed"])
def test_a_session_keeps_its_seconds_however_it_ended(tmp_path: Path, status: str) -> None:
    record = opened(tmp_path, resume=False)
    record.begin(2, 1)
    time.sleep(0.2)
    record.save(status)
    assert 0.2 <= sessions(tmp_path)[0]["seconds"] < 60


def test_a_session_that_was_killed_has_the_seconds_until_it_last_wrote(tmp_path: Path) -> None:
    record = opened(tmp_path, resume=False)
    record.begin(2, 1)
    trained = tmp_path / "trials" / "one" / "trained.json"
    trained.parent.mkdir(parents=True)
    trained.write_text("{}")
    began = datetime.now(UTC).timestamp()
    for path in tmp_path.rglob("*"):
        os.utime(path, (began, began))
    os.utime(trained, (began + 100, began + 100))
    again = opened(tmp_path, resume=True)
    again.begin(2, 1)
    again.save("complete")
    first, second = sessions(tmp_path)
    assert first["seconds"] == pytest.approx(100, abs=3)
    assert second["seconds"] < 60


@pytest.mark.parametrize("begun", [True, False])
def test_what_killed_writes_have_left_is_removed_and_nothing_else(
    tmp_path: Path, begun: bool
) -> None:
    opened(tmp_path, resume=False).begin(2, 1)
    place = tmp_path / ("trials/one" if begun else "windows")
    place.mkdir(parents=True)
    (place / ".model.safetensors.0123abcd").write_text("half")
    for name in (".lock", ".note.0123abcde", "model.0123abcd"):
        (place / name).write_text("whole")
    opened(tmp_path, resume=True)
    left = {path.name for path in place.iterdir()}
    assert left == {".lock", ".note.0123abcde", "model.0123abcd"}


def test_a_folder_that_is_no_run_is_left_as_it_is(tmp_path: Path) -> None:
    stranger = tmp_path / ".model.safetensors.0123abcd"
    stranger.write_text("somebody's")
    opened(tmp_path, resume=False)
    assert stranger.exists()
