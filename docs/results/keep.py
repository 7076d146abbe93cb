"""Keep what a finished study found, beside the command that finds it again.

It copies the tables, the report and the chief figures of a run folder, of `seqnorm holdout` or of
`federated study`, to a folder of its name here, and writes README.md there from them: the question,
the answer, the verdicts, and how it was run. No figure is typed. From the repository root::

    python docs/results/keep.py runs/gc_dose_response
    python docs/results/keep.py runs/dhs_loco --override table.file=PATH/dhs_tf.tsv.gz
"""

import argparse
import json
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

from data_tools.atomic import write_atomic
from federated.spec import data_files
from federated.spec import load_spec as load_federated
from seqnorm.holdout.load import load_spec as load_holdout
from seqnorm.holdout.run import read_tables
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.tables import sections
from seqnorm.holdout.views import slug

HERE = Path(__file__).parent
EVERY_WINDOW = ("windows.csv", "curves.csv")
EVERY_ROUND = ("clients.csv", "rounds.csv", "references.csv", "events.csv")
"""Tables that the run makes anew and few would read."""
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
    folder = HERE / record["name"]
    folder.mkdir(exist_ok=True)
    command = f"examples/{record['name']}.toml"
    if options.override:
        command += f" --override {' '.join(options.override)}"
    keep = keep_federated if (run / "clients.csv").exists() else keep_holdout
    parts = keep(run, folder, record, command)
    write_atomic(folder / "README.md", "\n\n".join(part for part in parts if part) + "\n")


def keep_holdout(run: Path, folder: Path, record: dict[str, Any], command: str) -> list[str]:
    """Copy a study of `seqnorm holdout`, and say what its page says."""
    spec = load_holdout(run / "spec.toml", runnable=False)
    copy(run, folder, spec.files.values(), EVERY_WINDOW)
    first = slug(spec, sections(spec)[0])
    found = [run / "figures" / f"{first}-{figure}.svg" for figure in FIGURES]
    shown = [figure for figure in found if figure.exists()]
    for figure in shown:
        shutil.copy(figure, folder)
    claims, trials = hypotheses(spec, run), read_tables(run).tuning
    return [
        *opening(run, record["name"], spec.question, f"seqnorm holdout {command}"),
        "## Hypotheses, stated before the run" if claims else "",
        "" if spec.hypotheses or not claims else BUILT_IN,
        claims,
        "\n\n".join(f"![{figure.stem}]({figure.name})" for figure in shown),
        "## How it was run",
        how_it_was_run(
            record,
            f"{len(trials)} trained networks, {int(trials['epochs'].sum()):,} epochs",
            spec.training.seeds,
        ),
        closing("holdout.md"),
    ]


def hypotheses(spec: Spec, run: Path) -> str:
    """The verdict on each."""
    rows = read_tables(run).hypotheses.rename(columns={"name": "name_"}).itertuples()
    return "\n".join(
        f"- **{row.name_}: {row.verdict}.** {row.claim} {row.sentence}" for row in rows
    )


def keep_federated(run: Path, folder: Path, record: dict[str, Any], command: str) -> list[str]:
    """Copy a study of `federated study`, and say what its page says."""
    spec = load_federated(run / "spec.toml", runnable=False)
    copy(run, folder, data_files(spec).values(), EVERY_ROUND)
    runs = len([*run.glob("settings/*/cells/*")])
    references = len([*run.glob("settings/*/references/*.json")])
    return [
        *opening(run, record["name"], spec.question, f"federated study {command}"),
        "## How it was run",
        how_it_was_run(
            record,
            f"{runs} federated runs and {references} references, each of one model of all rows or "
            "of one for each client",
            spec.training.seeds,
        ),
        closing("federated.md"),
    ]


def copy(run: Path, folder: Path, files: Collection[str], left_out: Collection[str]) -> None:
    """Tables, record and report."""
    for table in sorted(run.glob("*.csv")):
        if table.name not in left_out:
            shutil.copy(table, folder)
    shutil.copy(run / "run.json", folder)
    # Where the files lay on the machine is nobody's business.
    report = (run / "report.html").read_text()
    for file in files:
        report = report.replace(file, Path(file).name)
    # The figures stand in the page; as files they are what a run of one's own has.
    report = re.sub(r'\s*<a href="figures/[^>]*>(SVG|data \(CSV\))</a>,?', "", report)
    write_atomic(folder / "report.html", report)


def opening(run: Path, name: str, question: str, command: str) -> list[str]:
    """What every page begins with."""
    return [
        f"# {name}",
        question,
        f"```sh\n{command}\n```",
        "## Conclusion",
        (run / "summary.md").read_text().strip(),
    ]


def how_it_was_run(record: dict[str, Any], runs: str, seeds: Collection[int]) -> str:
    """Of how many runs it is made, how long they took, on what."""
    sessions = record["sessions"]
    last = sessions[-1]
    hours = sum(session.get("seconds", 0.0) for session in sessions) / 3600
    libraries = ", ".join(f"{name} {version}" for name, version in last["libraries"].items())
    machine = ", ".join(last[key] for key in ("platform", "instructions") if key in last)
    return (
        f"{runs}, seeds {', '.join(map(str, seeds))}; {hours:.2f} hours with {last['workers']} "
        f"workers of {last['threads_per_worker']} thread on {last['cores']} cores ({machine}), "
        f"begun {sessions[0]['started'][:10]}, in {len(sessions)} session"
        f"{'s' * (len(sessions) > 1)}. seqnorm {last['seqnorm']}, Python {last['python']}, "
        f"{libraries}. [run.json](run.json) has the rest, the checksums of the data among it."
    )


def closing(page: str) -> str:
    """Where the rest stands."""
    return (
        "All figures, with intervals: [report.html](report.html). All tables: the `.csv` files "
        f"here; `docs/{page}` says what their columns mean."
    )


if __name__ == "__main__":
    main()
