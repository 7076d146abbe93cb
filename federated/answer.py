"""The answer in words, made from the tables: never more than the intervals carry."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import pandas as pd

from federated.curves import LOCAL, POOLED, REFERENCES, settings_of, without
from federated.spec import Spec
from federated.tables import CONFIDENCE, Tables, by_setting, records_of
from seqnorm.holdout.answer import Answer
from seqnorm.holdout.tables import Estimate, only
from seqnorm.holdout.titles import title
from seqnorm.holdout.words import level, signed

__all__ = [
    "MEASURE_TITLES",
    "arm_title",
    "compose",
    "metric_title",
    "setting_title",
    "sized",
]

MEASURE_TITLES = {"test": "mean over clients", "worst": "worst client", "unseen": "unseen site"}

NOTHING = "no difference that these seeds can show"

_REFERENCE_TITLES = {POOLED: ", all rows pooled", LOCAL: ", each client alone"}
_METRIC_TITLES = {"auprc": "AUPRC", "auroc": "AUROC", "c_index": "C-index"}

Line = Mapping[str, Any]


def metric_title(metric: str) -> str:
    """Name of a metric for readers.

    Examples
    --------
    >>> metric_title("auprc"), metric_title("accuracy")
    ('AUPRC', 'accuracy')
    """
    return _METRIC_TITLES.get(metric, metric.replace("_", " "))


def arm_title(norm: object, policy: object) -> str:
    """Name of a norm under a policy, or of a reference.

    Examples
    --------
    >>> arm_title("group:8", "fedbn"), arm_title("batch", "pooled")
    ('GroupNorm (8) under fedbn', 'BatchNorm, all rows pooled')
    """
    return title(str(norm)) + _REFERENCE_TITLES.get(str(policy), f" under {policy}")


def setting_title(tables: Tables, line: Line) -> str:
    """What tells a setting from the others of the run; nothing where there is but one.

    Parameters
    ----------
    tables
        Of the run.
    line
        Has the key columns.
    """
    varied = [key for key in settings_of(tables.arms) if tables.summary[key].nunique() > 1]
    return ", ".join(f"{key} = {_plain(line[key])}" for key in varied)


def sized(line: Line) -> str:
    """A difference with its interval.

    Examples
    --------
    >>> sized({"estimate": 0.02, "low": 0.01, "high": 0.03})
    '+0.020, 95 % interval +0.010 to +0.030'
    >>> sized({"estimate": 0.02, "low": float("nan"), "high": float("nan")})
    '+0.020 with one seed, so no interval'
    """
    change, low, high = (float(line[name]) for name in Estimate._fields)
    if math.isnan(change):
        return "no value to compare"
    if math.isnan(low):
        return f"{signed(change, 3)} with one seed, so no interval"
    return f"{signed(change, 3)}, {level(CONFIDENCE)} interval {_ends(low, high)}"


def compose(spec: Spec, tables: Tables, shared: Collection[tuple[str, str]] = ()) -> Answer:
    """Answer the spec's question, for each setting of the run.

    Parameters
    ----------
    spec, tables
        The experiment, and its tables.
    shared
        Norms and policies that were not run, as another policy treats every tensor alike.

    Returns
    -------
    seqnorm.holdout.answer.Answer
        The sentence is of the first setting; those of further ones open the details.
    """
    sentences: list[str] = []
    details: list[str] = []
    for keys, part in by_setting(tables):
        named = setting_title(tables, keys)
        before = f"With {named}: " if named else ""
        # What equals its fedavg throughout is said once, and not counted as one more rival.
        summary, differences = (without(t, part.same) for t in (part.summary, part.differences))
        sentences.append(before + _sentence(spec, tables, summary, differences))
        lines = [
            *_against_best(summary, differences),
            *_policies(part.same, shared, differences),
            *_references(summary, differences),
        ]
        details += [before + line for line in lines]
    # One caution a client, whatever the setting.
    cautions = dict.fromkeys(_cautions(spec, tables))
    return Answer(sentences[0], (*sentences[1:], *details, *cautions))


# --- which is best ----------------------------------------------------------------------------


def _sentence(spec: Spec, tables: Tables, summary: pd.DataFrame, differences: pd.DataFrame) -> str:
    best = records_of(summary[summary["best"]])
    if not best:
        return (
            "No combination can be called the best: there is no value on validation rows that "
            "could choose one"
        ) + "."
    arm = best[0]
    own = summary[~summary["policy"].isin(REFERENCES)]
    name = arm_title(arm["norm"], arm["policy"])
    reached = (
        f"test {metric_title(tables.metric)} {_value(arm['test'])} as the mean over clients, "
        f"{_value(arm['worst'])} for the worst one"
    )
    if not math.isnan(arm["unseen"]):
        reached += f", {_value(arm['unseen'])} on the unseen site"
    first = f"On validation, {name} is the best of {len(own)} different combinations"
    first += f"; it reaches {reached}"
    if len(own) == 1:
        return f"Only {name} was run; it reaches {reached}."
    if (arm["norm"], arm["policy"]) == (spec.norms[0], spec.policies[0]):
        return f"{first}. It is the baseline itself; {_rivals(differences)}."
    rows = only(differences, norm=arm["norm"], policy=arm["policy"], against="baseline")
    baseline = arm_title(spec.norms[0], spec.policies[0])
    return f"{first}. Against the baseline, {baseline} – {_measures(rows)}."


def _rivals(differences: pd.DataFrame) -> str:
    """Of all others, how many differ from the best one."""
    rows = only(differences, against="best", measure="test")
    below = rows[rows["high"] < 0]
    above = rows[rows["low"] > 0]
    if rows["low"].isna().all():
        return "with one seed no other can be told from it"
    return (
        f"on the mean over clients {len(below)} of {len(rows)} others are clearly worse and "
        f"{len(above)} clearly better"
    )


def _measures(rows: pd.DataFrame) -> str:
    """What becomes of each measure, the equal ones said once."""
    parts: dict[str, list[str]] = {}
    for line in records_of(rows):
        if not math.isnan(line["estimate"]):
            parts.setdefault(_verdict(line), []).append(MEASURE_TITLES[line["measure"]])
    return "; ".join(f"{', '.join(names)}: {verdict}" for verdict, names in parts.items()) or (
        "no value to compare"
    )


def _verdict(line: Line) -> str:
    if _equal(line):
        return "the same to the last digit"
    if line["low"] > 0:
        return f"higher ({sized(line)})"
    if line["high"] < 0:
        return f"lower ({sized(line)})"
    return f"{NOTHING} ({sized(line)})"


def _equal(line: Line) -> bool:
    return bool(line["estimate"] == line["low"] == line["high"] == 0)


def _against_best(summary: pd.DataFrame, differences: pd.DataFrame) -> list[str]:
    """Who is clearly worse or better on test than the best by validation, and who is neither."""
    best = records_of(summary[summary["best"]])
    rows = only(differences, against="best", measure="test").dropna(subset="estimate")
    if not best or rows.empty:
        return []
    name = arm_title(best[0]["norm"], best[0]["policy"])
    found = records_of(rows)
    groups = {
        "clearly worse": [line for line in found if line["high"] < 0],
        "clearly better": [line for line in found if line["low"] > 0],
        "the same to the last digit": [line for line in found if _equal(line)],
    }
    taken = [line for group in groups.values() for line in group]
    groups[NOTHING] = [line for line in found if line not in taken]
    return [
        f"Mean over clients against {name}, {verdict}: "
        + "; ".join(_arm(line, bare=verdict.startswith("the same")) for line in group)
        + "."
        for verdict, group in groups.items()
        if group
    ]


def _arm(line: Line, *, bare: bool) -> str:
    name = arm_title(line["norm"], line["policy"])
    return name if bare else f"{name} ({sized(line)})"


# --- policies and references ------------------------------------------------------------------


def _policies(
    same: pd.DataFrame, shared: Collection[tuple[str, str]], differences: pd.DataFrame
) -> Iterable[str]:
    """Each policy against fedavg, norm by norm; first where it changes nothing at all."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for (norm, like), part in same.groupby(["norm", "like"], sort=False):
        for one_run in (True, False):
            alike = [p for p in part["policy"] if ((norm, p) in shared) == one_run]
            if alike:
                named = f"{', '.join(alike)} or {like}"
                groups.setdefault((named, one_run), []).append(title(str(norm)))
    for (named, one_run), norms in groups.items():
        yield f"For {', '.join(norms)} it does not matter whether {named}: " + (
            "they treat every tensor of the model alike, and are one run."
            if one_run
            else "every figure of every round is the same to the last digit."
        )
    rows = only(differences, against="fedavg")
    for arm, part in rows.groupby(["norm", "policy"], sort=False):
        named = f"{title(str(arm[0]))}, {arm[1]} against fedavg"
        yield f"{named} – {_measures(part)}{_votes(records_of(part)[0])}."


def _votes(line: Line) -> str:
    """Of a line that counts them, how many clients are better and worse."""
    if pd.isna(line["better"]):
        return ""
    return f"; {line['better']:.0f} clients better, {line['worse']:.0f} worse"


def _references(summary: pd.DataFrame, differences: pd.DataFrame) -> Iterable[str]:
    """The best combination against the references of its norm."""
    for best in records_of(summary[summary["best"]]):
        for kind in REFERENCES:
            rows = only(differences, against=kind, norm=best["norm"], policy=best["policy"])
            if len(rows):
                name = arm_title(best["norm"], best["policy"])
                other = arm_title(best["norm"], kind)
                yield f"{name} against {other} – {_measures(rows)}."


# --- what is left open ------------------------------------------------------------------------


def _cautions(spec: Spec, tables: Tables) -> Iterable[str]:
    """Say what the figures leave out."""
    if len(tables.unfinished):
        yield (
            f"Caution: {len(tables.unfinished)} runs of the spec are missing or were stopped "
            "midway; the figures are of what there is."
        )
    own = only(tables.runs, chosen=True)
    own = own[~own["policy"].isin(REFERENCES)]
    if own["validation"].isna().all():
        yield "Caution: no validation rows, so the last round and the first rate are reported."
    elif lost := int(tables.runs["validation"].isna().sum()):
        yield (
            f"Caution: in {lost} runs no round gave a value for every client (diverged, or a "
            "client did not answer); they are left out of means."
        )
    if own["seed"].nunique() == 1:
        yield "Caution: one seed, so there are no intervals and no difference can be claimed."
    for line in records_of(tables.left_out):
        yield (
            f"Caution: the {line['part']} rows of {line['client']} allow no "
            f"{metric_title(tables.metric)}; it is left out of the {line['part']} figures."
        )


def _ends(low: float, high: float) -> str:
    return f"{signed(low, 3)} to {signed(high, 3)}"


def _value(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
