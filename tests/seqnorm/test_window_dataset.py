"""Batches from a store are the bits of batches from memory, for any number of workers."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from data_tools.errors import InputError
from data_tools.genome import Genome
from data_tools.window_store import write_window_store
from data_tools.windows import window_codes
from seqnorm.batches import LabelledWindows
from seqnorm.window_dataset import WindowBatches

COUNT, WIDTH, MARGIN = 103, 21, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store, and its windows in memory."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGTN", dtype="S1")
    body = b"".join(rng.choice(letters, 2000, p=[0.24] * 4 + [0.04]))
    (folder / "x.fa").write_bytes(b">a\n" + body + b"\n")
    table = pd.DataFrame({"chrom": "a", "start": rng.integers(MARGIN, 1900, COUNT)})
    table = table.assign(end=table["start"] + WIDTH, label=rng.integers(0, 2, COUNT))
    with Genome(folder / "x.fa", cache_dir=folder) as genome:
        write_window_store(folder / "s", genome, table, margin=MARGIN)
        codes = torch.from_numpy(window_codes(genome, table, MARGIN))
    labels = torch.from_numpy(table["label"].to_numpy(np.float32))
    return folder / "s", LabelledWindows(codes, labels, MARGIN)


def same(found, truth):
    found, truth = list(found), list(truth)
    assert len(found) == len(truth)
    return all(
        torch.equal(x[part], y[part]) for x, y in zip(found, truth, strict=True) for part in (0, 1)
    )


@pytest.mark.parametrize("batch_size", [1, 10, 17, 34, 103, 500])
@pytest.mark.parametrize("epoch", [0, 3])
def test_batches_from_the_store_are_those_from_memory(made, batch_size, epoch):
    path, windows = made
    batches = WindowBatches(path, batch_size, seed=5)
    batches.set_epoch(epoch)
    found = [batches[i] for i in range(len(batches))]
    assert same(found, windows.shuffled(batch_size, 5, epoch))
    plain = WindowBatches(path, batch_size)
    assert same([plain[i] for i in range(len(plain))], windows.in_order(batch_size))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.parametrize(("workers", "start"), [(0, None), (1, "fork"), (3, "fork"), (2, "spawn")])
def test_any_number_of_workers_that_live_for_many_epochs_give_the_same_batches(
    made, workers, start
):
    path, windows = made
    batches = WindowBatches(path, 10, seed=5)
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context=start,
        persistent_workers=workers > 0,
    )
    for epoch in (0, 2, 1):
        batches.set_epoch(epoch)
        assert same(loader, windows.shuffled(10, 5, epoch))


def test_epochs_and_seeds_differ(made):
    shown = {}
    for seed in (0, 1):
        batches = WindowBatches(made[0], 103, seed=seed)
        for epoch in (0, 1):
            batches.set_epoch(epoch)
            shown[seed, epoch] = batches[0][0].numpy().tobytes()
    assert len(set(shown.values())) == 4


def test_a_pickle_of_an_epoch_goes_on_with_it(made):
    batches = WindowBatches(made[0], 10, seed=5)
    batches.set_epoch(2)
    first = batches[1]
    again = pickle.loads(pickle.dumps(batches))
    assert same([again[1]], [first])
    again.set_epoch(3)
    assert not torch.equal(again[1][0], first[0])


def test_a_batch_that_is_not_there_ends_an_iteration(made):
    batches = WindowBatches(made[0], 10)
    with pytest.raises(IndexError, match="batch 11 of 11"):
        batches[11]
    assert sum(len(y) for _, y in batches) == COUNT


def test_wrong_batch_sizes_and_labels_are_refused(made):
    with pytest.raises(ValueError, match="at least 1"):
        WindowBatches(made[0], 0)
    with pytest.raises(InputError, match="'chrom' is not of finite numbers"):
        WindowBatches(made[0], 10, label="chrom")
    with pytest.raises(InputError, match="no column 'score'"):
        WindowBatches(made[0], 10, label="score")
