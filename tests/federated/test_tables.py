"""The tables are made of small numbers, so that what they must hold is known by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from data_tools.errors import InputError
from federated.curves import best_rounds, by_round, left_out, with_references
from federated.spec import Spec, load_spec
from federated.tables import Results, build_tables, over_seeds, read_results, records_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "federated_ctcf.toml"
KEYS = {
    "norm": "group:8",
    "policy": "fedavg",
    "strategy": "fedavg",
    "learning_rate": 0.1,
    "seed": 0,
}


def spec_of(*overrides: str) -> Spec:
    given = [
        "norms=['group:8', 'batch']",
        "policies=['fedavg', 'fedbn']",
        "training.rounds=2",
        "training.learning_rates=[0.1, 0.2]",
        "training.seeds=[0, 1]",
    ]
    return load_spec(EXAMPLE, [*given, *overrides], runnable=False)


def rows_of(
    validation: list[float],
    test: list[float],
    *,
    number: int = 1,
    unseen: float | None = None,
    **keys: Any,
) -> list[dict[str, Any]]:
    """Rows of one round: client a, b, ... with their validation and test values."""
    base = KEYS | keys | {"round": number}
    rows = []
    for place, (v, t) in enumerate(zip(validation, test, strict=True)):
        for part, value in (("validation", v), ("test", t)):
            rows.append(base | _row("abcdefgh"[place], part, value))
    if unseen is not None:
        rows.append(base | _row("unseen", "test", unseen))
    return rows


def _row(client: str, part: str, value: float) -> dict[str, Any]:
    return {
        "client": client,
        "part": part,
        "examples": 10,
        "loss": 1 - value,
        "auprc": value,
        "auroc": value,
    }


def cost_of(clients: pd.DataFrame) -> pd.DataFrame:
    keys = [*KEYS, "round"]
    rounds = clients[keys].drop_duplicates()
    return rounds.assign(
        train_loss=0.5, sampled=2, accepted=2, refused=0, bytes_up=100, bytes_down=10, seconds=2.0
    )


def results_of(rows: list[dict[str, Any]], **more: Any) -> Results:
    clients = pd.DataFrame(rows)
    events = pd.DataFrame(columns=[*KEYS, "round", "client", "event", "reason"])
    return Results(clients, cost_of(clients), events, **more)


def line_of(table: pd.DataFrame, **wanted: object) -> dict[str, Any]:
    for key, value in wanted.items():
        table = table[table[key] == value]
    assert len(table) == 1, table
    return records_of(table)[0]


def grid(
    values: dict[tuple[str, str], float], spread: tuple[float, ...] = (0.0, 0.01), **more: Any
) -> list[dict[str, Any]]:
    """Two rounds of every cell of the spec; round 2 and rate 0.1 are better."""
    rows = []
    for (norm, policy), value in values.items():
        for rate in (0.1, 0.2):
            for seed, noise in enumerate(spread):
                for number in (1, 2):
                    v = value + noise + 0.1 * (number - 1) - (0.05 if rate == 0.2 else 0)
                    keys = {"norm": norm, "policy": policy, "learning_rate": rate, "seed": seed}
                    rows += rows_of(
                        [v, v], [v, v - 0.1], number=number, unseen=v - 0.2, **keys, **more
                    )
    return rows


ARMS = {
    ("group:8", "fedavg"): 0.5,
    ("group:8", "fedbn"): 0.5,
    ("batch", "fedavg"): 0.4,
    ("batch", "fedbn"): 0.6,
}


def test_the_mean_is_unweighted_and_the_worst_client_is_the_lowest_on_test() -> None:
    rows = rows_of([0.5, 0.7], [0.9, 0.3], unseen=0.2)
    rows[0]["examples"] = 1000
    line = records_of(by_round(pd.DataFrame(rows)))[0]
    assert line["validation"] == pytest.approx(0.6)
    assert line["test"] == pytest.approx(0.6)
    assert (line["worst"], line["worst_client"], line["unseen"]) == (0.3, "b", 0.2)


def test_the_round_of_a_run_is_the_best_by_validation_and_of_equals_the_earlier() -> None:
    rows = []
    for number, value in enumerate([0.4, 0.6, 0.6, 0.5], start=1):
        rows += rows_of([value], [1 - value], number=number)
    best = records_of(best_rounds(by_round(pd.DataFrame(rows))))
    assert [line["round"] for line in best] == [2]
    assert best[0]["test"] == pytest.approx(0.4)


def test_the_rate_with_the_best_mean_over_the_seeds_is_chosen_and_of_equals_the_smaller() -> None:
    rows = []
    for rate, by_seed in ((0.2, (0.9, 0.1)), (0.1, (0.6, 0.6)), (0.4, (0.5, 0.7))):
        for seed, value in enumerate(by_seed):
            rows += rows_of([value], [value], number=2, learning_rate=rate, seed=seed)
    spec = spec_of("training.learning_rates=[0.2, 0.1, 0.4]")
    tables = build_tables(spec, results_of(rows))
    assert tables.summary["learning_rate"].tolist() == [0.1]
    means = tables.choices.set_index("learning_rate")["validation"]
    assert means.to_dict() == pytest.approx({0.2: 0.5, 0.1: 0.6, 0.4: 0.6})


def test_no_test_number_takes_part_in_any_choice() -> None:
    rng = np.random.default_rng(0)
    clients = pd.DataFrame(grid(ARMS))
    shown = clients["part"] == "test"
    other = clients.copy()
    other.loc[shown, ["loss", "auprc", "auroc"]] = rng.random((int(shown.sum()), 3))

    def chosen(rows: pd.DataFrame) -> tuple[Any, ...]:
        tables = build_tables(spec_of(), results_of(rows.to_dict("records")))
        keys = [*KEYS, "round", "validation", "chosen"]
        return tables.runs[keys], tables.choices, tables.summary[["learning_rate", "round", "best"]]

    for before, after in zip(chosen(clients), chosen(other), strict=True):
        pd.testing.assert_frame_equal(before, after)


def test_a_summary_line_is_the_mean_over_the_seeds_with_its_t_interval_and_its_cost() -> None:
    tables = build_tables(spec_of(), results_of(grid(ARMS)))
    line = line_of(tables.summary, norm="batch", policy="fedbn")
    # Seeds 0.70 and 0.71 in round 2, clients v and v - 0.1; t(0.975, 1) = 12.7062.
    assert line["test"] == pytest.approx(0.655)
    assert line["test_high"] - line["test"] == pytest.approx(12.7062 * 0.005, rel=1e-4)
    assert line["worst"] == pytest.approx(0.605)
    assert line["unseen"] == pytest.approx(0.505)
    assert line["best"]
    assert (line["round"], line["seeds"], line["learning_rate"]) == (2, 2, 0.1)
    assert (line["bytes_used"], line["bytes_total"], line["seconds"]) == (220, 220, 4)
    assert tables.summary["best"].sum() == 1


def test_bytes_are_counted_until_the_reported_round_and_in_all() -> None:
    rows = rows_of([0.9], [0.9], number=1) + rows_of([0.5], [0.5], number=2)
    line = records_of(build_tables(spec_of(), results_of(rows)).summary)[0]
    assert (line["round"], line["bytes_used"], line["bytes_total"]) == (1, 110, 220)
    assert line["rounds_run"] == 2


def test_differences_are_paired_by_seed_so_that_what_seeds_share_cancels() -> None:
    rows = []
    for seed, shared in enumerate((0.2, 0.6)):
        rows += rows_of([0.5, 0.5], [shared, shared], seed=seed, number=2)
        extra = {"norm": "batch", "seed": seed}
        rows += rows_of([0.4, 0.4], [shared + 0.03, shared - 0.01], number=2, **extra)
    tables = build_tables(spec_of(), results_of(rows))
    row = line_of(tables.differences, norm="batch", against="baseline", measure="test")
    assert [row["estimate"], row["low"], row["high"]] == pytest.approx([0.01] * 3)
    assert (row["better"], row["worse"], row["seeds"]) == (1, 1, 2)
    worst = line_of(tables.differences, norm="batch", against="baseline", measure="worst")
    assert worst["estimate"] == pytest.approx(-0.01)
    level = records_of(tables.summary)[0]
    assert level["test_high"] - level["test_low"] > 1


def test_every_arm_is_compared_with_the_baseline_its_fedavg_the_best_and_the_references() -> None:
    references = pd.DataFrame(
        [
            {"kind": kind} | row
            for kind in ("pooled", "local")
            for seed in (0, 1)
            for row in rows_of([0.7, 0.7], [0.7, 0.6], norm="batch", seed=seed)
        ]
    ).drop(columns=["policy", "strategy"])
    tables = build_tables(spec_of(), results_of(grid(ARMS), references=references))
    rows = tables.differences[tables.differences["norm"] == "batch"]
    rows = rows[rows["measure"] == "test"].set_index(["policy", "against"])["estimate"]
    assert rows.to_dict() == pytest.approx(
        {
            ("fedavg", "baseline"): -0.1,
            ("fedavg", "best"): -0.2,
            ("fedavg", "pooled"): 0.455 - 0.65,
            ("fedavg", "local"): 0.455 - 0.65,
            ("fedbn", "baseline"): 0.1,
            ("fedbn", "fedavg"): 0.2,
            ("fedbn", "pooled"): 0.655 - 0.65,
            ("fedbn", "local"): 0.655 - 0.65,
        }
    )
    assert tables.summary["policy"].tolist()[-2:] == ["pooled", "local"]
    assert math.isnan(tables.summary["bytes_total"].iloc[-1])


def test_clients_that_train_alone_stand_at_their_own_best_rounds() -> None:
    clients = pd.DataFrame(rows_of([0.5, 0.5], [0.5, 0.5]))
    rows = rows_of([0.9, 0.1], [0.4, 0.0], number=1) + rows_of([0.2, 0.8], [0.0, 0.6], number=5)
    references = pd.DataFrame([{"kind": "local"} | row for row in rows]).drop(columns="policy")
    table = by_round(with_references(clients, references))
    line = line_of(table, policy="local")
    assert line["validation"] == pytest.approx(0.85)
    assert line["test"] == pytest.approx(0.5)


def test_one_seed_has_a_mean_and_no_interval() -> None:
    tables = build_tables(spec_of(), results_of(grid(ARMS, spread=(0.0,))))
    assert tables.summary["test"].notna().all()
    assert tables.summary["test_low"].isna().all()
    assert tables.differences["estimate"].notna().all()
    assert tables.differences[["low", "high"]].isna().all(axis=None)


@pytest.mark.parametrize(("values", "mean"), [([], math.nan), ([math.nan, 0.5], 0.5)])
def test_the_mean_over_seeds_leaves_out_those_without_a_value(
    values: list[float], mean: float
) -> None:
    found = over_seeds(values)
    assert found.estimate == pytest.approx(mean, nan_ok=True)
    assert math.isnan(found.low)


def test_a_client_whose_rows_never_give_a_value_is_left_out_for_all_and_named() -> None:
    rows = []
    for policy in ("fedavg", "fedbn"):
        rows += rows_of([0.5, math.nan], [0.6, 0.4], policy=policy)
    clients = pd.DataFrame(rows)
    assert records_of(left_out(clients)[["client", "part"]]) == [
        {"client": "b", "part": "validation"}
    ]
    table = by_round(clients)
    assert table["validation"].tolist() == [0.5, 0.5]
    assert table["test"].tolist() == [0.5, 0.5]


def test_a_round_that_lacks_a_client_cannot_be_chosen() -> None:
    """A mean over the easy clients alone would look like a better round."""
    rows = rows_of([0.5, 0.3], [0.5, 0.3], number=1)
    rows += rows_of([0.9, math.nan], [0.9, math.nan], number=2)
    rows += rows_of([0.9], [0.9], number=3)
    tables = build_tables(spec_of(), results_of(rows))
    assert records_of(tables.runs)[0]["round"] == 1
    assert tables.curves["test"].tolist() == pytest.approx([0.4, math.nan, math.nan], nan_ok=True)


def test_a_rate_that_diverged_on_a_seed_stands_behind_one_that_did_not() -> None:
    rows = []
    for seed in (0, 1):
        rows += rows_of([0.5], [0.5], number=2, seed=seed)
    rows += rows_of([0.9], [0.9], number=2, learning_rate=0.2, seed=0)
    rows += rows_of([math.nan], [math.nan], number=2, learning_rate=0.2, seed=1)
    tables = build_tables(spec_of(), results_of(rows))
    assert tables.summary["learning_rate"].tolist() == [0.1]
    assert tables.choices["seeds"].tolist() == [2, 1]


def test_an_arm_that_never_gave_a_value_is_in_the_tables_without_figures() -> None:
    rows = grid({("group:8", "fedavg"): 0.5})
    rows += rows_of([math.nan] * 2, [math.nan] * 2, norm="batch", number=2)
    tables = build_tables(spec_of(), results_of(rows))
    line = line_of(tables.summary, norm="batch")
    assert math.isnan(line["test"])
    assert not line["best"]
    assert line["seeds"] == 0


def test_without_validation_rows_the_last_round_is_reported_and_nothing_is_best() -> None:
    rows = rows_of([0.5], [0.4], number=1) + rows_of([0.5], [0.3], number=2)
    rows = [row for row in rows if row["part"] == "test"]
    tables = build_tables(spec_of(), results_of(rows))
    line = records_of(tables.summary)[0]
    assert (line["round"], line["test"], line["best"]) == (2, 0.3, False)


def test_what_is_missing_or_was_stopped_is_listed() -> None:
    rows = [row for row in grid(ARMS) if row["norm"] == "group:8"]
    rows = [row for row in rows if not (row["policy"] == "fedbn" and row["round"] == 2)]
    tables = build_tables(spec_of(), results_of(rows))
    rounds = tables.unfinished.groupby(["norm", "policy"])["rounds"].agg(list).to_dict()
    assert rounds == {
        ("group:8", "fedbn"): [1] * 4,
        ("batch", "fedavg"): [0] * 4,
        ("batch", "fedbn"): [0] * 4,
    }


def test_a_run_that_its_patience_ended_is_finished() -> None:
    spec = spec_of("training.rounds=9", "training.patience=1", "training.seeds=[0]")
    spec = replace(spec, norms=("group:8",), policies=("fedavg",))
    spec = replace(spec, training=replace(spec.training, learning_rates=(0.1,)))
    rows = rows_of([0.5], [0.5], number=1) + rows_of([0.4], [0.4], number=2)
    assert build_tables(spec, results_of(rows)).unfinished.empty
    assert len(build_tables(spec, results_of(rows[:2])).unfinished) == 1


def test_an_arm_is_the_same_as_fedavg_only_if_every_figure_of_every_round_is() -> None:
    rows = grid(ARMS)
    tables = build_tables(spec_of(), results_of(rows))
    assert list(zip(tables.same["norm"], tables.same["policy"], strict=True)) == [
        ("group:8", "fedbn")
    ]
    row = next(r for r in rows if (r["norm"], r["policy"], r["round"]) == ("group:8", "fedbn", 1))
    row["loss"] += 1e-16 + 1e-15
    assert build_tables(spec_of(), results_of(rows)).same.empty


def test_policies_can_be_equal_also_where_fedavg_takes_no_part() -> None:
    spec = spec_of("policies=['silobn', 'fedbn']")
    values = {("group:8", "silobn"): 0.5, ("group:8", "fedbn"): 0.5, ("batch", "fedbn"): 0.6}
    same = build_tables(spec, results_of(grid(values))).same
    assert records_of(same[["norm", "policy", "like"]]) == [
        {"norm": "group:8", "policy": "fedbn", "like": "silobn"}
    ]


def test_of_equal_arms_fedavg_is_called_the_best() -> None:
    spec = spec_of("policies=['fedbn', 'fedavg']")
    values = {("group:8", "fedbn"): 0.5, ("group:8", "fedavg"): 0.5}
    tables = build_tables(spec, results_of(grid(values)))
    assert line_of(tables.summary, best=True)["policy"] == "fedavg"


def test_arms_of_different_settings_are_never_compared() -> None:
    low = grid(ARMS, strategy="fedavg")
    high = grid({arm: value + 0.2 for arm, value in ARMS.items()}, strategy="fedprox")
    tables = build_tables(spec_of(), results_of(low + high))
    assert tables.summary["best"].sum() == 2
    rows = tables.differences.query(
        "norm == 'batch' and against == 'baseline' and measure == 'test'"
    )
    assert rows["estimate"].tolist() == pytest.approx([-0.1, 0.1, -0.1, 0.1])


def test_further_key_columns_tell_runs_apart() -> None:
    rows = [{"skew": skew} | row for skew in (0.1, 0.9) for row in grid(ARMS)]
    clients = pd.DataFrame(rows)
    rounds = clients[["skew", *KEYS, "round"]].drop_duplicates()
    rounds = rounds.assign(bytes_up=1, bytes_down=1, seconds=1.0)
    tables = build_tables(spec_of(), Results(clients, rounds, pd.DataFrame()))
    assert tables.arms == ["skew", "norm", "policy", "strategy"]
    assert len(tables.summary) == 2 * len(ARMS)


def test_what_is_read_is_what_was_written_even_where_a_client_is_called_na(tmp_path: Path) -> None:
    rows = rows_of([0.1 + 0.2, math.nan], [1 / 3, 0.5])
    for row in rows:
        row["client"] = {"a": "NA", "b": "007"}[row["client"]]
    results = results_of(rows)
    for name in ("clients", "rounds", "events"):
        text = getattr(results, name).to_csv(index=False, float_format="%.17g", na_rep="nan")
        (tmp_path / f"{name}.csv").write_text(text)
    found = read_results(tmp_path)
    assert found.clients["client"].tolist() == ["NA", "NA", "007", "007"]
    pd.testing.assert_series_equal(found.clients["auprc"], results.clients["auprc"])
    assert found.clients["seed"].dtype == np.int64
    assert found.references is None


def test_a_table_without_a_column_is_refused(tmp_path: Path) -> None:
    for name in ("clients", "rounds", "events"):
        (tmp_path / f"{name}.csv").write_text("norm,policy\n")
    with pytest.raises(InputError, match="lacks column 'learning_rate'"):
        read_results(tmp_path)
