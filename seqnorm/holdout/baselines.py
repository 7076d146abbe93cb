"""Baselines without a network: GC alone, and 5-mer counts with the motif's best score.

Both are logistic regressions (scikit-learn) on standardized features. They are tuned as the
norms are: the strength of the penalty is chosen by average precision on the validation windows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_tools.encode import gc_fraction
from data_tools.motif_scan import best_match
from data_tools.motifs import read_motif
from seqnorm.holdout.design import task_of
from seqnorm.holdout.spec import Spec
from seqnorm.holdout.trial import validation_score
from seqnorm.holdout.windows import VALIDATION, WindowSet

GC_ALONE = "gc"
KMERS = "kmers"
KMERS_AND_MOTIF = "kmers+motif"
OPTIMUM = "optimum"
"""The score that nothing beats, which a simulation knows."""
PENALTIES = (0.001, 0.01, 0.1, 1.0)
"""Values of scikit-learn's ``C`` that are tried."""
K = 5


def baseline_names(spec: Spec, task: str) -> tuple[str, ...]:
    """Baselines of a task; the motif takes part where the spec names one.

    Nothing is known of the best score in a control: its labels or its sequences were changed.
    """
    names = (GC_ALONE, KMERS if spec.motif is None else KMERS_AND_MOTIF)
    known = spec.simulation is not None and task_of(spec, task).control is None
    return (*names, OPTIMUM) if known else names


def kmer_counts(codes: NDArray[np.uint8], k: int = K) -> NDArray[np.float32]:
    """Count canonical k-mers: a k-mer and its reverse complement are one.

    Parameters
    ----------
    codes
        Base codes of shape (N, L). A k-mer with an ambiguous base is not counted.

    Returns
    -------
    numpy.ndarray
        Shape (N, number of canonical k-mers): 512 for k = 5.

    Examples
    --------
    >>> kmer_counts(np.array([[0, 0, 3, 3]], dtype=np.uint8), k=1)  # AATT
    array([[4., 0.]], dtype=float32)
    """
    forward = np.arange(4**k)
    digits = forward[:, None] // 4 ** np.arange(k - 1, -1, -1) % 4
    reverse = ((3 - digits[:, ::-1]) * 4 ** np.arange(k - 1, -1, -1)).sum(1)
    canonical, column = np.unique(np.minimum(forward, reverse), return_inverse=True)
    counts = np.zeros((len(codes), len(canonical)), dtype=np.float32)
    for row, window in enumerate(codes.astype(np.int64)):
        places = np.lib.stride_tricks.sliding_window_view(window, k)
        places = places[(places < 4).all(1)] @ 4 ** np.arange(k - 1, -1, -1)
        counts[row] = np.bincount(column[places], minlength=len(canonical))
    return counts


def features(name: str, motif: str | None, windows: WindowSet) -> NDArray[np.float32]:
    """Features of shape (N, F) of the windows without their margins."""
    codes = windows.codes[:, windows.margin : windows.codes.shape[1] - windows.margin]
    if name == GC_ALONE:
        # A window without one known base says nothing: half.
        return np.nan_to_num(gc_fraction(codes), nan=0.5)[:, None].astype(np.float32)
    parts = [kmer_counts(codes)]
    if name == KMERS_AND_MOTIF and motif is not None:
        parts.append(best_match(codes, read_motif(motif).log_odds())[:, None])
    return np.hstack(parts)


@dataclass(frozen=True)
class Fitted:
    """A tuned baseline: its logits on the evaluation windows and the penalty that was chosen."""

    logits: NDArray[np.float32]
    penalty: float
    validation_score: float


def fit_baseline(
    name: str,
    motif: str | None,
    training: WindowSet,
    evaluation: WindowSet,
    evaluation_features: NDArray[np.float32],
) -> Fitted:
    """Fit for every penalty, keep the one with the best validation score."""
    x, y = features(name, motif, training), training.table["label"].to_numpy()
    rows = np.flatnonzero((evaluation.table["part"] == VALIDATION).to_numpy())
    labels = evaluation.table["label"].to_numpy()[rows]
    best: Fitted | None = None
    for penalty in PENALTIES:
        model: Any = make_pipeline(
            StandardScaler(), LogisticRegression(C=penalty, max_iter=5000)
        ).fit(x, y)
        logits = model.decision_function(evaluation_features).astype(np.float32)
        found = validation_score(labels, logits[rows])
        if best is None or found > best.validation_score:
            best = Fitted(logits, penalty, found)
    assert best is not None
    return best
