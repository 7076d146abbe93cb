"""The result in short, as Markdown."""

from __future__ import annotations

import math

from federated.answer import MEASURE_TITLES, arm_title, metric_title, setting_title
from federated.curves import LOCAL, MEASURES, without
from federated.tables import CONFIDENCE, Tables, by_setting, records_of
from seqnorm.holdout.answer import Answer
from seqnorm.holdout.words import level

__all__ = ["summarize"]


def summarize(tables: Tables | None, answer: Answer) -> str:
    """Answer, details, and a table of each setting.

    Parameters
    ----------
    tables
        Of the run; None before its first round.
    answer
        Made from them by `federated.answer.compose`.

    Returns
    -------
    str
        Combinations that equal another one to the last digit have no row.
    """
    lines = [answer.sentence, "", *(f"- {line}" for line in answer.details)]
    if tables is None:
        return "\n".join(lines)
    for keys, part in by_setting(tables):
        arms = records_of(without(part.summary, part.same))
        named = setting_title(tables, keys)
        lines += ["", f"**{named[:1].upper()}{named[1:]}**"] if named else []
        measures = [m for m in MEASURES if not all(math.isnan(arm[m]) for arm in arms)]
        header = ["norm and policy", *(MEASURE_TITLES[m] for m in measures), "rate", "round"]
        lines += ["", f"| {' | '.join(header)} |", "|---|" + "---:|" * (len(header) - 1)]
        for arm in arms:
            cells = [_cell(arm[m], arm[f"{m}_low"], arm[f"{m}_high"]) for m in measures]
            of_each = arm["policy"] == LOCAL
            cells += [f"{arm['learning_rate']:g}", "own" if of_each else f"{arm['round']:.1f}"]
            lines.append(f"| {' | '.join([arm_title(arm['norm'], arm['policy']), *cells])} |")
    lines += [
        "",
        f"{metric_title(tables.metric)} on test rows, means over seeds with {level(CONFIDENCE)} "
        "intervals; rate and round as validation rows chose them.",
        "",
    ]
    return "\n".join(lines)


def _cell(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" + ("" if math.isnan(low) else f" ({low:.3f} to {high:.3f})")
