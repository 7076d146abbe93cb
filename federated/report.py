"""The report: one self-contained HTML file, drawn from what a run has written alone."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from data_tools.atomic import write_atomic
from data_tools.errors import InputError
from federated import plots
from federated.answer import (
    MEASURE_TITLES,
    arm_title,
    compose,
    metric_title,
    setting_title,
    sized,
)
from federated.cell import cells_of
from federated.curves import LOCAL, MEASURES, POOLED, REFERENCES, without
from federated.spec import Spec, load_spec
from federated.summary import summarize
from federated.tables import (
    CONFIDENCE,
    Results,
    Tables,
    build_tables,
    by_setting,
    read_results,
    records_of,
)
from federated.tasks.task import UNSEEN
from seqnorm.holdout.answer import Answer
from seqnorm.holdout.tables import only
from seqnorm.holdout.titles import title
from seqnorm.holdout.words import level, signed
from seqnorm.plot_style import embedded, svg
from seqnorm.runs.page import page_environment

__all__ = ["write_report"]

_MOST_EVENTS = 100
"""Events that are listed one by one; the others are counted."""

_SAVED = ("summary", "differences", "choices", "curves")
"""Tables that are also written as CSV, for who goes on with them."""

_ROLES = {
    "gamma": "scale",
    "beta": "offset",
    "mean": "running mean",
    "variance": "running variance",
    "counter": "counter",
}
_AGAINST = {
    "baseline": "Against the baseline, {}",
    "fedavg": "Against fedavg, within each norm",
    POOLED: "Against one model of everybody's rows pooled, within each norm",
    LOCAL: "Against models that each client trains alone, within each norm",
}


def write_report(folder: Path) -> Path:
    """Write ``report.html`` and ``summary.md`` into a run folder, and the tables as CSV.

    Parameters
    ----------
    folder
        Holds ``spec.toml``, ``run.json``, ``clients.csv``, ``rounds.csv`` and ``events.csv``; and
        maybe ``references.csv``, ``manifests.csv``, ``partition.csv`` and, to be shown instead of
        a plot of that table, ``partition.png``. The run may have been stopped midway.

    Returns
    -------
    Path
        Of the report.

    Raises
    ------
    InputError
        When the folder holds no run, or a damaged one.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / "run.json").read_text())
        spec = load_spec(folder / "spec.toml", runnable=False)
        results = read_results(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder}: no run to report here ({Path(str(error.filename)).name} is missing); "
            "run `federated simulate SPEC.toml` first, with --resume if it was stopped"
        ) from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder / 'run.json'}: cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"{folder / 'run.json'}: is no record of a run")
    tables = build_tables(spec, results) if len(results.clients) else None
    shared = _shared(spec, record)
    answer = _answer(spec, tables, shared)
    page = _page(spec, record, results, tables, answer, shared, folder)
    try:
        write_atomic(folder / "report.html", page)
        write_atomic(folder / "summary.md", summarize(tables, answer))
        for name in _SAVED if tables else ():
            text = getattr(tables, name).to_csv(index=False, float_format="%.17g", na_rep="nan")
            write_atomic(folder / f"{name}.csv", text)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return folder / "report.html"


def _page(
    spec: Spec,
    record: dict[str, Any],
    results: Results,
    tables: Tables | None,
    answer: Answer,
    shared: set[tuple[str, str]],
    folder: Path,
) -> str:
    environment = page_environment("federated")
    environment.globals |= {
        "arm_title": arm_title,
        "bytes": _bytes,
        "level": level,
        "measure_titles": MEASURE_TITLES,
        "references": REFERENCES,
        "signed": signed,
        "sized": sized,
        "title": title,
    }
    sessions = record.get("sessions") or [{}]
    return environment.get_template("report.html").render(
        spec=spec,
        status=record.get("status", "unknown"),
        session=sessions[-1],
        sessions=len(sessions),
        checksums=record.get("data_sha256", {}),
        answer=answer,
        stopped=record.get("stopped", {}),
        tables=tables,
        metric=metric_title(tables.metric) if tables else "",
        confidence=level(CONFIDENCE),
        sections=_sections(spec, tables) if tables else [],
        unfinished=records_of(tables.unfinished) if tables else [],
        unfinished_columns=list(tables.unfinished.columns) if tables else [],
        choices=_choices(tables) if tables else [],
        rates=sorted(tables.choices["learning_rate"].unique()) if tables else [],
        wanted_seeds=len(spec.training.seeds),
        cost=_cost(results, tables, shared) if tables else [],
        partition=_partition(results, folder),
        events=_events(results.events),
        fates=_fates(results.manifests),
        tensors=_tensors(results.manifests),
        spec_text=(folder / "spec.toml").read_text(),
    )


def _shared(spec: Spec, record: dict[str, Any]) -> set[tuple[str, str]]:
    """Norms and policies that were not run themselves: another policy's run is theirs too."""
    twins = record.get("same_runs", {})
    return {(cell.norm, cell.policy) for cell in cells_of(spec) if cell.id in twins}


def _answer(spec: Spec, tables: Tables | None, shared: set[tuple[str, str]]) -> Answer:
    if tables is None:
        return Answer("No round of any run is finished, so there is no answer yet.", ())
    return compose(spec, tables, shared)


def _picture(figure: Figure, text: str) -> dict[str, str]:
    return {"source": embedded(svg(figure)), "text": text}


# --- a section a setting ----------------------------------------------------------------------


def _sections(spec: Spec, tables: Tables) -> list[dict[str, Any]]:
    """Tables and plots of each setting: what differs in it can be compared."""
    return [
        {"name": setting_title(tables, keys)} | _section(spec, part)
        for keys, part in by_setting(tables)
    ]


def _section(spec: Spec, tables: Tables) -> dict[str, Any]:
    same = set(zip(tables.same["norm"], tables.same["policy"], strict=True))
    drawn = replace(
        tables,
        summary=without(tables.summary, tables.same),
        differences=without(tables.differences, tables.same),
        curves=without(tables.curves, tables.same),
    )
    return {
        "summary": [
            line | {"same": (line["norm"], line["policy"]) in same}
            for line in records_of(tables.summary)
        ],
        "has_unseen": bool(tables.summary["unseen"].notna().any()),
        "level_plot": _picture(
            plots.level_plot(spec, drawn), "What each norm and policy reaches on test rows"
        ),
        "differences": [
            {"title": heading.format(lines[0]["other"]), "lines": lines}
            | {"plot": _difference_picture(spec, drawn, kind)}
            for kind, heading in _AGAINST.items()
            if (lines := _differences(drawn, kind))
        ],
        "curve_plot": _picture(
            plots.curve_plot(spec, drawn), "Test measures by round, a row of panels a policy"
        ),
        "clients": _clients(tables, same),
    }


def _difference_picture(spec: Spec, tables: Tables, kind: str) -> dict[str, str] | None:
    """A plot where there are intervals to see, and not of what is a remark beside the matter."""
    if kind in REFERENCES or only(tables.differences, against=kind)["low"].isna().all():
        return None
    text = "Differences with intervals, a panel for each measure"
    return _picture(plots.difference_plot(spec, tables, kind), text)


def _differences(tables: Tables, kind: str) -> list[dict[str, Any]]:
    """A line an arm, its measures side by side."""
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for row in records_of(only(tables.differences, against=kind)):
        arm = (row["norm"], row["policy"])
        line = lines.setdefault(arm, {"arm": arm_title(*arm), "seeds": row["seeds"]})
        line["other"] = arm_title(row["other_norm"], row["other_policy"])
        line[row["measure"]] = row
        if row["measure"] == MEASURES[0] and pd.notna(row["better"]):
            line |= {"better": int(row["better"]), "worse": int(row["worse"])}
    return list(lines.values())


def _clients(tables: Tables, same: set[tuple[str, str]]) -> dict[str, Any]:
    """Clients down, arms across; the lowest client of each arm is marked."""
    arms = [
        (line["norm"], line["policy"])
        for line in records_of(tables.summary)
        if (line["norm"], line["policy"]) not in same
    ]
    rows = records_of(tables.clients)
    found = {(row["norm"], row["policy"], row["client"]): row["test"] for row in rows}
    names = dict.fromkeys(row["client"] for row in rows)
    order = [name for name in names if name != UNSEEN] + [n for n in names if n == UNSEEN]
    examples = {row["client"]: row["examples"] for row in reversed(rows)}
    own = tables.clients[tables.clients["client"] != UNSEEN]
    lowest = own.groupby(["norm", "policy"])["test"].min().to_dict()
    return {
        "arms": arms,
        "lines": [
            {
                "client": name,
                "examples": examples[name],
                "cells": [
                    {
                        "value": found.get((*arm, name), float("nan")),
                        "low": name != UNSEEN and found.get((*arm, name)) == lowest.get(arm),
                    }
                    for arm in arms
                ],
            }
            for name in order
        ],
    }


# --- what concerns all settings ---------------------------------------------------------------


def _choices(tables: Tables) -> list[dict[str, Any]]:
    """A line an arm: what each learning rate got on validation, and which one was taken."""
    lines = []
    for _, part in tables.choices.groupby(tables.arms, sort=False):
        rates = records_of(part.sort_values("learning_rate"))
        named = setting_title(tables, rates[0])
        arm = arm_title(rates[0]["norm"], rates[0]["policy"])
        by_rate = {rate["learning_rate"]: rate for rate in rates}
        lines.append({"arm": arm + (f", {named}" if named else ""), "rates": by_rate})
    return lines


def _cost(results: Results, tables: Tables, shared: set[tuple[str, str]]) -> list[dict[str, Any]]:
    """What every arm that was run cost with all of its learning rates and seeds."""
    rounds = results.rounds
    groups = rounds.groupby(tables.arms, sort=False)
    table = groups[["bytes_up", "bytes_down", "seconds"]].sum().assign(rounds=groups.size())
    runs = rounds.drop_duplicates([*tables.arms, "learning_rate", "seed"])
    table["runs"] = runs.groupby(tables.arms, sort=False).size()
    one = tables.summary.rename(columns={"seconds": "seconds_run"})
    one = one[[*tables.arms, "rounds_run", "bytes_total", "seconds_run"]]
    lines = records_of(table.reset_index().merge(one, on=tables.arms))
    return [
        line | {"setting": setting_title(tables, line)}
        for line in lines
        if (line["norm"], line["policy"]) not in shared
    ]


def _partition(results: Results, folder: Path) -> dict[str, Any] | None:
    if results.partition is None or results.partition.empty:
        return None
    text = "Who holds what, a line a client"
    path = folder / "partition.png"
    if path.is_file():
        raw = base64.b64encode(path.read_bytes()).decode()
        picture = {"source": f"data:image/png;base64,{raw}", "text": text}
    else:
        picture = _picture(plots.partition_plot(results.partition), text)
    return {
        "picture": picture,
        "columns": list(results.partition.columns),
        "lines": records_of(results.partition),
    }


def _events(events: pd.DataFrame) -> dict[str, Any]:
    """How often each client had each event, and the first of them one by one."""
    counts = events.groupby(["client", "event", "reason"], sort=False).size()
    table = counts.rename("count").reset_index().sort_values("count", ascending=False)
    return {
        "total": len(events),
        "by_kind": events["event"].value_counts().to_dict(),
        "kinds": records_of(table.head(_MOST_EVENTS)),
        "more": max(0, len(table) - _MOST_EVENTS),
        "lines": records_of(events.head(_MOST_EVENTS)),
        "columns": list(events.columns),
    }


def _fates(manifests: pd.DataFrame | None) -> list[dict[str, Any]]:
    """A line for each norm, policy and phase: the fate of each kind of norm tensor."""
    if manifests is None or manifests.empty:
        return []
    lines = []
    for arm, part in manifests.groupby(["norm", "policy", "first_round"], sort=False):
        tensors = part[part["role"].isin(list(_ROLES))]
        fates = tensors.groupby("role")["fate"].agg(lambda column: ", ".join(dict.fromkeys(column)))
        others = part.loc[part["role"] == "parameter", "fate"]
        lines.append(
            {
                "arm": arm_title(arm[0], arm[1]),
                "round": arm[2],
                "layers": tensors["layer"].nunique(),
            }
            | {"fates": [fates.get(role, "–") for role in _ROLES]}
            | {"others": ", ".join(dict.fromkeys(others)) or "–"}
        )
    return lines


def _tensors(manifests: pd.DataFrame | None) -> dict[str, Any]:
    """The manifests in full, of norm tensors alone."""
    if manifests is None or manifests.empty:
        return {"columns": [], "lines": [], "roles": list(_ROLES.values())}
    rows = manifests[manifests["role"].isin(list(_ROLES))]
    return {
        "columns": list(rows.columns),
        "lines": records_of(rows),
        "roles": list(_ROLES.values()),
    }


def _bytes(count: float) -> str:
    """A size for readers.

    Examples
    --------
    >>> _bytes(19600000.0), _bytes(512)
    ('19.6 MB', '512 B')
    """
    if count != count:
        return "–"
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} B"
