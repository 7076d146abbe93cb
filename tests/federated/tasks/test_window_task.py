"""Windows of clients: who has what is exact, and no part knows another's bases."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from data_tools.encode import reverse_complement
from data_tools.errors import InputError, MissingFileError
from federated.tasks import open_task, prepare_task
from federated.tasks.draw import draw_windows, parts_of
from federated.tasks.task import POOLED, TEST, TRAIN, UNSEEN, VALIDATION
from federated.tasks.windows import WindowTask
from seqnorm.training import predict


@pytest.fixture(scope="module")
def spec(small):
    # Many overlapping windows: wide ones, all peaks of two chromosomes.
    return small(
        'data.chromosomes=["chr21","chr22"]', 'data.unseen=["chr19"]', "data.width=400",
        "data.jitter=30",
    )  # fmt: skip


@pytest.fixture(scope="module")
def task(spec, tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    (folder / "data").mkdir()
    return prepare_task(spec, folder), folder


def spans(rows, margin):
    return [
        (chrom, start - margin, end + margin)
        for chrom, start, end in rows[["chrom", "start", "end"]].itertuples(index=False)
    ]


def test_no_base_is_in_two_parts_or_at_two_clients_even_with_the_margins(spec):
    drawn = draw_windows(spec)
    rows = drawn.rows[drawn.rows["part"] != ""].reset_index(drop=True)
    home = rows["client"] + "/" + rows["part"]
    table = pd.DataFrame(spans(rows, spec.data.jitter), columns=["chrom", "start", "end"])
    table["home"] = home
    overlaps = 0
    for _, here in table.sort_values("start").groupby("chrom"):
        reach, owner = -1, ""
        for start, end, mine in here[["start", "end", "home"]].itertuples(index=False):
            if start < reach:
                overlaps += 1
                assert mine == owner
            if end > reach:
                reach, owner = end, mine
    assert overlaps > 20  # the property would hold of windows that lie apart, too


def test_no_window_or_its_reverse_complement_is_in_two_parts(spec):
    drawn = draw_windows(spec)
    kept = (drawn.rows["part"] != "").to_numpy()
    rows, codes = drawn.rows[kept].reset_index(drop=True), drawn.codes[kept]
    homes = {}
    for home, one in zip(rows["client"] + "/" + rows["part"], codes, strict=True):
        least = min(one.tobytes(), reverse_complement(one).tobytes())
        assert homes.setdefault(least, home) == home


def test_each_client_and_class_is_parted_by_the_fractions(spec):
    rows = draw_windows(spec).rows
    held = rows[(rows["client"] != "") & (rows["part"] != "")]
    share = held.groupby(["client", "label"])["part"].value_counts(normalize=True).unstack()
    assert share[TEST].between(0.2, 0.3).all()
    assert share[VALIDATION].between(0.1, 0.2).all()


def test_the_same_spec_draws_the_same_rows_and_another_seed_others(spec, small, task, tmp_path):
    again = WindowTask.load(spec, task[1])
    assert again.digest == task[0].digest
    (tmp_path / "data").mkdir()
    assert prepare_task(spec, tmp_path).digest == task[0].digest
    other = small(
        'data.chromosomes=["chr21","chr22"]', 'data.unseen=["chr19"]', "data.width=400",
        "data.jitter=30", "data.seed=1",
    )  # fmt: skip
    assert prepare_task(other, tmp_path).digest != task[0].digest


def test_all_clients_together_hold_what_each_holds(task):
    rows, _ = task
    for part in (TRAIN, VALIDATION, TEST):
        counts = [rows.examples(client, part) for client in rows.clients]
        assert rows.examples(POOLED, part) == sum(counts) > 0
    assert rows.examples(UNSEEN, TRAIN) == 0
    assert rows.examples(UNSEEN, TEST) > 50
    chromosomes = rows.windows.table
    unseen = chromosomes[(chromosomes["client"] == "") & (chromosomes["part"] == TEST)]
    assert set(unseen["chrom"]) == {"chr19"}


def test_batches_are_a_function_of_seed_and_epoch(task):
    rows, _ = task

    def batches(*order):
        return [x for x, _ in rows.batches("client-0", TRAIN, 16, order)]

    assert all(map(torch.equal, batches(0, 3), batches(0, 3)))
    assert not torch.equal(batches(0, 3)[0], batches(0, 4)[0])
    assert not torch.equal(batches(1, 3)[0], batches(0, 3)[0])
    whole = [x for x, _ in rows.batches("client-0", TEST, 16, None)]
    assert sum(map(len, whole)) == rows.examples("client-0", TEST)


def test_measures_are_those_of_scikit_learn_and_nan_where_there_are_none(task):
    rows, _ = task
    model = rows.build("group:4", 0)
    found = rows.evaluate(model, "client-1", TEST)
    held = rows.rows_of("client-1", TEST)
    logits, labels = predict(model, held), held.labels.numpy()
    assert found["auprc"] == pytest.approx(average_precision_score(labels, logits), abs=1e-12)
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    assert found["examples"] == len(labels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    broken = rows.evaluate(model, "client-1", TEST)
    assert math.isnan(broken["auprc"])
    assert math.isnan(broken["loss"])
    nobody = rows.evaluate(model, "client-1", "no such part")
    assert nobody["examples"] == 0


def test_parts_do_not_depend_on_what_other_clients_hold():
    rows = pd.DataFrame(
        {
            "chrom": "chr1",
            "start": np.arange(80) * 100,
            "end": np.arange(80) * 100 + 50,
            "label": np.tile([0, 1], 40),
            "client": np.repeat(["a", "b"], 40),
        }
    )
    codes = np.random.default_rng(0).integers(0, 4, (80, 50), dtype=np.uint8)
    both = parts_of(rows, codes, 0.2, 0.3, seed=5)
    alone = parts_of(rows[:40], codes[:40], 0.2, 0.3, seed=5)
    assert (both[:40] == alone).all()
    assert (both[:40] != both[40:]).any()
    assert pd.Series(alone).value_counts().to_dict() == {TRAIN: 20, TEST: 12, VALIDATION: 8}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('data.chromosomes=["chr99"]', "chr99"),
        ("data.width=400000000", "no peak with room for a window"),
        ('data.unseen=["chr5","chr98"]', "chr98"),
    ],
)
def test_data_that_cannot_be_are_refused_in_a_line(override, message, small):
    with pytest.raises(InputError, match=message) as info:
        draw_windows(small(override))
    assert "\n" not in str(info.value)


def test_a_part_of_one_class_is_an_error_unless_it_is_asked_for(small):
    skewed = 'partition={scheme="label_skew",clients=3,alpha=0.01}'
    with pytest.raises(InputError, match=r"client client-\d: (all \d+ windows|its \d+ windows)"):
        draw_windows(small(skewed, "data.both_classes=true"))
    assert draw_windows(small(skewed)).rows["client"].nunique() == 4  # three and the unseen site


def test_a_client_without_its_rows_is_told_so(spec, tmp_path):
    with pytest.raises(MissingFileError, match=r"windows\.npz: no such file"):
        open_task(spec, tmp_path)


def test_a_site_is_given_its_own_rows_and_the_server_no_clients(task, spec, tmp_path):
    rows, _ = task
    for name in (*rows.clients, UNSEEN):
        rows.share(tmp_path / name, name)
        mine = open_task(spec, tmp_path / name)
        assert mine.clients == rows.clients
        for client in (*rows.clients, UNSEEN):
            for part in (TRAIN, VALIDATION, TEST):
                wanted = rows.examples(client, part) if client == name else 0
                assert mine.examples(client, part) == wanted
    mine = open_task(spec, tmp_path / "client-1")
    pairs = zip(
        mine.batches("client-1", TRAIN, 16, (0, 1)),
        rows.batches("client-1", TRAIN, 16, (0, 1)),
        strict=True,
    )
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)
