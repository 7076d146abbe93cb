"""The ``seqnorm`` command."""

from pathlib import Path

import tyro

from data_tools.command_line import run
from seqnorm.runs.command import Overrides, flat, run_attended, say

DESCRIPTION = """Normalization layers for biological sequence models, and the experiments on them.

Examples:
  seqnorm holdout examples/human_ctcf.toml
  seqnorm holdout examples/human_ctcf.toml --override training.epochs=2 norms='["batch","layer"]'
  seqnorm report runs/human_ctcf
  seqnorm norms
"""


def holdout(
    spec: tyro.conf.Positional[Path],
    out: Path | None = None,
    resume: bool = False,
    override: Overrides = (),
    workers: int | None = None,
) -> None:
    """Train on some chromosomes, test on others, compare the norms, write tables and a report.

    Example: seqnorm holdout examples/human_ctcf.toml --out runs/first

    Ctrl-C stops the run; --resume goes on with it and gives the same tables.

    Args:
        spec: TOML file that describes the experiment.
        out: Folder of the run; runs/<name of the spec> unless given.
        resume: Go on with a run that was stopped; begins one where there is none.
        override: key=value pairs that replace keys of the spec, as training.epochs=3.
        workers: Trials at a time; one a core unless given. The tables do not depend on it.
    """
    from seqnorm.holdout.spec import load_spec

    overrides = flat(override)
    loaded = load_spec(spec, overrides)
    from seqnorm.holdout.report import write_report
    from seqnorm.holdout.run import run as run_experiment

    folder = Path("runs") / loaded.name if out is None else out
    run_attended(
        ["seqnorm", "holdout"],
        spec,
        loaded.question,
        folder,
        overrides,
        workers,
        lambda count: run_experiment(loaded, folder, resume=resume, workers=count, say=say),
    )
    summary = write_report(folder)
    say(f"\n{summary}\n\ntables: {folder}/*.csv\nreport: {folder / 'report.html'}")


def report(folder: tyro.conf.Positional[Path]) -> None:
    """Draw report.html of a finished run again from its tables.

    Example: seqnorm report runs/human_ctcf

    Args:
        folder: Folder of a finished run.
    """
    from seqnorm.holdout.report import write_report

    say(f"{write_report(folder)}\n\nreport: {folder / 'report.html'}")


def norms() -> None:
    """List the kinds of normalization that a spec or make_norm takes.

    Example: seqnorm norms
    """
    from seqnorm.kinds import KIND_HELP

    for kind, text in KIND_HELP.items():
        say(f"{kind:<10} {text}")


def main() -> None:
    """Entry point."""
    run("seqnorm", DESCRIPTION, (holdout, report, norms))
