"""A card in words: what the figures say, and no more than their intervals carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from seqnorm.robustness.card import ALL, SLOPE, Card

FEW_BLOCKS = 10
"""Below this many blocks, an interval is too narrow."""

TITLES = {
    "false_alarm_rate": "false-alarm rate, %",
    "threshold_shift": "threshold shift, points",
    "ranking_shift": "ranking shift, points",
    "recall": "recall, %",
    "recall_at_own_threshold": "recall at own threshold, %",
    "auroc": "AUROC",
    "auroc_of_gc_alone": "AUROC of GC alone",
    "skill_above_gc": "skill above GC",
    "auroc_at_equal_gc": "AUROC at equal GC",
    "calibration_gap": "calibration gap",
    "calibration_error": "calibration error",
}
"""Metrics of a card, in order, as they are shown."""

PERCENT = (
    "false_alarm_rate",
    "threshold_shift",
    "ranking_shift",
    "recall",
    "recall_at_own_threshold",
)
SIGNED = ("threshold_shift", "ranking_shift", "skill_above_gc", "calibration_gap")


class Figure(NamedTuple):
    """A figure with its interval."""

    estimate: float
    low: float
    high: float


def figures(card: Card) -> dict[tuple[str, str], Figure]:
    """Figures by chromosome and metric.

    Examples
    --------
    >>> from seqnorm.robustness.words import Figure
    >>> Figure(0.9, 0.8, 1.0).low
    0.8
    """
    columns = ["chrom", "metric", "estimate", "low", "high"]
    return {
        (str(row[0]), str(row[1])): Figure(*map(float, row[2:]))
        for row in card.chromosomes[columns].itertuples(index=False, name=None)
    }


def shown(metric: str, value: float) -> str:
    """Write a figure as its metric is written.

    Examples
    --------
    >>> shown("recall", 0.25), shown("ranking_shift", -0.031), shown("auroc", float("nan"))
    ('25.0', '-3.1', '–')
    """
    if value != value:
        return "–"
    sign = "+" if metric in SIGNED else ""
    return format(100 * value, f"{sign}.1f") if metric in PERCENT else format(value, f"{sign}.3f")


def sentences(card: Card) -> list[str]:
    """Say what the card found."""
    return [_threshold(card), *_by_gc(card), *_by_chromosome(card), *_shifts(card), *_skill(card)]


def cautions(card: Card) -> list[str]:
    """Say what makes the figures less sure than their intervals."""
    told = []
    few = card.windows.loc[card.windows["blocks"] < FEW_BLOCKS, "chrom"].tolist()
    if few:
        told.append(
            f"Fewer than {FEW_BLOCKS} blocks of {card.block:,} bases on {', '.join(few)}: "
            "intervals there are too narrow."
        )
    if card.threshold.chosen and card.threshold.blocks < FEW_BLOCKS:
        told.append(f"The threshold rests on {card.threshold.blocks} blocks.")
    if not card.threshold.apart and card.threshold.chosen:
        told.append(
            "The threshold was set on the audited windows themselves: their overall false-alarm "
            "rate is what was aimed at, and only differences between windows tell something."
        )
    return told


def markdown(card: Card) -> str:
    """Give the card as a section of a model's README."""
    found = figures(card)
    metrics = [m for m in TITLES if any(key[1] == m for key in found)]
    brief = [
        m for m in ("false_alarm_rate", "auroc", "auroc_of_gc_alone", "auroc_at_equal_gc")
        if m in metrics
    ]  # fmt: skip
    lines = [
        f"## GC robustness of {_plain(card.name)}",
        "",
        *(f"- {_plain(line)}" for line in [*sentences(card), *cautions(card)]),
        "",
        "| chromosome | " + " | ".join(TITLES[m] for m in brief) + " |",
        "|---|" + "---|" * len(brief),
    ]
    for chrom in card.windows["chrom"]:
        cells = [_cell(found, str(chrom), metric) for metric in brief]
        lines.append(f"| {_plain(str(chrom))} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"In brackets {100 * card.confidence:g} % intervals from {card.resamples} resamples of "
        f"{card.block:,}-base blocks.",
    ]
    return "\n".join(lines) + "\n"


def _cell(found: Mapping[tuple[str, str], Figure], chrom: str, metric: str) -> str:
    if (chrom, metric) not in found:
        return "–"
    figure = found[chrom, metric]
    low, high = shown(metric, figure.low), shown(metric, figure.high)
    return f"{shown(metric, figure.estimate)} [{low}, {high}]"


def _plain(text: str) -> str:
    """Keep a name from being read as markdown or HTML."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")
    for sign in "\\`*_[]|#":
        escaped = escaped.replace(sign, "\\" + sign)
    return escaped


def _rate(figure: Figure) -> str:
    low, high = 100 * figure.low, 100 * figure.high
    return f"{100 * figure.estimate:.1f} % [{low:.1f}, {high:.1f}]"


def _threshold(card: Card) -> str:
    where = card.threshold
    if not where.chosen:
        return f"A window is called above a score of {where.value:.4g}, which was given."
    return (
        f"A window is called above a score of {where.value:.4g}, which at most "
        f"{100 * where.aim:g} % of {where.negatives:,} negatives of "
        f"{', '.join(where.chromosomes)} exceed."
    )


def _by_gc(card: Card) -> list[str]:
    rows = {row["decile"]: row for row in card.deciles.to_dict("records")}
    parts = [row for name, row in rows.items() if str(name).isdigit()]
    if len(parts) < 2:
        return []
    every, change = _figure(rows[ALL]), _figure(rows[SLOPE])
    verdict = "no difference beyond chance"
    if change.low > 0:
        verdict = "false alarms rise with GC"
    elif change.high < 0:
        verdict = "false alarms fall with GC"
    poor, rich = parts[0], parts[-1]
    return [
        f"False alarms: {_rate(every)} of all negatives, {_rate(_figure(poor))} of the GC-poorest "
        f"tenth (median {poor['gc_median']:.2f}), {_rate(_figure(rich))} of the GC-richest (median "
        f"{rich['gc_median']:.2f}); difference {100 * change.estimate:+.1f} points "
        f"[{100 * change.low:+.1f}, {100 * change.high:+.1f}]: {verdict}."
    ]


def _figure(row: Mapping[Any, Any]) -> Figure:
    return Figure(row["estimate"], row["low"], row["high"])


def _by_chromosome(card: Card) -> list[str]:
    rates = {c: f for (c, m), f in figures(card).items() if m == "false_alarm_rate"}
    if len(rates) < 2:
        return []
    least, most = (pick(rates, key=lambda c: rates[c].estimate) for pick in (min, max))
    return [f"By chromosome from {_rate(rates[least])} ({least}) to {_rate(rates[most])} ({most})."]


_SHIFTS = (
    (
        "threshold_shift",
        "Threshold shift (a threshold of its own would cure it)",
        "more false alarms than aimed at",
        "fewer than aimed at",
    ),
    (
        "ranking_shift",
        "Ranking shift (recall at equal false alarms, which no threshold cures)",
        "better than where the threshold was set",
        "worse",
    ),
)


def _shifts(card: Card) -> list[str]:
    found = figures(card)
    told = []
    for metric, name, up, down in _SHIFTS:
        mine = {c: f for (c, m), f in found.items() if m == metric}
        sides = (
            (up, [c for c, f in mine.items() if f.low > 0]),
            (down, [c for c, f in mine.items() if f.high < 0]),
        )
        texts = [f"{text} on {', '.join(chroms)}" for text, chroms in sides if chroms]
        if texts:
            told.append(f"{name}: {'; '.join(texts)}.")
    return told


def _skill(card: Card) -> list[str]:
    mine = {c: f for (c, m), f in figures(card).items() if m == "skill_above_gc"}
    if not mine:
        return []
    none = [c for c, f in mine.items() if f.low <= 0]
    if none:
        return [f"Not surely better than GC content alone on {', '.join(none)}."]
    return ["Better than GC content alone on every chromosome with enough windows to tell."]
