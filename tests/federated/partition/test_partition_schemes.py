"""Every scheme covers the rows once, obeys its dial and its seed, and keeps its law."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from federated.partition import (
    IID,
    BatchConfounded,
    ByChromosome,
    GCSkew,
    LabelSkew,
    PartitionError,
    QuantitySkew,
    check_partition,
    partition,
)

SCHEMES = [
    IID(clients=4, seed=3),
    LabelSkew(clients=4, alpha=0.7, seed=3),
    LabelSkew(clients=4, alpha=0.7, seed=3, sizes="equal"),
    GCSkew(clients=4, rho=0.6, seed=3),
    QuantitySkew(clients=4, exponent=1.2, seed=3),
    BatchConfounded(clients=4, rho=0.3, seed=3),
    ByChromosome(clients=3),
]
DRAWN = SCHEMES[:-1]


def named(scheme):
    return f"{scheme.kind}-{getattr(scheme, 'sizes', '')}".strip("-")


kinds = pytest.mark.parametrize("scheme", SCHEMES, ids=named)


def settings(scheme, **changes):
    return type(scheme)(**{**vars(scheme), **changes})


@kinds
@given(seed=st.integers(0, 10**6), crowded=st.booleans())
def test_every_row_has_one_client_and_linked_rows_the_same(windows, scheme, seed, crowded):
    rows = windows(120, seed, crowded=crowded)
    split = partition(rows, scheme)
    check_partition(split, rows)
    assert (np.sort(np.concatenate(split.rows)) == np.arange(len(rows))).all()
    assert split.dropped.empty
    assert min(len(held) for held in split.rows) >= 1


@kinds
def test_windows_are_split_alike_in_any_order_of_the_rows(windows, scheme):
    rows = windows(300, crowded=True)
    order = np.random.default_rng(1).permutation(len(rows))
    moved = partition(rows.iloc[order], scheme).owners()
    assert (moved == partition(rows, scheme).owners()[order]).all()


@pytest.mark.parametrize("scheme", DRAWN, ids=named)
def test_a_seed_fixes_the_partition_and_another_changes_it(windows, scheme):
    rows = windows(300)
    owner = partition(rows, scheme).owners()
    assert (partition(rows, scheme).owners() == owner).all()
    assert (partition(rows, settings(scheme, seed=4)).owners() != owner).any()


def test_in_a_table_without_coordinates_the_order_of_the_rows_counts():
    rows = pd.DataFrame({"age": range(40)})
    owner = partition(rows, IID(clients=2)).owners()
    assert (partition(rows[::-1], IID(clients=2)).owners() == owner).all()


@pytest.mark.parametrize(
    "scheme",
    [
        IID(clients=5),
        GCSkew(clients=5, rho=0),
        QuantitySkew(clients=5, exponent=0),
        LabelSkew(clients=5, alpha=1e7),
        BatchConfounded(clients=5, rho=0),
    ],
    ids=lambda s: s.kind,
)
def test_at_the_iid_end_clients_agree_within_sampling_error(windows, scheme):
    rows = windows(5000)
    table = partition(rows, scheme).table(rows)
    n, p = 1000, rows["label"].mean()
    assert (abs(table["rows"] - n) <= 5).all()
    assert (abs(table["prevalence"] - p) < 4 * np.sqrt(p * (1 - p) / n)).all()
    assert (abs(table["gc_mean"] - rows["gc"].mean()) < 4 * rows["gc"].std() / np.sqrt(n)).all()


# --- GC --------------------------------------------------------------------------------------


def test_at_rho_1_no_two_clients_overlap_in_gc(windows):
    rows = windows(1000)
    held = [rows["gc"].to_numpy()[mine] for mine in partition(rows, GCSkew(clients=4, rho=1)).rows]
    assert all(a.max() <= b.min() for a, b in pairwise(held))


def test_the_gc_of_the_clients_spreads_linearly_in_rho_as_the_normal_law_says(windows):
    rows = windows(8000)
    clients = 4
    cuts = norm.ppf(np.arange(clients + 1) / clients)
    part = clients * (norm.pdf(cuts[:-1]) - norm.pdf(cuts[1:]))
    z = norm.ppf((rows["gc"].rank().to_numpy() - 0.5) / len(rows))
    for rho in (0.0, 0.3, 0.6, 0.9, 1.0):
        split = partition(rows, GCSkew(clients=clients, rho=rho, seed=5))
        found = [z[held].mean() for held in split.rows]
        assert np.allclose(found, rho * part, atol=4 / np.sqrt(2000))


# --- label -----------------------------------------------------------------------------------


def test_at_a_tiny_alpha_each_class_has_one_client(windows):
    rows = windows(500)
    split = partition(rows, LabelSkew(clients=5, alpha=1e-4, min_rows=0, seed=2))
    owner = pd.Series(split.owners())
    assert (owner.groupby(rows["label"]).nunique() == 1).all()


@pytest.mark.parametrize("alpha", [0.3, 2.0])
def test_shares_of_a_class_have_the_dirichlet_mean_and_variance(alpha):
    rows = pd.DataFrame({"label": [0] * 400})
    draws, clients = 600, 4
    shares = np.array(
        [
            [
                len(h) / 400
                for h in partition(
                    rows, LabelSkew(clients=clients, alpha=alpha, seed=seed, min_rows=0)
                ).rows
            ]
            for seed in range(draws)
        ]
    )
    mean = 1 / clients
    variance = mean * (1 - mean) / (clients * alpha + 1)
    assert np.allclose(shares.mean(axis=0), mean, atol=4 * np.sqrt(variance / draws))
    assert np.allclose(shares.var(axis=0), variance, rtol=0.2)


@pytest.mark.parametrize("alpha", [1e-4, 0.3, 2.0, 1e7])
def test_clients_of_equal_size_hold_all_rows_between_them(windows, alpha):
    rows = windows(1000)
    for seed in range(10):
        split = partition(rows, LabelSkew(clients=7, alpha=alpha, sizes="equal", seed=seed))
        held = [len(mine) for mine in split.rows]
        # Rounding of each class may move a client's border by one row.
        assert max(held) - min(held) <= 2 * rows["label"].nunique()
        assert sum(held) == len(rows)


def test_shares_at_clients_of_equal_size_have_the_dirichlet_mean_and_variance():
    # Of the client that draws first, before any class is used up: any client, by the seed.
    rows, alpha, draws = pd.DataFrame({"label": np.arange(4000) % 4 // 3}), 2.0, 800
    found = []
    for seed in range(draws):
        scheme = LabelSkew(clients=20, alpha=alpha, sizes="equal", seed=seed, min_rows=0)
        first = np.random.default_rng(seed).permutation(20)[0]
        mine = partition(rows, scheme).rows[first]
        found.append(rows["label"].to_numpy()[mine].mean())
    p = 0.25
    variance = p * (1 - p) / (alpha + 1)
    assert np.mean(found) == pytest.approx(p, abs=4 * np.sqrt(variance / draws))
    assert np.var(found) == pytest.approx(variance, rel=0.2)


def test_prevalences_spread_more_the_smaller_alpha(windows):
    rows = windows(2000)

    def spread(alpha):
        found = [
            partition(rows, LabelSkew(clients=5, alpha=alpha, seed=s))
            .table(rows)["prevalence"]
            .std()
            for s in range(20)
        ]
        return np.mean(found)

    assert spread(0.2) > spread(1) > spread(10) > spread(1000)


def test_no_client_is_below_the_minimum_of_rows(windows):
    rows = windows(500)
    for seed in range(20):
        split = partition(rows, LabelSkew(clients=5, alpha=0.3, min_rows=20, seed=seed))
        assert min(len(held) for held in split.rows) >= 20


def test_more_than_two_classes_are_dealt_too():
    rows = pd.DataFrame({"label": np.arange(300) % 5})
    split = partition(rows, LabelSkew(clients=3, alpha=1, seed=1))
    assert len(set(split.table(rows)["rows"])) > 1


# --- quantity --------------------------------------------------------------------------------


@given(
    clients=st.integers(1, 12),
    exponent=st.floats(0, 40),
    least=st.integers(0, 5),
    total=st.integers(60, 400),
)
def test_sizes_fall_by_the_power_law_and_sum_to_the_rows(clients, exponent, least, total):
    scheme = QuantitySkew(clients=clients, exponent=exponent, min_rows=least)
    sizes = scheme.sizes(total)
    law = np.arange(1, clients + 1, dtype=float) ** -exponent
    assert sizes.sum() == total
    assert (np.diff(sizes) <= 0).all()
    assert np.allclose(sizes, least + (total - clients * least) * law / law.sum(), atol=1)
    if least:
        split = partition(pd.DataFrame({"age": range(total)}), scheme)
        assert [len(held) for held in split.rows] == sizes.tolist()


# --- batch -----------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [2, 3, 6])
@pytest.mark.parametrize("rho", [0.0, 0.2, 0.45])
def test_batch_and_label_correlate_by_rho(windows, clients, rho):
    rows = windows(3000)
    split = partition(rows, BatchConfounded(clients=clients, rho=rho))
    late = np.array(split.batches)[split.owners()] == "batch-1"
    assert np.corrcoef(late, rows["label"])[0, 1] == pytest.approx(rho, abs=2e-3)
    assert np.ptp([len(held) for held in split.rows]) <= 3


def test_balanced_labels_can_be_confounded_wholly():
    rows = pd.DataFrame({"label": [0, 1] * 20})
    split = partition(rows, BatchConfounded(clients=4, rho=1))
    assert split.table(rows)["prevalence"].tolist() == [0, 0, 1, 1]
    assert split.batches == ("batch-0", "batch-0", "batch-1", "batch-1")


# --- groups larger than a share --------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_group_larger_than_a_share_goes_whole_to_a_client_and_none_stays_empty(seed):
    start = np.r_[np.arange(50), 1000, 2000, 3000]
    rows = pd.DataFrame({"chrom": "a", "start": start, "end": start + 100, "gc": 0.5})
    for scheme in (IID(clients=4, seed=seed), GCSkew(clients=4, rho=0.5, seed=seed)):
        assert sorted(len(held) for held in partition(rows, scheme).rows) == [1, 1, 1, 50]


# --- wrong input -----------------------------------------------------------------------------

TABLE = pd.DataFrame({"label": [0, 1, 1, 0], "gc": [0.4, 0.5, 0.6, 0.7]})


@pytest.mark.parametrize(
    ("rows", "scheme", "message"),
    [
        (TABLE[["gc"]], LabelSkew(clients=2, alpha=1), "'label' is missing: a label skew needs"),
        (TABLE[["label"]], GCSkew(clients=2, rho=1), "'gc' is missing: .* table has 'label'"),
        (TABLE.assign(label=[0, 1, None, 1]), LabelSkew(clients=2, alpha=1), "row 2 .*'label'"),
        (TABLE.assign(gc=[0, np.inf, 0, 1]), GCSkew(clients=2, rho=1), "row 1 .*'gc': inf"),
        (TABLE.assign(label=list("abab")), LabelSkew(clients=2, alpha=1), "needs numbers"),
        (TABLE, IID(clients=5), "clients = 5: the table has only 4 groups"),
        (TABLE, QuantitySkew(clients=3, exponent=1, min_rows=2), "need 6 rows, the table has 4"),
        (TABLE, IID(clients=2, min_rows=3), "client-. gets 2 rows, fewer than 3"),
        (TABLE, LabelSkew(clients=4, alpha=1e-6), "alpha = 1e-06: in 1000 draws"),
        (TABLE.assign(label=2), BatchConfounded(clients=2, rho=0), "row 0 .*needs labels 0 and 1"),
        (TABLE.assign(label=1), BatchConfounded(clients=2, rho=0), "all rows are of class 1"),
        (
            TABLE.assign(label=[0, 0, 0, 1]),
            BatchConfounded(clients=2, rho=0.7),
            r"prevalence of 0.25 .* by 0.5774 at most",
        ),
    ],
)
def test_what_cannot_be_split_is_an_error_in_one_line(rows, scheme, message):
    with pytest.raises(PartitionError, match=message) as caught:
        partition(rows, scheme)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IID(clients=0), "clients = 0"),
        (lambda: IID(clients=True), "clients = True"),
        (lambda: IID(clients=2, seed=-1), "seed = -1"),
        (lambda: IID(clients=2, min_rows=1.5), "min_rows = 1.5"),
        (lambda: LabelSkew(clients=2, alpha=1, sizes="even"), "sizes = 'even': give 'drawn' or"),
        (lambda: LabelSkew(clients=2, alpha=0), "alpha = 0: give a finite number above 0"),
        (lambda: LabelSkew(clients=2, alpha=float("nan")), "alpha = nan"),
        (lambda: GCSkew(clients=2, rho=1.1), "rho = 1.1: give a finite number from 0 up to 1"),
        (lambda: QuantitySkew(clients=2, exponent=-1), "exponent = -1"),
        (lambda: BatchConfounded(clients=1, rho=0), "clients = 1: give a whole number, 2 or more"),
        (lambda: BatchConfounded(clients=2, rho="x"), "rho = 'x'"),
    ],
)
def test_a_setting_out_of_range_is_an_error_that_gives_the_range(make, message):
    with pytest.raises(PartitionError, match=message):
        make()
