"""The tables of a run: what happened, tidy, one row a fact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from data_tools.atomic import write_atomic
from federated.cell import KEYS, Cell
from federated.history import History
from federated.policy import parse_policy
from federated.setting import Setting
from federated.tasks.task import Task

__all__ = ["write_histories", "write_premises", "write_references"]

ROUNDS = ("train_loss", "sampled", "accepted", "refused", "bytes_up", "bytes_down", "seconds")


def write_histories(
    histories: Iterable[tuple[Setting, Cell, History]], folder: Path, metrics: Sequence[str]
) -> None:
    """Write ``clients.csv``, ``rounds.csv`` and ``events.csv``, each whole or not at all.

    Parameters
    ----------
    histories : iterable of (Setting, Cell, History)
        In the order of the tables.
    folder : path
        Of the run.
    metrics : sequence of str
        Of the task.
    """
    found = list(histories)
    key = [*dict.fromkeys(name for setting, _, _ in found for name in setting.keys), *KEYS, "round"]
    columns = {
        "clients": [*key, "client", "part", "examples", "loss", *metrics],
        "rounds": [*key, *ROUNDS],
        "events": [*key, "client", "event", "reason"],
    }
    for name, names in columns.items():
        rows = [
            setting.keys | asdict(cell) | {"strategy": setting.spec.strategy.name} | row
            for setting, cell, history in found
            for row in getattr(history, name)
        ]
        _write(folder / f"{name}.csv", rows, names)


def write_references(rows: list[dict[str, Any]], folder: Path, metrics: Sequence[str]) -> None:
    """Write ``references.csv``: what models of pooled and of single clients' rows come to."""
    keys = ["skew"] if any("skew" in row for row in rows) else []
    told = ["kind", "norm", "learning_rate", "seed", "round", "client", "part", "examples", "loss"]
    _write(folder / "references.csv", rows, [*keys, *told, *metrics])


def write_premises(settings: Sequence[tuple[Setting, Task]], folder: Path) -> None:
    """Write ``manifests.csv``, which tensor goes where, and ``partition.csv``, who has what."""
    setting, task = settings[0]
    tables = []
    for norm in setting.spec.norms:
        model = task.build(norm, 0)
        for policy in setting.spec.policies:
            table = parse_policy(policy).manifest(model).table()
            table = table.drop(columns="policy", errors="ignore")
            table.insert(0, "policy", policy)
            table.insert(0, "norm", norm)
            tables.append(table)
    _save(folder / "manifests.csv", pd.concat(tables, ignore_index=True))
    held = []
    for setting, task in settings:
        table = task.holdings(setting.folder)
        if "skew" in setting.keys:
            table.insert(0, "skew", setting.keys["skew"])
        held.append(table)
    # Participation changes nothing of who has what.
    _save(folder / "partition.csv", pd.concat(held, ignore_index=True).drop_duplicates())


def _write(path: Path, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    _save(path, pd.DataFrame(rows, columns=list(columns)))


def _save(path: Path, table: pd.DataFrame) -> None:
    # 17 digits hold a double exactly: what is read back is what was computed.
    write_atomic(path, table.to_csv(index=False, float_format="%.17g", na_rep="nan"))
