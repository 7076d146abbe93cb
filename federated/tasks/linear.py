"""The model of a table: a norm over the features, then one linear unit."""

from __future__ import annotations

from torch import Tensor, nn

from data_tools.errors import InputError
from seqnorm import make_norm
from seqnorm.kinds import parse_norm

__all__ = ["Linear"]


class Linear(nn.Module):
    """One score a row: a logit, or a log hazard ratio.

    The linear unit begins at 0: without a norm the losses are convex, so that no start is better
    than that of no effect, and features of any scale begin alike.

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

    Examples
    --------
    >>> import torch
    >>> Linear(3, "batch")(torch.ones(2, 3)).tolist()
    [0.0, 0.0]
    """

    def __init__(self, features: int, norm: str) -> None:
        super().__init__()
        if parse_norm(norm, features).name == "instance":
            # The mean of a feature over its one position is the feature itself.
            raise InputError("norm 'instance' makes every feature of a row 0; choose another")
        self.norm = make_norm(norm, features)
        self.linear = nn.Linear(features, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Turn rows (N, F) into scores (N,)."""
        normalized: Tensor = self.norm(rows[:, :, None])
        scores: Tensor = self.linear(normalized[:, :, 0])
        return scores[:, 0]
