"""Clients by chromosome and by site hold whole chromosomes and sites and nothing else."""

import numpy as np
import pandas as pd
import pytest

from federated.partition import ByChromosome, BySite, PartitionError, check_partition, partition
from federated.partition.columns import numbered, safe_names


def test_a_client_holds_whole_chromosomes_balanced_by_rows(windows):
    rows = windows(1000)
    split = partition(rows, ByChromosome(clients=3))
    homes = pd.crosstab(rows["chrom"], split.owners())
    assert ((homes > 0).sum(axis=1) == 1).all()
    # 40, 30, 20 and 10 % of the rows: the two small ones share a client.
    assert split.table(rows)["chromosomes"].tolist() == ["chr1", "chr2", "chr10 chr19"]


def test_chromosomes_can_be_given(windows):
    rows = windows(300)
    given = (("chr19", "chr1"), ("chr2", "chr10"))
    split = partition(rows, ByChromosome(chromosomes=given))
    assert split.table(rows)["chromosomes"].tolist() == ["chr1 chr19", "chr10 chr2"]


def test_rows_linked_across_chromosomes_stay_with_most_of_them_and_the_rest_is_told():
    rows = pd.DataFrame({"chrom": list("aabb"), "start": [0, 50, 0, 50]})
    rows["end"] = rows["start"] + 3
    codes = np.array([[0, 0, 1], [2, 3, 3], [0, 0, 1], [1, 1, 1]], dtype=np.uint8)
    split = partition(rows, ByChromosome(clients=2), codes)
    check_partition(split, rows, codes)
    # AAC twice and GTT, its reverse complement: two of the three are on chromosome a.
    assert [held.tolist() for held in split.rows] == [[0, 1], [3]]
    assert split.dropped.values.tolist() == [[2, "shares sequence with row 0 of client-0"]]
    assert split.assignment().isna().tolist() == [False, False, True, False]


def test_each_site_is_a_client_with_a_name_fit_for_files():
    rows = pd.DataFrame({"region": ["West", "Mid/West", "West", "São Paulo"]})
    split = partition(rows, BySite(column="region"))
    assert split.clients == ("Mid-West", "Sao-Paulo", "West")
    assert [held.tolist() for held in split.rows] == [[1], [3], [0, 2]]
    assert split.table(rows)["sites"].tolist() == ["Mid/West", "São Paulo", "West"]
    assert split.dial is None
    assert split.seed is None


def test_numbered_sites_keep_their_order():
    rows = pd.DataFrame({"center": [10.0, 2.0, 0.0]})
    split = partition(rows, BySite(column="center"))
    assert split.clients == ("center-00", "center-02", "center-10")
    assert np.concatenate(split.rows).tolist() == [2, 1, 0]


def test_names_that_would_coincide_get_numbers():
    assert safe_names(["a b", "A/b", "東京", "", "NA"]) == ("a-b", "A-b-2", "site", "site-2", "NA")
    assert len(set(safe_names(["x" * 99 + "1", "x" * 99 + "2"]))) == 2
    assert list(numbered(120)) == sorted(numbered(120))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ByChromosome(), "give either clients or chromosomes"),
        (lambda: ByChromosome(clients=1, chromosomes=(("a",),)), "give either"),
        (lambda: ByChromosome(chromosomes=(("a",), ("a",))), "'a' is given twice"),
        (lambda: ByChromosome(chromosomes=(("a",), ())), "a client is given no chromosome"),
        (lambda: ByChromosome(clients=0), "clients = 0"),
    ],
)
def test_chromosomes_that_make_no_split_are_an_error(make, message):
    with pytest.raises(PartitionError, match=message):
        make()


TABLE = pd.DataFrame({"chrom": ["chr1", "chr2"], "site": ["x", "y"]})


@pytest.mark.parametrize(
    ("rows", "scheme", "message"),
    [
        (TABLE, ByChromosome(clients=3), "clients = 3: the table has only 2 chromosomes"),
        (TABLE, ByChromosome(chromosomes=(("1",), ("chr2",))), "did you mean 'chr1'"),
        (TABLE, ByChromosome(chromosomes=(("chr2",),)), "row 0 .*no client holds 'chr1'"),
        (TABLE[["site"]], ByChromosome(clients=1), "'chrom' is missing"),
        (TABLE, BySite(column="hospital"), "'hospital' is missing: .* has 'chrom', 'site'"),
        (TABLE.assign(site=["x", None]), BySite(), "row 1 .*'site': the value is missing"),
        (TABLE, BySite(sites=("x", "z")), "site 'z' has no row; .* has 'x', 'y'"),
        (TABLE, BySite(sites=("x",)), "row 1 .*no expected site is 'y'"),
    ],
)
def test_an_unknown_site_or_chromosome_is_an_error_that_names_it(rows, scheme, message):
    with pytest.raises(PartitionError, match=message):
        partition(rows, scheme)
