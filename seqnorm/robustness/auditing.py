"""Measure what GC content does to the errors of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import InputError
from data_tools.splits import check_chromosomes
from data_tools.windows import window_gc
from seqnorm.robustness.card import Card
from seqnorm.robustness.measure import Settings, measure
from seqnorm.robustness.scores import scale_of, scores_of

if TYPE_CHECKING:
    from data_tools.genome import Genome

Scale = Literal["auto", "probability", "logit", "score"]
REFERENCE_PARTS = ("valid", "validation")
"""Values of the column ``part`` whose windows set the threshold unless something else is given."""


def audit(
    predict: Callable[..., Any] | Iterable[float],
    windows: pd.DataFrame,
    *,
    genome: Genome | None = None,
    reference: Sequence[str] = (),
    threshold: float | None = None,
    false_alarm_rate: float = 0.01,
    scale: Scale = "auto",
    block: int = 1_000_000,
    resamples: int = 1000,
    confidence: float = 0.95,
    batch_size: int = 512,
    name: str = "model",
) -> Card:
    """Measure how a model's errors follow the GC content of windows and their chromosomes.

    Parameters
    ----------
    predict : callable, torch.nn.Module or array of shape (N,)
        A module is called in evaluation mode with float32 tensors of shape (n, 4, width), any
        other callable with NumPy arrays of that shape (channels A, C, G, T); either gives n
        scores, higher for a positive. Or the scores themselves, one a window.
    windows : DataFrame
        ``chrom``, ``start``, ``end``, ``label`` (0 or 1); ``gc`` (fraction) where there is no
        genome; ``part``, where there is one, names the windows that set the threshold
        (``valid`` or ``validation``), which then take no part in the rest.
    genome : Genome, optional
        Where the bases come from; needed by a callable, and where ``windows`` lack ``gc``.
    reference : sequence of str
        Chromosomes whose negatives set the threshold, in place of the column ``part``.
    threshold : float, optional
        Score above which a window is called, in place of one set by negatives.
    false_alarm_rate : float
        The threshold is the lowest score above which at most this share of the negatives of the
        reference lies. Without a reference they are all negatives, and the card says so.
    scale : {"auto", "probability", "logit", "score"}
        What scores are, for the calibration; ``"auto"`` takes them for probabilities where all lie
        in 0 to 1, else for logits; ``"score"`` leaves calibration out.
    block : int
        Bases of a block of the bootstrap: windows near one another are not independent.
    resamples : int
        Resamples of the blocks of each chromosome.
    confidence : float
        Of the percentile intervals.
    batch_size : int
        Windows a call of the model.
    name : str
        What the card calls the model.

    Returns
    -------
    Card

    Raises
    ------
    InputError
        For windows without what is needed, scores that are not one finite number a window, or
        arguments outside their range.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> table = pd.DataFrame({"chrom": "chr1", "start": np.arange(2000) * 10_000})
    >>> table = table.assign(end=table["start"] + 200, label=rng.integers(0, 2, 2000))
    >>> table = table.assign(gc=rng.uniform(0.3, 0.7, 2000))
    >>> card = audit(table["label"] + rng.normal(size=2000) + 4 * table["gc"], table)
    >>> card.chromosomes.query("metric == 'auroc'")["estimate"].round(2).tolist()
    [0.75]
    """
    _check(false_alarm_rate, scale, block, resamples, confidence, batch_size)
    table = _table(windows, genome)
    scores = scores_of(predict, table, genome, batch_size)
    is_reference = _reference(table, reference)
    settings = Settings(
        name=name,
        aim=false_alarm_rate,
        threshold=threshold,
        scale=scale_of(scores) if scale == "auto" else scale,
        block=block,
        resamples=resamples,
        confidence=confidence,
    )
    return measure(table, scores, is_reference, settings)


def _check(
    rate: float, scale: str, block: int, resamples: int, confidence: float, batch_size: int
) -> None:
    for what, value in (("false_alarm_rate", rate), ("confidence", confidence)):
        if not 0 < value < 1:
            raise InputError(f"{what} lies between 0 and 1, not {value}")
    for what, count in (("block", block), ("resamples", resamples), ("batch_size", batch_size)):
        if count < 1:
            raise InputError(f"{what} is at least 1, not {count}")
    if scale not in get_args(Scale):
        raise InputError(
            f"scale '{scale}' does not exist; choose one of {', '.join(get_args(Scale))}"
        )


def _table(windows: pd.DataFrame, genome: Genome | None) -> pd.DataFrame:
    for column in ("chrom", "start", "end", "label"):
        if column not in windows:
            raise InputError(f"the windows have no column '{column}': add it")
    if windows.empty:
        raise InputError("there are no windows to audit: give some")
    table = windows.reset_index(drop=True)
    if not table["label"].isin([0, 1]).all():
        raise InputError("labels are 0 or 1: correct the column 'label'")
    if genome is not None:
        table = table.assign(gc=window_gc(genome, table))
    elif "gc" not in table:
        raise InputError("the windows have no column 'gc': add it or give the genome")
    blank = int(table["gc"].isna().sum())
    if blank:
        raise InputError(f"{blank} windows have no GC fraction (no known base): drop them")
    return table


def _reference(table: pd.DataFrame, chroms: Sequence[str]) -> NDArray[np.bool_]:
    if chroms:
        names = dict.fromkeys(table["chrom"], 0)
        check_chromosomes(list(chroms), names)
        return table["chrom"].isin(list(chroms)).to_numpy()
    if "part" in table:
        return table["part"].isin(REFERENCE_PARTS).to_numpy()
    return np.zeros(len(table), dtype=np.bool_)
