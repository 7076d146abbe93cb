"""Batches and covariates as columns of a design."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from data_tools.errors import InputError

FloatArray = NDArray[np.float64]
Covariates = pd.DataFrame | Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Coding:
    """How covariates become columns; found once, so that new samples get the same columns.

    Attributes
    ----------
    levels : dict of str to tuple, or None
        For each covariate its levels, or None for a number. The first level has no column.
    """

    levels: dict[str, tuple[Any, ...] | None]

    def columns(self, covariates: Covariates | None, samples: int) -> FloatArray:
        """Columns of the design, shape (samples, P).

        Raises
        ------
        InputError
            For a covariate that is missing, not known here, of another length, without a value
            for some sample, or of a level that was not there when the coding was found.
        """
        table = as_table(covariates, samples)
        if list(table) != list(self.levels):
            raise InputError(
                f"covariates are {_listed(self.levels)}, got {_listed(table)}: give the same "
                "in the same order"
            )
        parts = [np.empty((samples, 0))]
        for name, levels in self.levels.items():
            parts.append(_coded(name, table[name], levels))
        return np.hstack(parts)

    @property
    def width(self) -> dict[str, int]:
        """Number of columns of each covariate."""
        return {name: 1 if v is None else len(v) - 1 for name, v in self.levels.items()}


def find_coding(covariates: Covariates | None, samples: int) -> Coding:
    """Numbers stay a column; what is text, truth or a category gets one a level but the first.

    Examples
    --------
    >>> table = {"sex": ["f", "m", "m"], "age": [40, 50, 60]}
    >>> coding = find_coding(table, 3)
    >>> coding.columns(table, 3).tolist()
    [[0.0, 40.0], [1.0, 50.0], [1.0, 60.0]]
    """
    table = as_table(covariates, samples)
    levels: dict[str, tuple[Any, ...] | None] = {}
    for name in table:
        column = table[name]
        if column.isna().any():
            at = int(column.isna().to_numpy().argmax())
            raise InputError(
                f"covariate {name}: no value for sample {at + 1}; fill it in or drop the sample"
            )
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        levels[str(name)] = None if numeric else tuple(sorted(set(column), key=str))
    return Coding(levels)


def as_table(covariates: Covariates | None, samples: int) -> pd.DataFrame:
    """Covariates as a table of so many rows, without an index of its own."""
    if covariates is None:
        return pd.DataFrame(index=range(samples))
    table = pd.DataFrame(covariates).reset_index(drop=True)
    if len(table) != samples:
        raise InputError(f"covariates of {len(table)} samples for data of {samples}: give one each")
    return table


def as_batches(batch: ArrayLike, samples: int) -> NDArray[np.str_]:
    """Names of the samples' batches as text, one each."""
    values = pd.Series(np.asarray(batch).ravel())
    if len(values) != samples or np.ndim(batch) != 1:
        raise InputError(f"{len(values)} batches for {samples} samples: give one each")
    if values.isna().any():
        at = int(values.isna().to_numpy().argmax())
        raise InputError(f"sample {at + 1} has no batch; fill it in or drop the sample")
    return values.astype(str).to_numpy(dtype=np.str_)


def indicators(names: NDArray[np.str_], levels: Iterable[str]) -> FloatArray:
    """A column of zeros and ones for each level."""
    table: FloatArray = (names[:, None] == np.array(list(levels))).astype(np.float64)
    return table


def _coded(name: str, column: pd.Series[Any], levels: tuple[Any, ...] | None) -> FloatArray:
    if levels is None:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
        if not np.isfinite(numbers).all():
            at = int(np.isfinite(numbers).argmin())
            raise InputError(
                f"covariate {name}: {column.iloc[at]} of sample {at + 1} is no finite number"
            )
        return numbers[:, None]
    known = column.isin(levels).to_numpy()
    if not known.all():
        at = int(known.argmin())
        raise InputError(
            f"covariate {name}: level {column.iloc[at]} of sample {at + 1} was not there when "
            f"the batches were fitted, only {_listed(levels)}"
        )
    coded = np.zeros((len(column), len(levels) - 1))
    for at, level in enumerate(levels[1:]):
        coded[:, at] = column == level
    return coded


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names)) or "none"
