"""A partition is described by a tidy table and survives its files, or says why not."""

import json

import numpy as np
import pandas as pd
import pytest

from data_tools.errors import MissingFileError
from federated.partition import (
    IID,
    SCHEMES,
    BatchConfounded,
    ByChromosome,
    BySite,
    GCSkew,
    LabelSkew,
    Partition,
    PartitionError,
    QuantitySkew,
    partition,
)


def test_the_table_says_what_each_client_holds(windows):
    rows = windows(400)
    split = partition(rows, GCSkew(clients=3, rho=0.5))
    table = split.table(rows).set_index("client")
    by_client = rows.groupby(split.assignment().to_numpy(dtype=object))
    assert table["rows"].to_dict() == by_client.size().to_dict()
    assert table["positives"].to_dict() == by_client["label"].sum().to_dict()
    assert np.allclose(table["prevalence"], by_client["label"].mean())
    assert np.allclose(table["gc_mean"], by_client["gc"].mean())
    assert np.allclose(table["gc_sd"], by_client["gc"].std(ddof=0))


def test_an_empty_client_has_no_means(windows):
    rows = windows(50)
    scheme = LabelSkew(clients=8, alpha=1e-4, min_rows=0)
    table = partition(rows, scheme).table(rows)
    assert table["prevalence"].isna().equals(table["rows"] == 0)
    assert (table["rows"] == 0).sum() >= 6


@pytest.mark.parametrize(
    "scheme",
    [
        IID(clients=3, seed=7),
        LabelSkew(clients=3, alpha=0.5),
        GCSkew(clients=3, rho=0.25),
        QuantitySkew(clients=3, exponent=2, min_rows=4),
        BatchConfounded(clients=3, rho=0.1),
        ByChromosome(chromosomes=(("chr1",), ("chr2", "chr10"), ("chr19",))),
        BySite(column="lab", sites=("NA", 'b, "c"')),
    ],
    ids=lambda s: s.kind,
)
def test_what_is_saved_is_read_back(windows, tmp_path, scheme):
    rows = windows(200).assign(lab=["NA", 'b, "c"'] * 100)
    split = partition(rows, scheme)
    split.save(tmp_path / "new")
    found = Partition.load(tmp_path / "new")
    assert found.scheme == scheme
    assert (found.clients, found.batches, found.dial) == (split.clients, split.batches, split.dial)
    assert (found.owners() == split.owners()).all()
    assert SCHEMES[scheme.kind] is type(scheme)


def test_dropped_rows_are_saved_with_their_reasons(tmp_path):
    rows = pd.DataFrame({"site": ["x", "y", "y", "x"]})
    codes = np.array([[0, 1], [0, 1], [0, 1], [1, 1]], dtype=np.uint8)
    split = partition(rows, BySite(), codes)
    split.save(tmp_path)
    found = Partition.load(tmp_path)
    assert found.dropped.values.tolist() == [[0, "shares sequence with row 1 of y"]]
    assert found.assignment().equals(split.assignment())


def test_files_that_are_missing_or_damaged_are_an_error_that_names_them(tmp_path):
    with pytest.raises(MissingFileError, match=r"partition\.json: no such file"):
        Partition.load(tmp_path)
    partition(pd.DataFrame({"age": range(9)}), IID(clients=3)).save(tmp_path)
    record, rows = tmp_path / "partition.json", tmp_path / "partition.csv"
    good = record.read_text()
    for bad in ("{", "[]", json.dumps({**json.loads(good), "scheme": "x"})):
        record.write_text(bad)
        with pytest.raises(PartitionError, match=r"partition\.json: not the record"):
            Partition.load(tmp_path)
    record.write_text(good)
    rows.write_text(rows.read_text().replace("client-0", "client-1", 1))
    with pytest.raises(PartitionError, match=r"partition\.csv: changed since"):
        Partition.load(tmp_path)


NONE = pd.DataFrame({"row": [], "reason": []})


@pytest.mark.parametrize(
    ("clients", "held", "message"),
    [
        (("a", "b"), ([0, 1], [1, 2]), "row 1 .* 2 times"),
        (("a", "b"), ([0, 1], [3]), "row 2 .* 0 times"),
        (("a", "b"), ([1, 0], [2]), "a: its rows must ascend"),
        (("b", "a"), ([0], [1]), "must be sorted"),
        (("a", "a"), ([0], [1]), "must be sorted and differ"),
        (("a",), ([0], [1]), "1 clients, rows of 2"),
    ],
)
def test_a_partition_covers_every_row_once_or_is_refused(clients, held, message):
    with pytest.raises(PartitionError, match=message):
        Partition(clients, tuple(map(np.array, held)), IID(clients=2), clients, NONE)


def test_another_table_is_refused(windows):
    split = partition(windows(50), IID(clients=2))
    with pytest.raises(PartitionError, match="the table has 49 rows, the partition is of 50"):
        split.table(windows(50).iloc[1:])
