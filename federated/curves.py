"""What each round of each run is worth, and which rounds and rates validation rows choose.

A run is told from others by its keys, all columns of ``clients.csv`` to the left of ``round``. An
arm is what is compared: the keys without learning rate and seed. A setting is what arms share
that can be compared: the arm without norm and policy.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from federated.tasks.task import TEST, UNSEEN, VALIDATION

__all__ = [
    "LOCAL",
    "MEASURES",
    "POOLED",
    "REFERENCES",
    "arms_of",
    "best_rounds",
    "by_round",
    "choose_rates",
    "equal_arms",
    "keys_of",
    "left_out",
    "mean_curves",
    "metrics_of",
    "reported_rows",
    "settings_of",
    "with_cost",
    "with_references",
    "without",
]

MEASURES = ("test", "worst", "unseen")
"""Measured on test rows: mean over clients, lowest client, the site that never trains."""
SCORES = ("validation", *MEASURES)
"""Measures of a round, the one that chooses first."""

POOLED, LOCAL = REFERENCES = ("pooled", "local")
"""Kinds of references: one model of everybody's rows; a model of each client's own rows."""


def keys_of(table: pd.DataFrame) -> list[str]:
    """Columns that tell runs apart.

    Examples
    --------
    >>> keys_of(pd.DataFrame(columns=["norm", "learning_rate", "seed", "round", "client"]))
    ['norm', 'learning_rate', 'seed']
    """
    columns = list(table.columns)
    return columns[: columns.index("round")]


def arms_of(keys: Sequence[str]) -> list[str]:
    """Keys of what is compared: those that nobody chooses or draws."""
    return [key for key in keys if key not in ("learning_rate", "seed")]


def settings_of(keys: Sequence[str]) -> list[str]:
    """Keys that two arms must share to be compared."""
    return [key for key in arms_of(keys) if key not in ("norm", "policy")]


def metrics_of(table: pd.DataFrame) -> list[str]:
    """Names of the metrics, higher is better: the columns to the right of ``loss``."""
    columns = list(table.columns)
    return columns[columns.index("loss") + 1 :]


def with_references(clients: pd.DataFrame, references: pd.DataFrame | None) -> pd.DataFrame:
    """Append the references to the clients' rows, as arms whose policy is their kind.

    Parameters
    ----------
    clients
        As ``clients.csv``.
    references
        As ``references.csv``: ``kind``, keys, ``round``, ``client``, ``part``, ...; None: no such.

    Returns
    -------
    pandas.DataFrame
        A key that the references lack concerns none of them: they appear once under each of its
        values. Every client of a local reference stands at the round that its own validation rows
        choose; these rounds are called 0, so that a run has one.
    """
    if references is None or references.empty:
        return clients
    rows = references.rename(columns={"kind": "policy"})
    missing = [key for key in settings_of(keys_of(clients)) if key not in rows.columns]
    if missing:
        rows = rows.merge(clients[missing].drop_duplicates(), how="cross")
    rows = rows.assign(round=rows["round"] if "round" in rows.columns else 1)
    local = rows[(rows["policy"] == LOCAL) & (rows["client"] != UNSEEN)]
    rows = pd.concat([rows[rows["policy"] != LOCAL], _own_rounds(local, clients)])
    return pd.concat([clients, rows.reindex(columns=clients.columns)], ignore_index=True)


def _own_rounds(rows: pd.DataFrame, clients: pd.DataFrame) -> pd.DataFrame:
    """Rows of each client's best round, called round 0."""
    metric = metrics_of(clients)[0]
    one = [*keys_of(clients), "client"]
    scores = rows.assign(validation=rows[metric].where(rows["part"] == VALIDATION))
    scores = scores.groupby([*one, "round"], sort=False)["validation"].max().reset_index()
    chosen = _first_best(scores, one)[[*one, "round"]]
    return rows.merge(chosen, on=[*one, "round"]).assign(round=0)


def _first_best(scores: pd.DataFrame, one: list[str]) -> pd.DataFrame:
    """Of each group the line with the highest ``validation``, of equals the earliest round.

    Where nothing has a value, nothing can choose, and the last round is taken.
    """
    nothing = scores["validation"].isna().all()
    ranked = scores.sort_values("round", ascending=not nothing, kind="stable")
    ranked = ranked.sort_values("validation", ascending=False, kind="stable", na_position="last")
    return ranked.groupby(one, sort=False).head(1).sort_index()


def left_out(clients: pd.DataFrame) -> pd.DataFrame:
    """Clients whose rows never gave a value of the primary metric, in any round of any run.

    These lie in the data (AUROC of rows of one class has no value), not in what was learnt, so
    they are left out of means and minima, of all arms alike.

    Returns
    -------
    pandas.DataFrame
        The setting, ``client``, ``part``.
    """
    who = [*settings_of(keys_of(clients)), "client", "part"]
    known = clients[metrics_of(clients)[0]].notna()
    some = known.groupby([clients[column] for column in who], sort=False).any()
    return some[~some].reset_index()[who]


def by_round(clients: pd.DataFrame) -> pd.DataFrame:
    """Measures of every round.

    Parameters
    ----------
    clients
        As ``clients.csv``, references among them or not; see :func:`with_references`.

    Returns
    -------
    pandas.DataFrame
        Keys, ``round``; of the primary metric ``validation`` and ``test``, the unweighted means
        over the clients, ``worst``, the lowest client on test, with its name ``worst_client``, and
        ``unseen``. A measure is NaN where a client that has a value elsewhere has none: a mean
        over fewer clients would be of something else.
    """
    keys, metric = keys_of(clients), metrics_of(clients)[0]
    index = [*keys, "round"]
    mute = left_out(clients)
    who = list(mute.columns)
    kept = clients.merge(mute, on=who, how="left", indicator=True)
    kept = kept[kept["_merge"] == "left_only"].drop(columns="_merge")
    table = clients[index].drop_duplicates(ignore_index=True)
    for name, part in (("validation", VALIDATION), ("test", TEST)):
        rows = kept[(kept["part"] == part) & (kept["client"] != UNSEEN)]
        table = table.merge(_over_clients(rows, index, metric, name), on=index, how="left")
    unseen = kept[(kept["client"] == UNSEEN) & (kept["part"] == TEST)]
    found = unseen[[*index, metric]].rename(columns={metric: "unseen"})
    table = table.merge(found.drop_duplicates(index), on=index, how="left")
    table = table.rename(columns={"test_low": "worst", "test_client": "worst_client"})
    return table[[*index, *SCORES, "worst_client"]]


def _over_clients(rows: pd.DataFrame, index: list[str], metric: str, name: str) -> pd.DataFrame:
    """Mean, minimum and who has it, by round; NaN unless all clients of the setting have values."""
    columns = [*index, name, f"{name}_low", f"{name}_client"]
    if rows.empty:
        return pd.DataFrame(columns=columns).astype(rows[index].dtypes.to_dict())
    setting = settings_of(index[:-1])
    # Without a setting all rows are of one; a constant stands for it.
    alike = [rows[key] for key in setting] or [pd.Series(0, index=rows.index)]
    wanted = rows.groupby(alike)["client"].transform("nunique")
    rows = rows.assign(wanted=wanted).sort_values(metric, kind="stable")
    found = rows.groupby(index, sort=False).agg(
        mean=(metric, "mean"),
        low=(metric, "min"),
        who=("client", "first"),
        count=(metric, "count"),
        wanted=("wanted", "first"),
    )
    short = found["count"] < found["wanted"]
    found = found.astype({"who": object})
    found.loc[short, ["mean", "low", "who"]] = np.nan
    return found.reset_index().set_axis([*columns, "count", "wanted"], axis=1)[columns]


def best_rounds(rounds: pd.DataFrame) -> pd.DataFrame:
    """Of each run the round to report, the best by ``validation``; of equals the earliest.

    Parameters
    ----------
    rounds
        As :func:`by_round` makes them.

    Returns
    -------
    pandas.DataFrame
        A line a run: keys, ``round`` and the measures, all NaN for a run without any value of
        ``validation``. Where no run has one, nothing can choose: the last rounds are reported.
    """
    best = _first_best(rounds, keys_of(rounds)).reset_index(drop=True)
    best = best.astype({"round": float, "worst_client": object})
    unmeasured = best["validation"].isna()
    if not unmeasured.all():
        best.loc[unmeasured, ["round", *MEASURES, "worst_client"]] = np.nan
    return best


def with_cost(runs: pd.DataFrame, rounds: pd.DataFrame) -> pd.DataFrame:
    """Add ``bytes_used`` until the reported round and ``bytes_total``, ``rounds_run``, ``seconds``.

    Parameters
    ----------
    runs
        As :func:`best_rounds` makes them.
    rounds
        As ``rounds.csv``; runs that it does not have, such as references, get NaN.
    """
    keys = keys_of(runs)
    table = rounds.merge(runs[[*keys, "round"]].rename(columns={"round": "best"}), on=keys)
    table["bytes_total"] = table["bytes_up"] + table["bytes_down"]
    table["bytes_used"] = table["bytes_total"].where(table["round"] <= table["best"], 0)
    table["rounds_run"] = table["round"]
    how = {"bytes_used": "sum", "bytes_total": "sum", "rounds_run": "max", "seconds": "sum"}
    cost = table.groupby(keys, sort=False).agg(how).reset_index()
    return runs.merge(cost, on=keys, how="left")


def choose_rates(runs: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Score each learning rate by validation, and choose one for each arm.

    The best mean over the seeds wins, of equals the smallest rate. A rate that has been tried to
    the end on fewer seeds than another one, or has a value on fewer, stands behind it.
    """
    arms = arms_of(keys)
    groups = runs.assign(complete=runs["complete"] & runs["validation"].notna()).groupby(
        [*arms, "learning_rate"], sort=False
    )
    table = groups.agg(
        validation=("validation", "mean"),
        seeds=("validation", "count"),
        complete=("complete", "sum"),
        tried=("seed", "nunique"),
    ).reset_index()
    ranked = table.sort_values("learning_rate", kind="stable").sort_values(
        ["complete", "seeds", "validation"], ascending=False, kind="stable"
    )
    first = ranked.groupby(arms, sort=False).head(1).index
    return table.assign(chosen=table.index.isin(first))


def reported_rows(clients: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Test rows of the reported rounds of the chosen runs.

    Parameters
    ----------
    clients
        Rows of every round.
    kept
        Of the runs to report, keys and ``round``.
    """
    keys = keys_of(clients)
    rows = clients[clients["part"] == TEST].astype({"round": float})
    return rows.merge(kept[[*keys, "round"]].dropna(), on=[*keys, "round"])


def mean_curves(rounds: pd.DataFrame, kept: pd.DataFrame) -> pd.DataFrame:
    """Means over the seeds of each round's measures.

    Parameters
    ----------
    rounds
        As :func:`by_round` makes them.
    kept
        The runs to take, by their keys.

    Returns
    -------
    pandas.DataFrame
        Arm, ``round``, ``validation`` and the measures of test rows, NaN where a seed that has come
        to this round has no value; ``seeds``, how many have come.
    """
    keys = keys_of(rounds)
    rows = rounds.merge(kept[keys], on=keys)
    groups = rows.groupby([*arms_of(keys), "round"], sort=False)
    means = groups[[*SCORES]].mean()
    # A mean over fewer seeds than have come would be a jump that nothing explains.
    means = means.where(groups[[*SCORES]].count().eq(groups.size(), axis=0))
    return means.assign(seeds=groups.size()).reset_index()


def equal_arms(clients: pd.DataFrame) -> pd.DataFrame:
    """Arms whose rows are those of another policy, to the last digit, in all runs that both have.

    Returns
    -------
    pandas.DataFrame
        Arm, and ``like``, the policy: fedavg if it can be, else the first one.
    """
    keys, values = keys_of(clients), ["loss", *metrics_of(clients)]
    group = [*settings_of(keys), "norm"]
    on = ["learning_rate", "seed", "round", "client", "part"]
    lines = []
    for names, part in clients.groupby(group, sort=False):
        found = {str(name): rows.set_index(on)[values] for name, rows in part.groupby("policy")}
        order = sorted(dict.fromkeys(part["policy"]), key=lambda policy: policy != "fedavg")
        plain: list[str] = []
        for policy in order:
            like = [other for other in plain if _equal(found[policy], found[other])]
            if like:
                line = dict(zip(group, names, strict=True))
                lines.append(line | {"policy": policy, "like": like[0]})
            else:
                plain.append(policy)
    return pd.DataFrame(lines, columns=[*arms_of(keys), "like"])


def _equal(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether two arms have rows in common, and all of these are equal to the last digit."""
    common = one.index.intersection(other.index)
    return bool(len(common)) and one.loc[common].equals(other.loc[common])


def without(table: pd.DataFrame, same: pd.DataFrame) -> pd.DataFrame:
    """Lines of all arms but some, such as those that equal another one.

    Parameters
    ----------
    table
        Has ``norm`` and ``policy``.
    same
        The arms to leave out, by the same columns; see `federated.tables.Tables.same`.
    """
    arms = set(zip(same["norm"], same["policy"], strict=True))
    keep = [arm not in arms for arm in zip(table["norm"], table["policy"], strict=True)]
    # As a series: an empty list would pick no columns instead of no lines.
    return table[pd.Series(keep, index=table.index, dtype=bool)]
