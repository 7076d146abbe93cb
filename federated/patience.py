"""When training has stopped getting better on validation rows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from federated.tasks.task import VALIDATION

__all__ = ["is_spent"]


def is_spent(patience: int | None, rows: Sequence[Mapping[str, Any]], metric: str) -> bool:
    """Whether so many rounds have passed without a better mean over the clients.

    Parameters
    ----------
    patience : int or None
        None: never.
    rows : sequence of mapping
        ``round``, ``client``, ``part`` and the metric, of all rounds from 1 on.
    metric : str
        Higher is better; a client for which it is NaN does not count.

    Examples
    --------
    >>> scores = [0.5, 0.7, 0.6, 0.65]
    >>> rows = [{"round": n, "part": "validation", "m": s} for n, s in enumerate(scores, 1)]
    >>> is_spent(2, rows, "m"), is_spent(3, rows, "m")
    (True, False)
    """
    if patience is None or not rows:
        return False
    last = max(row["round"] for row in rows)
    of_round: dict[int, list[float]] = defaultdict(list)
    for row in rows:
        if row["part"] == VALIDATION and not math.isnan(row[metric]):
            of_round[row["round"]].append(row[metric])
    means = {number: math.fsum(found) / len(found) for number, found in of_round.items()}
    # The first of equals; where nothing can be measured, the first round.
    best = max(means, key=lambda number: (means[number], -number), default=1)
    return bool(last - best >= patience)
