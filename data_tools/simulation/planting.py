"""Sites: what is planted in a window, where and on which strand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.encode import Codes, as_codes, reverse_complement
from data_tools.errors import InputError
from data_tools.motifs import Motif

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Site:
    """A motif and the rule by which it is placed.

    Attributes
    ----------
    frequencies : ndarray, shape (4, K)
        Probability of each base at each position of the site, above 0.
    reach : int or None
        The site's centre lies at most so many bases from the window's centre, each place being
        as likely; None is anywhere in the window.
    forward : float
        Probability that it stands on the forward strand.
    """

    frequencies: FloatArray
    reach: int | None = None
    forward: float = 0.5

    def __post_init__(self) -> None:
        table = self.frequencies
        if table.ndim != 2 or table.shape[0] != 4 or table.shape[1] == 0:
            raise InputError(f"a site's frequencies have shape (4, K), got {table.shape}")
        if not (table > 0).all() or not np.allclose(table.sum(axis=0), 1):
            raise InputError("a site's frequencies must be above 0 and sum to 1 at each position")
        if self.reach is not None and self.reach < 0:
            raise InputError(f"the reach of a site must be 0 or more bases, not {self.reach}")
        if not 0 <= self.forward <= 1:
            raise InputError(f"the share of forward sites must be 0 to 1, not {self.forward}")

    def starts(self, width: int) -> tuple[int, int]:
        """First and last place in a window of this width at which the site may begin."""
        size = self.frequencies.shape[1]
        if size > width:
            raise InputError(
                f"a site of {size} bases does not fit a window of {width}; use wider windows"
            )
        last = width - size
        if self.reach is None:
            return 0, last
        middle = last // 2
        return max(0, middle - self.reach), min(last, middle + self.reach)


@dataclass(frozen=True)
class Planted:
    """Windows with sites.

    Attributes
    ----------
    codes : ndarray of uint8, shape (N, W)
        The windows.
    start : ndarray of int, shape (N,)
        Where in its window each site begins; -1 without one.
    reverse : ndarray of bool, shape (N,)
        Whether it stands on the reverse strand.
    """

    codes: Codes
    start: NDArray[np.int64]
    reverse: NDArray[np.bool_]


def site_of(
    motif: Motif,
    strength: float = 1.0,
    reach: int | None = None,
    forward: float = 0.5,
    pseudocount: float = 0.8,
) -> Site:
    """Make a site of a motif, as strong as stated.

    Parameters
    ----------
    motif
        Counts; ``pseudocount`` is added to each.
    strength
        Frequencies are raised to this power and scaled to sum to 1: 1 is the motif as it is, 0
        says nothing, large is its consensus.
    reach, forward
        See `Site`.

    Examples
    --------
    >>> motif = Motif("x", np.array([[7.2], [0.2], [0.2], [0.2]]))
    >>> site_of(motif, strength=0.5).frequencies.ravel().round(3).tolist()
    [0.485, 0.172, 0.172, 0.172]
    """
    if not (np.isfinite(strength) and strength >= 0):
        raise InputError(f"the strength of a site must be 0 or more, not {strength}")
    if not pseudocount > 0:
        raise InputError(f"the pseudocount must be above 0, not {pseudocount}")
    power = np.log(motif.counts + pseudocount) * strength
    frequencies = np.exp(power - power.max(axis=0))
    # Far out in the tails a power underflows to 0, which has no logarithm.
    frequencies = np.maximum(frequencies, 1e-300)
    return Site(frequencies / frequencies.sum(axis=0), reach, forward)


def decoy_of(site: Site, generator: np.random.Generator) -> Site:
    """The same columns in another order: a site of the same composition that is not the motif.

    Raises
    ------
    InputError
        If all columns are equal, so that there is no other order.
    """
    table = site.frequencies
    if (table == table[:, :1]).all():
        raise InputError("all columns of the motif are equal: it has no decoy")
    while True:
        shuffled = table[:, generator.permutation(table.shape[1])]
        if not np.array_equal(shuffled, table):
            return Site(shuffled, site.reach, site.forward)


def plant(
    codes: Codes, chosen: NDArray[np.bool_], site: Site, generator: np.random.Generator
) -> Planted:
    """Overwrite a part of each chosen window with a site.

    Parameters
    ----------
    codes : ndarray of codes, shape (N, W)
        Simulated or real background windows; they are not changed.
    chosen : ndarray of bool, shape (N,)
        Which windows get a site.
    site
        What is planted.
    generator
        Of the random numbers.

    Examples
    --------
    >>> site = Site(np.full((4, 2), 1e-12) + np.array([[1, 0], [0, 0], [0, 1], [0, 0]]), reach=0)
    >>> windows = np.full((1, 6), 3, dtype=np.uint8)
    >>> found = plant(windows, np.array([True]), site, np.random.default_rng(0))
    >>> found.codes.tolist(), found.start.tolist(), found.reverse.tolist()
    ([[3, 3, 1, 3, 3, 3]], [2], [True])
    """
    windows = as_codes(codes).copy()
    size = site.frequencies.shape[1]
    low, high = site.starts(windows.shape[1])
    number = int(np.count_nonzero(chosen))
    place = generator.integers(low, high + 1, number)
    turned = generator.random(number) >= site.forward
    limits = np.cumsum(site.frequencies, axis=0)[:3]
    letters = (generator.random((number, 1, size)) >= limits).sum(axis=1).astype(np.uint8)
    letters[turned] = reverse_complement(letters[turned])
    windows[np.flatnonzero(chosen)[:, None], place[:, None] + np.arange(size)] = letters
    start = np.full(len(windows), -1)
    reverse = np.zeros(len(windows), dtype=np.bool_)
    start[chosen], reverse[chosen] = place, turned
    return Planted(windows, start, reverse)
