"""Schemes in which the clients' labels differ: label skew, batch confounded with label."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from federated.partition.checks import Floats, Ints, PartitionError, numbers, real, whole
from federated.partition.drawn import Scheme
from federated.partition.groups import Groups, deal_classes

_TRIES = 1000
"""Draws of a Dirichlet scheme before it is given up."""


@dataclass(frozen=True, kw_only=True)
class LabelSkew(Scheme):
    """Classes are shared out over the clients by Dirichlet draws.

    With ``sizes = "drawn"`` class c gives client k the share ``q[c, k]``, ``q[c] ~ Dirichlet(alpha,
    ..., alpha)``: of mean ``1/K`` and variance ``(1/K)(1 - 1/K)/(K alpha + 1)``. Sizes of clients
    differ as well. With ``sizes = "equal"`` every client has as many rows, and the classes among
    them by ``q[k] ~ Dirichlet(alpha p)``, p the classes' shares of the table; clients draw in
    random order, and where a class is used up a client takes more of the others: the last ones
    have what is left. A group with several labels counts as the commonest among its rows, the
    largest of equals.

    Parameters
    ----------
    alpha : float
        The dial, above 0. Towards infinity: every client has the prevalence of the whole table.
        Towards 0: each class goes to one client, or, with equal sizes, each client has as few
        classes as can be. The same alpha is another skew under the other ``sizes``.
    sizes : {"drawn", "equal"}
    min_rows : int, default 1
        The shares are drawn anew, at most 1000 times, until every client has as many rows: the
        law is then the Dirichlet's, given that this holds. 0 leaves it as it is.

    References
    ----------
    Yurochkin et al. 2019, https://arxiv.org/abs/1905.12022 (``"drawn"``). Hsu, Qi, Brown 2019,
    https://arxiv.org/abs/1909.06335 (``"equal"``).

    Examples
    --------
    >>> import pandas as pd
    >>> groups = Groups.of(pd.DataFrame({"label": [0, 1] * 3}))
    >>> LabelSkew(clients=2, alpha=1e-3, seed=1).assign(groups).tolist()
    [1, 0, 1, 0, 1, 0]
    """

    kind: ClassVar[str] = "label_skew"
    dial_name: ClassVar[str | None] = "alpha"

    alpha: float
    sizes: str = "drawn"

    def __post_init__(self) -> None:
        super().__post_init__()
        real("alpha", self.alpha, 0, np.inf, above=True)
        if self.sizes not in ("drawn", "equal"):
            raise PartitionError(f"sizes = {self.sizes!r}: give 'drawn' or 'equal'")

    def assign(self, groups: Groups) -> Ints:
        """Client of each group, shape (G,)."""
        labels = numbers(groups.rows, "label", "a label skew")
        values, codes = np.unique(labels, return_inverse=True)
        classes = groups.mode(codes.astype(np.int64))
        totals = np.bincount(classes, weights=groups.size, minlength=len(values)).astype(np.float64)
        rng = self._rng()
        for _ in range(_TRIES):
            targets = self._targets(totals, rng)
            client = deal_classes(classes, groups.size, targets, rng)
            held = np.bincount(client, weights=groups.size, minlength=self.clients)
            if held.min() >= self.min_rows:
                return client
        raise PartitionError(
            f"alpha = {self.alpha}: in {_TRIES} draws some of the {self.clients} clients always "
            f"had fewer than min_rows = {self.min_rows} rows; raise alpha, lower min_rows or take "
            "fewer clients"
        )

    def _targets(self, totals: Floats, rng: np.random.Generator) -> Floats:
        """Rows of each class wanted for each client, shape (C, K)."""
        if self.sizes == "drawn":
            shares = rng.dirichlet(np.full(self.clients, self.alpha), size=len(totals))
            return shares * totals[:, None]
        targets = np.zeros((len(totals), self.clients))
        left, size = totals.copy(), totals.sum() / self.clients
        for client in rng.permutation(self.clients):
            wanted = rng.dirichlet(self.alpha * totals / totals.sum())
            targets[:, client] = _taken(wanted, size, left)
            left -= targets[:, client]
        return targets


def _taken(wanted: Floats, size: float, left: Floats) -> Floats:
    """``size`` rows in the shares that are wanted, as far as every class has any left."""
    found = np.zeros_like(left)
    for _ in left:
        rest = left - found
        open_ = rest > 1e-9 * left.sum()
        if not open_.any() or size - found.sum() <= 1e-9 * size:
            break
        share = np.where(open_, wanted, 0.0)
        # None of what is wanted is left: of the others, as there is of each.
        share = share / share.sum() if share.sum() > 0 else rest / rest.sum()
        found += np.minimum(share * (size - found.sum()), rest)
    return found


@dataclass(frozen=True, kw_only=True)
class BatchConfounded(Scheme):
    """Two assay batches of clients of equal size; the batch tells something about the label.

    The first half of the clients (the smaller, of an odd number) is batch 0, the rest batch 1.
    Rows with label 1 go to batch 1 with probability ``b + rho * sqrt(b (1-b) (1-p) / p)``, those
    with label 0 with ``b - rho * sqrt(b (1-b) p / (1-p))``, where b is the share of batch 1 among
    the clients and p the prevalence: batch and label then have the correlation (phi) rho, and the
    batches keep their sizes. Within a batch clients are IID.

    Parameters
    ----------
    rho : float
        The dial, 0 or more: the correlation over rows. 0: IID with equal prevalences. Its largest
        value, `largest_rho`, is 1 only where ``p = b``; a larger one is an error.

    Examples
    --------
    >>> import pandas as pd
    >>> groups = Groups.of(pd.DataFrame({"label": [0, 1, 0, 1]}))
    >>> BatchConfounded(clients=2, rho=1).assign(groups).tolist()
    [0, 1, 0, 1]
    """

    kind: ClassVar[str] = "batch_confounded"
    dial_name: ClassVar[str | None] = "rho"

    rho: float

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("clients", self.clients, 2)
        real("rho", self.rho, 0, 1)

    def batches(self) -> Ints:
        """Batch of each client, 0 or 1, shape (K,)."""
        return (np.arange(self.clients) >= self.clients // 2).astype(np.int64)

    def largest_rho(self, prevalence: float) -> float:
        """Largest correlation that batches of these sizes can have with a label.

        Examples
        --------
        >>> BatchConfounded(clients=2, rho=0).largest_rho(0.2)
        0.5
        """
        b = float(self.batches().mean())
        low, high = sorted([prevalence / (1 - prevalence), b / (1 - b)])
        return float(np.sqrt(low / high))

    def assign(self, groups: Groups) -> Ints:
        """Client of each group, shape (G,)."""
        labels = numbers(groups.rows, "label", "a confounded batch")
        odd = ~np.isin(labels, (0, 1))
        if odd.any():
            at = int(odd.argmax())
            raise PartitionError(
                f"row {at} (0-based), column 'label': {labels[at]:g}; a confounded batch needs "
                "labels 0 and 1"
            )
        classes = groups.mode(labels.astype(np.int64))
        totals = np.bincount(classes, weights=groups.size, minlength=2)
        p = float(totals[1] / totals.sum())
        if p in (0.0, 1.0):
            raise PartitionError(
                f"column 'label': all rows are of class {p:g}; a confounded batch needs both"
            )
        if self.rho > self.largest_rho(p):
            raise PartitionError(
                f"rho = {self.rho}: with a prevalence of {p:.4g} batch and label correlate by "
                f"{self.largest_rho(p):.4f} at most; lower rho or balance the labels"
            )
        batch = self.batches()
        b = float(batch.mean())
        tilt = self.rho * np.sqrt(b * (1 - b))
        late = np.array([b - tilt * np.sqrt(p / (1 - p)), b + tilt * np.sqrt((1 - p) / p)])
        late = np.clip(late, 0, 1)[:, None]
        shares = np.where(batch == 1, late / batch.sum(), (1 - late) / (batch == 0).sum())
        return deal_classes(classes, groups.size, shares * totals[:, None], self._rng())
