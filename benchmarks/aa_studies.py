"""How often a study of trained networks finds a difference where there is none.

Each study is a whole hold-out experiment on a simulated genome of its own: networks with BatchNorm
against the same networks with other random numbers (`batch+again`), four seeds each, judged as any
norm is. A 95 % interval may leave out 0 in five studies of a hundred. Run it from the repository
root::

    python benchmarks/aa_studies.py         # writes benchmarks/aa_studies.md and .csv
"""

import argparse
import multiprocessing
import os
import platform
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from machine import processor
from scipy.stats import binomtest

from seqnorm.holdout.load import load_spec
from seqnorm.holdout.run import run
from seqnorm.holdout.tables import PRIMARY, PRIMARY_METRIC

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
METRICS = ("false_alarm_rate", "recall", "auroc", "auprc")
SEEDS = 4
SPEC = """
name = "aa"
question = "Do networks differ from the same networks with other random numbers?"
norms = ["batch", "batch+again"]

[simulation]
motif = "{motif}"
gc = {{ train = 0.41, valid = 0.41, poorer = 0.44, richer = 0.50 }}
bases = 600_000
training_bases = 700_000
prevalence = 0.2
confounding = 0.4
decoys = 0.2
seed = {number}

[split]
train = ["train"]
validation = ["valid"]
test = ["poorer", "richer"]
primary = ["poorer", "richer"]
block = 40_000

[[models]]
name = "cnn"
options = {{ channels = 8 }}

[training]
learning_rates = [0.02]
tuning_seeds = 1
seeds = {seeds}
epochs = 5
batch_size = 32
device = "cpu"
"""


def study(number: int) -> dict[str, Any]:
    """Differences of one study's means over the primary chromosomes, and how well it learnt."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = [SEEDS * number + seed for seed in range(SEEDS)]
        motif = ROOT / "examples" / "data" / "MA0139.2.jaspar"
        file = folder / "spec.toml"
        file.write_text(SPEC.format(motif=motif, number=number, seeds=seeds))
        tables = run(load_spec(file), folder / "run", say=lambda line: None)
    found: dict[str, Any] = {"study": number}
    primary = tables.differences[tables.differences["chrom"] == PRIMARY].set_index("metric")
    for metric in METRICS:
        for column in ("estimate", "low", "high", "p_holm"):
            found[f"{metric}_{column}"] = primary.loc[metric, column]
    summary = tables.summary[tables.summary["chrom"] == PRIMARY].set_index(["norm", "metric"])
    found["auroc_of_batch"] = summary.loc[("batch", "auroc"), "estimate"]
    return found


def page(table: pd.DataFrame) -> str:
    """What the studies found, in words and a table."""
    rows = []
    for metric in METRICS:
        low, high = table[f"{metric}_low"], table[f"{metric}_high"]
        wrong = int(((low > 0) | (high < 0)).sum())
        share = binomtest(wrong, len(table)).proportion_ci(method="exact")
        kind = " (primary)" if metric == PRIMARY_METRIC else ""
        rows.append(
            f"| {metric}{kind} | {wrong} | {100 * wrong / len(table):.1f} % | "
            f"{100 * share.low:.1f} to {100 * share.high:.1f} % | "
            f"{table[f'{metric}_estimate'].std():.4f} | {((high - low) / 2).median():.4f} |"
        )
    auroc = table["auroc_of_batch"]
    return (
        "# Studies of trained networks without a difference\n\n"
        f"Made by `benchmarks/aa_studies.py`: {processor()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, torch {torch.__version__}.\n\n"
        f"{len(table)} hold-out studies, each on a simulated genome of its own (seeds 0 to "
        f"{len(table) - 1}): a CNN with BatchNorm, {SEEDS} seeds, against the same with other "
        f"random numbers. The networks learnt: AUROC {auroc.min():.3f} to {auroc.max():.3f}, "
        f"median {auroc.median():.3f}. A study finds a difference where the 95 % interval of the "
        "mean over the two test chromosomes leaves out 0; five in a hundred would by chance.\n\n"
        "| metric | find a difference | share | 95 % interval of the share | spread of the "
        "differences | half an interval's width, median |\n|---|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n\nThe spread is the standard deviation over studies; half the width of an honest "
        "interval is about twice that.\n"
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--studies", type=int, default=100)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        found = []
        for result in pool.map(study, range(options.studies)):
            found.append(result)
            print(f"{len(found)}/{options.studies} studies", end="\r", flush=True)
    table = pd.DataFrame(found)
    table.to_csv(PAGE.with_suffix(".csv"), index=False, float_format="%.6g")
    PAGE.write_text(page(table))


if __name__ == "__main__":
    main()
