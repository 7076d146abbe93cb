"""Triton's decorator and language, and importable modules where Triton is not installed.

Sizes are never specialized. Triton would compile again for a size that is 1 or a multiple of 16;
all that code can gain from a size, the width of its vectors, it is told as a constant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["device", "kernel", "tl"]

SIZES = ("samples", "groups", "channel_units", "length_units", "parts", "width")

try:
    import triton  # type: ignore[import-untyped,unused-ignore]
    from triton import language as tl
except ImportError:
    # Kernels are then plain functions that nobody can call; see available().
    triton = tl = None


def kernel(function: Callable[..., None]) -> Any:
    """Compile a function that the host launches."""
    return triton.jit(function, do_not_specialize=SIZES) if triton else function


def device(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call."""
    return triton.jit(function) if triton else function
