"""Measure how the standard error of a false-alarm rate depends on the length of the blocks.

Neighbouring windows are not independent: blocks have to be so long that longer ones give no larger
error, and so many that the error can be known. This reads the scores of a finished run of
examples/human_ctcf.toml and takes the standard error of the mean over its seeds, with blocks of
several lengths, for each norm and for each paired difference to BatchNorm; the threshold stays as
it is. Run it from the repository root (a second)::

    python benchmarks/block_length.py runs/human_ctcf     # writes benchmarks/block_length.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seqnorm.holdout.run import read_tables
from seqnorm.holdout.trial import Trial

LENGTHS = (50_000, 100_000, 250_000, 500_000, 1_000_000)
PAGE = Path(__file__).with_suffix(".md")
Floats = NDArray[np.float64]


def false_alarms(run: Path) -> tuple[pd.DataFrame, dict[str, Floats]]:
    """Test negatives, and for each norm the share of seeds that raise a false alarm on each."""
    windows = pd.read_csv(run / "windows.csv")
    windows = windows[~windows["part"].str.startswith("train")].reset_index(drop=True)
    chooses = ((windows["part"] == "validation") & (windows["label"] == 0)).to_numpy()
    asked = ((windows["part"] == "test") & (windows["label"] == 0)).to_numpy()
    found: dict[str, list[Floats]] = {}
    for row in read_tables(run).tuning.query("chosen").itertuples():
        trial = Trial(row.model, row.negatives, row.norm, row.learning_rate, row.seed)
        scores = np.load(run / "trials" / trial.id / "scores.npy")
        alarms = scores > np.quantile(scores[chooses], 0.99)
        found.setdefault(str(row.norm), []).append(alarms[asked].astype(np.float64))
    return windows[asked].reset_index(drop=True), {n: np.mean(a, 0) for n, a in found.items()}


def error(values: Floats, block: NDArray[np.int64]) -> tuple[int, float]:
    """Number of blocks and standard error of a mean over windows that are clustered in blocks."""
    _, own = np.unique(block, return_inverse=True)
    sums = np.bincount(own, values - values.mean())
    return len(sums), float(np.sqrt(sums @ sums * len(sums) / (len(sums) - 1)) / len(values))


def table(run: Path) -> pd.DataFrame:
    """A row a chromosome and length: root mean squares over the norms, in points."""
    windows, alarms = false_alarms(run)
    changes = [alarms[norm] - alarms["batch"] for norm in alarms if norm != "batch"]
    primary = read_tables(run).chromosomes.query("primary")["chrom"]
    rows = []
    for chrom in primary:
        here = (windows["chrom"] == chrom).to_numpy()
        for length in LENGTHS:
            block = windows.loc[here, "start"].to_numpy() // length
            of_rates = [error(values[here], block) for values in alarms.values()]
            of_changes = [error(values[here], block) for values in changes]
            squares = [np.square([e for _, e in found]) for found in (of_rates, of_changes)]
            rates, differences = (100 * float(np.sqrt(found.mean())) for found in squares)
            rows.append((chrom, length // 1000, of_rates[0][0], rates, differences))
    return pd.DataFrame(rows, columns=["chromosome", "kb", "blocks", "rate", "difference"])


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    run = parser.parse_args().run
    rows = [
        f"| {row.chromosome} | {row.kb:,} | {row.blocks} | {row.rate:.2f} | {row.difference:.2f} |"
        for row in table(run).itertuples()
    ]
    PAGE.write_text(
        "# Standard errors by the length of the blocks\n\n"
        f"Made by `benchmarks/block_length.py` from a run of `{run.name}`: standard error of the "
        "false-alarm rate, and of the paired difference of two norms, in points; root mean squares "
        "over the norms.\n\n"
        "| chromosome | kb of a block | blocks | rate | difference |\n|---|---:|---:|---:|---:|\n"
        + "\n".join(rows)
        + "\n"
    )


if __name__ == "__main__":
    main()
