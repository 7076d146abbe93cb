"""The report: one self-contained HTML file, drawn from the tables of a run alone."""

import base64
import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from data_tools.atomic import write_atomic
from data_tools.errors import InputError
from seqnorm.holdout import plots
from seqnorm.holdout.answer import FEW_BLOCKS, compose, level, signed
from seqnorm.holdout.load import load_spec
from seqnorm.holdout.run import read_tables
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.summary import summarize
from seqnorm.holdout.tables import (
    PRIMARY,
    Section,
    Tables,
    estimates,
    narrowed,
    only,
    reference_norm,
    sections,
)
from seqnorm.holdout.titles import title
from seqnorm.holdout.windows import VALIDATION
from seqnorm.plot_style import svg
from seqnorm.runs.page import page_environment

METRIC_TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "false_alarm_rate": "False-alarm rate",
    "recall": "Recall",
    "gc_auroc": "AUROC at equal GC",
    "auprc_corrected": "AUPRC at the prevalence of validation",
}


def write_report(folder: Path) -> str:
    """Write ``report.html`` and ``summary.md`` into a run folder.

    Returns
    -------
    str
        The answer in plain words, for the terminal.

    Raises
    ------
    InputError
        When the folder holds no finished run.
    """
    try:
        record = json.loads((folder / "run.json").read_text())
        spec = load_spec(folder / "spec.toml", runnable=False)
        tables = read_tables(folder)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder}: no finished run here ({Path(str(error.filename)).name} is missing); "
            "run `seqnorm holdout SPEC.toml` first, with --resume if it was stopped"
        ) from error
    answer = compose(spec, tables)
    seconds = sum(session.get("seconds", 0) for session in record["sessions"])
    environment = page_environment("seqnorm.holdout")
    page = environment.get_template("report.html").render(
        spec=spec,
        record=record,
        session=record["sessions"][-1],
        answer=answer,
        chromosomes=tables.chromosomes.to_dict("records"),
        hypotheses=tables.hypotheses.to_dict("records"),
        sections=[_section(spec, narrowed(tables, section), section) for section in sections(spec)],
        spec_text=(folder / "spec.toml").read_text(),
        few_blocks=FEW_BLOCKS,
        level=level,
        signed=signed,
        title=title,
        reference=reference_norm(spec),
        seconds=seconds,
    )
    workers = record["sessions"][-1]["workers"]
    try:
        write_atomic(folder / "report.html", page)
        write_atomic(folder / "summary.md", summarize(spec, tables, answer, seconds, workers))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return "\n".join([answer.sentence, *(f"- {line}" for line in answer.details)])


def _picture(figure: Figure, text: str) -> dict[str, str]:
    raw = base64.b64encode(svg(figure).encode()).decode()
    return {"source": f"data:image/svg+xml;base64,{raw}", "text": text}


def _section(spec: Spec, tables: Tables, section: Section) -> dict[str, Any]:
    """Tables and plots of one task, model and kind of training negatives."""
    drawn = (spec, tables)
    return {
        "task": section.task if len(spec.tasks) > 1 else "",
        "model": section.model,
        "negatives": section.negatives.replace("_", "-"),
        "metrics": [
            {"title": METRIC_TITLES[metric], "percent": metric in ("false_alarm_rate", "recall")}
            | _pivot(spec, tables, metric)
            for metric in METRIC_TITLES
        ],
        "points": _points(spec, tables),
        "differences": _differences(spec, tables),
        "tuning": _tuning(spec, tables),
        "gc_plot": _picture(
            plots.gc_plot(*drawn), "False-alarm rate by GC decile, one line for each norm"
        ),
        "alarm_plot": _picture(
            plots.chromosome_plot(*drawn, "false_alarm_rate"),
            "False-alarm rate of each test chromosome, with intervals",
        ),
        "auroc_plot": _picture(
            plots.chromosome_plot(*drawn, "auroc"), "AUROC of each test chromosome, with intervals"
        ),
        "difference_plot": _picture(
            plots.difference_plot(*drawn), "Difference of each norm to the reference"
        ),
        "curve_plot": _picture(plots.curve_plot(*drawn), "Validation score by epoch"),
        "rate_plot": _picture(plots.rate_plot(*drawn), "Validation score by learning rate"),
    }


def _pivot(spec: Spec, tables: Tables, metric: str) -> dict[str, Any]:
    """Norms down, chromosomes across, an estimate with its interval in each cell."""
    rows = only(tables.summary, metric=metric)
    chroms = [
        chrom for chrom in [VALIDATION, *spec.split.test, PRIMARY] if (rows["chrom"] == chrom).any()
    ]
    cells = estimates(rows, "norm", "chrom")
    names = dict.fromkeys(norm for norm, _ in cells)
    prevalence = tables.chromosomes.set_index("chrom")["prevalence"]
    prevalence[PRIMARY] = prevalence[list(spec.split.primary)].mean()
    return {
        "chroms": chroms,
        "prevalence": [prevalence[chrom] for chrom in chroms] if metric == "auprc" else None,
        "rows": [(title(n), [cells.get((n, chrom)) for chrom in chroms]) for n in names],
    }


def _points(spec: Spec, tables: Tables) -> list[dict[str, Any]]:
    """Metrics without intervals, as means over the seeds."""
    rows = tables.trials
    means = rows.groupby(["norm", "chrom"], sort=False)[
        ["gc_correlation", "calibration_error"]
    ].mean()
    return [
        {
            "norm": title(str(norm)),
            "gc": [float(means.loc[(norm, chrom), "gc_correlation"]) for chrom in spec.split.test],
            "ece": [
                float(means.loc[(norm, chrom), "calibration_error"]) for chrom in spec.split.test
            ],
        }
        for norm in dict.fromkeys(rows["norm"])
    ]


def _differences(spec: Spec, tables: Tables) -> list[dict[str, Any]]:
    rows = only(tables.differences, chrom=PRIMARY)
    found = estimates(rows, "norm", "metric")
    return [
        {"norm": title(norm)} | {metric: found.get((norm, metric)) for metric in METRIC_TITLES}
        for norm in dict.fromkeys(norm for norm, _ in found)
    ]


def _tuning(spec: Spec, tables: Tables) -> list[dict[str, Any]]:
    rows = tables.tuning
    table = []
    for norm in dict.fromkeys(rows["norm"]):
        part = rows[rows["norm"] == norm]
        kept = part[part["chosen"]]
        table.append(
            {
                "norm": title(str(norm)),
                "rates": sorted({float(rate) for rate in kept["learning_rate"]}),
                "tried": sorted({float(rate) for rate in part["learning_rate"]}),
                "scores": [float(score) for score in kept["validation_score"]],
                "diverged": int(part["diverged"].sum()),
            }
        )
    return table
