"""Sharing out GPUs, with a made-up number of them."""

import os

import pytest
import torch

from seqnorm.runs.devices import gpus_for
from seqnorm.runs.pool import Pool
from seqnorm.training import batch_size_for, precision_for


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)


@pytest.mark.usefixtures("four")
@pytest.mark.parametrize(
    ("capability", "chosen"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((12, 0), "bfloat16")]
)
def test_the_precision_is_that_which_a_gpu_computes_with(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], chosen: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert precision_for(torch.device("cuda")) == chosen
    assert precision_for(torch.device("cpu")) == "float32"


def test_a_gpu_takes_larger_batches_than_a_processor() -> None:
    assert batch_size_for(torch.device("cuda")) > batch_size_for(torch.device("cpu"))


def test_a_cluster_with_gpus_that_this_machine_lacks_has_float32() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has GPUs")
    assert precision_for(torch.device("cuda")) == "float32"


def visible(seconds: float) -> tuple[int, str | None]:
    """In a worker: what it may see."""
    import time

    time.sleep(seconds)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")


@pytest.mark.usefixtures("four")
def test_all_gpus_are_shared_out_and_those_named_in_the_environment_alone() -> None:
    assert gpus_for("auto", {}) == gpus_for("cuda", {}) == ("0", "1", "2", "3")
    assert gpus_for("auto", {"CUDA_VISIBLE_DEVICES": "2, GPU-8a,5,7"}) == ("2", "GPU-8a", "5", "7")


@pytest.mark.usefixtures("four")
def test_a_gpu_named_by_its_number_and_the_cpu_are_left_alone() -> None:
    assert gpus_for("cuda:1", {}) == gpus_for("cpu", {}) == ()


def test_without_a_gpu_nothing_is_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpus_for("auto", {}) == ()


def seen(workers: int, devices: tuple[str, ...]) -> dict[int, str | None]:
    """What each process of a pool sees, by its id."""
    with Pool(workers, 1, lambda name, step, seconds: None, devices=devices) as pool:
        for job in range(3 * workers):
            pool.submit(job, visible, 0.1)
        found = [done.result for done in pool.finished()]
    by_process: dict[int, str | None] = {}
    for process, device in found:
        assert by_process.setdefault(process, device) == device
    return by_process


def test_every_process_keeps_one_gpu_and_the_gpus_have_equally_many() -> None:
    # As many as a machine of two cores starts in good time.
    devices = list(seen(4, ("3", "GPU-8a")).values())
    assert set(devices) <= {"3", "GPU-8a"}
    assert abs(devices.count("3") - devices.count("GPU-8a")) <= 4 - len(devices) + 1


def test_without_gpus_processes_see_what_the_main_process_sees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "as it was")
    assert set(seen(1, ()).values()) == {"as it was"}
