"""Names that a reader knows, of norms, baselines and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqnorm.kinds import parse_choice

if TYPE_CHECKING:
    from seqnorm.holdout.spec import Spec
    from seqnorm.holdout.tables import Section

METRIC_TITLES = {
    "false_alarm_rate": "false-alarm rate",
    "recall": "recall",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "auprc_corrected": "AUPRC at the prevalence of validation",
    "gc_auroc": "AUROC at equal GC",
}


def metric_title(metric: str) -> str:
    """Name of a metric in a sentence.

    Examples
    --------
    >>> metric_title("gc_auroc")
    'AUROC at equal GC'
    """
    return METRIC_TITLES[metric]


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
    "optimum": "the best score there is",
    "background": "BackgroundNorm",
}

PLACE_TITLES = {
    "input": "on the input",
    "first": "after the first convolution",
    "head": "before the head",
}

VARIANT_TITLES = {"adapted": "adapted to each chromosome", "again": "other random numbers"}


def title(norm: str) -> str:
    """Full name of a norm or a baseline.

    Examples
    --------
    >>> title("group:8")
    'GroupNorm (8)'
    >>> title("instance@input")
    'InstanceNorm, on the input'
    """
    if norm in NORM_TITLES:
        return NORM_TITLES[norm]
    kind, place, variant = parse_choice(norm)
    name, _, groups = kind.partition(":")
    parts = [NORM_TITLES.get(name, name) + (f" ({groups})" if groups else "")]
    parts += [PLACE_TITLES[place]] if place in PLACE_TITLES else []
    return ", ".join(parts + ([VARIANT_TITLES[variant]] if variant else []))


MODEL_TITLES = {"cnn": "CNN", "residual": "residual CNN", "transformer": "Transformer"}

NEGATIVES_TITLES = {
    "random": "random",
    "gc_matched": "GC-matched",
    "flank": "flanking",
    "shuffled": "shuffled",
}


def model_title(model: str) -> str:
    """Name of a model."""
    return MODEL_TITLES.get(model, model)


def level_title(factor: str, level: str) -> str:
    """What stands for a level of a factor in a sentence.

    Examples
    --------
    >>> level_title("negatives", "gc_matched"), level_title("model", "cnn")
    ('GC-matched training negatives', 'the CNN')
    """
    if factor == "negatives":
        return f"{NEGATIVES_TITLES.get(level, level)} training negatives"
    return f"the {model_title(level)}"


def section_title(spec: Spec, section: Section) -> str:
    """Name of what is shown together; the task has a place in it where there are several."""
    task = f"{section.task}: " if len(spec.tasks) > 1 else ""
    negatives = NEGATIVES_TITLES.get(section.negatives, section.negatives)
    return f"{task}{model_title(section.model)}, trained with {negatives} negatives"
