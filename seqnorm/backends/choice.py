"""Which backend does a normalization, and how to say otherwise.

=============  ==============================================  ===================================
backend        is                                              takes over
=============  ==============================================  ===================================
``native``     a C library, AVX2 where there is                float32, float64, bfloat16, float16
                                                               on the CPU
``triton``     Triton kernels                                  the same on CUDA, from 1 MiB on
``aten``       torch's fused kernels fed with shifted values   unpadded inputs that one of them
                                                               fits, where the kernels above are
                                                               missing or the input is small
``reference``  plain torch                                     everything else: exported and traced
                                                               graphs, forward-mode derivatives,
                                                               gradients of given statistics,
                                                               tensor subclasses, other devices
=============  ==============================================  ===================================

The order on a CPU is measured, see `benchmarks/norms_cpu.md`; that on CUDA is yet to be.
"""

from __future__ import annotations

import contextlib
import importlib.util
from types import TracebackType

import torch
from torch import Tensor

from seqnorm.backends import aten, native
from seqnorm.backends.plan import Plan

__all__ = ["BACKENDS", "backend", "choose", "why_not"]

BACKENDS = ("native", "triton", "aten", "reference")
_LEAST_CUDA_BYTES = 1 << 20

# Looked for, not imported: that takes a quarter of a second, and only CUDA inputs need it.
_TRITON_MISSING = None if importlib.util.find_spec("triton") else "Triton is not installed"

_forced: str | None = None


class backend(contextlib.ContextDecorator):  # noqa: N801
    """Force a backend, as a context manager or a decorator.

    Parameters
    ----------
    name : {"native", "triton", "aten", "reference", "auto"}
        ``"auto"`` undoes an outer choice. A forced backend that cannot take an input raises
        ValueError and says why, except that exported graphs always hold plain torch operations.

    Raises
    ------
    ValueError
        For another name.

    Examples
    --------
    >>> import torch, seqnorm
    >>> norm, x = seqnorm.LayerNorm(4), torch.randn(2, 4, 10)
    >>> with seqnorm.backend("reference"):
    ...     plain = norm(x)
    >>> torch.allclose(plain, norm(x), atol=1e-6)
    True
    """

    def __init__(self, name: str) -> None:
        if name not in (*BACKENDS, "auto"):
            valid = ", ".join((*BACKENDS, "auto"))
            raise ValueError(f"unknown backend {name!r}; valid: {valid}")
        self.name = name
        self._before: list[str | None] = []

    def __enter__(self) -> backend:
        global _forced
        self._before.append(_forced)
        _forced = None if self.name == "auto" else self.name
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _forced
        _forced = self._before.pop()


def choose(x: Tensor, plan: Plan, padded: bool, given: bool, statistics_learn: bool) -> str:
    """Name the backend for an input.

    Parameters
    ----------
    x : Tensor
    plan : Plan
    padded : bool
        Whether there are lengths or a mask.
    given : bool
        Whether mean and variance are given.
    statistics_learn : bool
        Whether given statistics need gradients.

    Raises
    ------
    ValueError
        If a backend is forced that cannot take the input.
    """
    if _only_reference(x, statistics_learn):
        return "reference"
    if _forced is not None:
        reason = why_not(_forced, x, plan, padded, given)
        if reason:
            raise ValueError(f"backend {_forced!r} cannot do this: {reason}")
        return _forced
    small = x.is_cuda and x.numel() * x.element_size() < _LEAST_CUDA_BYTES
    order = ("aten", "triton") if small else ("native", "triton", "aten")
    return next((b for b in order if not why_not(b, x, plan, padded, given)), "reference")


def free_for(name: str) -> bool:
    """Whether no other backend is forced."""
    return _forced is None or _forced == name


def why_not(name: str, x: Tensor, plan: Plan, padded: bool, given: bool) -> str | None:
    """Why a backend cannot take an input, or None if it can."""
    if name == "reference":
        return None
    if x.numel() == 0:
        return "the input is empty; the reference takes it"
    if name == "aten":
        if padded or given or not plan.center:
            return "torch has no fused kernel for padding, given statistics or the mean left in"
        return None if aten.covers(plan) else f"no kernel over {plan.over} in {plan.layout}"
    if x.dtype not in native.DTYPES:
        return f"there are no kernels for {x.dtype}"
    device = "cpu" if name == "native" else "cuda"
    if x.device.type != device:
        return f"it works on {device}, the input is on {x.device.type}"
    return native.MISSING if name == "native" else _TRITON_MISSING


def _only_reference(x: Tensor, statistics_learn: bool) -> bool:
    """Whether only plain torch operations serve: they alone can be taken apart."""
    if statistics_learn or (torch.compiler.is_compiling() and _exporting()):
        return True
    if type(x) not in (Tensor, torch.nn.Parameter) or torch._C._get_tracing_state() is not None:
        return True
    return torch.autograd.forward_ad._current_level >= 0


def _exporting() -> bool:
    exporting = getattr(torch.compiler, "is_exporting", None)
    return bool(exporting()) if exporting is not None else False
