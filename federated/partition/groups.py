"""Groups of linked rows, and how they are dealt to clients: what every scheme stands on."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from federated.partition.checks import Floats, Ints
from federated.partition.linked import linked_groups


@dataclass(frozen=True, eq=False)
class Groups:
    """A table and the groups of its linked rows.

    Attributes
    ----------
    rows : pandas.DataFrame
        N rows.
    of_row : ndarray of int64, shape (N,)
        Group of each row, 0 to G - 1; see `linked_groups`.

    Examples
    --------
    >>> rows = pd.DataFrame({"chrom": "a", "start": [0, 5, 40], "end": [9, 14, 49]})
    >>> groups = Groups.of(rows)
    >>> groups.size, groups.mean(np.array([0.2, 0.4, 0.9])).round(3)
    (array([2, 1]), array([0.3, 0.9]))
    """

    rows: pd.DataFrame
    of_row: Ints

    @classmethod
    def of(cls, rows: pd.DataFrame, codes: NDArray[np.uint8] | None = None) -> "Groups":
        """Find the groups of a table."""
        return cls(rows, linked_groups(rows, codes))

    @cached_property
    def size(self) -> Ints:
        """Rows of each group, shape (G,)."""
        return np.bincount(self.of_row).astype(np.int64)

    def mean(self, values: Floats) -> Floats:
        """Mean of the rows' values in each group, shape (G,), the same bits in any row order."""
        # Floating sums depend on the order of their terms: sort them.
        order = np.lexsort((values, self.of_row))
        first = np.concatenate([[0], np.cumsum(self.size)[:-1]])
        sums: Floats = np.add.reduceat(values[order], first)
        return sums / self.size

    def mode(self, codes: Ints) -> Ints:
        """Most frequent code (0 or more) of the rows of each group, the largest of equals."""
        span = int(codes.max()) + 1
        pairs, counts = np.unique(self.of_row * span + codes, return_counts=True)
        group, code = np.divmod(pairs, span)
        order = np.lexsort((code, counts, group))
        last = np.append(np.diff(group) != 0, True)
        winners: Ints = code[order][last]
        return winners


def deal(order: Ints, size: Ints, targets: ArrayLike, *, skip: bool = False) -> Ints:
    """Lay groups in a line and cut it into consecutive parts, a part a client.

    Parameters
    ----------
    order : ndarray of int64, shape (M,)
        The groups in the order in which clients are filled.
    size : ndarray of int64, shape (G,)
        Rows of each group.
    targets : array_like, shape (K,)
        Rows wanted for each client, summing to the rows of these groups.
    skip : bool, default False
        Whether a client may stay empty that a group larger than its target has jumped over;
        else the groups that follow move up, as far as there are any.

    Returns
    -------
    ndarray of int64, shape (M,)
        Client of each group, in the order given: that in whose part the group's middle row lies.
        With groups of one row every client is within one row of its target; else within the
        largest group that touches it.

    Examples
    --------
    >>> deal(np.arange(6), np.ones(6, dtype=np.int64), [3, 1, 2])
    array([0, 0, 0, 1, 2, 2])
    >>> deal(np.arange(3), np.array([9, 1, 1]), [4, 4, 3])
    array([0, 1, 2])
    """
    ends = np.cumsum(np.asarray(targets, dtype=np.float64))
    mine = size[order]
    middle = np.cumsum(mine) - mine / 2
    clients = len(ends)
    found = np.minimum(np.searchsorted(ends, middle, side="right"), clients - 1).astype(np.int64)
    if skip or len(order) < clients:
        return found
    place = np.arange(len(order))
    # No client is jumped over: from the left a group is at most one client on from the last...
    found = np.minimum.accumulate(np.minimum(found, place) - place) + place
    # ...and from the right enough groups are left for the clients that follow.
    least: Ints = np.maximum(found, place + clients - len(order))
    return least


def deal_classes(classes: Ints, size: Ints, targets: Floats, rng: np.random.Generator) -> Ints:
    """Deal the groups of each class in random order.

    Parameters
    ----------
    classes, size : ndarray of int64, shape (G,)
        Class and rows of each group.
    targets : ndarray of float64, shape (C, K)
        Rows of each class wanted for each client.
    rng : numpy.random.Generator
        Of the order.

    Returns
    -------
    ndarray of int64, shape (G,)
        Client of each group.

    Examples
    --------
    >>> one = np.ones(4, dtype=np.int64)
    >>> targets = np.array([[2.0, 0.0], [0.0, 2.0]])
    >>> deal_classes(np.array([0, 1, 0, 1]), one, targets, np.random.default_rng(0))
    array([0, 1, 0, 1])
    """
    client = np.empty(len(classes), dtype=np.int64)
    for number, wanted in enumerate(targets):
        order = rng.permutation(np.flatnonzero(classes == number))
        client[order] = deal(order, size, wanted, skip=True)
    return client
