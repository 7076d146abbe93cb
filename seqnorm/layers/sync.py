"""SyncBatchNorm: the statistics of the batches of all processes together.

Each process takes the moments of its own batch, all processes exchange them, and each merges them
in the order of ranks: the merge is exact, so the result is that of one BatchNorm on the
concatenated batch, whatever the share of each process. Going back, the gradients of the merged
mean and variance are summed over the processes, again in the order of ranks.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from seqnorm.backends.plan import compute_dtype, hide
from seqnorm.functional import concrete
from seqnorm.layers.base import Device
from seqnorm.layers.batch import BatchNorm1d
from seqnorm.layers.domain import DomainBatchNorm1d
from seqnorm.moments import Moments

Group = Any  # torch.distributed.ProcessGroup exists only where torch was built with it.


class SyncBatchNorm(BatchNorm1d):
    """:class:`BatchNorm1d` over the batches of all processes, on any device and backend.

    Outputs, gradients and running statistics are those of one BatchNorm on the concatenated
    batch. Processes may hold batches of different sizes, of different lengths, or nothing at all
    (``N = 0``, or no valid position). Every process must call the layer, and go backward through
    it, as often as the others. In evaluation, when frozen, and where there is one process only,
    it is :class:`BatchNorm1d`.

    Parameters
    ----------
    num_features, eps, momentum, affine, track_running_stats, process_group, device, dtype
        As for :class:`torch.nn.SyncBatchNorm`, which needs a GPU. ``process_group=None`` is all
        processes. A copy of the layer shares the group; a layer with a group cannot be pickled,
        its ``state_dict`` can.
    bias, layout, activation, frozen, on_single
        As for :class:`BatchNorm1d`; ``on_single`` looks at the values of all processes together.

    Notes
    -----
    Not a subclass of :class:`torch.nn.SyncBatchNorm`: DistributedDataParallel refuses that on a
    CPU. Gradients are summed, not averaged: where DistributedDataParallel averages those of
    weights, scale the loss as for any other layer. There are no second derivatives across
    processes.

    References
    ----------
    Chan, Golub & LeVeque (1979), Stanford STAN-CS-79-773, for the merge.

    Examples
    --------
    >>> import torch
    >>> norm = SyncBatchNorm(4)  # one process: as BatchNorm1d
    >>> norm(torch.randn(2, 4, 10)).mean(dim=(0, 2)).abs().max().item() < 1e-6
    True
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Group = None,
        device: Device = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        layout: str = "NCL",
        activation: str | None = None,
        frozen: bool = False,
        on_single: str = "error",
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias,
            layout=layout, activation=activation, frozen=frozen, on_single=on_single,
        )  # fmt: skip
        self.process_group = process_group

    def _with_batch(
        self, x: Tensor, valid: Tensor | None, residual: Tensor | None, count: int | None
    ) -> tuple[Tensor, Moments]:
        if not self.training or _world_size(self.process_group) == 1:
            return super()._with_batch(x, valid, residual, count)
        wide = x.to(compute_dtype(x))
        merged = _over_ranks(self._moments(wide, valid), self.process_group)
        if self._too_few(concrete(merged.count.max()), "in the batches of all processes"):
            return self._without_batch(x, valid, residual), merged
        # The merged mean, rounded, is subtracted first: what remains is exact at any offset.
        shift = merged.mean.to(wide.dtype)
        centered = hide(wide - self._over_positions(shift), self._over_channels(wide, valid))
        mean, var = self._mean_and_variance(centered, merged, merged.mean - shift)
        y = self._normalize(centered, "NL", valid, residual, mean=mean, var=var)
        return y.to(x.dtype), merged

    def _track(self, moments: Moments, certain: bool = False) -> None:
        # What one process is certain of the others may not be, and all must do the same sum.
        super()._track(moments, certain and _world_size(self.process_group) == 1)

    def _mean_and_variance(self, x: Tensor, merged: Moments, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Of all processes' ``x``, whose padding is 0: values are known, derivatives are of sums.

        ``mean`` is what rounding has left of the merged mean, so its square takes no digits away.
        """
        axes = (0, self.layout.index("L"))
        sums = torch.stack([x.sum(axes), x.square().sum(axes)])
        known = torch.stack([merged.count * mean, merged.m2 + merged.count * mean.square()])
        total = _Total.apply(sums, known, self.process_group)  # type: ignore[no-untyped-call]
        average = total / merged.count.clamp_min(1)
        variance = (average[1] - average[0].square()).clamp_min(0)
        return average[0].to(x.dtype), variance.to(x.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> SyncBatchNorm:
        # A process group is a handle on something outside: copies share it.
        memo[id(self.process_group)] = self.process_group
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin


class _Total(torch.autograd.Function):
    """The sum over all processes, known beforehand, of a sum over each."""

    @staticmethod
    def forward(ctx: Any, local: Tensor, total: Tensor, group: Group) -> Tensor:
        ctx.group = group
        ctx.dtype = local.dtype
        return total.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _gather(grad, ctx.group).sum(0).to(ctx.dtype), None, None


def _world_size(group: Group) -> int:
    ready = dist.is_available() and dist.is_initialized()
    return dist.get_world_size(group) if ready else 1


def _gather(value: Tensor, group: Group) -> Tensor:
    """Stack a tensor of every process in the order of ranks; the same bits on all of them."""
    parts = [torch.empty_like(value) for _ in range(_world_size(group))]
    dist.all_gather(parts, value.contiguous(), group=group)
    return torch.stack(parts)


def _over_ranks(moments: Moments, group: Group) -> Moments:
    """Merge the moments of all processes; one exchange."""
    packed = torch.stack([moments.count.expand_as(moments.mean), moments.mean, moments.m2])
    return Moments.merge_all([Moments(*part) for part in _gather(packed, group)])


def convert_sync_batchnorm(module: nn.Module, process_group: Group = None) -> nn.Module:
    """Replace every BatchNorm of a model of sequences by :class:`SyncBatchNorm`, with its state.

    Parameters
    ----------
    module : torch.nn.Module
        Changed in place, unless it is a BatchNorm itself. Taken are BatchNorm1d, of torch and
        ours, and :class:`torch.nn.SyncBatchNorm`. Parameters and buffers stay the same tensors,
        so that an optimizer keeps its hold on them.
    process_group : ProcessGroup, optional
        Whose batches are taken together; None is all processes.

    Returns
    -------
    torch.nn.Module
        The module, or what replaces it.

    Raises
    ------
    ValueError
        For a BatchNorm that has no synchronized form here, e.g. for images; the message names
        it. Nothing is replaced then.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv1d(4, 8, 5), nn.BatchNorm1d(8), nn.ReLU())
    >>> type(convert_sync_batchnorm(model)[1]).__name__
    'SyncBatchNorm'
    """
    taken = (nn.BatchNorm1d, BatchNorm1d, nn.SyncBatchNorm)
    for path, norm in module.named_modules():
        known = type(norm) in (*taken, SyncBatchNorm)
        # Processes whose batches hold different domains would wait for each other for ever.
        if isinstance(norm, _BatchNorm | DomainBatchNorm1d) and not known:
            raise ValueError(
                f"{type(norm).__name__} at {path or 'the top'!r} has no synchronized form here; "
                "replace it by BatchNorm1d first, or leave it out by converting submodules"
            )
    twins: dict[nn.Module, SyncBatchNorm] = {
        norm: _synchronized(norm, process_group)
        for norm in module.modules()
        if isinstance(norm, taken) and type(norm) in taken
    }
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if child in twins:
                parent._modules[name] = twins[child]
    return twins.get(module, module)


def _synchronized(norm: _BatchNorm, group: Group) -> SyncBatchNorm:
    twin = SyncBatchNorm(
        norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False,
        process_group=group,
    )  # fmt: skip
    for name in ("affine", "track_running_stats", "training"):
        setattr(twin, name, getattr(norm, name))
    for name in ("layout", "activation", "frozen", "on_single"):
        setattr(twin, name, getattr(norm, name, getattr(twin, name)))
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        setattr(twin, name, getattr(norm, name))
    return twin
