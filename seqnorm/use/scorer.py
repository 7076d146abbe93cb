"""One score a window, from a saved model or any other, a batch at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_tools.encode import AMBIGUOUS, Codes
from data_tools.errors import InputError
from seqnorm.batches import LabelledWindows
from seqnorm.saved import load_model, read_saved
from seqnorm.training import predict, resolve_device

__all__ = ["Scorer"]

Floats = NDArray[np.float32]

CODES = 1 << 20
"""Most bases whose codes are held at a time."""


class OneOutput(nn.Module):
    """One of a model's outputs, shape (N,)."""

    def __init__(self, model: nn.Module, output: int) -> None:
        super().__init__()
        self.model, self.output = model, output

    def forward(self, x: Tensor) -> Tensor:
        """Scores of (N, 4, L)."""
        scores: Tensor = self.model(x)
        if scores.ndim == 1:
            scores = scores[:, None]
        return scores[:, self.output]


class Scorer:
    """A model, the width of its windows, and how many of them it takes at a time.

    Parameters
    ----------
    model : nn.Module
        Maps one-hot (N, 4, width) to (N,) or (N, outputs); stays on its device and is put into
        evaluation mode.
    width : int
        Bases of a window.
    batch : int
        Windows at a time. Memory grows with it, scores do not depend on it beyond rounding.
    output : int
        Which of the outputs.

    Raises
    ------
    InputError
        For a width or batch below 1.

    Examples
    --------
    >>> from seqnorm.models import build_model
    >>> scorer = Scorer(build_model("cnn", "layer", seed=1, channels=8), width=40)
    >>> scorer.scores(np.zeros((3, 40), dtype=np.uint8)).shape
    (3,)
    """

    def __init__(self, model: nn.Module, width: int, *, batch: int = 256, output: int = 0) -> None:
        for name, value in (("width", width), ("batch", batch)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        self.model = OneOutput(model, output).eval()
        self.width, self.batch = width, batch

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        width: int | None = None,
        batch: int = 256,
        output: str | None = None,
        device: str = "auto",
    ) -> Scorer:
        """Take a saved model.

        Parameters
        ----------
        path : path
            As for `seqnorm.load_model`.
        width : int, optional
            Bases of a window; those that it was trained on unless given.
        batch : int
        output : str, optional
            Which of its outputs, by name; needed where there are several.
        device : str

        Raises
        ------
        InputError
            For a model that cannot be read, a width that nobody knows, an output that it does not
            have or a device that is not there.
        """
        saved = read_saved(path)
        wide = saved.width if width is None else width
        if wide is None:
            raise InputError(f"{path}: does not tell how wide its windows are; give --width")
        names = ", ".join(saved.outputs)
        if output is None and len(saved.outputs) > 1:
            raise InputError(f"{path}: has several outputs; choose one with --output: {names}")
        if output is not None and output not in saved.outputs:
            raise InputError(f"{path}: has no output '{output}'; it has {names}")
        try:
            place = resolve_device(device)
        except ValueError as error:
            raise InputError(str(error)) from None
        number = 0 if output is None else saved.outputs.index(output)
        return cls(load_model(path, place), wide, batch=batch, output=number)

    @property
    def rows(self) -> int:
        """Windows whose codes are read at a time: whole batches of at most 1 MiB, or one batch."""
        return self.batch * max(1, CODES // (self.batch * self.width))

    def scores(self, codes: Codes) -> Floats:
        """Scores of codes (N, width), as `seqnorm.training.predict` gives them.

        Raises
        ------
        InputError
            For windows that the model cannot take, or a score that is not finite.
        """
        labels = torch.zeros(len(codes))
        windows = LabelledWindows(torch.from_numpy(np.ascontiguousarray(codes)), labels)
        try:
            found = predict(self.model, windows, batch_size=self.batch)
        except (ValueError, IndexError) as error:
            raise InputError(f"windows of {self.width} bases: {error}") from error
        # NaN would pass for a window without a score.
        if not np.isfinite(found).all():
            raise InputError("the model's scores are not finite; train it again")
        return found

    def known_scores(self, codes: Codes, ambiguous: str) -> Floats:
        """The same; with ``ambiguous="skip"``, NaN for windows that hold an N."""
        if ambiguous == "score":
            return self.scores(codes)
        found = np.full(len(codes), np.nan, dtype=np.float32)
        known = ~(codes == AMBIGUOUS).any(axis=1)
        found[known] = self.scores(codes[known])
        return found
