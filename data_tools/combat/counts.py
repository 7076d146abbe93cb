"""Counts of reads as the logarithms that ComBat's normal model wants."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_tools.errors import InputError

LOW_COUNT = 10
"""Below it the noise of counting outweighs most of what genes differ by."""


class LowCountWarning(UserWarning):
    """Many genes have so few reads that the logarithm shows the counting, not the gene."""


def log_cpm(counts: ArrayLike, prior: float = 0.5) -> NDArray[np.float64]:
    """Log2 of counts per million reads of the sample.

        log2(1e6 * (count + prior) / (library + 2 * prior))

    Parameters
    ----------
    counts : array, shape (G, S)
        Reads of each gene in each sample; NaN where unknown, which counts nothing.
    prior : float, default 0.5
        Added to each count, so that 0 has a logarithm.

    Returns
    -------
    ndarray of float64, shape (G, S)

    Warns
    -----
    LowCountWarning
        Where the median sample has fewer than 10 reads of a gene; says of how many genes.

    Raises
    ------
    InputError
        For negative or infinite counts, a sample without a read, or a prior of 0 or less.

    References
    ----------
    Law, Chen, Shi & Smyth (2014), voom: precision weights unlock linear model analysis tools for
    RNA-seq read counts. Genome Biology 15, R29.

    Examples
    --------
    >>> log_cpm([[99.5, 499.5], [400.5, 500.5]]).round(4).tolist()
    [[17.6068, 18.9301], [19.6104, 18.933]]
    """
    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2:
        raise InputError(f"counts have shape (genes, samples), got {table.shape}")
    wrong = (table < 0) | np.isinf(table)
    if wrong.any():
        gene, sample = np.argwhere(wrong)[0]
        raise InputError(
            f"count {table[gene, sample]:g} of gene {gene + 1} in sample {sample + 1}: counts are "
            "0 or more; is this a table of logarithms already?"
        )
    if not (np.isfinite(prior) and prior > 0):
        raise InputError(f"the prior count must be above 0, not {prior}")
    library = np.nansum(table, axis=0)
    if table.size and (library == 0).any():
        raise InputError(f"sample {int((library == 0).argmax()) + 1} has no read; leave it out")
    low = int(np.count_nonzero(np.sum(table < LOW_COUNT, axis=1) * 2 > table.shape[1]))
    if low:
        warnings.warn(
            f"{low:,} of {len(table):,} genes have fewer than {LOW_COUNT} reads in most samples: "
            "their logarithms are mostly noise of counting, which differs with sequencing depth "
            "and so with batch; leave them out, or use a model of counts",
            LowCountWarning,
            stacklevel=2,
        )
    result: NDArray[np.float64] = np.log2(1e6 * (table + prior) / (library + 2 * prior))
    return result
