"""One value of a table of text: exactly what stands there, or a fault."""

from __future__ import annotations

import math
import re

from data_tools.faults import shown

INTEGER_DIGITS = 13
DECIMAL = r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
"""A decimal number, as a regular expression."""

_INTEGER = re.compile(rf"-?[0-9]{{1,{INTEGER_DIGITS}}}", re.ASCII)
_NUMBER = re.compile(DECIMAL, re.ASCII)


class WrongRowError(ValueError):
    """A row does not keep to its format."""

    def __init__(
        self, fault: str, value: object, remedy: str = "correct or remove this row"
    ) -> None:
        super().__init__(f"{fault}: {shown(value)}; {remedy}")


def integer(text: str, name: str) -> int:
    """Read an integer; `WrongRowError` names the column if it is none.

    Examples
    --------
    >>> integer("-12", "start")
    -12
    """
    if _INTEGER.fullmatch(text) is None:
        raise WrongRowError(f"{name} is not an integer of at most {INTEGER_DIGITS} digits", text)
    return int(text)


def number(text: str, name: str) -> float:
    """Read a decimal number; `WrongRowError` names the column if it is none.

    Examples
    --------
    >>> number("3e-1", "signal")
    0.3
    """
    if _NUMBER.fullmatch(text) is None:
        raise WrongRowError(f"{name} is not a number", text)
    value = float(text)
    if not math.isfinite(value):
        raise WrongRowError(f"{name} is too large", text)
    return value


def has_blank(value: str) -> bool:
    """Tell whether a blank of any kind is in a name."""
    return any(character.isspace() for character in value)
