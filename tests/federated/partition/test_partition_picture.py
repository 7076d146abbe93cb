"""The picture shows every client, with the panels that the table has columns for."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from federated.partition import (
    IID,
    ByChromosome,
    BySite,
    GCSkew,
    LabelSkew,
    PartitionError,
    partition,
    partition_picture,
)


def test_the_bars_are_the_rows_of_each_client_by_label(windows):
    rows = windows(500)
    split = partition(rows, LabelSkew(clients=4, alpha=0.5))
    figure = partition_picture(split, rows)
    assert len(figure.axes) == 3
    bars = np.array([[bar.get_width() for bar in group] for group in figure.axes[0].containers])
    table = split.table(rows)
    assert bars[0].tolist() == table["positives"].tolist()
    assert bars.sum(axis=0).tolist() == table["rows"].tolist()
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(split.clients)
    assert "alpha = 0.5" in figure.get_suptitle()


def test_chromosomes_stand_in_their_natural_order(windows):
    rows = windows(300)
    figure = partition_picture(partition(rows, ByChromosome(clients=2)), rows)
    names = [t.get_text() for t in figure.axes[-1].get_xticklabels()]
    assert names == ["chr1", "chr2", "chr10", "chr19"]


def test_sites_take_the_place_of_chromosomes():
    rows = pd.DataFrame({"center": [0, 1, 1, 5], "label": [0, 1, 2, 3]})
    figure = partition_picture(partition(rows, BySite(column="center")), rows)
    assert len(figure.axes) == 2
    assert figure.axes[-1].get_xlabel() == "rows by center"


def test_empty_clients_one_value_of_gc_and_many_labels_are_drawn():
    rows = pd.DataFrame({"label": range(20), "gc": 0.5})
    scheme = LabelSkew(clients=30, alpha=0.01, min_rows=0)
    with pytest.raises(PartitionError, match="only 20 groups"):
        partition(rows, scheme)
    rows = pd.concat([rows] * 2, ignore_index=True)
    figure = partition_picture(partition(rows, scheme), rows)
    figure.canvas.draw()


def test_a_table_without_labels_has_bars_alone():
    rows = pd.DataFrame({"age": range(8)})
    assert len(partition_picture(partition(rows, IID(clients=2)), rows).axes) == 1


def test_the_picture_is_of_the_table_that_was_split(windows):
    split = partition(windows(30), GCSkew(clients=2, rho=1))
    with pytest.raises(PartitionError, match="the table has 20 rows"):
        partition_picture(split, windows(20))


def test_the_package_loads_neither_torch_nor_flower_nor_matplotlib():
    code = "import sys, federated.partition; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "flwr", "matplotlib", "sklearn"} & set(done.stdout.split())
