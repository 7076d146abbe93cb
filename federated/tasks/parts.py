"""Which of a client's rows are learnt from, chosen with and reported."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from federated.tasks.task import TEST, TRAIN, VALIDATION

if TYPE_CHECKING:
    from federated.spec import Table

__all__ = ["TEST_FRACTION", "draw_parts"]

TEST_FRACTION = 0.25
"""Of a client's rows, where neither the file nor the spec says."""


def draw_parts(
    outcome: NDArray[np.int64], test: NDArray[np.bool_] | None, table: Table, client: str
) -> NDArray[np.str_]:
    """Share out one client's rows.

    Test and validation rows are drawn from each outcome apart, so that they have the client's
    prevalence as far as whole rows allow; of each outcome at least one row is left to train on.

    Parameters
    ----------
    outcome : ndarray of int64, shape (n,)
        0 or 1.
    test : ndarray of bool, shape (n,), or None
        Which rows are for the test; None: drawn.
    table : Table
    client : str
        The draw is a function of ``table.seed`` and of this.

    Returns
    -------
    ndarray of str, shape (n,)
        The part of each row.
    """
    part = np.full(len(outcome), TRAIN, dtype=f"<U{len(VALIDATION)}")
    rng = np.random.default_rng([table.seed, zlib.crc32(client.encode())])
    if test is None:
        fraction = TEST_FRACTION if table.test is None else table.test
        test = _draw(outcome, np.arange(len(outcome)), fraction, rng)
    part[test] = TEST
    part[_draw(outcome, np.flatnonzero(~test), table.validation, rng)] = VALIDATION
    return part


def _draw(
    outcome: NDArray[np.int64],
    among: NDArray[np.int64],
    fraction: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Which rows are drawn, shape (n,): a fraction of those ``among``, of each outcome."""
    drawn = np.zeros(len(outcome), dtype=np.bool_)
    for value in np.unique(outcome[among]):
        rows = rng.permutation(among[outcome[among] == value])
        drawn[rows[: min(round(fraction * len(rows)), len(rows) - 1)]] = True
    return drawn
