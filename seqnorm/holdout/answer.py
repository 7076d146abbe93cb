"""The answer in words, made from the tables: never more than the intervals carry."""

from dataclasses import dataclass

import pandas as pd

from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import BASELINE, PRIMARY, Tables, reference_norm

NORM_TITLES = {
    "batch": "BatchNorm",
    "layer": "LayerNorm over channels",
    "layer_seq": "LayerNorm over the sequence",
    "group": "GroupNorm",
    "instance": "InstanceNorm",
    "rms": "RMSNorm",
    "none": "no normalization",
    "gc": "GC content alone",
    "kmers": "5-mers",
    "kmers+motif": "5-mers + motif",
}


def title(norm: str) -> str:
    """Full name of a norm or a baseline.

    Examples
    --------
    >>> title("group:8")
    'GroupNorm (8)'
    """
    name, _, groups = norm.partition(":")
    return NORM_TITLES.get(name, name) + (f" ({groups})" if groups else "")


def percent(value: float, digits: int = 1) -> str:
    """A fraction as a percentage."""
    return f"{100 * value:.{digits}f} %"


@dataclass(frozen=True)
class Answer:
    """The result in words.

    Attributes
    ----------
    sentence : str
        The answer in one sentence.
    details : tuple of str
        What stands behind it, a sentence each.
    """

    sentence: str
    details: tuple[str, ...]


def compose(spec: Spec, tables: Tables) -> Answer:
    """Answer the spec's question for its first model and first kind of training negatives."""
    model, negatives = spec.models[0].name, spec.negatives.kinds[0]
    reference = reference_norm(spec)
    rows = tables.summary.query("model == @model and negatives == @negatives")
    paired = tables.differences.query(
        "model == @model and negatives == @negatives and chrom == @PRIMARY"
    ).set_index(["norm", "metric"])
    rise = _rise(spec, rows[rows["norm"] == reference], reference)
    details = [_line(spec, rows, paired, norm) for norm in spec.norms if norm != reference]
    details += _baseline_lines(spec, tables)
    return Answer(f"{rise} {_verdict(spec, paired, reference)}", tuple(details))


def _rise(spec: Spec, rows: pd.DataFrame, reference: str) -> str:
    """Say whether false alarms exceed the rate that was aimed at."""
    far = rows[rows["metric"] == "false_alarm_rate"].set_index("chrom")
    mean, aim = far.loc[PRIMARY], spec.evaluation.false_alarm_rate
    where = ", ".join(
        f"{percent(far.loc[chrom, 'estimate'])} on {chrom}" for chrom in spec.split.primary
    )
    if mean["low"] > aim:
        say = "Yes, false alarms rise"
    elif mean["high"] < aim:
        say = "No, false alarms fall"
    else:
        say = "No clear change of the false-alarm rate"
    return (
        f"{say}: at the threshold that gives {percent(aim, 0)} on validation, {title(reference)} "
        f"gives {where} (mean {percent(mean['estimate'])}, {_range(spec, mean)})."
    )


def _verdict(spec: Spec, paired: pd.DataFrame, reference: str) -> str:
    """Say what LayerNorm, and whatever else is clear, does to it."""
    norms = [norm for norm in spec.norms if norm != reference]
    if not norms:
        return "No other norm was compared."
    clear: dict[str, list[str]] = {"lower": [], "higher": []}
    for norm in norms:
        row = paired.loc[(norm, "false_alarm_rate")]
        if row["high"] < 0:
            clear["lower"].append(norm)
        elif row["low"] > 0:
            clear["higher"].append(norm)
    layers = [norm for norm in norms if norm in ("layer", "layer_seq")]
    parts = [_effect(spec, paired, norm, reference) for norm in layers]
    for direction, found in clear.items():
        others = [title(norm) for norm in found if norm not in layers]
        if others:
            parts.append(f"{', '.join(others)}: clearly {direction}")
    rest = [n for n in norms if n not in layers and n not in clear["lower"] + clear["higher"]]
    if rest:
        parts.append(f"no clear difference for {', '.join(title(norm) for norm in rest)}")
    return f"Against {title(reference)}: " + "; ".join(parts) + "."


def _effect(spec: Spec, paired: pd.DataFrame, norm: str, reference: str) -> str:
    row = paired.loc[(norm, "false_alarm_rate")]
    size = f"{_points(row)}, {_range(spec, row, points=True)}"
    if row["high"] < 0:
        return f"{title(norm)} lowers it ({size})"
    if row["low"] > 0:
        return f"{title(norm)} raises it ({size})"
    return f"{title(norm)} makes no clear difference ({size})"


def _line(spec: Spec, rows: pd.DataFrame, paired: pd.DataFrame, norm: str) -> str:
    """One norm: false alarms with the recall and AUROC that came along with them."""
    mean = rows.query("norm == @norm and chrom == @PRIMARY").set_index("metric")
    parts = [
        f"{title(norm)}: false alarms {percent(mean.loc['false_alarm_rate', 'estimate'])} "
        f"({_points(paired.loc[(norm, 'false_alarm_rate')])}, "
        f"{_range(spec, paired.loc[(norm, 'false_alarm_rate')], points=True)})"
    ]
    for metric, label in (("recall", "recall"), ("auroc", "AUROC")):
        if (norm, metric) in paired.index:
            row = paired.loc[(norm, metric)]
            if metric == "recall":
                parts.append(f"recall {_points(row)}, {_range(spec, row, points=True)}")
            else:
                parts.append(
                    f"{label} {row['estimate']:+.3f}, {row['low']:+.3f} to {row['high']:+.3f}"
                )
    return "; ".join(parts) + "."


def _baseline_lines(spec: Spec, tables: Tables) -> list[str]:
    kind = spec.negatives.kinds[0]
    rows = tables.summary.query(
        "model == @BASELINE and negatives == @kind and metric == 'false_alarm_rate'"
    )
    lines = []
    for norm, part in rows.groupby("norm", sort=False):
        far = part.set_index("chrom")["estimate"]
        rates = ", ".join(f"{percent(far[chrom])} on {chrom}" for chrom in spec.split.primary)
        lines.append(f"Baseline {title(str(norm))}: false alarms {rates}.")
    return lines


def _points(row: "pd.Series[float]") -> str:
    return f"{100 * row['estimate']:+.1f} points"


def _range(spec: Spec, row: "pd.Series[float]", *, points: bool = False) -> str:
    level = f"{100 * spec.evaluation.confidence:.0f} % interval"
    if points:
        return f"{level} {100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
    return f"{level} {100 * row['low']:.1f} to {100 * row['high']:.1f}"
