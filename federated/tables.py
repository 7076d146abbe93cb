"""The tables of a federated run: from the rows of every round to what a report says.

Learning rates and rounds are chosen by validation rows alone; test rows are only reported.
Intervals are Student's t over the seeds, of differences those paired by seed: the clients are not
a sample of other clients, so they are no source of spread. With one seed there is no interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from data_tools.errors import InputError
from federated.cell import cells_of
from federated.curves import (
    MEASURES,
    REFERENCES,
    arms_of,
    best_rounds,
    by_round,
    choose_rates,
    equal_arms,
    keys_of,
    left_out,
    mean_curves,
    metrics_of,
    reported_rows,
    settings_of,
    with_cost,
    with_references,
    without,
)
from federated.spec import Spec
from federated.tasks.task import UNSEEN
from seqnorm.holdout.tables import Estimate, only

__all__ = [
    "CONFIDENCE",
    "Results",
    "Tables",
    "build_tables",
    "by_setting",
    "over_seeds",
    "read_results",
    "records_of",
]

CONFIDENCE = 0.95
"""Of all intervals."""

COST = ("bytes_used", "bytes_total", "rounds_run", "seconds")
_WORDS = {
    *("norm", "policy", "strategy", "client", "part", "event", "reason", "kind"),
    *("tensor", "module", "layer", "role", "shape", "dtype", "fate", "worst_client"),
    *("batch", "chromosomes", "sites"),
}
"""Columns that hold words, also where a word looks like a number or like nothing: "1", "NA"."""


@dataclass(frozen=True)
class Results:
    """What a run has written; None for a file that is not there."""

    clients: pd.DataFrame
    rounds: pd.DataFrame
    events: pd.DataFrame
    references: pd.DataFrame | None = None
    partition: pd.DataFrame | None = None
    manifests: pd.DataFrame | None = None


@dataclass(frozen=True)
class Tables:
    """Everything that the report is drawn from.

    Attributes
    ----------
    metric : str
        The primary one, higher is better.
    arms : list of str
        Key columns of what is compared.
    runs : pandas.DataFrame
        A line a run: keys, reported ``round``, measures, cost, ``complete``, ``chosen``.
    choices : pandas.DataFrame
        A line for each arm and learning rate: ``validation``, ``seeds``, ``complete``, ``chosen``.
    summary : pandas.DataFrame
        A line an arm, references last: ``learning_rate``, ``seeds``, ``validation``, each measure
        with ``_low`` and ``_high``, ``round`` and cost (means over the seeds), ``best``.
    differences : pandas.DataFrame
        Arm minus another one, ``against``, a line for each measure; see :func:`differences_of`.
    curves : pandas.DataFrame
        Arm, round, measures as means over the ``seeds`` that came so far.
    clients : pandas.DataFrame
        A line for each arm and client: ``test``, its mean over the seeds.
    left_out : pandas.DataFrame
        Clients without a value; see `federated.curves.left_out`.
    unfinished : pandas.DataFrame
        Keys of runs that are missing or were stopped, ``rounds`` so far.
    same : pandas.DataFrame
        Arms all of whose rows are equal, to the last digit, to those of another policy, ``like``.
    """

    metric: str
    arms: list[str]
    runs: pd.DataFrame
    choices: pd.DataFrame
    summary: pd.DataFrame
    differences: pd.DataFrame
    curves: pd.DataFrame
    clients: pd.DataFrame
    left_out: pd.DataFrame
    unfinished: pd.DataFrame
    same: pd.DataFrame


def by_setting(tables: Tables) -> list[tuple[dict[str, Any], Tables]]:
    """What can be compared: each setting's keys, and the tables of it alone.

    ``arms``, ``runs``, ``choices``, ``left_out`` and ``unfinished`` stay those of the whole run.
    """
    settings = records_of(tables.summary[settings_of(tables.arms)].drop_duplicates())
    narrowed = ("summary", "differences", "curves", "clients", "same")
    found = []
    for keys in settings:
        wanted = {key: [value] for key, value in keys.items()}
        parts: dict[str, Any] = {name: only(getattr(tables, name), **wanted) for name in narrowed}
        found.append((keys, replace(tables, **parts)))
    return found


def read_results(folder: Path) -> Results:
    """Read the CSVs of a run folder.

    Raises
    ------
    FileNotFoundError
        If ``clients.csv``, ``rounds.csv`` or ``events.csv`` is missing.
    InputError
        For a file that cannot be read, or that lacks a column.
    """
    needed = {
        "clients": ("norm", "policy", "learning_rate", "seed", "round", "client", "part", "loss"),
        "rounds": ("round", "bytes_up", "bytes_down", "seconds"),
        "events": ("round", "client", "event", "reason"),
    }
    found: dict[str, Any] = {
        name: _read(folder / f"{name}.csv", need) for name, need in needed.items()
    }
    more = {
        "references": ("kind", "norm", "client", "part"),
        "partition": ("client",),
        "manifests": ("norm", "policy"),
    }
    for name, need in more.items():
        path = folder / f"{name}.csv"
        found[name] = _read(path, need) if path.exists() else None
    if not metrics_of(found["clients"]):
        raise InputError(f"{folder / 'clients.csv'}: has no metric to the right of column 'loss'")
    return Results(**found)


def _read(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error}); run again") from error
    if missing := [name for name in needed if name not in table.columns]:
        raise InputError(f"{path}: lacks column '{missing[0]}'; is it of another version?")
    for name in set(table.columns) - _WORDS:
        table[name] = _typed(table[name])
    return table


def _typed(column: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers where all entries are numbers (or nothing), else as it is."""
    try:
        numbers = column.replace("", "nan").astype(np.float64)
    except ValueError:
        return column
    if len(numbers) and numbers.notna().all() and column.str.fullmatch(r"[+-]?\d{1,15}").all():
        return numbers.astype(np.int64)
    return numbers


def build_tables(spec: Spec, results: Results) -> Tables:
    """Build all tables of a run, finished or not.

    Parameters
    ----------
    spec
        The experiment: its order, its rounds, and its first norm under its first policy, which is
        the baseline.
    results
        At least one row of ``clients``.
    """
    everything = with_references(results.clients, results.references)
    keys, metric = keys_of(everything), metrics_of(everything)[0]
    rounds = by_round(everything)
    runs = with_cost(best_rounds(rounds), results.rounds)
    runs["complete"] = _complete(spec, runs)
    choices = choose_rates(runs, keys)
    chosen = [*arms_of(keys), "learning_rate"]
    runs = runs.merge(choices[[*chosen, "chosen"]], on=chosen)
    kept = runs[runs["chosen"]]
    same = equal_arms(results.clients)
    summary = _summary(kept, keys, same)
    return Tables(
        metric=metric,
        arms=arms_of(keys),
        runs=runs,
        choices=choices,
        summary=summary,
        differences=differences_of(spec, everything, kept, summary),
        curves=mean_curves(rounds, kept),
        clients=_client_table(everything, kept),
        left_out=left_out(everything),
        unfinished=_unfinished(spec, runs, keys),
        same=same,
    )


def over_seeds(values: Sequence[float] | pd.Series[Any]) -> Estimate:
    """Mean of one value a seed with its t interval; those that are NaN are left out.

    Examples
    --------
    >>> [round(float(x), 3) for x in over_seeds([0.7, 0.8, 0.9])]
    [0.8, 0.552, 1.048]
    >>> over_seeds([0.7])
    Estimate(estimate=0.7, low=nan, high=nan)
    """
    array = np.asarray(values, dtype=np.float64)
    found = array[~np.isnan(array)]
    if len(found) < 2:
        return Estimate(float(found[0]) if len(found) else np.nan, np.nan, np.nan)
    mean = float(found.mean())
    spread = float(found.std(ddof=1)) / np.sqrt(len(found))
    half = float(student.ppf((1 + CONFIDENCE) / 2, len(found) - 1)) * spread
    return Estimate(mean, mean - half, mean + half)


# --- reporting --------------------------------------------------------------------------------


def _summary(kept: pd.DataFrame, keys: list[str], same: pd.DataFrame) -> pd.DataFrame:
    arms, setting = arms_of(keys), settings_of(keys)
    lines = []
    for arm, part in kept.groupby(arms, sort=False):
        line: dict[str, Any] = dict(zip(arms, arm, strict=True))
        line |= {"learning_rate": part["learning_rate"].iloc[0], "seeds": part["test"].count()}
        line |= {name: float(part[name].mean()) for name in ("validation", "round", *COST)}
        line["worst_client"] = ", ".join(dict.fromkeys(part["worst_client"].dropna()))
        for measure in MEASURES:
            line |= _named(measure, over_seeds(part[measure]))
        lines.append(line)
    table = pd.DataFrame(lines)
    own = table[~table["policy"].isin(REFERENCES)].dropna(subset="validation")
    own = without(own, same)
    alike = [own[key] for key in setting] or [pd.Series(0, index=own.index)]
    best = own.groupby(alike, sort=False)["validation"].idxmax()
    return table.assign(best=table.index.isin(best))


def records_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Lines of a table as dictionaries."""
    return [{str(key): value for key, value in line.items()} for line in table.to_dict("records")]


def _named(measure: str, found: Estimate) -> dict[str, float]:
    return {measure: found.estimate, f"{measure}_low": found.low, f"{measure}_high": found.high}


def differences_of(
    spec: Spec, clients: pd.DataFrame, kept: pd.DataFrame, summary: pd.DataFrame
) -> pd.DataFrame:
    """Compare arms of one setting, paired by seed and client.

    Parameters
    ----------
    spec
        Its first norm under its first policy is the baseline.
    clients
        Rows of every round, references among them.
    kept
        Runs at the chosen learning rates.
    summary
        A line an arm.

    Returns
    -------
    pandas.DataFrame
        Arm; ``against``: ``"baseline"``, ``"fedavg"`` (same norm), ``"best"`` (the arm that
        validation rows find best), ``"pooled"`` or ``"local"`` (same norm); ``other_norm``,
        ``other_policy``; ``measure``; ``estimate``, ``low``, ``high`` of the arm minus the other
        over the ``seeds`` that both have; and of ``test`` how many clients are ``better`` and
        ``worse``, by their own means over these seeds.
    """
    arms, setting = arms_of(keys_of(clients)), settings_of(keys_of(clients))
    runs = {arm: part.set_index("seed") for arm, part in kept.groupby(arms, sort=False)}
    sites = _by_site(clients, kept)
    lines = []
    for one in records_of(summary):
        peers = summary[(summary[setting] == [one[key] for key in setting]).all(axis=1)]
        for kind, other in _others(spec, one, peers):
            a, b = (tuple(line[key] for key in arms) for line in (one, other))
            common = {key: one[key] for key in arms} | {"against": kind}
            common |= {f"other_{key}": other[key] for key in ("norm", "policy")}
            votes = _votes(sites.get(a), sites.get(b))
            for measure in MEASURES:
                change = (runs[a][measure] - runs[b][measure]).dropna()
                line = {"measure": measure} | over_seeds(change)._asdict() | {"seeds": len(change)}
                lines.append(common | line | (votes if measure == "test" else {}))
    columns = [*arms, "against", "other_norm", "other_policy", "measure"]
    columns += ["estimate", "low", "high", "seeds", "better", "worse"]
    return pd.DataFrame(lines, columns=columns)


def _others(
    spec: Spec, one: dict[str, Any], peers: pd.DataFrame
) -> list[tuple[str, dict[str, Any]]]:
    """With what an arm is compared, and as what."""
    if one["policy"] in REFERENCES:
        return []
    baseline = (peers["norm"] == spec.norms[0]) & (peers["policy"] == spec.policies[0])
    within = peers["norm"] == one["norm"]
    wanted = {"baseline": baseline, "fedavg": within & (peers["policy"] == "fedavg")}
    wanted |= {"best": peers["best"]}
    wanted |= {kind: within & (peers["policy"] == kind) for kind in REFERENCES}
    return [
        (kind, other)
        for kind, mask in wanted.items()
        for other in records_of(peers[mask])
        if (other["norm"], other["policy"]) != (one["norm"], one["policy"])
    ]


def _by_site(clients: pd.DataFrame, kept: pd.DataFrame) -> dict[Any, pd.Series[float]]:
    """Of each arm what each client reached with each seed."""
    arms, metric = arms_of(keys_of(clients)), metrics_of(clients)[0]
    rows = reported_rows(clients, kept)
    rows = rows[rows["client"] != UNSEEN].set_index(["client", "seed"])
    return {arm: part[metric] for arm, part in rows.groupby(arms, sort=False)}


def _votes(one: pd.Series[float] | None, other: pd.Series[float] | None) -> dict[str, int]:
    """How many clients are better and worse, by the mean over the seeds of their differences."""
    if one is None or other is None:
        return {}
    change = (one - other).dropna().groupby("client").mean()
    return {"better": int((change > 0).sum()), "worse": int((change < 0).sum())}


def _client_table(clients: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    rows = reported_rows(clients, kept)
    metric = metrics_of(clients)[0]
    groups = rows.groupby([*arms_of(keys_of(clients)), "client"], sort=False)
    found = groups.agg({"examples": "first", metric: ["mean", "count"]})
    return found.set_axis(["examples", "test", "seeds"], axis=1).reset_index()


# --- what else is to be said ------------------------------------------------------------------


def _complete(spec: Spec, runs: pd.DataFrame) -> pd.Series[bool]:
    """Whether a run has all of its rounds, or as many as its patience asked for."""
    done = runs["rounds_run"] >= spec.training.rounds
    if spec.training.patience is not None:
        done |= runs["rounds_run"] - runs["round"].fillna(1) >= spec.training.patience
    return done | runs["policy"].isin(REFERENCES)


def _unfinished(spec: Spec, runs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Runs of the spec that were not begun, or have fewer rounds than they should."""
    wanted = pd.DataFrame([asdict(cell) for cell in cells_of(spec)])
    shared = [key for key in keys if key in wanted.columns]
    found = wanted.merge(runs, on=shared, how="left")
    found = found[~found["complete"].eq(True)]
    return found[shared].assign(rounds=found["rounds_run"].fillna(0).astype(int))
