import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from data_tools.errors import InputError
from federated.spec import Spec, load_spec
from federated.tasks import open_task, prepare_task
from federated.tasks.outcomes import c_index, cox_loss
from federated.tasks.table import TableTask
from federated.tasks.task import POOLED

SPEC = """
name = "rows"
question = "?"
norms = ["none"]
policies = ["fedavg"]
table = {{path = "rows.csv", {table}}}
partition = {{{partition}}}
model.name = "linear"
training = {{rounds = 2, learning_rates = [0.1], seeds = [0]}}
"""
LABEL, COX = 'label = "ill"', 'time = "days", event = "died"'
BY_SITE = 'scheme = "by_site", column = "site"'

Make = Callable[..., Spec]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def write(rows: pd.DataFrame | str, table: str = LABEL, partition: str = BY_SITE) -> Spec:
        text = rows if isinstance(rows, str) else rows.to_csv(index=False)
        (tmp_path / "rows.csv").write_text(text)
        (tmp_path / "spec.toml").write_text(SPEC.format(table=table, partition=partition))
        return load_spec(tmp_path / "spec.toml")

    return write


def labelled(rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    ill = rng.integers(0, 2, rows)
    return pd.DataFrame(
        {
            "site": rng.choice(["north", "south"], rows, p=[0.7, 0.3]),
            "age": rng.normal(60, 5, rows).round(2) + 4 * ill,
            "dose": rng.normal(size=rows),
            "ill": ill,
        }
    )


def followed(rows: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    table = labelled(rows).drop(columns="ill")
    return table.assign(days=rng.integers(0, 50, rows), died=rng.integers(0, 2, rows))


# --- the file ------------------------------------------------------------------------------


def refused(make: Make, folder: Path, text: str, **keys: str) -> str:
    with pytest.raises(InputError) as caught:
        prepare_task(make(text, **keys), folder)
    message = str(caught.value)
    assert "\n" not in message
    assert "rows.csv" in message
    return message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("site,age\na,1\n", "no column 'ill'"),
        ("site,age,Ill\na,1,0\n", "no column 'ill'; did you mean 'Ill'?"),
        ("age,ill\n1,0\n", "no column 'site'"),
        ("site,ill\na,0\n", "no column is left for a model to see"),
        (
            "site,age,ill\na,1,0\nb,old,1\n",
            "line 3, column 'age': a feature is no number, got 'old'",
        ),
        ("site,age,ill\na,1_0,0\n", "line 2, column 'age': a feature is no number"),
        ("site,age,ill\na,inf,0\n", "line 2, column 'age': a feature is no number"),
        ("site,age,ill\na,1e39,0\n", "line 2, column 'age': a feature is too large"),
        ("site,age,ill\na,1,0\n\na,,0\n", "line 4, column 'age': the value is missing ('')"),
        ("site,age,ill\na,NaN,0\n", "line 2, column 'age': the value is missing ('NaN')"),
        ("site,age,ill\na,?,0\n", "line 2, column 'age': the value is missing ('?')"),
        ("site,age,ill\na,1,\n", "line 2, column 'ill': the value is missing"),
        ("site,age,ill\n,1,0\n", "line 2, column 'site': the value is missing"),
        ("site,age,ill\na,1,2\n", "line 2, column 'ill': a label must be 0 or 1, got '2'"),
        ("site,age,ill\na,1,yes\n", "line 2, column 'ill': a label is no number, got 'yes'"),
        ("site,age,ill\na,1\n", "line 2: 2 values, the header names 3 columns"),
        ('site,age,ill\n"a\nb",1,0\na,x,0\n', "line 4, column 'age'"),
        ('site,age,ill\n"a,1,0\n', "not CSV"),
        ("site,age,age,ill\na,1,1,0\n", "two columns are named 'age'"),
        ("site,age,ill\n", "has a header but no rows"),
        ("", "is empty"),
    ],
)
def test_a_fault_in_the_file_is_one_line_that_names_its_place(
    make: Make, tmp_path: Path, text: str, said: str
) -> None:
    assert said in refused(make, tmp_path, text)


def test_a_time_is_not_negative_and_an_event_is_0_or_1(make: Make, tmp_path: Path) -> None:
    text = "site,age,days,died\na,1,-2,1\n"
    assert "line 2, column 'days': a time must not be negative, got '-2'" in refused(
        make, tmp_path, text, table=COX
    )
    text = "site,age,days,died\na,1,2,0.5\n"
    assert "column 'died': an event must be 0 or 1" in refused(make, tmp_path, text, table=COX)


def test_a_part_is_train_or_test(make: Make, tmp_path: Path) -> None:
    text = "site,age,ill,set\na,1,0,train\na,1,0,Test\n"
    said = refused(make, tmp_path, text, table=f'{LABEL}, part = "set"')
    assert "line 3, column 'set': must be 'train' or 'test', got 'Test'" in said


def test_a_feature_that_the_spec_names_must_be_there(make: Make, tmp_path: Path) -> None:
    said = refused(make, tmp_path, "site,age,ill\na,1,0\n", table=f'{LABEL}, features = ["aeg"]')
    assert "no column 'aeg'; did you mean 'age'?" in said


def test_only_named_features_reach_the_model_and_the_rest_may_be_text(
    make: Make, tmp_path: Path
) -> None:
    rows = labelled().assign(name="x")
    task = prepare_task(make(rows, table=f'{LABEL}, features = ["dose"]'), tmp_path)
    assert task.inputs(next(task.batches("north", "train", 5, None))).shape == (5, 1)
    with pytest.raises(InputError, match=r"column 'name': .*name the columns in table.features"):
        prepare_task(make(rows), tmp_path)


def test_numbers_are_read_exactly(make: Make, tmp_path: Path) -> None:
    rows = labelled()
    task = TableTask.prepare(make(rows), tmp_path)
    for site, mine in rows.groupby("site"):
        found = np.concatenate([task.rows_of(str(site), p).inputs for p in parts(task)])
        wanted = mine[["age", "dose"]].to_numpy(dtype=np.float32)
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, wanted.tolist()))


# --- who holds what ------------------------------------------------------------------------


def parts(task: TableTask) -> tuple[str, ...]:
    return ("train", "validation", "test")


def test_every_row_is_in_one_part_of_one_client(make: Make, tmp_path: Path) -> None:
    rows = labelled()
    task = TableTask.prepare(make(rows), tmp_path)
    counts = {c: sum(task.examples(c, p) for p in parts(task)) for c in task.clients}
    assert counts == rows["site"].value_counts().to_dict()
    assert task.examples("unseen", "test") == task.examples("nobody", "train") == 0


def test_test_and_validation_have_their_fractions_of_each_label(make: Make, tmp_path: Path) -> None:
    rows = pd.DataFrame(
        {"site": "a", "age": range(200), "ill": [1] * 40 + [0] * 160},
    )
    task = TableTask.prepare(make(rows, table=f"{LABEL}, test = 0.25, validation = 0.1"), tmp_path)
    found = {
        part: (len(target := task.rows_of("a", part).target), int(target.sum()))
        for part in parts(task)
    }
    assert found == {"train": (135, 27), "validation": (15, 3), "test": (50, 10)}


def test_rows_of_test_are_those_that_the_file_names(make: Make, tmp_path: Path) -> None:
    rows = labelled().assign(set=["test"] * 30 + ["train"] * 90)
    task = TableTask.prepare(make(rows, table=f'{LABEL}, part = "set", validation = 0.0'), tmp_path)
    ages = np.concatenate([task.rows_of(c, "test").inputs[:, 0] for c in task.clients])
    assert sorted(ages) == sorted(rows["age"][:30].astype(np.float32))
    assert all(task.examples(c, "validation") == 0 for c in task.clients)


def test_a_single_row_of_an_outcome_is_left_to_train_on(make: Make, tmp_path: Path) -> None:
    rows = pd.DataFrame({"site": "a", "age": range(5), "ill": [1, 0, 0, 0, 0]})
    task = TableTask.prepare(make(rows, table=f"{LABEL}, test = 0.9"), tmp_path)
    assert task.rows_of("a", "train").target.sum() == 1


def test_the_draw_depends_on_the_seed_alone(make: Make, tmp_path: Path) -> None:
    rows = labelled()
    one, again, other = (
        TableTask.prepare(make(rows, table=f"{LABEL}, seed = {seed}"), tmp_path).digest
        for seed in (3, 3, 4)
    )
    assert one == again != other


def test_the_digest_changes_with_a_single_value(make: Make, tmp_path: Path) -> None:
    rows = labelled()
    first = TableTask.prepare(make(rows), tmp_path).digest
    rows["dose"] += 1e-3 * (np.arange(len(rows)) == 5)
    assert TableTask.prepare(make(rows), tmp_path).digest != first


def test_a_client_process_opens_what_the_server_prepared(make: Make, tmp_path: Path) -> None:
    spec = make(followed(), table=COX)
    made, opened = prepare_task(spec, tmp_path), open_task(spec, tmp_path)
    assert opened.digest == made.digest
    assert opened.clients == ("north", "south")
    with np.load(tmp_path / "data" / "table.npz", allow_pickle=False) as stored:
        assert set(stored.files) == {"features", "inputs", "target", "client", "part"}


def test_a_damaged_or_missing_file_is_an_error_that_names_it(make: Make, tmp_path: Path) -> None:
    spec = make(labelled())
    with pytest.raises(InputError, match=r"table.npz: no such file"):
        open_task(spec, tmp_path)
    prepare_task(spec, tmp_path)
    path = tmp_path / "data" / "table.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"table.npz: damaged"):
        open_task(spec, tmp_path)


@pytest.mark.parametrize(
    ("scheme", "clients"),
    [
        ('scheme = "iid", clients = 3', 3),
        ('scheme = "label_skew", clients = 2, alpha = 1.0', 2),
        ('scheme = "quantity_skew", clients = 4, exponent = 1.0', 4),
    ],
)
def test_rows_without_sites_can_be_dealt_out_by_other_schemes(
    make: Make, tmp_path: Path, scheme: str, clients: int
) -> None:
    rows = labelled().drop(columns="site")
    task = TableTask.prepare(make(rows, partition=scheme), tmp_path)
    assert len(task.clients) == clients
    assert task.holdings(tmp_path)["rows"].sum() == len(rows)


def test_holdings_name_sites_and_prevalence(make: Make, tmp_path: Path) -> None:
    rows = labelled().assign(site=lambda t: t["site"].map({"north": 3, "south": 12}))
    task = TableTask.prepare(make(rows), tmp_path)
    table = task.holdings(tmp_path).set_index("client")
    assert list(table.index) == list(task.clients) == ["site-03", "site-12"]
    assert table["sites"].astype(str).tolist() == ["3", "12"]
    assert table.loc["site-03", "positives"] == rows.loc[rows["site"] == 3, "ill"].sum()


def test_pooled_are_the_rows_of_all_clients(make: Make, tmp_path: Path) -> None:
    task = TableTask.prepare(make(labelled()), tmp_path)
    assert POOLED not in task.clients
    for part in parts(task):
        each = [task.rows_of(client, part) for client in task.clients]
        every = task.rows_of(POOLED, part)
        assert task.examples(POOLED, part) == sum(task.examples(c, part) for c in task.clients)
        wanted = torch.cat([torch.cat([rows.inputs, rows.target], 1) for rows in each])
        found = torch.cat([every.inputs, every.target], 1)
        assert sorted(found.tolist()) == sorted(wanted.tolist())
        batches = list(task.batches(POOLED, part, 7, (0, 0)))
        assert [len(batch.inputs) for batch in batches[:-1]] == [7] * (len(batches) - 1)
        shuffled = torch.cat([batch.inputs for batch in batches])
        assert not torch.equal(shuffled, every.inputs)
        assert sorted(shuffled.tolist()) == sorted(every.inputs.tolist())
    found_all = task.evaluate(drawn(task), POOLED, "test")
    assert found_all["examples"] == task.examples(POOLED, "test")


@pytest.mark.parametrize("name", ["pooled", "unseen"])
def test_a_site_of_that_name_is_a_client_of_its_own(make: Make, tmp_path: Path, name: str) -> None:
    rows = labelled().assign(site=lambda t: t["site"].replace("north", name))
    task = TableTask.prepare(make(rows), tmp_path)
    assert name not in task.clients
    counts = sorted(sum(task.examples(c, p) for p in parts(task)) for c in task.clients)
    assert counts == sorted(rows["site"].value_counts())


# --- batches -------------------------------------------------------------------------------


def test_batches_show_every_row_once_in_an_order_of_seed_and_epoch(
    make: Make, tmp_path: Path
) -> None:
    task = TableTask.prepare(make(labelled()), tmp_path)

    def seen(order: tuple[int, int] | None) -> list[float]:
        batches = task.batches("north", "train", 16, order)
        return torch.cat([task.inputs(batch)[:, 1] for batch in batches]).tolist()

    plain = seen(None)
    assert plain == task.rows_of("north", "train").inputs[:, 1].tolist()
    assert seen((0, 1)) == seen((0, 1))
    assert len({tuple(seen(order)) for order in [(0, 1), (0, 2), (1, 1), None]}) == 4
    assert sorted(seen((0, 1))) == sorted(plain)


# --- loss and measures ---------------------------------------------------------------------


def drawn(task: TableTask, norm: str = "none") -> torch.nn.Module:
    """A model with weights that tell rows apart."""
    model = task.build(norm, 0)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return model


def slow_cox(scores: torch.Tensor, time: torch.Tensor, event: torch.Tensor) -> torch.Tensor:
    total = torch.zeros((), dtype=scores.dtype)
    for i in range(len(scores)):
        if event[i]:
            total = total + torch.logsumexp(scores[time >= time[i]], 0) - scores[i]
    return total / len(scores)


@pytest.mark.parametrize("seed", range(5))
def test_the_cox_loss_is_the_sum_over_risk_sets_with_ties(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(30, generator=generator, dtype=torch.float64, requires_grad=True)
    time = torch.randint(0, 10, (30,), generator=generator).double()
    event = torch.randint(0, 2, (30,), generator=generator).double()
    fast, slow = cox_loss(scores, time, event), slow_cox(scores, time, event)
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, scores)[0] for loss in (fast, slow)), rtol=1e-10, atol=1e-12
    )
    assert torch.autograd.gradcheck(lambda s: cox_loss(s, time, event), (scores,))


def test_the_cox_loss_does_not_overflow_nor_feel_a_shift_of_all_scores() -> None:
    scores, time = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([3.0, 1.0, 2.0])
    event = torch.tensor([0.0, 1.0, 1.0])
    torch.testing.assert_close(cox_loss(scores + 1e3, time, event), cox_loss(scores, time, event))


def test_a_batch_without_an_event_has_loss_0_and_gradient_0() -> None:
    scores = torch.randn(4, requires_grad=True)
    loss = cox_loss(scores, torch.arange(4.0), torch.zeros(4))
    torch.autograd.backward(loss)
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


# Times, events, risks, and what lifelines 0.30.3 says of them.
LIFELINES = [
    ([4, 2, 3, 1, 1, 1, 2, 6], [1, 1, 1, 1, 1, 1, 0, 1], [3, 0, 4, 4, 5, 1, 0, 5], 23 / 44),
    ([3, 3, 3], [1, 0, 0], [2, 2, 1], 0.75),
    ([3, 3, 5], [1, 1, 0], [0, 1, 0], 0.75),
    ([1, 2, 3], [0, 1, 1], [5, 1, 1], 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("time", "event", "risk", "wanted"), LIFELINES)
def test_the_c_index_is_that_of_lifelines(
    time: list[int], event: list[int], risk: list[int], wanted: float
) -> None:
    assert c_index(risk, time, event) == pytest.approx(wanted, abs=1e-15)


@pytest.mark.parametrize("seed", range(20))
def test_the_c_index_is_that_of_lifelines_on_random_rows_with_ties(seed: int) -> None:
    lifelines = pytest.importorskip("lifelines.utils", reason="lifelines is not installed")
    rng = np.random.default_rng(seed)
    time, event, risk = rng.integers(0, 12, 30), rng.integers(0, 2, 30), rng.integers(0, 9, 30)
    wanted = lifelines.concordance_index(time, -risk, event)
    assert c_index(risk, time, event) == pytest.approx(wanted, abs=1e-12)


def test_the_c_index_without_comparable_rows_is_nan() -> None:
    assert math.isnan(c_index([1, 2], [1, 2], [0, 0]))
    assert math.isnan(c_index([1, 2], [3, 3], [1, 1]))
    assert math.isnan(c_index([], [], []))
    assert math.isnan(c_index([1, math.inf], [1, 2], [1, 1]))


def test_a_label_is_measured_by_cross_entropy_accuracy_and_auroc(
    make: Make, tmp_path: Path
) -> None:
    task = TableTask.prepare(make(labelled()), tmp_path)
    model = drawn(task)
    rows = task.rows_of("north", "test")
    logits = model(rows.inputs).detach().double().numpy()
    labels = rows.target[:, 0].numpy()
    p = 1 / (1 + np.exp(-logits))
    found = task.evaluate(model, "north", "test")
    assert task.metrics == ("accuracy", "auroc")
    assert list(found) == ["examples", "loss", *task.metrics]
    assert found["examples"] == len(labels)
    assert found["accuracy"] == pytest.approx(np.mean((p > 0.5) == labels))
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, logits))
    wanted = -np.mean(np.log(np.where(labels == 1, p, 1 - p)))
    assert found["loss"] == pytest.approx(wanted, rel=1e-6)
    batch = next(task.batches("north", "test", 10**6, None))
    assert task.loss(model, batch).item() == pytest.approx(wanted, rel=1e-5)


def test_a_survival_is_measured_by_the_c_index(make: Make, tmp_path: Path) -> None:
    task = TableTask.prepare(make(followed(), table=COX), tmp_path)
    found = task.evaluate(drawn(task), "north", "test")
    assert list(found) == ["examples", "loss", "c_index"]
    assert 0 <= found["c_index"] <= 1


def test_a_measure_that_the_rows_do_not_allow_is_nan(make: Make, tmp_path: Path) -> None:
    rows = labelled().assign(ill=lambda t: (t["site"] == "north").astype(int))
    task = TableTask.prepare(make(rows), tmp_path)
    model = drawn(task)
    found = task.evaluate(model, "south", "test")
    assert math.isnan(found["auroc"])
    assert 0 <= found["accuracy"] <= 1
    nothing = task.evaluate(model, "unseen", "test")
    assert nothing["examples"] == 0
    assert all(math.isnan(nothing[name]) for name in ("loss", "accuracy", "auroc"))
    censored = followed().assign(died=0)
    task = TableTask.prepare(make(censored, table=COX), tmp_path)
    assert math.isnan(task.evaluate(model, "south", "test")["c_index"])


def test_a_score_that_is_not_finite_makes_every_measure_nan(make: Make, tmp_path: Path) -> None:
    task = TableTask.prepare(make(labelled()), tmp_path)
    model = drawn(task)
    torch.nn.init.constant_(next(model.parameters()), math.inf)
    found = task.evaluate(model, "north", "test")
    assert all(math.isnan(found[name]) for name in ("loss", "accuracy", "auroc"))


def test_measuring_leaves_the_model_as_it_was(make: Make, tmp_path: Path) -> None:
    task = TableTask.prepare(make(labelled()), tmp_path)
    model = drawn(task, "batch").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task.evaluate(model, "north", "train")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# --- the model -----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["none", "batch", "layer", "layer_seq", "group:2", "rms"])
def test_every_norm_begins_as_torch_does_and_can_be_trained(
    make: Make, tmp_path: Path, norm: str
) -> None:
    task = TableTask.prepare(make(labelled()), tmp_path)
    model = task.build(norm, 7)
    batch = next(task.batches("north", "train", 8, (0, 0)))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        wanted = torch.nn.Linear(2, 1)
    begun = {name: value for name, value in model.state_dict().items() if "linear" in name}
    assert same(begun, {f"linear.{name}": value for name, value in wanted.state_dict().items()})
    torch.autograd.backward(task.loss(model, batch))
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_the_seed_alone_decides_with_what_the_model_begins(make: Make, tmp_path: Path) -> None:
    task = TableTask.prepare(make(labelled()), tmp_path)
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    one, again, other = (task.build("none", seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.rand(3), wanted)
    assert same(one, again)
    assert not same(one, other)


def test_a_norm_that_does_not_suit_the_features_of_the_file_is_refused(
    make: Make, tmp_path: Path
) -> None:
    task = TableTask.prepare(make(labelled()), tmp_path)
    with pytest.raises(InputError, match="instance"):
        task.build("instance", 0)
    with pytest.raises(ValueError, match="does not divide 2 channels"):
        task.build("group:3", 0)


def test_the_model_learns_what_sets_ill_rows_apart(make: Make, tmp_path: Path) -> None:
    task = TableTask.prepare(make(labelled(600)), tmp_path)
    model = task.build("batch", 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(20):
        for batch in task.batches("north", "train", 16, (0, epoch)):
            optimizer.zero_grad()
            torch.autograd.backward(task.loss(model, batch))
            optimizer.step()
    assert task.evaluate(model, "north", "test")["auroc"] > 0.65


@pytest.mark.parametrize(
    ("rows", "table", "metrics"),
    [(labelled(), LABEL, ("accuracy", "auroc")), (followed(), COX, ("c_index",))],
    ids=["label", "survival"],
)
def test_a_table_goes_through_the_rounds_of_a_run(
    make: Make, tmp_path: Path, rows: pd.DataFrame, table: str, metrics: tuple[str, ...]
) -> None:
    pytest.importorskip("flwr", reason="Flower is not installed")
    from federated.cell import cells_of
    from federated.run import run_cell

    spec = make(rows, table=table)
    task = prepare_task(spec, tmp_path)
    history = run_cell(spec, cells_of(spec)[0], task, tmp_path)
    assert not history.events
    seen = {(row["round"], row["client"], row["part"]) for row in history.clients}
    assert seen == {
        (r, c, p) for r in (1, 2) for c in ("north", "south") for p in ("validation", "test")
    }
    assert all(set(metrics) <= set(row) for row in history.clients)
    assert all(math.isfinite(row["train_loss"]) for row in history.rounds)
