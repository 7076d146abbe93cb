"""ComBat, fitted on some samples and applied to these or others of the same batches.

The steps and constants are those of the paper and of its authors' program (R package sva,
``ComBat``), so that the numbers are theirs:

1. regress each gene on batches and covariates; standardize by the grand mean, the covariates'
   effects and the residual variance;
2. in each batch, estimate each gene's shift and variance, and shrink them towards what is usual
   among the batch's genes (`data_tools.combat.priors`);
3. take them out, and undo step 1 without the batches' effects.

References
----------
Johnson, Li & Rabinovic (2007), Adjusting batch effects in microarray expression data using
empirical Bayes methods. Biostatistics 8, 118-127.
Zhang, Jenkins, Manimaran & Johnson (2018), Alternative empirical Bayes models for adjusting for
batch effects in genomic studies. BMC Bioinformatics 19, 262 (mean only; reference batch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_tools.combat.confounding import confounding
from data_tools.combat.covariates import (
    Coding,
    Covariates,
    FloatArray,
    as_batches,
    find_coding,
    indicators,
)
from data_tools.combat.priors import nonparametric, parametric, shift_only
from data_tools.combat.regression import residual_variance, solve
from data_tools.errors import InputError

Prior = Literal["parametric", "nonparametric", "none"]

PUBLISHED_TOLERANCE = 1e-4
"""Where the authors' program ends its iteration."""


@dataclass(frozen=True)
class Combat:
    """Batch effects that were fitted, ready to be taken out of samples.

    Attributes
    ----------
    batches : tuple of str
        Names of the batches, B.
    adjusted : ndarray of bool, shape (G,)
        Genes that are corrected; the others stay as they are.
    centre, scale : ndarray, shape (G,)
        Grand mean and residual standard deviation of each gene.
    effects : ndarray, shape (P, G)
        Effects of the covariates' columns, which stay in the data.
    gamma, delta : ndarray, shape (B, G)
        Shift and variance factor of each batch, in units of ``scale``.
    coding : Coding
        How covariates become columns.
    reference : str or None
        Batch that stays as it is.
    notes : tuple of str
        What was noticed and decided, a line each.
    """

    batches: tuple[str, ...]
    adjusted: NDArray[np.bool_]
    centre: FloatArray
    scale: FloatArray
    effects: FloatArray
    gamma: FloatArray
    delta: FloatArray
    coding: Coding
    reference: str | None
    notes: tuple[str, ...]

    def apply(
        self, data: ArrayLike, batch: ArrayLike, covariates: Covariates | None = None
    ) -> FloatArray:
        """Take the fitted batch effects out of samples, each by itself.

        Parameters
        ----------
        data : array, shape (G, S)
            Expression of the genes that were fitted, in their order.
        batch : array, shape (S,)
            Batch of each sample, one of those that were fitted.
        covariates : DataFrame or mapping, optional
            The covariates that were fitted, of these samples.

        Returns
        -------
        ndarray of float64, shape (G, S)
            NaN where the data are.

        Raises
        ------
        InputError
            For other shapes, an unknown batch, or covariates other than those fitted.
        """
        table = as_expression(data)
        if len(table) != len(self.adjusted):
            raise InputError(
                f"data of {len(table)} genes, but {len(self.adjusted)} were fitted: give the same "
                "genes in the same order"
            )
        names = as_batches(batch, table.shape[1])
        unknown = sorted(set(names.tolist()) - set(self.batches))
        if unknown:
            raise InputError(
                f"batch {unknown[0]} was not fitted, only {', '.join(self.batches)}: its effect "
                "is unknown; fit again with samples of it"
            )
        columns = self.coding.columns(covariates, table.shape[1])
        out = table.copy()
        for gamma, delta, name in zip(self.gamma, self.delta, self.batches, strict=True):
            chosen = np.flatnonzero(names == name)
            if name == self.reference or not chosen.size:
                continue
            expected = self.centre[:, None] + (columns[chosen] @ self.effects).T
            standard = (table[:, chosen] - expected) / self.scale[:, None]
            standard = (standard - gamma[:, None]) / np.sqrt(delta)[:, None]
            out[:, chosen] = standard * self.scale[:, None] + expected
        out[~self.adjusted] = table[~self.adjusted]
        return out


def fit_combat(
    data: ArrayLike,
    batch: ArrayLike,
    covariates: Covariates | None = None,
    *,
    prior: Prior = "parametric",
    mean_only: bool = False,
    reference: str | None = None,
    force: bool = False,
    tolerance: float = PUBLISHED_TOLERANCE,
) -> Combat:
    """Fit the effects of batches on expression; `Combat.apply` takes them out.

    Fit on training samples alone and apply to the others: a fit on all samples lets those of the
    test shape what the training sees, and a covariate that is what will be predicted gives its
    answer away. Shapes: G genes, S samples.

    Parameters
    ----------
    data : array, shape (G, S)
        Expression on a scale where effects add up, such as logarithms; see
        `data_tools.combat.log_cpm` for counts. NaN is missing, and each gene is fitted to what
        it has.
    batch : array, shape (S,)
        Batch of each sample.
    covariates : DataFrame or mapping of str to sequences of length S, optional
        What is kept: numbers as they are, text, truth and categories by level.
    prior : {"parametric", "nonparametric", "none"}
        Of the batch effects; ``"none"`` does not shrink them: every gene of every batch is
        standardized by its own mean and variance.
    mean_only : bool, default False
        Correct means alone. Always so where a batch has one sample.
    reference : str, optional
        Batch that stays as it is and to which the others are brought.
    force : bool, default False
        Go on where batch and covariates cannot be told apart; their common part is then shared
        out between them by the shortest solution, not by anything known.
    tolerance : float, default 1e-4
        Relative change at which the parametric prior's iteration ends.

    Returns
    -------
    Combat

    Raises
    ------
    InputError
        For other shapes, infinite values, fewer than two batches, an unknown reference, or a
        batch that cannot be told from a covariate.

    Notes
    -----
    Genes that are constant within a batch stay as they are, as in the authors' program; so do
    those with too few values to estimate from: fewer than 2 in a batch (1 where means alone are
    corrected), or a covariate's column without variation among them. ``notes`` counts both.

    Examples
    --------
    >>> drawn = np.random.default_rng(0).normal(size=(500, 40))
    >>> batch = np.repeat(["a", "b"], 20)
    >>> drawn[:, 20:] = 3 * drawn[:, 20:] + 5
    >>> corrected = fit_combat(drawn, batch).apply(drawn, batch)
    >>> shift = corrected[:, 20:].mean() - corrected[:, :20].mean()
    >>> bool(abs(shift) < 0.05), round(float(corrected[:, 20:].std() / corrected[:, :20].std()), 1)
    (True, 1.0)
    """
    table = as_expression(data)
    names = as_batches(batch, table.shape[1])
    levels = tuple(np.unique(names).tolist())
    _check_choices(levels, prior, reference, tolerance)
    coding = find_coding(covariates, table.shape[1])
    notes = [] if covariates is None else _checked(names, covariates, force)
    mean_only, told = _means_alone(names, levels, mean_only)
    blocks = indicators(names, levels)
    if reference is not None:
        blocks[:, levels.index(reference)] = 1
    columns = _without_intercept(coding, coding.columns(covariates, table.shape[1]))
    design = np.hstack([blocks, columns])
    adjusted, left = _usable(table, names, levels, design, mean_only, force)
    centre, scale, effects = _location_scale(table[adjusted], design, names, levels, reference)
    # What batches and covariates explain to the last bit has no scale to standardize by.
    varied = scale > 1e-10 * np.nanmax(np.abs(table[adjusted]), axis=1)
    if not varied.all():
        left.append(f"{(~varied).sum():,} genes without residual variance are left as they are")
    adjusted[adjusted] = varied
    _require_many(adjusted)
    centre, scale, effects = centre[varied], scale[varied], effects[:, varied]
    expected = centre[:, None] + (columns @ effects).T
    standard = (table[adjusted] - expected) / scale[:, None]
    gamma, delta = _batch_effects(
        standard, blocks, names, levels, prior, mean_only, reference, tolerance
    )
    return Combat(
        levels,
        adjusted,
        _widened(centre, adjusted),
        _widened(scale, adjusted),
        _widened(effects, adjusted),
        _widened(gamma, adjusted),
        _widened(delta, adjusted),
        coding,
        reference,
        tuple(notes + told + left),
    )


def _widened(part: FloatArray, adjusted: NDArray[np.bool_]) -> FloatArray:
    """The values of the adjusted genes in a row of all genes."""
    whole = np.full((*part.shape[:-1], len(adjusted)), np.nan)
    whole[..., adjusted] = part
    return whole


def as_expression(data: ArrayLike) -> FloatArray:
    """Expression as float64 of shape (genes, samples), NaN allowed and infinity not."""
    table = np.asarray(data, dtype=np.float64)
    if table.ndim != 2 or 0 in table.shape:
        raise InputError(f"data have shape (genes, samples), got {table.shape}")
    infinite = np.isinf(table)
    if infinite.any():
        gene, sample = np.argwhere(infinite)[0]
        raise InputError(
            f"gene {gene + 1} of sample {sample + 1} is infinite (a logarithm of 0?): add a prior "
            "count before taking logarithms"
        )
    return table


def _check_choices(
    levels: tuple[str, ...], prior: str, reference: str | None, tolerance: float
) -> None:
    if len(levels) < 2:
        raise InputError(f"all samples are of batch {levels[0]}: there is nothing to correct")
    if prior not in get_args(Prior):
        raise InputError(f"prior '{prior}' does not exist; choose one of {_choices()}")
    if reference is not None and reference not in levels:
        raise InputError(f"reference batch {reference} is none of {', '.join(levels)}")
    if not 0 < tolerance < 1:
        raise InputError(f"the tolerance must lie between 0 and 1, not {tolerance}")


def _choices() -> str:
    return ", ".join(get_args(Prior))


def _checked(names: NDArray[np.str_], covariates: Covariates, force: bool) -> list[str]:
    found = confounding(names, covariates)
    if not force:
        found.require_separable()
    forced = [] if found.separable else ["forced although batch and biology cannot be told apart"]
    return found.lines() + forced


def _means_alone(
    names: NDArray[np.str_], levels: tuple[str, ...], mean_only: bool
) -> tuple[bool, list[str]]:
    single = [level for level in levels if np.count_nonzero(names == level) == 1]
    if not single or mean_only:
        return mean_only, []
    which = "batches" if len(single) > 1 else "batch"
    return True, [f"means alone are corrected: one sample in {which} {', '.join(single)}"]


def _without_intercept(coding: Coding, columns: FloatArray) -> FloatArray:
    """Set constant columns to 0, which the batches' columns hold already."""
    constant = np.ptp(columns, axis=0) == 0 if columns.size else np.zeros(columns.shape[1], bool)
    return np.where(constant, 0.0, columns)


def _usable(
    table: FloatArray,
    names: NDArray[np.str_],
    levels: tuple[str, ...],
    design: FloatArray,
    mean_only: bool,
    force: bool,
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which genes can be corrected, and what to say of the others."""
    constant = np.zeros(len(table), dtype=np.bool_)
    scarce = np.zeros(len(table), dtype=np.bool_)
    for level in levels:
        part = table[:, names == level]
        number = np.count_nonzero(~np.isnan(part), axis=1)
        scarce |= number < (1 if mean_only else 2)
        high = np.max(part, axis=1, initial=-np.inf, where=~np.isnan(part))
        low = np.min(part, axis=1, initial=np.inf, where=~np.isnan(part))
        constant |= (number > 1) & (high == low)
    known = ~np.isnan(table)
    wanted = np.linalg.matrix_rank(design)
    holes = np.flatnonzero(~known.all(axis=1) & ~scarce)
    if not force:
        for gene in holes:
            scarce[gene] = np.linalg.matrix_rank(design[known[gene]]) < wanted
    told = []
    if constant.any():
        told.append(f"{constant.sum():,} genes constant within a batch are left as they are")
    if (few := scarce & ~constant).any():
        told.append(f"{few.sum():,} genes with too few values are left as they are")
    usable = ~(constant | scarce)
    _require_many(usable)
    return usable, told


def _require_many(usable: NDArray[np.bool_]) -> None:
    if np.count_nonzero(usable) < 2:
        raise InputError(
            f"{np.count_nonzero(usable)} of {len(usable)} genes vary in every batch: ComBat learns "
            "what is usual from many genes; leave out the batches without variation"
        )


def _location_scale(
    table: FloatArray,
    design: FloatArray,
    names: NDArray[np.str_],
    levels: tuple[str, ...],
    reference: str | None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Centre (G,), scale (G,) and effects (P, G) of genes."""
    coefficients = solve(design, table)
    if reference is None:
        measured = np.ones(len(names), dtype=np.bool_)
        centre = (
            np.array([np.mean(names == level) for level in levels]) @ coefficients[: len(levels)]
        )
    else:
        measured = names == reference
        centre = coefficients[levels.index(reference)]
    residuals = table[:, measured] - (design[measured] @ coefficients).T
    variance = residual_variance(residuals, bool(np.isnan(table).any()))
    return centre, np.sqrt(variance), coefficients[len(levels) :]


def _batch_effects(
    standard: FloatArray,
    blocks: FloatArray,
    names: NDArray[np.str_],
    levels: tuple[str, ...],
    prior: Prior,
    mean_only: bool,
    reference: str | None,
    tolerance: float,
) -> tuple[FloatArray, FloatArray]:
    """Shift and variance of each batch and gene, (B, G)."""
    gamma = solve(blocks, standard)
    delta = np.ones_like(gamma)
    for at, level in enumerate(levels):
        part = standard[:, names == level]
        if level == reference:
            gamma[at] = 0
            continue
        if not mean_only:
            delta[at] = np.nanvar(part, axis=1, ddof=1)
        if prior == "nonparametric":
            gamma[at], delta[at] = nonparametric(part, gamma[at], delta[at])
        elif prior == "parametric" and mean_only:
            gamma[at] = shift_only(gamma[at])
        elif prior == "parametric":
            gamma[at], delta[at] = parametric(part, gamma[at], delta[at], tolerance)
    return gamma, delta
