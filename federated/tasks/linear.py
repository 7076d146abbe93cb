"""The model of a table: a norm over the features, then one linear unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from data_tools.errors import InputError
from seqnorm import make_norm
from seqnorm.kinds import parse_norm

__all__ = ["Linear"]


class Linear(nn.Module):
    """One score a row: a logit, or a log hazard ratio.

    The linear unit begins as torch's: weights and bias uniform between -1 and 1 over the root of F.
    Features that are not scaled, such as an age in years, begin with large random effects.

    Parameters
    ----------
    features : int
        Columns F of the input.
    norm : str
        See `seqnorm.make_norm`; each feature counts as a channel of one position.
    seed : int
        Of the initial weights, the same under every norm. No other random number depends on it.

    Raises
    ------
    InputError
        For a norm that a row of features does not have.

    Examples
    --------
    >>> a, b = (Linear(3, norm, seed=1) for norm in ("none", "batch"))
    >>> torch.equal(a.linear.weight, b.linear.weight), a(torch.ones(2, 3)).shape
    (True, torch.Size([2]))
    """

    def __init__(self, features: int, norm: str, seed: int) -> None:
        super().__init__()
        if parse_norm(norm, features).name == "instance":
            # The mean of a feature over its one position is the feature itself.
            raise InputError("norm 'instance' makes every feature of a row 0; choose another")
        self.norm = make_norm(norm, features)
        with torch.random.fork_rng(devices=[]):
            # Unlike torch.manual_seed, this leaves the generators of other devices alone.
            torch.default_generator.manual_seed(seed)
            self.linear = nn.Linear(features, 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Turn rows (N, F) into scores (N,)."""
        normalized: Tensor = self.norm(rows[:, :, None])
        scores: Tensor = self.linear(normalized[:, :, 0])
        return scores[:, 0]
