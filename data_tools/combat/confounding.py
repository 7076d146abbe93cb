"""Whether batch and biology can be told apart, and how much of the biology lies along batches.

For a covariate, let C be its columns less their means and B the indicators of the batches less
theirs. The squared canonical correlations of C and B are the shares, direction by direction, of
the covariate's variation that is differences between batches. Their mean,

    erased = trace(P_B P_C) / rank(C),

with P the projections on the column spaces, is the share of the covariate's variation that a
correction of the batches takes away if it does not know of the covariate; 1 - erased is the
share of it that is left, inside batches, to estimate the covariate's effect from if it does. For a
covariate of one column it is the R2 of a regression on the batches. A canonical correlation of 1
is a direction of the biology that nothing can tell from batches: the joint design lacks rank.

References
----------
Hotelling (1936), Relations between two sets of variates. Biometrika 28, 321-377.
Nygaard, Roedland & Hovig (2016), Methods that remove batch effects while retaining group
differences may lead to exaggerated confidence in downstream analyses. Biostatistics 17, 29-39.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from data_tools.combat.covariates import (
    Covariates,
    FloatArray,
    as_batches,
    as_table,
    find_coding,
    indicators,
)
from data_tools.errors import InputError

_ONE = 1 - 1e-9
"""A squared canonical correlation from here on is 1."""


@dataclass(frozen=True)
class Confounding:
    """What batches and covariates have in common.

    Attributes
    ----------
    erased : dict of str to float
        For each covariate the share of its variation that lies between batches, 0 to 1.
    lost : dict of str to int
        For each covariate the number of its directions that no sample tells from batches.
    joint : int
        Directions of all covariates together that are lost; may be above 0 where each alone can
        be told apart.
    culprits : tuple of str
        A line for each set of batches that shares no level of a covariate with the others.
    """

    erased: dict[str, float]
    lost: dict[str, int]
    joint: int
    culprits: tuple[str, ...]

    @property
    def separable(self) -> bool:
        """Whether batch and biology can be told apart."""
        return self.joint == 0

    def lines(self) -> list[str]:
        """The findings in words, a line each."""
        told = [
            f"{name}: {share:.0%} of its variation lies between batches"
            + (f"; {self.lost[name]} of its contrasts cannot be estimated" * bool(self.lost[name]))
            for name, share in self.erased.items()
        ]
        return told + list(self.culprits)

    def require_separable(self) -> None:
        """Raise `InputError` unless batch and biology can be told apart."""
        if not self.separable:
            what = "; ".join(self.culprits) or "; ".join(self.lines())
            raise InputError(
                f"batch and biology cannot be told apart ({what}): leave out these samples or "
                "this covariate, or force it, knowing that biology is then lost or made up"
            )


def confounding(batch: ArrayLike, covariates: Covariates) -> Confounding:
    """Find out how far covariates are confounded with batches.

    Parameters
    ----------
    batch : array, shape (S,)
        Batch of each sample.
    covariates : DataFrame or mapping of str to sequences
        Covariates of each sample; see `data_tools.combat.fit_combat`.

    Returns
    -------
    Confounding

    Raises
    ------
    InputError
        For lengths that differ or missing values.

    Examples
    --------
    >>> half = confounding(["a", "a", "b", "b"], {"sick": ["no", "yes", "no", "yes"]})
    >>> half.erased["sick"], half.separable
    (0.0, True)
    >>> whole = confounding(["a", "a", "b", "b"], {"sick": ["no", "no", "yes", "yes"]})
    >>> whole.erased["sick"], whole.separable
    (1.0, False)
    >>> whole.culprits[0]
    'sick=no occurs in batch a alone, which holds no other level'
    """
    samples = len(np.asarray(batch))
    names = as_batches(batch, samples)
    table = as_table(covariates, samples)
    blocks = indicators(names, np.unique(names))
    erased, lost = {}, {}
    culprits: list[str] = []
    for name in map(str, table):
        coding = find_coding(table[[name]], samples)
        shares = canonical(coding.columns(table[[name]], samples), blocks)
        erased[name] = round(float(shares.mean()), 12) if shares.size else 0.0
        lost[name] = int(np.count_nonzero(shares >= _ONE))
        if coding.levels[name] is not None:
            culprits += _islands(name, table[name].astype(str).to_numpy(dtype=np.str_), names)
    everything = find_coding(table, samples).columns(table, samples)
    joint = int(np.count_nonzero(canonical(everything, blocks) >= _ONE))
    return Confounding(erased, lost, joint, tuple(culprits))


def canonical(columns: FloatArray, blocks: FloatArray) -> FloatArray:
    """Squared canonical correlations of two sets of columns, one a direction of the first."""
    first, second = _basis(columns), _basis(blocks)
    if not first.shape[1] or not second.shape[1]:
        return np.zeros(first.shape[1])
    found = np.linalg.svd(second.T @ first, compute_uv=False)
    result = np.zeros(first.shape[1])
    result[: len(found)] = np.minimum(found, 1) ** 2
    return result


def _basis(columns: FloatArray) -> FloatArray:
    """Orthonormal basis of the columns less their means."""
    centred = columns - columns.mean(axis=0)
    # Of one scale: a covariate in millions must not drown another.
    scale = np.linalg.norm(centred, axis=0)
    magnitude = np.linalg.norm(columns, axis=0)
    moving = scale > 1e-10 * np.maximum(magnitude, 1e-300)
    centred = centred[:, moving] / scale[moving]
    if not centred.shape[1]:
        return np.empty((len(columns), 0))
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    basis: FloatArray = left[:, sizes > 1e-10 * sizes[0]]
    return basis


def _islands(name: str, levels: NDArray[np.str_], batches: NDArray[np.str_]) -> list[str]:
    """Say which batches share no level with the others: their difference is the levels'."""
    pairs = pd.crosstab(levels, batches) > 0
    if pairs.shape[0] < 2:
        return []
    left = set(pairs.index)
    islands: list[tuple[list[str], list[str]]] = []
    while left:
        mine = {min(left)}
        while True:
            homes = pairs.columns[pairs.loc[sorted(mine)].any(axis=0)]
            grown = set(pairs.index[pairs[homes].any(axis=1)])
            if grown == mine:
                break
            mine = grown
        islands.append((sorted(map(str, mine)), sorted(map(str, homes))))
        left -= mine
    if len(islands) == 1:
        return []
    return [
        f"{' and '.join(f'{name}={level}' for level in mine)} "
        f"{'occurs' if len(mine) == 1 else 'occur'} in "
        f"{'batch' if len(homes) == 1 else 'batches'} {', '.join(homes)} alone, which "
        f"{'holds' if len(homes) == 1 else 'hold'} no other level"
        for mine, homes in islands
    ]
