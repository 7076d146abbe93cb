"""Normalization on the CPU by a small C library, loaded with ctypes.

``src/`` holds its source: C++ inside, a plain C interface (``problem.h``) outside, so that one
build serves every version of Python and torch. It shares the threads that torch has, uses AVX2
where the processor has it, and gives the same bits with and without it, with any number of
threads. Where it was not built, ``MISSING`` says why and the other backends take over.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from seqnorm.backends.plan import Plan, compute_dtype

__all__ = ["DTYPES", "backward", "forward", "instructions"]

DTYPES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_OVER = {"L": 0, "NL": 1, "CL": 2, "C": 3}
_ACTIVATION = {None: 0, "relu": 1, "gelu": 2}
_INTEGERS = ("dtype", "over", "channels_last", "center", "activation", "given", "threads")
_POINTERS = (
    *("lengths", "mask", "x", "residual", "weight", "bias", "mean", "var"),
    *("y", "grad", "grad_x", "grad_residual", "grad_weight", "grad_bias"),
)


class _Problem(ctypes.Structure):
    """``struct sn_problem`` of ``src/problem.h``."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in (*_INTEGERS, "portable")),
        *((name, ctypes.c_int64) for name in ("n", "c", "l", "groups")),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in _POINTERS),
    ]


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
            getattr(library, name).argtypes = [ctypes.POINTER(_Problem)]
    except (OSError, AttributeError) as error:
        return None, f"the native kernels in {path} cannot be loaded: {error}"
    # torch has loaded an OpenMP runtime; a second one would fight it for the processors.
    pool = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if pool is not None:
        library.sn_use_pool(ctypes.cast(pool, ctypes.c_void_p))
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
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    given = mean is not None and var is not None
    if mean is None or var is None:
        mean, var = (x.new_empty(plan.sets(x), dtype=torch.float64) for _ in range(2))
    fields: dict[str, Tensor | None] = {
        "x": x,
        "residual": residual,
        "weight": weight,
        "bias": bias,
    }
    fields |= {"mean": mean, "var": var, "y": y}
    _call("sn_forward", fields, valid, plan, given, portable)
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
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of x, the residual, and per sample of weight and bias."""
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_residual = None if residual is None else torch.empty_like(grad_x)
    rows = (x.shape[0], x.shape[plan.channel_axis])
    grad_weight, grad_bias = (x.new_empty(rows, dtype=compute_dtype(x)) for _ in range(2))
    fields: dict[str, Tensor | None] = {
        "x": x,
        "residual": residual,
        "weight": weight,
        "bias": bias,
        "grad": grad,
    }
    fields |= {"mean": mean, "var": var, "grad_x": grad_x, "grad_residual": grad_residual}
    fields |= {"grad_weight": grad_weight, "grad_bias": grad_bias}
    _call("sn_backward", fields, valid, plan, given, portable)
    return grad_x, grad_residual, grad_weight, grad_bias


def _call(
    name: str,
    tensors: Mapping[str, Tensor | None],
    valid: Tensor | None,
    plan: Plan,
    given: bool,
    portable: bool,
) -> None:
    x = cast(Tensor, tensors["x"])
    # Held until the call is over: a pointer alone keeps nothing alive.
    kept = {key: t if t is None else t.detach().contiguous() for key, t in tensors.items()}
    if valid is not None:
        kept["mask" if valid.dtype == torch.bool else "lengths"] = (
            valid.contiguous() if valid.dtype == torch.bool else valid.long().contiguous()
        )
    channel = plan.channel_axis
    problem = _Problem(
        dtype=DTYPES[x.dtype],
        over=_OVER[plan.over],
        channels_last=plan.layout == "NLC",
        center=plan.center,
        activation=_ACTIVATION[plan.activation],
        given=given,
        threads=torch.get_num_threads(),
        portable=portable,
        n=x.shape[0],
        c=x.shape[channel],
        l=x.shape[3 - channel],
        groups=plan.groups,
        eps=plan.eps,
        **{key: t.data_ptr() for key, t in kept.items() if t is not None},
    )
    if getattr(_loaded(), name)(ctypes.byref(problem)):
        raise MemoryError(f"no memory for normalizing an input of shape {tuple(x.shape)}")
