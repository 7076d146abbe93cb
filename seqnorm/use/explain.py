"""Which bases a score rests on: in-silico mutagenesis, and the gradient at the sequence.

Both give an *effect* for each base A, C, G, T at each position: the change of the score when that
base is put there (mutagenesis; 0 for the base that is there), or the slope towards it (gradient,
through the norms as they are in evaluation, the statistics of a sequence included). A one-hot
column sums to 1 whatever the sequence, so that only differences between the four effects of a
position mean anything: *hypothetical contributions* are the effects less their mean over the four
bases, and *contributions* those of the base that is there.

References
----------
Zhou & Troyanskaya 2015, "Predicting effects of noncoding variants with deep learning-based sequence
model", Nature Methods 12:931 (in-silico mutagenesis).
Majdandzic et al. 2023, "Correcting gradient-based interpretations of deep neural networks for
genomics", Genome Biology 24:109 (the mean over the bases taken off).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_tools.encode import AMBIGUOUS, Codes
from data_tools.errors import InputError
from seqnorm.batches import one_hot
from seqnorm.use.scorer import Floats, Scorer

__all__ = ["METHODS", "Explanation", "Method", "explain_windows", "input_gradient", "mutagenesis"]

Method = Literal["ism", "gradient"]


@dataclass(frozen=True, eq=False)
class Explanation:
    """Effects of all bases at all positions of some windows.

    Attributes
    ----------
    codes : ndarray of uint8, shape (N, L)
    scores : ndarray of float32, shape (N,)
        Of the windows as they are.
    effects : ndarray of float32, shape (N, 4, L)
        By base A, C, G, T.
    """

    codes: Codes
    scores: Floats
    effects: Floats

    @property
    def hypothetical(self) -> Floats:
        """Effects less their mean over the four bases, (N, 4, L)."""
        centred: Floats = self.effects - self.effects.mean(axis=1, keepdims=True)
        return centred

    @property
    def contributions(self) -> Floats:
        """Hypothetical contributions of the base that is there, (N, L); 0 for N."""
        at = np.minimum(self.codes, 3)[:, None]
        mine: Floats = np.take_along_axis(self.hypothetical, at, axis=1)[:, 0]
        return np.where(self.codes == AMBIGUOUS, np.float32(0), mine)


def explain_windows(
    scorer: Scorer,
    codes: Codes,
    method: Method = "ism",
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Explain the scores of windows.

    Parameters
    ----------
    scorer : Scorer
    codes : ndarray of uint8, shape (N, width)
        At an N, mutagenesis gives no effects (zeros).
    method : {"ism", "gradient"}
        Mutagenesis costs 3 * width + 1 scores a window, the gradient about three.
    progress : callable, optional
        Is told how many windows are done, and of how many.

    Returns
    -------
    Explanation

    Raises
    ------
    InputError
        For an unknown method, or windows that the model cannot take.

    Examples
    --------
    >>> from seqnorm.models import build_model
    >>> scorer = Scorer(build_model("cnn", "layer", seed=1, channels=8), width=40)
    >>> found = explain_windows(scorer, np.zeros((2, 40), dtype=np.uint8))
    >>> found.effects.shape, found.contributions.shape, float(abs(found.effects[:, 0]).max())
    ((2, 4, 40), (2, 40), 0.0)
    """
    if method not in METHODS:
        raise InputError(f"method '{method}' does not exist; choose {' or '.join(METHODS)}")
    effects = np.zeros((len(codes), 4, codes.shape[1]), dtype=np.float32)
    scores = np.empty(len(codes), dtype=np.float32)
    step = 1 if method == "ism" else scorer.batch
    for first in range(0, len(codes), step):
        part = slice(first, first + step)
        scores[part] = scorer.scores(codes[part])
        effects[part] = METHODS[method](scorer, codes[part])
        if progress is not None:
            progress(min(first + step, len(codes)), len(codes))
    return Explanation(codes, scores, effects)


def mutagenesis(scorer: Scorer, codes: Codes) -> Floats:
    """Change of the score for each substitution, (N, 4, L)."""
    return np.stack([_mutated(scorer, window) for window in codes])


def _mutated(scorer: Scorer, window: Codes) -> Floats:
    """The same of one window (L,): each other base at each position, a batch at a time."""
    known = np.flatnonzero(window != AMBIGUOUS)
    place = np.repeat(known, 3)
    base = (window[place] + np.tile(np.arange(1, 4, dtype=np.uint8), len(known))) % 4
    effects = np.zeros((4, len(window)), dtype=np.float32)
    before = scorer.scores(window[None])
    for first in range(0, len(place), scorer.batch):
        at, to = place[first : first + scorer.batch], base[first : first + scorer.batch]
        mutants = np.repeat(window[None], len(at), axis=0)
        mutants[np.arange(len(at)), at] = to
        effects[to, at] = scorer.scores(mutants) - before
    return effects


def gradients(scorer: Scorer, codes: Codes) -> Floats:
    """Slope of the score towards each base, (N, 4, L)."""
    first = next(scorer.model.parameters())
    x = one_hot(torch.from_numpy(codes).to(first.device), first.dtype)
    found: NDArray[np.float32] = input_gradient(scorer.model, x).float().cpu().numpy()
    return found


def input_gradient(model: nn.Module, x: Tensor) -> Tensor:
    """Derivative of each sequence's score by its input.

    Parameters
    ----------
    model : nn.Module
        Gives one score a sequence, and is in evaluation mode: statistics of a batch would let one
        sequence into the gradient of another.
    x : Tensor
        Shape (N, 4, L).

    Returns
    -------
    Tensor
        Shape (N, 4, L).
    """
    with torch.enable_grad():
        given = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(model(given).sum(), given)
    return found


METHODS: dict[str, Callable[[Scorer, Codes], Floats]] = {"ism": mutagenesis, "gradient": gradients}
"""What gives effects (N, 4, L)."""
