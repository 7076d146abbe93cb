"""The result as a short piece of Markdown, for a change log or a model's README."""

from seqnorm.holdout.answer import Answer, percent
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import PRIMARY, Estimate, Tables, estimates, narrowed, sections
from seqnorm.holdout.titles import title

METRICS = {"false_alarm_rate": "false alarms", "recall": "recall", "auroc": "AUROC"}


def summarize(spec: Spec, tables: Tables, answer: Answer, seconds: float, workers: int) -> str:
    """Answer, details and one table of the first task, model and kind of negatives.

    Parameters
    ----------
    spec, tables, answer
        The experiment, its tables, and the answer made from them.
    seconds
        How long the run took.
    workers
        How many trials ran at a time.
    """
    chroms = [chrom for chrom in spec.split.test if chrom not in spec.split.primary]
    columns = [("false_alarm_rate", chrom) for chrom in [*chroms, *spec.split.primary]]
    columns += [("recall", PRIMARY)]
    columns += [("auroc", chrom) for chrom in [*spec.split.primary, PRIMARY]]
    header = [f"{METRICS[m]} {'mean' if c == PRIMARY else c}" for m, c in columns]
    lines = [
        answer.sentence,
        "",
        *(f"- {line}" for line in answer.details),
        "",
        f"| {' | '.join(['norm', *header])} |",
        "|---|" + "---:|" * len(header),
    ]
    rows = narrowed(tables, sections(spec)[0]).summary
    for norm, part in rows.groupby("norm", sort=False):
        values = estimates(part, "metric", "chrom")
        cells = [_cell(values.get((m, c)), m) for m, c in columns]
        lines.append(f"| {' | '.join([title(str(norm)), *cells])} |")
    lines += [
        "",
        f"{len(spec.training.seeds)} seeds, {len(tables.tuning)} trained networks, "
        f"{seconds:.0f} s with {workers} workers of {spec.training.threads} thread each. "
        f"Means over seeds; 'mean' is over {', '.join(spec.split.primary)}.",
        "",
    ]
    return "\n".join(lines)


def _cell(found: Estimate | None, metric: str) -> str:
    """An estimate; a dash where few positives leave a chromosome, and the mean, without one."""
    if found is None:
        return "–"
    return f"{found.estimate:.3f}" if metric == "auroc" else percent(found.estimate)
