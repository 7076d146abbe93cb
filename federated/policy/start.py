"""With which local state a client starts that has none: one that joins late, or an unseen site.

Rule ``"shrink"`` puts a site's own estimate between itself and the server's value. If a statistic
varies between clients with variance ``tau2`` around the server's value ``m``, and K sequences of
the site estimate its own as ``x`` with sampling variance ``s2``, the best estimate of the site's
value is ``m + B (x - m)`` with ``B = tau2 / (tau2 + s2)``: empirical Bayes, the estimator of James
and Stein (1961) in the form of Efron & Morris (1973).

- Mean: ``s2 = v / K`` with the site's own variance ``v``. It is over positions too, and so at least
  the variance of a sequence's mean: positions of one sequence do not count as independent.
- Variance: on the scale of logarithms, on which it stays positive, with ``s2 = 2 / (K - 1)``
  (Bartlett & Kendall 1946; K independent normal values).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from data_tools.errors import InputError
from federated.policy.moments import Counted

__all__ = ["START_RULES", "between_clients", "start_local"]

START_RULES = {
    "server": "the server's value",
    "adapt": "statistics of k unlabelled sequences of the site; the rest as the server's",
    "shrink": "between the two, the nearer to the site's own the more sequences there are",
}
"""What each rule does."""

_TINY = 1e-12  # a channel that is constant has no logarithm of its variance


def start_local(
    rule: str,
    server_value: Mapping[str, Tensor],
    *,
    own: Counted | None = None,
    k: int | None = None,
    between: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """State with which a client without a past starts.

    Parameters
    ----------
    rule : {"server", "adapt", "shrink"}
        See :data:`START_RULES`.
    server_value : mapping
        The server's value of every tensor that is local. Under a policy that never sends
        statistics that is the value of the model as it was built, so that only ``"adapt"`` says
        anything about the site.
    own : Counted, optional
        What :func:`federated.policy.client_statistics` finds of k unlabelled sequences of the
        site under the server's weights; for ``"adapt"`` and ``"shrink"``.
    k : int, optional
        How many sequences those are; for ``"shrink"``, at least 2.
    between : mapping, optional
        For ``"shrink"``: ``tau2`` of each statistic, ``(C,)``, as :func:`between_clients` makes it.

    Returns
    -------
    dict of str to Tensor
        The names of ``server_value``, in its types; copies. Layers of which the site has seen
        nothing, scales, offsets and counters have the server's value.

    Raises
    ------
    InputError
        For an unknown rule, or one that lacks what it needs.

    References
    ----------
    James & Stein (1961), Estimation with quadratic loss, 4th Berkeley Symposium 1, 361-379. Efron
    & Morris (1973), Stein's estimation rule and its competitors, JASA 68, 117-130. Bartlett &
    Kendall (1946), Suppl. J. R. Stat. Soc. 8, 128-138.

    Examples
    --------
    >>> server = {"n.running_mean": torch.zeros(1), "n.running_var": torch.ones(1)}
    >>> own = Counted({"n.running_mean": torch.ones(1), "n.running_var": torch.ones(1)}, {"n": 40})
    >>> between = {"n.running_mean": torch.full((1,), 0.25), "n.running_var": torch.zeros(1)}
    >>> start_local("shrink", server, own=own, k=4, between=between)["n.running_mean"].item()
    0.5
    """
    if rule not in START_RULES:
        raise InputError(f"unknown rule {rule!r}; valid: {', '.join(START_RULES)}")
    start = {name: value.detach().clone() for name, value in server_value.items()}
    if rule == "server":
        return start
    if own is None:
        raise InputError(f"rule {rule!r} needs own=, statistics of unlabelled sequences")
    if rule == "shrink" and (between is None or k is None or k < 2):
        raise InputError(
            f"rule 'shrink' needs between= and k= of at least 2 sequences, got k={k}; for a policy "
            "whose statistics the server never sees take 'adapt'"
        )
    for layer, count in own.counts.items():
        mean, var = _names(layer)
        if count == 0 or mean not in start:
            continue
        site = {name: own.state[name].double() for name in (mean, var)}
        if rule == "shrink":
            assert between is not None
            assert k is not None
            site = _shrink(layer, server_value, site, between, k)
        for name, value in site.items():
            start[name] = value.to(start[name])
    return start


def _shrink(
    layer: str,
    server: Mapping[str, Tensor],
    site: Mapping[str, Tensor],
    between: Mapping[str, Tensor],
    k: int,
) -> dict[str, Tensor]:
    mean, var = _names(layer)
    for name in (mean, var):
        if name not in between:
            raise InputError(f"between= lacks {name}, which the site has measured")
    centre, spread = server[mean].double(), server[var].double().clamp_min(_TINY).log()
    towards_mean = _weight(between[mean].double(), site[var] / k)
    towards_var = _weight(between[var].double(), torch.full_like(spread, 2 / (k - 1)))
    log_var = site[var].clamp_min(_TINY).log()
    return {
        mean: centre + towards_mean * (site[mean] - centre),
        var: (spread + towards_var * (log_var - spread)).exp(),
    }


def _weight(tau2: Tensor, sampling: Tensor) -> Tensor:
    """``tau2 / (tau2 + sampling)``; an estimate without any error is taken as it is."""
    total = tau2 + sampling
    return torch.where(total > 0, tau2 / torch.where(total > 0, total, 1), 1)


def between_clients(parts: Sequence[Counted], sequences: Sequence[int]) -> dict[str, Tensor]:
    """Variance between clients of each statistic, ``tau2`` of rule ``"shrink"``.

    Method of moments: the variance of the clients' values less the mean of their sampling
    variances, and 0 where that is negative (Efron & Morris 1973).

    Parameters
    ----------
    parts : sequence of Counted
        Statistics of at least two clients under one set of weights.
    sequences : sequence of int
        How many sequences are behind each, at least 2.

    Returns
    -------
    dict of str to Tensor
        ``(C,)``, float64: of ``running_mean`` in its unit squared, of ``running_var`` for its
        logarithm. Layers that fewer than two clients have seen are not in it.

    Raises
    ------
    InputError
        For fewer than two clients, or sequences.

    Examples
    --------
    >>> def site(mean):
    ...     return Counted(
    ...         {"n.running_mean": torch.tensor([mean]), "n.running_var": torch.ones(1)}, {"n": 1}
    ...     )
    >>> between_clients([site(0.0), site(2.0)], [10, 10])["n.running_mean"].item()
    1.9
    """
    if len(parts) < 2 or len(parts) != len(sequences) or min(sequences) < 2:
        raise InputError(
            f"at least two clients with two sequences each are needed, got {len(parts)} clients "
            f"and sequences {list(sequences)}"
        )
    found: dict[str, Tensor] = {}
    for layer in parts[0].counts:
        mean, var = _names(layer)
        seen = [(p.state, n) for p, n in zip(parts, sequences, strict=True) if p.counts.get(layer)]
        if len(seen) < 2:
            continue
        means = torch.stack([state[mean].double() for state, _ in seen])
        variances = torch.stack([state[var].double() for state, _ in seen])
        sizes = torch.tensor([n for _, n in seen], dtype=torch.float64)[:, None]
        logs = variances.clamp_min(_TINY).log()
        found[mean] = (means.var(0) - (variances / sizes).mean(0)).clamp_min(0)
        found[var] = (logs.var(0) - (2 / (sizes - 1)).mean(0)).clamp_min(0)
    return found


def _names(layer: str) -> tuple[str, str]:
    prefix = f"{layer}." if layer else ""
    return f"{prefix}running_mean", f"{prefix}running_var"
