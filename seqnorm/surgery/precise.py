"""Recalibrate: exact statistics of BatchNorm over a whole data set.

Running statistics are an average that forgets, of batches normalized by weights of long ago. Here
the moments of all batches are merged exactly (Chan et al. 1979), between-batch variance included,
so that the size of the batches does not matter: precise BatchNorm (Wu & Johnson 2021), and on
unlabelled data of another domain AdaBN (Li et al. 2016).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seqnorm.surgery.change import evaluating
from seqnorm.surgery.feed import Feed
from seqnorm.surgery.frozen import is_frozen
from seqnorm.surgery.passes import at_once, layer_by_layer, readable
from seqnorm.surgery.prevalence import prevalence_shift, warn
from seqnorm.text_table import text_table

__all__ = ["Recalibrated", "Recalibration", "recalibrate"]


@dataclass(frozen=True)
class Recalibrated:
    """One BatchNorm of a model.

    Attributes
    ----------
    name : str
        Where it is.
    values : int
        Valid values per channel that were counted; 0 if the layer was left as it is.
    mean_moved : float or None
        How far the mean moved, in old standard deviations: root mean square over channels.
    std_factor : float or None
        New over old standard deviation: geometric mean over channels.
    note : str
        Why the layer was left as it is.
    """

    name: str
    values: int
    mean_moved: float | None
    std_factor: float | None
    note: str = ""


@dataclass(frozen=True)
class Recalibration:
    """What :func:`recalibrate` did.

    Attributes
    ----------
    layers : tuple of Recalibrated
        Every BatchNorm of the model.
    passes : int
        How often the data were read.
    """

    layers: tuple[Recalibrated, ...]
    passes: int

    def __str__(self) -> str:
        table = text_table(
            ("layer", "values", "mean moved (sd)", "sd factor", "note"),
            [(r.name or "(model)", r.values, r.mean_moved, r.std_factor, r.note)
             for r in self.layers],
        )  # fmt: skip
        return f"{table}\npasses over the data: {self.passes}"


def recalibrate(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    inputs: Callable[[Any], Any] | None = None,
    lengths: Callable[[Any], Tensor] | None = None,
    layout: str = "NCL",
    exact: bool = True,
    labels: Callable[[Any], Tensor] | None = None,
    source_prevalence: Mapping[int, float] | Tensor | None = None,
    inplace: bool = False,
) -> tuple[nn.Module, Recalibration]:
    """Set the running statistics of every BatchNorm to those of its inputs over a data set.

    Parameters
    ----------
    model : torch.nn.Module
        Called in evaluation mode; modes are left as they were.
    loader : iterable
        Batches; a list or DataLoader, which can be read several times.
    inputs : callable, optional
        ``function(batch)`` gives the model's input, or a tuple of arguments. By default the batch
        itself if it is a tensor, else its first element.
    lengths : callable, optional
        ``function(batch)`` gives lengths, e.g. ``lambda batch: batch[1]``. They are carried
        through the model (:func:`seqnorm.carry_lengths`), and padding is not counted.
    layout : {"NCL", "NLC", "NL"}
        Axes of the model's first input, for ``lengths``.
    exact : bool
        True: layer by layer in the order of their first call, each on inputs that the layers
        before it give with their new statistics. Exact at any batch size; K layers cost K passes,
        each as far as its layer. False: one pass, in which layers normalize by batch statistics
        as in training; the moments are merged exactly, but inputs of later layers depend on the
        batches.
    labels : callable, optional
        ``function(batch)`` gives integers ``(N,)``, the classes: costs one pass more and warns if
        the classes' shares, not the domain, would move the statistics.
    source_prevalence : mapping or Tensor, optional
        Together with ``labels``: share of each class in the data behind the present statistics,
        or the labels of these data.
    inplace : bool
        Change the model itself instead of a copy.

    Returns
    -------
    model : torch.nn.Module
    report : Recalibration
        For every BatchNorm how far its statistics moved.

    Raises
    ------
    ValueError
        If there is nothing to read or to recalibrate, inputs are not finite, a layer sees fewer
        than two values, or the loader can be read once only and more passes are needed. A model
        changed in place then has its old statistics.

    Warns
    -----
    UserWarning
        If classes have other shares than in the source, and that alone moves the mean of a layer
        by 0.1 standard deviations or its standard deviation by 10 %. With classes ``k``, target
        means ``m_k`` and shares ``t_k`` in the target and ``s_k`` in the source, the mean moves
        from ``M`` by ``sum((t_k - s_k) m_k)`` because of the shares and by
        ``sum(s_k m_k) - M`` within classes. Only the second is what AdaBN is to take away; the
        first takes away what tells the classes apart.

    Notes
    -----
    ``running_var`` is the unbiased variance and ``num_batches_tracked`` the number of batches, as
    torch would have left them after one batch with all data. Frozen layers, and those without
    running statistics, are left as they are. :func:`torch.optim.swa_utils.update_bn` averages
    variances of batches instead and so loses the variance between them: all of it at one
    sequence of one position a batch.

    References
    ----------
    Li et al. (2016), Revisiting batch normalization for practical domain adaptation,
    arXiv:1603.04779. Wu & Johnson (2021), Rethinking "Batch" in BatchNorm, arXiv:2105.07576.

    Examples
    --------
    >>> x = torch.randn(64, 4, 10) * 3 + 1
    >>> norm, report = recalibrate(nn.BatchNorm1d(4), x.split(1))
    >>> torch.allclose(norm.running_var, x.var(dim=(0, 2)), rtol=1e-5)
    True
    >>> report.layers[0].values
    640
    """
    feed = Feed(loader, inputs, lengths, layout)
    if (labels is None) != (source_prevalence is None):
        raise ValueError("labels and source_prevalence go together: pass both or neither")
    target = model if inplace else copy.deepcopy(model)
    norms = {n: m for n, m in target.named_modules() if isinstance(m, _BatchNorm)}
    notes = {name: _left_alone(norm) for name, norm in norms.items()}
    active = {name: norm for name, norm in norms.items() if not notes[name]}
    if not active:
        raise ValueError("the model has no BatchNorm with running statistics to recalibrate")
    with _old_statistics_after_an_error(active):
        before = {name: _statistics(norm) for name, norm in active.items()}
        with evaluating(target):
            if labels is not None and source_prevalence is not None:
                readable(feed, 2)
                warn(prevalence_shift(target, feed, active, labels, source_prevalence))
            found, passes = (layer_by_layer if exact else at_once)(target, feed, active)
    report = []
    for name in norms:
        if name not in found:
            report.append(Recalibrated(name, 0, None, None, notes[name] or "is not called"))
            continue
        (mean, var), (new_mean, new_var) = before[name], _statistics(active[name])
        moved = (new_mean - mean).square() / var
        factor = (new_var / var).log().mean() / 2
        count = int(found[name].count.max())
        report.append(Recalibrated(name, count, float(moved.mean().sqrt()), float(factor.exp())))
    return target, Recalibration(tuple(report), passes + (labels is not None))


def _statistics(norm: Any) -> tuple[Tensor, Tensor]:
    """Mean, and variance with eps, in float64."""
    return norm.running_mean.cpu().double(), norm.running_var.cpu().double() + norm.eps


def _left_alone(norm: Any) -> str:
    if norm.running_mean is None:
        return "has no running statistics"
    return "is frozen" if is_frozen(norm) else ""


@contextmanager
def _old_statistics_after_an_error(norms: dict[str, Any]) -> Iterator[None]:
    old = {name: copy.deepcopy(list(norm.buffers())) for name, norm in norms.items()}
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for name, norm in norms.items():
                for buffer, value in zip(norm.buffers(), old[name], strict=True):
                    buffer.copy_(value)
        raise
