"""The ``seqnorm`` command."""

from pathlib import Path
from typing import Literal

import tyro

from data_tools.command_line import run
from seqnorm.runs.command import Overrides, flat, run_attended, say
from seqnorm.use.commands import explain, predict, variants

DESCRIPTION = """Normalization layers for biological sequence models, and the experiments on them.

Examples:
  seqnorm holdout examples/human_ctcf.toml
  seqnorm holdout examples/human_ctcf.toml --override training.epochs=2 norms='["batch","layer"]'
  seqnorm report runs/human_ctcf
  seqnorm audit scores.csv --windows windows.csv --out card
  seqnorm predict runs/human_ctcf/trials/y --genome genome.fa.gz --out scores.bw
  seqnorm explain runs/human_ctcf/trials/y --genome genome.fa.gz --bed peaks.bed --out explained
  seqnorm variants runs/human_ctcf/trials/y calls.vcf --genome genome.fa.gz --out effects.tsv
  seqnorm norms
"""


def holdout(
    spec: tyro.conf.Positional[Path],
    out: Path | None = None,
    resume: bool = False,
    override: Overrides = (),
    workers: int | None = None,
    ray: str | None = None,
) -> None:
    """Train on some chromosomes, test on others, compare the norms, write tables and a report.

    Example: seqnorm holdout examples/human_ctcf.toml --out runs/first
    Example: seqnorm holdout study.toml --out /shared/runs/study --ray 10.0.0.1:6379

    Ctrl-C stops the run; --resume goes on with it and gives the same tables. Workers are shared
    out over the GPUs, if any, that CUDA_VISIBLE_DEVICES leaves.

    Args:
        spec: TOML file that describes the experiment.
        out: Folder of the run; runs/<name of the spec> unless given.
        resume: Go on with a run that was stopped; begins one where there is none.
        override: key=value pairs that replace keys of the spec, as training.epochs=3.
        workers: Trials at a time; one a core unless given. The tables do not depend on it.
        ray: Address of a Ray cluster to run on ("local" starts one on this machine); all its nodes
            must see the run folder and the data under the same paths. Needs the extra "ray".
    """
    from seqnorm.holdout.load import load_spec

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
        lambda count: run_experiment(
            loaded,
            folder,
            resume=resume,
            # A cluster has cores of its own.
            workers=count if ray is None else workers,
            ray=ray,
            say=say,
        ),
        () if ray is None else ("--ray", ray),
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


def audit(
    model: tyro.conf.Positional[Path],
    windows: Path,
    out: Path,
    genome: Path | None = None,
    column: str = "score",
    reference: tuple[str, ...] = (),
    threshold: float | None = None,
    false_alarm_rate: float = 0.01,
    scale: Literal["auto", "probability", "logit", "score"] = "auto",
    block: int = 1_000_000,
    resamples: int = 1000,
    name: str | None = None,
) -> None:
    """Make a GC-robustness card of any model, or from its scores.

    Example: seqnorm audit scores.csv --windows windows.csv --out card --reference chr21
    Example: seqnorm audit model.onnx --windows windows.csv --genome genome.fa.gz --out card

    Writes gc_card.html, gc_card.json and gc_card.md, the last for the model's README: false alarms
    by GC and by chromosome at one threshold, skill above GC alone, calibration, and what of it a
    threshold would cure. For a model in Python, call seqnorm.audit(model, windows, genome=...).

    Args:
        model: ONNX file of a model from one-hot DNA (N, 4, width) to scores, or a CSV or TSV with
            a column of scores, a row for each window in the same order, which may be the windows'
            own file.
        windows: CSV or TSV with chrom, start, end, label (0 or 1), and gc unless there is a genome;
            a column part with the value valid marks the windows that set the threshold.
        out: Folder to write to.
        genome: FASTA or 2bit file, for the windows' bases (a model needs them) and their GC.
        column: Name of the column of scores.
        reference: Chromosomes whose negatives set the threshold.
        threshold: Score above which a window is called, where it is fixed already.
        false_alarm_rate: Share of the reference's negatives that may be called.
        scale: What the scores are.
        block: Bases of a block of the bootstrap.
        resamples: Resamples of the bootstrap.
        name: Name of the model; that of its file unless given.
    """
    from contextlib import ExitStack

    from data_tools.genome import Genome
    from data_tools.window_table import read_scores, read_windows
    from seqnorm.robustness import audit as make_card
    from seqnorm.robustness import write_card
    from seqnorm.robustness.onnx_model import load_onnx
    from seqnorm.robustness.words import cautions, sentences

    table = read_windows(windows, "label")
    is_model = model.suffix.lower() == ".onnx"
    predict = load_onnx(model) if is_model else read_scores(model, column, len(table))
    with ExitStack() as stack:
        card = make_card(
            predict,
            table,
            genome=None if genome is None else stack.enter_context(Genome(genome)),
            reference=reference,
            threshold=threshold,
            false_alarm_rate=false_alarm_rate,
            scale=scale,
            block=block,
            resamples=resamples,
            name=name or model.name.split(".")[0],
        )
    files = write_card(card, out)
    for line in (*sentences(card), *cautions(card)):
        say(line)
    say("\n" + "\n".join(str(file) for file in files))


def norms() -> None:
    """List the kinds of normalization, where in a model they stand and what is done with them.

    Example: seqnorm norms
    """
    from seqnorm.kinds import KIND_HELP, PLACES, VARIANTS

    say("A norm's name is KIND, KIND@PLACE or KIND@PLACE+VARIANT, such as instance@input.\n")
    for mark, known in (("", KIND_HELP), ("@", PLACES), ("+", VARIANTS)):
        for name, text in known.items():
            say(f"{mark + name:<10} {text}")


def main() -> None:
    """Entry point."""
    run("seqnorm", DESCRIPTION, (holdout, report, audit, predict, explain, variants, norms))
