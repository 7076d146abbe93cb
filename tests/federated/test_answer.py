"""The answer is made from small tables, so that what it may say is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from federated.answer import compose, sized
from federated.spec import Spec, load_spec
from federated.tables import Results, build_tables

EXAMPLE = Path(__file__).parents[2] / "examples" / "federated_ctcf.toml"
SEEDS = 3
PARTS = {"a": ("validation", "test"), "b": ("validation", "test"), "unseen": ("test",)}


def spec_of(*overrides: str) -> Spec:
    given = [
        "norms=['group:8', 'batch']",
        "policies=['fedavg', 'fedbn']",
        "training.rounds=1",
        "training.learning_rates=[0.1]",
        "training.seeds=[0, 1, 2]",
    ]
    return load_spec(EXAMPLE, [*given, *overrides], runnable=False)


def rows_of(
    norm: str, policy: str, values: list[float], unseen: float = 0.3, **more: Any
) -> list[dict[str, Any]]:
    """One round; client b is 0.1 below client a, and validation is as test."""
    return [
        {"norm": norm, "policy": policy, "strategy": "fedavg", "learning_rate": 0.1, "seed": seed}
        | more
        | {"round": 1, "client": client, "part": part, "examples": 9, "loss": 0.5}
        | {"auprc": {"a": value, "b": value - 0.1, "unseen": unseen}[client]}
        for seed, value in enumerate(values)
        for client, parts in PARTS.items()
        for part in parts
    ]


def said(
    spec: Spec,
    rows: list[dict[str, Any]],
    references: pd.DataFrame | None = None,
    shared: tuple[tuple[str, str], ...] = (),
) -> str:
    clients = pd.DataFrame(rows)
    keys = list(clients.columns[: clients.columns.get_loc("round")])
    rounds = clients[[*keys, "round"]].drop_duplicates()
    rounds = rounds.assign(bytes_up=1, bytes_down=1, seconds=1.0)
    tables = build_tables(spec, Results(clients, rounds, pd.DataFrame(), references))
    answer = compose(spec, tables, shared)
    return "\n".join([answer.sentence, *answer.details])


PLAIN = [0.60, 0.61, 0.62]
HIGHER = [0.70, 0.712, 0.72]
NOISY = [0.50, 0.70, 0.66]


def run(batch: list[float], local: list[float], **more: Any) -> list[dict[str, Any]]:
    return [
        *rows_of("group:8", "fedavg", PLAIN, **more),
        *rows_of("group:8", "fedbn", PLAIN, **more),
        *rows_of("batch", "fedavg", batch, **more),
        *rows_of("batch", "fedbn", local, **more),
    ]


def test_a_difference_is_claimed_where_its_interval_leaves_out_zero() -> None:
    answer = said(spec_of(), run(PLAIN, HIGHER))
    first = answer.splitlines()[0]
    assert first.startswith(
        "On validation, BatchNorm under fedbn is the best of 3 different combinations; it reaches "
        "test AUPRC 0.661 as the mean over clients, 0.611 for the worst one, 0.300 on the unseen"
    )
    assert "baseline, GroupNorm (8) under fedavg – mean over clients, worst client: higher" in first
    assert "(+0.101, 95 % interval +0.098 to +0.104)" in first
    assert "unseen site: the same to the last digit" in first
    assert "clearly worse: GroupNorm (8) under fedavg (−0.101" in answer
    assert "BatchNorm, fedbn against fedavg – mean over clients, worst client: higher" in answer
    assert "2 clients better, 0 worse" in answer


def test_an_interval_that_holds_zero_is_no_difference_that_these_seeds_can_show() -> None:
    answer = said(spec_of(), run(NOISY, NOISY[::-1]))
    assert "no difference that these seeds can show (" in answer.splitlines()[0]
    assert "clearly" not in answer
    assert ": higher" not in answer
    assert ": lower" not in answer


def test_what_changes_no_figure_is_said_not_to_matter() -> None:
    answer = said(spec_of(), run(PLAIN, HIGHER))
    assert (
        "For GroupNorm (8) it does not matter whether fedbn or fedavg: every figure of every round "
        "is the same to the last digit."
    ) in answer
    assert "GroupNorm (8) under fedbn" not in answer
    assert "For GroupNorm (8), BatchNorm it does not" in said(spec_of(), run(HIGHER, HIGHER))


def test_equality_of_what_is_one_run_is_not_called_a_finding() -> None:
    answer = said(spec_of(), run(PLAIN, HIGHER), shared=(("group:8", "fedbn"),))
    assert (
        "For GroupNorm (8) it does not matter whether fedbn or fedavg: they treat every tensor of "
        "the model alike, and are one run."
    ) in answer
    assert "every figure" not in answer


def test_the_best_by_validation_is_named_also_where_another_one_is_higher_on_test() -> None:
    rows = run(PLAIN, HIGHER)
    for row in rows:
        if row["part"] == "validation":
            row["auprc"] = 0.9 if row["norm"] == "group:8" else 0.1
    answer = said(spec_of(), rows)
    assert answer.startswith("On validation, GroupNorm (8) under fedavg is the best")
    assert "It is the baseline itself" in answer.splitlines()[0]
    assert "0 of 2 others are clearly worse and 1 clearly better" in answer
    assert "clearly better: BatchNorm under fedbn (+0.101" in answer


def test_one_seed_claims_nothing() -> None:
    rows = [row for row in run(PLAIN, HIGHER) if row["seed"] == 0]
    answer = said(spec_of("training.seeds=[0]"), rows)
    assert "+0.100 with one seed, so no interval" in answer
    assert "Caution: one seed, so there are no intervals and no difference can be claimed" in answer
    assert "95 %" not in answer
    assert "clearly" not in answer
    assert "higher" not in answer


def test_references_are_compared_with_the_best() -> None:
    rows = [*rows_of("batch", "x", [0.8, 0.81, 0.82]), *rows_of("batch", "y", [0.3, 0.3, 0.3])]
    references = pd.DataFrame(rows).drop(columns=["policy", "strategy"])
    references["kind"] = ["pooled"] * (len(rows) // 2) + ["local"] * (len(rows) // 2)
    answer = said(spec_of(), run(PLAIN, HIGHER), references)
    assert "under fedbn against BatchNorm, all rows pooled – mean over clients, worst" in answer
    assert "client: lower (−0.099" in answer
    assert "under fedbn against BatchNorm, each client alone – mean over clients, worst" in answer
    assert "best of 3 different combinations" in answer


def test_every_setting_has_an_answer_of_its_own() -> None:
    rows = [*run(PLAIN, HIGHER, skew=0.1), *run(HIGHER, PLAIN, skew=0.9)]
    lines = said(spec_of(), rows).splitlines()
    assert lines[0].startswith("With skew = 0.1: On validation, BatchNorm under fedbn is the best")
    assert lines[1].startswith("With skew = 0.9: On validation, BatchNorm under fedavg is the best")


def test_the_answer_owns_up_to_what_is_missing_left_out_or_diverged() -> None:
    assert "Caution" not in said(spec_of(), run(PLAIN, HIGHER))
    rows = run(PLAIN, HIGHER)
    for row in rows:
        if (row["client"], row["part"]) == ("b", "validation"):
            row["auprc"] = math.nan
        if row["norm"] == "batch" and row["seed"] == 2:
            row["auprc"] = math.nan
    answer = said(spec_of("training.seeds=[0, 1, 2, 3]"), rows)
    assert "Caution: 4 runs of the spec are missing or were stopped midway" in answer
    assert "the validation rows of b allow no AUPRC; it is left out of the validation fig" in answer
    assert "Caution: in 2 runs no round gave a value for every client" in answer
    assert "nan" not in answer


def test_without_any_value_nothing_is_called_the_best() -> None:
    rows = run([math.nan] * 3, [math.nan] * 3)
    for row in rows:
        row["auprc"] = math.nan
    assert said(spec_of(), rows).startswith("No combination can be called the best")


def test_a_single_arm_is_described_and_compared_with_nothing() -> None:
    spec = spec_of("norms=['batch']", "policies=['fedbn']")
    answer = said(spec, rows_of("batch", "fedbn", PLAIN))
    assert answer.startswith("Only BatchNorm under fedbn was run; it reaches test AUPRC 0.560")
    assert "against" not in answer


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ((-0.0001, -0.0002, 0.0), "0.000, 95 % interval 0.000 to 0.000"),
        ((math.nan, math.nan, math.nan), "no value to compare"),
    ],
)
def test_a_difference_that_rounds_to_nothing_has_no_sign(
    line: tuple[float, float, float], text: str
) -> None:
    assert sized(dict(zip(("estimate", "low", "high"), line, strict=True))) == text
