"""The report: one self-contained HTML file, drawn from the tables of a run alone.

Only the motifs of the first layer need more: the weights, where they are still there.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from data_tools.atomic import write_atomic
from data_tools.errors import InputError
from data_tools.motif_matches import SHUFFLES
from seqnorm.holdout import plots
from seqnorm.holdout.answer import FEW_BLOCKS, Answer, compose
from seqnorm.holdout.figures import Gallery, as_csv
from seqnorm.holdout.filter_matches import FILE as FILTERS
from seqnorm.holdout.filter_matches import matches_view
from seqnorm.holdout.filters import find_filters
from seqnorm.holdout.load import load_spec
from seqnorm.holdout.methods import methods
from seqnorm.holdout.run import read_tables
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.summary import summarize
from seqnorm.holdout.tables import PRIMARY_METRIC, Tables, narrowed, reference_norm, sections
from seqnorm.holdout.titles import metric_title, title
from seqnorm.holdout.verdicts import POINTS
from seqnorm.holdout.views import factors_view, overview, section_view, slug
from seqnorm.holdout.words import level, p_value, paired, signed, sized
from seqnorm.runs.page import page_environment


def write_report(folder: Path) -> str:
    """Write ``report.html``, ``summary.md`` and ``figures/`` into a run folder.

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
        spec_text = (folder / "spec.toml").read_text()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"{folder}: no finished run here ({Path(str(error.filename)).name} is missing); "
            "run `seqnorm holdout SPEC.toml` first, with --resume if it was stopped"
        ) from error
    answer = compose(spec, tables)
    seconds = sum(session.get("seconds", 0) for session in record["sessions"])
    workers = record["sessions"][-1]["workers"]
    try:
        shown = _sections(spec, tables, folder)
        page = _page(spec, tables, record, answer, shown | {"seconds": seconds, "text": spec_text})
        write_atomic(folder / "report.html", page)
        write_atomic(folder / "summary.md", summarize(spec, tables, answer, seconds, workers))
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    lines = [answer.sentence, *(f"- {line}" for line in (*answer.details, *answer.others))]
    return "\n".join(lines)


def _sections(spec: Spec, tables: Tables, folder: Path) -> dict[str, Any]:
    """What the sections show, the figures written on the way; filters of the first alone."""
    gallery = Gallery(folder)
    every = sections(spec)
    views = [section_view(spec, narrowed(tables, part), part, gallery) for part in every]
    found = find_filters(spec, folder, narrowed(tables, every[0]), every[0])
    logos = [gallery.add(plot, slug(spec, every[0])) for plot in plots.filter_logos(found)]
    matches = []
    if found.matches is None:
        (folder / FILTERS).unlink(missing_ok=True)  # of an earlier report
    else:
        write_atomic(folder / FILTERS, as_csv(found.matches))
        matches = matches_view(found.matches, spec.evaluation.confidence)
    return {
        "sections": views,
        "logos": logos,
        "compared": found.motif is not None,
        "matches": matches,
        "motifs_file": Path(spec.evaluation.motifs or "").name,
        "filters_file": FILTERS,
        "shuffles": SHUFFLES,
        "no_filters": found.skipped,
        "overview": overview(spec, tables) if len(every) > 1 else [],
        "factors": factors_view(tables),
    }


def _page(
    spec: Spec, tables: Tables, record: dict[str, Any], answer: Answer, shown: dict[str, Any]
) -> str:
    environment = page_environment("seqnorm.holdout")
    environment.globals |= {
        "level": level,
        "paired": paired,
        "signed": signed,
        "p_value": p_value,
        "title": title,
        "metric_title": metric_title,
        "in_points": POINTS,
        "sized": sized,
        "margin": sized(PRIMARY_METRIC, spec.evaluation.margin),
        "reference": reference_norm(spec),
        "spec": spec,
    }
    environment.filters["unbroken"] = lambda text: str(text).replace(" %", "\u00a0%")
    script = environment.get_template("sort.js").render()
    return environment.get_template("report.html").render(
        record=record,
        session=record["sessions"][-1],
        answer=answer,
        chromosomes=tables.chromosomes.to_dict("records"),
        hypotheses=tables.hypotheses.to_dict("records"),
        methods=methods(spec, record),
        few_blocks=FEW_BLOCKS,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **shown,
    )
