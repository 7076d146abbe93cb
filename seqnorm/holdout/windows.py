"""Labelled windows with their codes, whole on disk or not at all."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_tools.atomic import write_atomic
from data_tools.encode import gc_fraction

VALIDATION = "validation"
"""Name of the part that chooses, in the windows and in every table."""


@dataclass(frozen=True)
class WindowSet:
    """Labelled windows with their base codes.

    Attributes
    ----------
    table : pandas.DataFrame
        ``part`` ("train", "validation" or "test"), ``chrom``, ``start``, ``end``, ``label``,
        ``gc`` and ``block`` (number of the block that holds the window's middle).
    codes : numpy.ndarray
        uint8 of shape (N, width + 2 * margin).
    margin : int
        Bases on both sides of a window.
    """

    table: pd.DataFrame
    codes: NDArray[np.uint8]
    margin: int

    def save(self, path: Path) -> None:
        """Write what a trial needs, whole or not at all and without pickle."""
        columns: dict[str, Any] = {str(n): _plain(column) for n, column in self.table.items()}
        stream = io.BytesIO()
        np.savez(stream, codes=self.codes, margin=self.margin, **columns)
        write_atomic(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> "WindowSet":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            columns = {n: stored[n] for n in stored.files if n not in ("codes", "margin")}
            return cls(pd.DataFrame(columns), stored["codes"], int(stored["margin"]))


def _plain(column: "pd.Series[float]") -> NDArray[np.generic]:
    values = column.to_numpy()
    return values.astype(np.str_) if values.dtype.kind not in "iuf" else values


def window_set(table: pd.DataFrame, codes: NDArray[np.uint8], margin: int, block: int) -> WindowSet:
    """Add GC and block to windows (``part``, ``chrom``, ``start``, ``end``, ``label``)."""
    centre = codes[:, margin : codes.shape[1] - margin]
    middle = (table["start"] + table["end"]) // 2
    return WindowSet(table.assign(gc=gc_fraction(centre), block=middle // block), codes, margin)


def stacked(sets: "list[WindowSet]") -> WindowSet:
    """Several sets of one margin as one."""
    table = pd.concat([part.table for part in sets], ignore_index=True)
    return WindowSet(table, np.concatenate([part.codes for part in sets]), sets[0].margin)


def picked(windows: WindowSet, rows: NDArray[np.int64]) -> WindowSet:
    """Some of the windows."""
    table = windows.table.iloc[rows].reset_index(drop=True)
    return WindowSet(table, windows.codes[rows], windows.margin)
