"""What a partition asks of a table and of a number, and how it says that it did not get it."""

from math import isfinite
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.errors import InputError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class PartitionError(InputError):
    """Rows cannot be split over clients as asked; names the row or column and the remedy."""


class LinkedRowsError(PartitionError):
    """Two rows that share sequence are held by different clients."""


def column(rows: pd.DataFrame, name: str, purpose: str) -> "pd.Series[Any]":
    """Take a column without gaps.

    Raises
    ------
    PartitionError
        If it is missing, or empty (NaN, None) in a row.

    Examples
    --------
    >>> column(pd.DataFrame({"label": [0, 1]}), "label", "a label skew").tolist()
    [0, 1]
    """
    if name not in rows.columns:
        raise PartitionError(
            f"column '{name}' is missing: {purpose} needs it; the table has {_some(rows.columns)}"
        )
    values = rows[name]
    empty = values.isna().to_numpy()
    if empty.any():
        raise PartitionError(
            f"row {int(empty.argmax())} (0-based), column '{name}': the value is missing; "
            f"{purpose} needs it, so fill it in or leave the row out"
        )
    return values


def numbers(rows: pd.DataFrame, name: str, purpose: str) -> Floats:
    """Take a column of finite numbers as float64, shape (N,).

    Raises
    ------
    PartitionError
        If the column is missing or holds something else.

    Examples
    --------
    >>> numbers(pd.DataFrame({"gc": [0.25, 1]}), "gc", "a GC skew")
    array([0.25, 1.  ])
    """
    values = column(rows, name, purpose)
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        kinds = values.dtype
        raise PartitionError(
            f"column '{name}' holds {kinds} values: {purpose} needs numbers"
        ) from None
    wrong = ~np.isfinite(found)
    if wrong.any():
        at = int(wrong.argmax())
        raise PartitionError(
            f"row {at} (0-based), column '{name}': {found[at]} is no finite number; "
            "correct it or leave the row out"
        )
    return found


def whole(name: str, value: object, least: int) -> None:
    """Check that a setting is a whole number from ``least`` up.

    Examples
    --------
    >>> whole("clients", 0, 1)
    Traceback (most recent call last):
    federated.partition.checks.PartitionError: clients = 0: give a whole number, 1 or more
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise PartitionError(f"{name} = {value!r}: give a whole number, {least} or more")


def real(name: str, value: object, low: float, high: float, *, above: bool = False) -> None:
    """Check that a setting is a finite number in [low, high], or (low, high] with ``above``.

    Examples
    --------
    >>> real("alpha", 0.0, 0, np.inf, above=True)
    Traceback (most recent call last):
    federated.partition.checks.PartitionError: alpha = 0.0: give a finite number above 0
    """
    if (
        isinstance(value, int | float | np.integer | np.floating)
        and not isinstance(value, bool)
        and isfinite(value)
        and low <= value <= high
        and not (above and value == low)
    ):
        return
    at_least = f"above {low:g}" if above else f"from {low:g}"
    at_most = "" if high == np.inf else f" up to {high:g}"
    raise PartitionError(f"{name} = {value!r}: give a finite number {at_least}{at_most}")


def _some(names: "pd.Index[Any]") -> str:
    shown = ", ".join(f"'{name}'" for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "no column"
