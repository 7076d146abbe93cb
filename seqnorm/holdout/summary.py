"""The result as a short piece of Markdown, for a change log or a model's README."""

from seqnorm.holdout.answer import Answer
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import PRIMARY, Estimate, Tables, estimates, narrowed, sections
from seqnorm.holdout.titles import section_title, title
from seqnorm.holdout.words import percent

METRICS = {"false_alarm_rate": "false alarms", "recall": "recall", "auroc": "AUROC"}
MANY = 8
"""Above so many test chromosomes, the table holds the primary mean alone."""


def summarize(spec: Spec, tables: Tables, answer: Answer, seconds: float, workers: int) -> str:
    """Answer, details and a table of each task, model and kind of negatives.

    Parameters
    ----------
    spec, tables, answer
        The experiment, its tables, and the answer made from them.
    seconds
        How long the run took.
    workers
        How many trials ran at a time.
    """
    lines = [answer.sentence, "", *(f"- {line}" for line in (*answer.details, *answer.others)), ""]
    every = sections(spec)
    for section in every:
        heading = [f"**{_text(section_title(spec, section))}**", ""] if len(every) > 1 else []
        lines += [*heading, *_table(spec, narrowed(tables, section)), ""]
    seeds, trained = len(spec.training.seeds), len(tables.tuning)
    several = "s" if workers != 1 else ""
    lines += [
        f"{seeds} seed{'s' * (seeds != 1)}, {trained} trained networks, {seconds:.0f} s with "
        f"{workers} worker{several} of {spec.training.threads} thread each. Means over seeds; "
        f"'mean' is over {_text(', '.join(spec.split.primary))}.",
        "",
    ]
    return "\n".join(lines)


def _table(spec: Spec, tables: Tables) -> list[str]:
    primary = list(spec.split.primary) if len(spec.split.test) <= MANY else []
    others = [chrom for chrom in spec.split.test if chrom not in spec.split.primary]
    columns = [("false_alarm_rate", chrom) for chrom in [*others, *primary] if primary]
    columns += [] if primary else [("false_alarm_rate", PRIMARY)]
    columns += [("recall", PRIMARY)]
    columns += [("auroc", chrom) for chrom in [*primary, PRIMARY]]
    header = [f"{METRICS[m]} {'mean' if c == PRIMARY else _text(c)}" for m, c in columns]
    lines = [f"| {' | '.join(['norm', *header])} |", "|---|" + "---:|" * len(header)]
    for norm, part in tables.summary.groupby("norm", sort=False):
        values = estimates(part, "metric", "chrom")
        cells = [_cell(values.get((m, c)), m) for m, c in columns]
        lines.append(f"| {' | '.join([title(str(norm)), *cells])} |")
    return lines


def _text(name: str) -> str:
    """A name that stays in its cell of a table."""
    return name.replace("|", "\\|").replace("\n", " ")


def _cell(found: Estimate | None, metric: str) -> str:
    """An estimate; a dash where few positives leave a chromosome, and the mean, without one."""
    if found is None:
        return "–"
    return f"{found.estimate:.3f}" if metric == "auroc" else percent(found.estimate)
