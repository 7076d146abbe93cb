"""The compiled library, if it was built, and what its functions take."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

# Any, since lists of both have no type that mypy's stubs of ctypes take.
_ADDRESS: Any = ctypes.c_void_p
_NUMBER: Any = ctypes.c_int64


@cache
def _library() -> ctypes.CDLL | None:
    places = [_ADDRESS] * 3
    try:
        library = ctypes.CDLL(str(Path(__file__).with_name("_kernels.so")))
        library.dt_count.argtypes = [_ADDRESS, _NUMBER, *[_ADDRESS] * 2, *[_NUMBER] * 3]
        library.dt_trails.argtypes = [*places, _NUMBER, *[_ADDRESS] * 5, *[_NUMBER] * 2]
        library.dt_unsound.argtypes = [ctypes.c_char_p, _NUMBER]
        stretch = (*[_NUMBER] * 3, _ADDRESS, _NUMBER)
        library.dt_codes.argtypes = [_ADDRESS, *stretch, *[_ADDRESS] * 2, _NUMBER]
        some = (_ADDRESS, _NUMBER, *[_ADDRESS] * 2)
        library.dt_gather.argtypes = [*some, _NUMBER, _NUMBER, _ADDRESS, _NUMBER]
        library.dt_fields.argtypes = [_ADDRESS, *[_NUMBER] * 3, _ADDRESS, _ADDRESS]
        library.dt_integers.argtypes = [*places, _NUMBER, _NUMBER, ctypes.c_int, _ADDRESS]
        library.dt_decimals.argtypes = [*places, _NUMBER, _ADDRESS, _ADDRESS]
        library.dt_joined.argtypes = [*places, _NUMBER, _ADDRESS, _ADDRESS]
    except (OSError, AttributeError):
        # Not built, or built from an older source.
        return None
    return library


def loaded() -> ctypes.CDLL:
    """The library; an error where there is none."""
    library = _library()
    if library is None:
        raise RuntimeError("the compiled loops are not there: ask available() first")
    return library


def available() -> bool:
    """Whether the compiled loops are there.

    Examples
    --------
    >>> available() in (True, False)
    True
    """
    return _library() is not None
