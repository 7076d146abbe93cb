"""Statistics of BatchNorm as moments of a client's data, and their merge at the server.

With ``n_i`` values behind the mean ``m_i`` and the unbiased variance ``v_i`` of client i, the
merged mean is ``m = sum(n_i m_i) / n`` and the merged variance
``[sum((n_i - 1) v_i) + sum(n_i (m_i - m)**2)] / (n - 1)`` (Chan, Golub & LeVeque 1979): the law of
total variance. Averaging the variances leaves the second sum out, the variance between clients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from data_tools.errors import InputError
from federated.policy.roles import norm_tensors
from seqnorm import freeze, merge_batchnorm, recalibrate

__all__ = ["COUNT_PREFIX", "Counted", "client_statistics", "merge_statistics", "read_counts"]

COUNT_PREFIX = "values/"
"""Counts travel with a reply's metrics under this and the path of their layer."""


class Counted(NamedTuple):
    """Running statistics, and how many values are behind them.

    Attributes
    ----------
    state : dict of str to Tensor
        ``running_mean`` and ``running_var`` ``(C,)`` of each BatchNorm, under their names in the
        model's ``state_dict``.
    counts : dict of str to int
        Values per channel behind the statistics of each layer, by its path; 0 for a layer that
        the model does not call, whose statistics say nothing.
    """

    state: dict[str, Tensor]
    counts: dict[str, int]

    def metrics(self) -> dict[str, float]:
        """The counts as metrics of a reply (exact up to 2**53).

        Examples
        --------
        >>> Counted({}, {"stem.norm": 640}).metrics()
        {'values/stem.norm': 640.0}
        """
        return {f"{COUNT_PREFIX}{layer}": float(count) for layer, count in self.counts.items()}


def read_counts(metrics: Mapping[str, float]) -> dict[str, int]:
    """Counts of a reply's metrics, by the path of the layer: undoes :meth:`Counted.metrics`.

    Examples
    --------
    >>> read_counts({"loss": 0.3, "values/stem.norm": 640.0})
    {'stem.norm': 640}
    """
    return {
        name.removeprefix(COUNT_PREFIX): int(value)
        for name, value in metrics.items()
        if name.startswith(COUNT_PREFIX)
    }


def client_statistics(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    layers: Sequence[str] | None = None,
    inputs: Callable[[Any], Any] | None = None,
    lengths: Callable[[Any], Tensor] | None = None,
    layout: str = "NCL",
    exact: bool = True,
) -> Counted:
    """Exact moments of what the BatchNorms of a model see of a client's data.

    Parameters
    ----------
    model : torch.nn.Module
        With its present weights; left as it is.
    batches, inputs, lengths, layout, exact
        As for :func:`seqnorm.recalibrate`. With ``exact``, K layers read the data K times, and
        their size in batches does not matter.
    layers : sequence of str, optional
        Paths of the BatchNorms to measure; the others normalize with the statistics that they
        have. None is all of them.

    Returns
    -------
    Counted

    Raises
    ------
    InputError
        As :func:`seqnorm.recalibrate`: no batch, NaN, fewer than two values for a layer; or for a
        path in ``layers`` that is no BatchNorm.

    Notes
    -----
    What the merge of such statistics is, precisely:

    - of a layer before which no other BatchNorm lies, at clients of equal weights: the statistics
      of the pooled data, up to rounding;
    - of a later layer: those of the pooled inputs that each client's *own* statistics of the
      layers before give it, which are not those that the merged ones give. To have all K layers
      exact, ask for one layer at a time (``layers=[path]``) in the order in which they are called,
      merge, load, and go on: K exchanges;
    - of clients whose weights differ: those of the pooled inputs under each client's own weights.

    Examples
    --------
    >>> import torch
    >>> x = torch.randn(20, 4, 10)
    >>> found = client_statistics(nn.Sequential(nn.BatchNorm1d(4)), x.split(7))
    >>> found.counts
    {'0': 200}
    >>> torch.allclose(found.state["0.running_var"], x.var(dim=(0, 2)))
    True
    """
    own = copy.deepcopy(model)
    norms = {
        path: module
        for path, module in own.named_modules(remove_duplicate=False)
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    wanted = set(norms) if layers is None else set(layers)
    for path in sorted(wanted - set(norms)):
        raise InputError(f"layers: {path!r} is no BatchNorm with running statistics of this model")
    if not wanted:
        raise InputError("the model has no BatchNorm with running statistics to measure")
    chosen = {id(norms[path]) for path in wanted}
    try:
        for norm in {id(norm): norm for norm in norms.values()}.values():
            if id(norm) not in chosen:
                freeze(norm)
        _, report = recalibrate(
            own, batches, inputs=inputs, lengths=lengths, layout=layout, exact=exact, inplace=True
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    # A layer that hangs in several places is reported under the first of its paths.
    values = {id(own.get_submodule(layer.name)): layer.values for layer in report.layers}
    counts = {path: values[id(norm)] for path, norm in norms.items() if path in wanted}
    state = own.state_dict()
    roles = norm_tensors(own)
    return Counted(
        {
            name: state[name].detach().cpu().clone()
            for name, tensor in roles.items()
            if tensor.role in ("mean", "variance") and tensor.module in counts
        },
        counts,
    )


def merge_statistics(
    states: Sequence[Mapping[str, Tensor]],
    counts: Sequence[Mapping[str, int]],
    clients: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Merge statistics of several clients into those of all their data, in float64.

    Parameters
    ----------
    states : sequence of mappings
        Of each client ``running_mean`` and ``running_var`` of each layer; other entries are left
        out.
    counts : sequence of mappings
        Of each client the values per channel behind each layer, by its path. A client with 0 has
        nothing to say about a layer.
    clients : sequence of str, optional
        Names of the clients: they are merged in the order of their names, so that the bits do not
        depend on the order in which replies arrive. None: in the order given.

    Returns
    -------
    dict of str to Tensor
        ``running_mean`` and ``running_var`` in the types of the first state. A layer of which no
        client has seen anything is left out: the server's values stand.

    Raises
    ------
    InputError
        If states, counts and clients do not match, or statistics are negative or not finite.

    Examples
    --------
    >>> import torch
    >>> a, b = torch.tensor([1.0, 3.0]), torch.tensor([10.0, 12.0, 14.0])
    >>> states = [{"n.running_mean": x.mean(), "n.running_var": x.var()} for x in (a, b)]
    >>> merged = merge_statistics(states, [{"n": 2}, {"n": 3}])
    >>> merged["n.running_mean"].item(), merged["n.running_var"].item()
    (8.0, 32.5)
    """
    if not states or len(states) != len(counts):
        raise InputError(f"{len(states)} states and {len(counts)} counts: one each is needed")
    order = list(range(len(states)))
    if clients is not None:
        if len(set(clients)) != len(states):
            raise InputError(f"{len(states)} states need as many different clients: {clients}")
        order.sort(key=lambda i: clients[i])
    layers = list(counts[order[0]])
    for i in order:
        if set(counts[i]) != set(layers):
            raise InputError(f"counts[{i}] is of layers {sorted(counts[i])}, not {sorted(layers)}")
    merged: dict[str, Tensor] = {}
    for layer in layers:
        seen = [i for i in order if counts[i][layer] != 0]
        if not seen:
            continue
        names = [f"{layer}.{key}" if layer else key for key in ("running_mean", "running_var")]
        try:
            parts = [{name: states[i][name] for name in names} for i in seen]
            merged |= merge_batchnorm(parts, [counts[i][layer] for i in seen])
        except KeyError as error:
            raise InputError(f"statistics of layer {layer!r} lack {error}") from error
        except ValueError as error:
            raise InputError(f"statistics of layer {layer!r}: {error}") from error
    return merged
