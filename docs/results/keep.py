"""Keep what a finished study found, beside the command that finds it again.

It copies the tables, the report and the chief figures of a run folder to a folder of its name here,
and writes README.md there from them: the question, the answer, the verdicts, and how it was run.
No figure is typed. From the repository root::

    python docs/results/keep.py runs/gc_dose_response
    python docs/results/keep.py runs/dhs_loco --override table.file=PATH/dhs_tf.tsv.gz
"""

import argparse
import json
import re
import shutil
from pathlib import Path
from typing import Any

from data_tools.atomic import write_atomic
from seqnorm.holdout.load import load_spec
from seqnorm.holdout.run import read_tables
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import sections
from seqnorm.holdout.views import slug

HERE = Path(__file__).parent
LEFT_OUT = ("windows.csv", "curves.csv")
"""Tables that the run makes anew and few would read: every window, every epoch."""
FIGURES = ("differences", "false_alarms_by_gc", "dose_response")
"""Of the first task, model and kind of negatives."""
BUILT_IN = (
    "The spec has none of its own: this is the one that stands for every spec that compares "
    "LayerNorm with BatchNorm."
)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--override", nargs="*", default=[], help="as the run was given")
    options = parser.parse_args()
    run: Path = options.run
    record = json.loads((run / "run.json").read_text())
    if record["status"] != "complete":
        parser.exit(2, f"{run}: this run is {record['status']}; finish it first\n")
    spec = load_spec(run / "spec.toml", runnable=False)
    folder = HERE / record["name"]
    folder.mkdir(exist_ok=True)
    for table in sorted(run.glob("*.csv")):
        if table.name not in LEFT_OUT:
            shutil.copy(table, folder)
    shutil.copy(run / "run.json", folder)
    # Where the files lay on the machine is nobody's business.
    report = (run / "report.html").read_text()
    for file in spec.files.values():
        report = report.replace(file, Path(file).name)
    # The figures stand in the page; as files they are what a run of one's own has.
    report = re.sub(r'\s*<a href="figures/[^>]*>(SVG|data \(CSV\))</a>,?', "", report)
    write_atomic(folder / "report.html", report)
    first = slug(spec, sections(spec)[0])
    found = [run / "figures" / f"{first}-{figure}.svg" for figure in FIGURES]
    shown = [figure for figure in found if figure.exists()]
    for figure in shown:
        shutil.copy(figure, folder)
    command = f"seqnorm holdout examples/{record['name']}.toml"
    if options.override:
        command += f" --override {' '.join(options.override)}"
    write_atomic(folder / "README.md", page(spec, run, record, command, shown))


def page(spec: Spec, run: Path, record: dict[str, Any], command: str, shown: list[Path]) -> str:
    """README.md of a study."""
    sessions = record["sessions"]
    last = sessions[-1]
    tables = read_tables(run)
    trials = tables.tuning
    hours = sum(session.get("seconds", 0.0) for session in sessions) / 3600
    libraries = ", ".join(f"{name} {version}" for name, version in last["libraries"].items())
    machine = ", ".join(last[key] for key in ("platform", "instructions") if key in last)
    claims = [
        f"- **{row.name_}: {row.verdict}.** {row.claim} {row.sentence}"
        for row in tables.hypotheses.rename(columns={"name": "name_"}).itertuples()
    ]
    figures = [f"![{figure.stem}]({figure.name})" for figure in shown]
    parts = [
        f"# {record['name']}",
        spec.question,
        f"```sh\n{command}\n```",
        "## Conclusion",
        (run / "summary.md").read_text().strip(),
        "## Hypotheses, stated before the run" if claims else "",
        "" if spec.hypotheses or not claims else BUILT_IN,
        "\n".join(claims),
        "\n\n".join(figures),
        "## How it was run",
        f"{len(trials)} trained networks, {int(trials['epochs'].sum()):,} epochs, seeds "
        f"{', '.join(map(str, spec.training.seeds))}; {hours:.2f} hours with {last['workers']} "
        f"workers of {last['threads_per_worker']} thread on {last['cores']} cores "
        f"({machine}), begun {sessions[0]['started'][:10]}, in "
        f"{len(sessions)} session{'s' * (len(sessions) > 1)}. seqnorm {last['seqnorm']}, Python "
        f"{last['python']}, {libraries}. [run.json](run.json) has the rest, the checksums of the "
        "data among it.",
        "All figures, with intervals: [report.html](report.html). All tables: the `.csv` files "
        "here; `docs/holdout.md` says what their columns mean.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    main()
