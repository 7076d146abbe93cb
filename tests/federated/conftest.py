"""Small federations on real sequence."""

import hashlib
from pathlib import Path

import pytest

from federated.cell import cells_of
from federated.spec import load_spec
from federated.tasks import prepare_task
from seqnorm.checkpoint import load_checkpoint

SPEC = Path(__file__).parents[2] / "examples" / "federated_ctcf.toml"

SMALL = (
    'data.chromosomes=["chr21"]',
    'data.unseen=["chr22"]',
    "data.width=100",
    "data.jitter=4",
    "data.negatives_per_positive=1",
    "data.both_classes=false",
    "partition.clients=3",
    'norms=["batch"]',
    'policies=["fedbn"]',
    "training.rounds=2",
    "training.learning_rates=[0.01]",
    "training.seeds=[0]",
    "model.options={channels=8,blocks=1}",
)


@pytest.fixture(scope="session")
def small():
    """Makes a spec of three clients on chr21, with overrides on top."""

    def make(*overrides):
        return load_spec(SPEC, [*SMALL, *overrides])

    return make


@pytest.fixture(scope="session")
def small_overrides():
    """The same overrides for who starts the program itself."""
    return SMALL


@pytest.fixture(scope="session")
def opened():
    """Draws the rows of a spec into a folder; gives the task and the first cell."""

    def open_folder(spec, folder):
        (folder / "data").mkdir(parents=True)
        return prepare_task(spec, folder), cells_of(spec)[0]

    return open_folder


@pytest.fixture(scope="session")
def bits():
    """Digest of the weights that a cell has come to."""

    def digest(folder, cell):
        home = folder / "cells" / cell.id
        found = [load_checkpoint(home / f"checkpoint-{slot}") for slot in ("even", "odd")]
        whole = [checkpoint for checkpoint in found if checkpoint is not None]
        tensors, _ = max(whole, key=lambda pair: len(pair[1]["history"]["rounds"]))
        joined = b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))
        return hashlib.sha256(joined).hexdigest()

    return digest
