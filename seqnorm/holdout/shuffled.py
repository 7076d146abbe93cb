"""Windows without their motifs: dinucleotide shuffles as negatives, and as a control."""

from dataclasses import replace

import numpy as np
import pandas as pd

from data_tools.encode import gc_fraction
from data_tools.shuffle import kmer_shuffle
from seqnorm.holdout.windows import WindowSet

WORD = 2
"""Length of the words that shuffles keep."""


def with_shuffles(positives: WindowSet, count: int, *seed: int) -> WindowSet:
    """Positives, and ``count`` shuffles of each as their negatives."""
    shuffles = kmer_shuffle(positives.codes, WORD, count, _seed(1, *seed))
    negative = positives.table.loc[positives.table.index.repeat(count)].assign(label=0)
    codes = np.concatenate([positives.codes, shuffles.reshape(-1, shuffles.shape[2])])
    table = pd.concat([positives.table, negative], ignore_index=True)
    return _renewed(replace(positives, table=table, codes=codes))


def composition_only(windows: WindowSet, *seed: int) -> WindowSet:
    """Every window shuffled: the bases and dinucleotides that it has, and no site."""
    codes = kmer_shuffle(windows.codes, WORD, 1, _seed(2, *seed))[:, 0]
    return _renewed(replace(windows, codes=codes))


def permuted(windows: WindowSet, *seed: int) -> WindowSet:
    """Labels given to other windows of the same chromosome, test windows among themselves.

    Were the test windows to keep theirs, 0.5 would not be what is to be expected: a network that
    has learnt nothing still ranks windows somehow, by their GC for one, and so do the true labels.
    """
    rng = np.random.default_rng(_seed(3, *seed))
    table = windows.table
    labels = table["label"].to_numpy().copy()
    groups = table.groupby([table["part"] == "test", table["chrom"]]).indices
    for _, rows in sorted(groups.items()):
        labels[rows] = rng.permutation(labels[rows])
    return replace(windows, table=table.assign(label=labels))


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def _renewed(windows: WindowSet) -> WindowSet:
    margin = windows.margin
    centre = windows.codes[:, margin : windows.codes.shape[1] - margin]
    return replace(windows, table=windows.table.assign(gc=gc_fraction(centre)))
