"""The experiment on a Ray cluster, and that its tables depend on no way of running it."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from as_command import begun, command, wait_for

from data_tools.errors import InputError
from seqnorm.holdout.load import load_spec
from seqnorm.holdout.run import run
from seqnorm.runs.ray_pool import Cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow]
pytest.importorskip("ray", reason="Ray is not installed: pip install 'seqnorm[ray]'")


def tables(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    assert len(found) > 5
    return found


def test_one_worker_two_and_a_ray_cluster_write_the_same_tables_byte_for_byte(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    ways = {"one": ["--workers", "1"], "two": ["--workers", "2"], "ray": ["--ray", "local"]}
    for name, options in ways.items():
        done = subprocess.run(
            command(demo, small, tmp_path / name, *options), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    one = tables(tmp_path / "one")
    assert tables(tmp_path / "two") == one
    assert tables(tmp_path / "ray") == one
    record = json.loads((tmp_path / "ray" / "run.json").read_text())["sessions"][-1]
    assert record["ray_nodes"] == 1
    assert record["workers"] == len(os.sched_getaffinity(0))
    assert record["libraries"]["ray"]


def test_ctrl_c_leaves_checkpoints_and_a_killed_worker_is_one_line(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    # So long that no job of the test comes to its end.
    longer = [*small, "training.epochs=5000", "training.patience=5000"]
    again = command(demo, longer, folder, "--ray", "local", "--resume", "--workers", "1")
    with begun(again) as process:
        wait_for(lambda: any(folder.glob("trials/*/checkpoint/state.json")))
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "--ray local --resume" in out
    assert json.loads((folder / "run.json").read_text())["status"] == "interrupted"
    (state,) = folder.glob("trials/*/checkpoint/state.json")

    content = state.read_bytes()
    with begun(again) as process:
        wait_for(lambda: state.read_bytes() != content and at_work(process.pid))
        (worker,) = at_work(process.pid)
        os.kill(worker, signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.splitlines()[-1].endswith("go on with --resume and fewer --workers")
    assert "Traceback" not in err


def at_work(root: int) -> list[int]:
    """Processes below one that do a job, which Ray names by the function."""
    parents, names = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "stat").read_text()
            names[int(entry.name)] = (entry / "cmdline").read_text()
        except OSError:
            continue
        parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])

    def below(process: int) -> bool:
        while process in parents:
            if process == root:
                return True
            process = parents[process]
        return False

    return [number for number, name in names.items() if "ray::_job" in name and below(number)]


def test_an_address_where_no_cluster_is_is_one_line(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="no cluster can be used there") as raised:
        run(load_spec(demo, small), tmp_path, ray="127.0.0.1:1", say=lambda line: None)
    assert "\n" not in str(raised.value)


def test_more_threads_than_the_cluster_has_cores_are_refused(
    demo: Path, small: list[str], tmp_path: Path
) -> None:
    many = [*small, "training.threads=4096"]
    done = subprocess.run(
        command(demo, many, tmp_path, "--ray", "local"), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "lower training.threads" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_by_its_name_is_refused_on_a_cluster(device: str, tmp_path: Path) -> None:
    """Each worker sees the share that Ray gives it, as its first."""
    with pytest.raises(InputError, match="on a cluster it is 'auto'"):
        Cluster("local", None, 1, device, tmp_path)
