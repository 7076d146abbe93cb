"""Normalization on the CPU by a small C library, loaded with ctypes.

``src/`` holds its source: C++ inside, a plain C interface (``problem.h``) outside, so that one
build serves every version of Python and torch. It shares the threads that torch has, uses AVX2
where the processor has it, and gives the same bits with and without it, with any number of
threads. Where it was not built, ``MISSING`` says why and the other backends take over.
"""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

import torch
from torch import Tensor

from seqnorm.backends.plan import Plan, compute_dtype, outside

__all__ = ["DTYPES", "backward", "forward", "instructions"]

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_OVER = {"L": 0, "NL": 1, "CL": 2, "C": 3}
_ACTIVATION = {None: 0, "relu": 1, "gelu": 2}
# `struct sn_problem` of src/problem.h: packed, it costs a tenth of a ctypes structure.
_PROBLEM = struct.Struct("@10i4qd14P")
_LENGTH_OUTSIDE = 2


def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or why there is none."""
    path = Path(__file__).with_name("_kernels.so")
    if not path.is_file():
        return None, (
            "the native kernels were not built when seqnorm was installed (no C++ compiler?); "
            "install again where there is one, e.g. after apt install g++"
        )
    try:
        library = ctypes.CDLL(str(path))
        library.sn_instructions.restype = ctypes.c_char_p
        for name in ("sn_forward", "sn_backward"):
            getattr(library, name).argtypes = [ctypes.c_char_p]
    except (OSError, AttributeError) as error:
        return None, f"the native kernels in {path} cannot be loaded: {error}"
    # torch has loaded an OpenMP runtime; a second one would fight it for the processors.
    loaded = ctypes.CDLL(None)
    if hasattr(loaded, "GOMP_parallel") and hasattr(loaded, "omp_get_thread_num"):
        library.sn_use_pool(
            ctypes.cast(loaded.GOMP_parallel, ctypes.c_void_p),
            ctypes.cast(loaded.omp_get_thread_num, ctypes.c_void_p),
        )
    return library, None


# At import, not at first use: a graph that is being traced cannot load a library.
_library, MISSING = _load()
"""Why the kernels cannot be used, or None if they can."""


def instructions() -> str:
    """Tell ``"avx2"`` or ``"portable"``: what the kernels use on this processor."""
    return _loaded().sn_instructions().decode()  # type: ignore[no-any-return]


def _loaded() -> ctypes.CDLL:
    if _library is None:
        raise RuntimeError(MISSING)
    return _library


def forward(
    x: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    plan: Plan,
    *,
    portable: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize; contract in :mod:`seqnorm.backends.ops`.

    Parameters
    ----------
    portable : bool
        Leave out the instructions that only some processors have; for tests.

    Raises
    ------
    ValueError
        If a length is outside 0..L.
    """
    given = mean is not None
    if mean is None or var is None:
        sets = plan.sets(x)
        mean = torch.empty(sets, dtype=torch.float64)
        var = torch.empty(sets, dtype=torch.float64)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    tensors = (x, residual, weight, bias, mean, var, y, None, None, None, None, None)
    _call("sn_forward", tensors, valid, plan, given, portable, False)
    return y, mean, var


def backward(
    grad: Tensor,
    x: Tensor,
    mean: Tensor,
    var: Tensor,
    valid: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    plan: Plan,
    given: bool,
    *,
    portable: bool = False,
    summed: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of x, the residual, and of weight and bias, per sample or ``summed``."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_residual = None if residual is None else torch.empty_like(grad_x)
    n, channels = x.shape[0], x.shape[plan.channel_axis]
    rows = (channels,) if summed else (n, channels)
    wide = compute_dtype(x)
    grad_weight, grad_bias = torch.empty(rows, dtype=wide), torch.empty(rows, dtype=wide)
    results = (grad_x, grad_residual, grad_weight, grad_bias)
    tensors = (x, residual, weight, bias, mean, var, None, grad, *results)
    _call("sn_backward", tensors, valid, plan, given, portable, summed)
    return results


def _call(
    name: str,
    tensors: tuple[Tensor | None, ...],
    valid: Tensor | None,
    plan: Plan,
    given: bool,
    portable: bool,
    summed: bool,
) -> None:
    """Pack the problem; ``tensors`` in the order of ``problem.h``, x first."""
    x = tensors[0]
    assert x is not None
    lengths = mask = None
    if valid is not None and valid.dtype == torch.bool:
        mask = valid
    elif valid is not None:
        lengths = valid.to(torch.int64)
    # Held until the call is over: a pointer alone keeps nothing alive.
    kept = [t if t is None or t.is_contiguous() else t.contiguous() for t in (lengths, mask)]
    kept += [t if t is None or t.is_contiguous() else t.contiguous() for t in tensors]
    channel = plan.channel_axis
    shape = x.shape
    problem = _PROBLEM.pack(
        DTYPES[x.dtype],
        _OVER[plan.over],
        channel == 2,
        plan.center,
        _ACTIVATION[plan.activation],
        given,
        torch.get_num_threads(),
        portable,
        summed,
        0,
        shape[0],
        shape[channel],
        shape[3 - channel],
        plan.groups,
        plan.eps,
        *[0 if t is None else t.data_ptr() for t in kept],
    )
    status = getattr(_loaded(), name)(problem)
    if status == _LENGTH_OUTSIDE:
        assert lengths is not None
        raise ValueError(outside(lengths, shape[3 - channel]))
    if status:
        raise MemoryError(f"no memory for normalizing an input of shape {tuple(shape)}")
