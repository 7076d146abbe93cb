"""Training windows that nearly equal one that chooses or tests are left out."""

import numpy as np

from data_tools.duplicates import alike, check_threshold, minimizers
from seqnorm.holdout.windows import WindowSet, picked

K, SPAN = 21, 11
"""As `data_tools.near_duplicates` has them."""


class Distinct:
    """Compares training windows with the evaluation windows of a fold.

    Parameters
    ----------
    evaluation
        Windows that choose or test.
    threshold
        Least share of minimizers that makes a near-duplicate.
    """

    def __init__(self, evaluation: WindowSet, threshold: float) -> None:
        check_threshold(threshold)
        self.threshold = threshold
        self.known = minimizers(evaluation.codes, K, SPAN)

    def left(self, training: WindowSet) -> tuple[WindowSet, int]:
        """Training windows without near-duplicates, and how many were left out."""
        own = minimizers(training.codes, K, SPAN)
        rows = alike(own, self.known, self.threshold)["window"].to_numpy()
        kept = np.setdiff1d(np.arange(len(training.table)), rows)
        return picked(training, kept), len(rows)
