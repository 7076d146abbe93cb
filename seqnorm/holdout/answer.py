"""The answer in words, made from the tables: never more than the intervals carry."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from seqnorm.holdout.design import task_of
from seqnorm.holdout.findings import findings
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import (
    PRIMARY,
    PRIMARY_METRIC,
    Estimate,
    Section,
    Tables,
    adjusted,
    estimates,
    narrowed,
    norms_in,
    only,
    reference_norm,
    sections,
)
from seqnorm.holdout.titles import section_title, title
from seqnorm.holdout.trial import BASELINE
from seqnorm.holdout.windows import VALIDATION
from seqnorm.holdout.words import (
    adjusted_for,
    level,
    percent,
    points,
    ranged,
    sized,
    thousandths,
)
from seqnorm.kinds import parse_choice

Figures = Mapping[tuple[str, ...], Estimate]

FEW_BLOCKS = 10
"""Below this many blocks, an interval is too narrow."""
MANY = 6
"""Above so many chromosomes, a sentence names the extremes alone."""


@dataclass(frozen=True)
class Answer:
    """The result in words.

    Attributes
    ----------
    sentence : str
        The answer in one sentence.
    details : tuple of str
        What stands behind it, a sentence each.
    others : tuple of str
        The same sentence of every other task, model and kind of training negatives.
    """

    sentence: str
    details: tuple[str, ...]
    others: tuple[str, ...] = ()


def compose(spec: Spec, tables: Tables) -> Answer:
    """Answer the spec's question for its first task, model and kind of training negatives."""
    first, *further = sections(spec)
    whole, tables = tables, narrowed(tables, first)
    networks = tables.summary[tables.summary["model"] != BASELINE]
    paired = estimates(only(tables.differences, chrom=PRIMARY), "norm", "metric")
    details = [str(sentence) for sentence in whole.hypotheses["sentence"]]
    compared = [norm for norm in norms_in(spec, tables) if (norm, PRIMARY_METRIC) in paired]
    details += [_line(spec, networks, paired, norm, len(compared) > 1) for norm in compared]
    details += _baseline_lines(spec, tables)
    details += findings(spec, whole)
    details += _caveats(spec, tables)
    others = [
        f"{section_title(spec, section)}: {found}"
        for section in further
        if (found := sentence_of(spec, narrowed(whole, section), section))
    ]
    return Answer(sentence_of(spec, tables, first), tuple(details), tuple(others))


def sentence_of(spec: Spec, tables: Tables, section: Section) -> str:
    """The answer of one section, from its tables; a control is no answer, and has none."""
    if task_of(spec, section.task).control and section != sections(spec)[0]:
        return ""
    networks = tables.summary[tables.summary["model"] != BASELINE]
    primary = only(tables.differences, chrom=PRIMARY, metric=PRIMARY_METRIC)
    norms, reference = norms_in(spec, tables), reference_norm(spec)
    if reference not in norms:
        return f"{title(reference)} takes no part here, so nothing is compared."
    rise = _rise(spec, networks[networks["norm"] == reference], reference)
    return f"{rise}; {_verdict(spec, norms, primary, reference)}."


def _rise(spec: Spec, rows: pd.DataFrame, reference: str) -> str:
    """Say whether false alarms exceed the rate that was aimed at."""
    far = estimates(only(rows, metric="false_alarm_rate"), "chrom")
    mean, aim = far[PRIMARY,], spec.evaluation.false_alarm_rate
    if mean.low > aim:
        say = "Yes, false alarms rise"
    elif mean.high < aim:
        say = "No, false alarms fall"
    else:
        say = "No clear change of the false-alarm rate"
    return (
        f"{say}: at the threshold that gives {level(aim)} on validation, {title(reference)} "
        f"gives {_rates(spec, far)} (mean {percent(mean.estimate)}, {_between(spec, mean)})"
    )


def _verdict(spec: Spec, every: list[str], primary: pd.DataFrame, reference: str) -> str:
    """Say which norms change the false-alarm rate, and always what the LayerNorms do."""
    there = {norm for norm in primary["norm"] if parse_choice(str(norm)).variant != "again"}
    norms = [norm for norm in every if norm in there]
    if not norms:
        return "no other norm was compared"
    rows = {norm: found for (norm,), found in adjusted(primary, "norm").items()}
    compared = {norm: rows[norm] for norm in norms}
    lower = [norm for norm in norms if rows[norm].high < 0]
    higher = [norm for norm in norms if rows[norm].low > 0]
    parts = [
        f"{', '.join(_effect(spec, rows[norm], norm) for norm in found)} "
        f"{verb}{'s' if len(found) == 1 else ''} it"
        for found, verb in ((lower, "lower"), (higher, "raise"))
        if found
    ]
    same = [norm for norm in norms if norm not in lower + higher]
    if same:
        named = [norm for norm in same if norm.startswith("layer")] or same
        who = "no norm changes it clearly" if same == norms else "no other norm changes it clearly"
        parts.append(f"{who} ({', '.join(_effect(spec, rows[n], n, bare=True) for n in named)})")
    said = "; ".join(parts) + adjusted_for(len(norms))
    return f"against {title(reference)}, {said}{_equivalent(spec, compared)}"


def _equivalent(spec: Spec, rows: Mapping[str, Estimate]) -> str:
    """Say which norms are surely no different: two one-sided tests, by the adjusted intervals."""
    most = spec.evaluation.margin
    found = [title(norm) for norm, row in rows.items() if max(-row.low, row.high) < most]
    if not found:
        return ""
    return f"; equivalent within {sized(PRIMARY_METRIC, most)}: {', '.join(found)}"


def _effect(spec: Spec, row: Estimate, norm: str, *, bare: bool = False) -> str:
    size = f"{points(row)}, {ranged(spec, row)}"
    return f"{title(norm)} {size}" if bare else f"{title(norm)} ({size})"


def _line(spec: Spec, rows: pd.DataFrame, paired: Figures, norm: str, several: bool) -> str:
    """One norm: false alarms with the recall and AUROC that came along with them."""
    mean = estimates(only(rows, norm=norm, chrom=PRIMARY), "metric")
    parts = [
        f"{title(norm)}: false alarms {percent(mean['false_alarm_rate',].estimate)} "
        f"({points(paired[norm, 'false_alarm_rate'])}, "
        f"{ranged(spec, paired[norm, 'false_alarm_rate'])})"
    ]
    if recall := paired.get((norm, "recall")):
        parts.append(f"recall {points(recall)}, {ranged(spec, recall)}")
    if auroc := paired.get((norm, "auroc")):
        parts.append(f"AUROC {thousandths(auroc)}")
    remark = " (intervals not adjusted)" if several else ""
    return f"{'; '.join(parts)}{remark}."


def _baseline_lines(spec: Spec, tables: Tables) -> list[str]:
    rows = only(tables.summary, model=BASELINE, metric="false_alarm_rate")
    lines = []
    for norm, part in rows.groupby("norm", sort=False):
        rates = _rates(spec, estimates(part, "chrom"))
        lines.append(f"Baseline {title(str(norm))}: false alarms {rates}.")
    return lines


def _caveats(spec: Spec, tables: Tables) -> list[str]:
    """Say what the intervals of the answer leave out."""
    lines = []
    parts = only(tables.chromosomes, chrom=[VALIDATION, *spec.split.primary])
    few = parts[parts["blocks"] < FEW_BLOCKS]
    by_chromosome = spec.evaluation.unit == "chromosome"
    if by_chromosome:
        lines.append(
            f"Caution: the error of a mean is that between {len(spec.split.primary)} chromosomes; "
            "their models share most of what they learnt from, which it does not hold."
        )
    elif len(few):
        named = [f"{n} {chrom}" for chrom, n in zip(few["chrom"], few["blocks"], strict=True)]
        if len(named) > MANY:
            named = [*named[:MANY], f"{len(named) - MANY} more parts"]
        lines.append(
            f"Caution: fewer than {FEW_BLOCKS} blocks to draw from ({', '.join(named)}), so the "
            "intervals are wide and hold only roughly."
        )
    if len(spec.training.seeds) == 1 and not by_chromosome:
        lines.append("Caution: one seed, so the intervals hold no spread between seeds.")
    kept = only(tables.tuning, chosen=True, diverged=True)
    for norm, part in kept.groupby("norm", sort=False):
        lines.append(
            f"Caution: {title(str(norm))} diverged with {len(part)} of "
            f"{len(spec.training.seeds)} seeds; what it had learnt until then was measured."
        )
    return lines


def _rates(spec: Spec, far: Figures) -> str:
    """False-alarm rate of each primary chromosome, or of the extremes of many."""
    rates = {chrom: far[chrom,].estimate for chrom in spec.split.primary}
    if len(rates) <= MANY:
        return ", ".join(f"{percent(rate)} on {chrom}" for chrom, rate in rates.items())
    low, high = min(rates, key=lambda c: rates[c]), max(rates, key=lambda c: rates[c])
    return (
        f"{percent(rates[low])} ({low}) to {percent(rates[high])} ({high}) on {len(rates)} "
        "chromosomes"
    )


def _between(spec: Spec, row: Estimate) -> str:
    """The interval of a rate."""
    ends = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
    return f"{level(spec.evaluation.confidence)} interval {ends}"
