"""The model of a table: a norm over the features, then one linear unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data_tools.errors import InputError
from seqnorm import make_norm
from seqnorm.kinds import parse_norm

__all__ = ["Linear", "linear_model"]


class Linear(nn.Module):
    """One score a row: a logit, or a log hazard ratio.

    Parameters
    ----------
    features : int
        Columns F of the input.
    norm : str
        See `seqnorm.make_norm`; each feature counts as a channel of one position.

    Raises
    ------
    InputError
        For a norm that a row of features does not have.
    """

    def __init__(self, features: int, norm: str) -> None:
        super().__init__()
        if parse_norm(norm, features).name == "instance":
            # The mean of a feature over its one position is the feature itself.
            raise InputError("norm 'instance' makes every feature of a row 0; choose another")
        self.norm = make_norm(norm, features)
        self.linear = nn.Linear(features, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Turn rows (N, F) into scores (N,)."""
        normalized: Tensor = self.norm(rows[:, :, None])
        scores: Tensor = self.linear(normalized[:, :, 0])
        return scores[:, 0]


def linear_model(features: int, norm: str, seed: int) -> Linear:
    """Make the model, with weights that depend on the seed and the number of features alone.

    Examples
    --------
    >>> a, b = (linear_model(3, norm, seed=1) for norm in ("batch", "none"))
    >>> bool((a.linear.weight == b.linear.weight).all())
    True
    """
    with torch.random.fork_rng(devices=[]):
        # Unlike torch.manual_seed, this leaves the generators of other devices alone.
        torch.default_generator.manual_seed(seed)
        return Linear(features, norm)
