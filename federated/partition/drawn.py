"""Ways in which clients' data differ: each a frozen dataclass with one dial. IID, GC, quantity.

A scheme assigns groups of linked rows, never rows. Its law is stated for rows; linked rows make it
coarser, by at most the largest group.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.special import ndtri

from federated.partition.checks import Floats, Ints, PartitionError, numbers, real, whole
from federated.partition.groups import Groups, deal


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What the schemes that draw at random share.

    Parameters
    ----------
    clients : int
        Number of clients K.
    seed : int, default 0
        Of the draw.
    min_rows : int, default 1
        A client with fewer rows is an error; 0 lets clients be empty.
    """

    kind: ClassVar[str]
    dial_name: ClassVar[str | None] = None

    clients: int
    seed: int = 0
    min_rows: int = 1

    def __post_init__(self) -> None:
        whole("clients", self.clients, 1)
        whole("seed", self.seed, 0)
        whole("min_rows", self.min_rows, 0)

    @property
    def dial(self) -> float | None:
        """Value of the scheme's dial, None where it has none."""
        return None if self.dial_name is None else float(getattr(self, self.dial_name))

    def assign(self, groups: Groups) -> Ints:
        """Client of each group, shape (G,)."""
        raise NotImplementedError

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def _equal(self, groups: Groups) -> Floats:
        return np.full(self.clients, groups.size.sum() / self.clients)

    def _deal(self, order: Ints, groups: Groups, targets: Floats) -> Ints:
        client = np.empty(len(order), dtype=np.int64)
        client[order] = deal(order, groups.size, targets, skip=self.min_rows == 0)
        return client


@dataclass(frozen=True, kw_only=True)
class IID(Scheme):
    """Groups in random order, cut into equal parts.

    Examples
    --------
    >>> import pandas as pd
    >>> IID(clients=2).assign(Groups.of(pd.DataFrame({"label": [0, 1, 0, 1]}))).tolist()
    [0, 1, 0, 1]
    """

    kind: ClassVar[str] = "iid"

    def assign(self, groups: Groups) -> Ints:
        """Client of each group, shape (G,)."""
        return self._deal(self._rng().permutation(len(groups.size)), groups, self._equal(groups))


@dataclass(frozen=True, kw_only=True)
class GCSkew(Scheme):
    """Clients of equal size whose mean GC rises from the first to the last.

    Groups are sorted by ``s = rho * z + sqrt(1 - rho**2) * e``, with z the normal score of the
    group's GC rank and e standard normal noise, and cut into equal parts. So s is standard normal,
    its correlation with z is rho, and the expected z of client k is ``rho * m_k`` with m_k the mean
    of the k-th of K equal parts of a normal: linear in the dial.

    Parameters
    ----------
    rho : float
        The dial, 0 to 1. 0: IID. 1: sorted by GC, no two clients overlap in GC.

    Examples
    --------
    >>> import pandas as pd
    >>> groups = Groups.of(pd.DataFrame({"gc": [0.6, 0.3, 0.5, 0.4]}))
    >>> GCSkew(clients=2, rho=1).assign(groups).tolist()
    [1, 0, 1, 0]
    """

    kind: ClassVar[str] = "gc_skew"
    dial_name: ClassVar[str | None] = "rho"

    rho: float

    def __post_init__(self) -> None:
        super().__post_init__()
        real("rho", self.rho, 0, 1)

    def assign(self, groups: Groups) -> Ints:
        """Client of each group, shape (G,)."""
        gc = groups.mean(numbers(groups.rows, "gc", "a GC skew"))
        rng = self._rng()
        # Groups of equal GC are ranked at random, not along the genome.
        ranked = np.lexsort((rng.permutation(len(gc)), gc))
        size = groups.size[ranked]
        score = np.empty(len(gc))
        score[ranked] = ndtri((np.cumsum(size) - size / 2) / size.sum())
        mixed = self.rho * score + np.sqrt(1 - self.rho**2) * rng.standard_normal(len(gc))
        return self._deal(np.argsort(mixed, kind="stable"), groups, self._equal(groups))


@dataclass(frozen=True, kw_only=True)
class QuantitySkew(Scheme):
    """IID clients whose sizes fall off by a power law (Zipf's).

    Client k = 1..K has ``min_rows + (N - K * min_rows) * k**-exponent / sum_j j**-exponent`` of N
    rows, rounded; the first client is the largest.

    Parameters
    ----------
    exponent : float
        The dial, 0 or more. 0: equal sizes, IID. Towards infinity: the first client has all but
        ``min_rows`` of each of the others.

    Examples
    --------
    >>> import pandas as pd
    >>> groups = Groups.of(pd.DataFrame({"label": [0] * 12}))
    >>> np.bincount(QuantitySkew(clients=3, exponent=1).assign(groups))
    array([6, 3, 3])
    """

    kind: ClassVar[str] = "quantity_skew"
    dial_name: ClassVar[str | None] = "exponent"

    exponent: float

    def __post_init__(self) -> None:
        super().__post_init__()
        real("exponent", self.exponent, 0, np.inf)

    def sizes(self, total: int) -> Ints:
        """Rows wanted for each client, shape (K,), the largest first, summing to ``total``."""
        free = total - self.clients * self.min_rows
        if free < 0:
            raise PartitionError(
                f"{self.clients} clients with min_rows = {self.min_rows} need "
                f"{self.clients * self.min_rows} rows, the table has {total}"
            )
        law = np.arange(1, self.clients + 1, dtype=np.float64) ** -self.exponent
        wanted = free * law / law.sum()
        extra = np.floor(wanted).astype(np.int64)
        # Largest remainder; of equals the earlier client, so that sizes never rise.
        first = np.argsort(extra - wanted, kind="stable")[: free - int(extra.sum())]
        extra[first] += 1
        sizes: Ints = self.min_rows + extra
        return sizes

    def assign(self, groups: Groups) -> Ints:
        """Client of each group, shape (G,)."""
        order = self._rng().permutation(len(groups.size))
        return self._deal(order, groups, self.sizes(len(groups.of_row)).astype(np.float64))
