"""Clients whose assays differ: gain and offset of a signal, peaks missed for GC or read depth.

Where a partition decides who holds which rows, an assay shift changes what is measured on them.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from federated.partition.checks import Floats, PartitionError, real, whole

GC_WIDTH = 0.1
"""Standard deviation, in GC fraction, of the curve of a client with ``gc_bias = 1``."""


@dataclass(frozen=True, kw_only=True)
class AssayShift:
    """How one client's assay differs from the reference that gave values and labels.

    Parameters
    ----------
    gain, offset : float, defaults 1 and 0
        A numeric input x is read as ``gain * x + offset``; gain above 0.
    gc_bias : float, default 0
        Strength of the GC bias, 0 or more. Coverage relative to that at the optimum is unimodal in
        GC: ``exp(-gc_bias * ((gc - gc_optimum) / 0.1)**2 / 2)``.
    gc_optimum : float, default 0.5
        GC fraction that the assay covers best, 0 to 1.
    depth : float, default 1
        Fraction of the peaks at the optimum that are called at this client's read depth, above 0
        and at most 1.

    References
    ----------
    Benjamini & Speed 2012, https://doi.org/10.1093/nar/gks001: fragment counts rise and fall with
    GC, by a curve that differs between samples.

    Examples
    --------
    >>> shift = AssayShift(gain=2, offset=1, depth=0.8, gc_bias=1)
    >>> shift.signal(np.array([0.0, 0.5])).tolist()
    [1.0, 2.0]
    >>> shift.detection(np.array([0.5, 0.6])).round(3).tolist()
    [0.8, 0.485]
    """

    gain: float = 1.0
    offset: float = 0.0
    gc_bias: float = 0.0
    gc_optimum: float = 0.5
    depth: float = 1.0

    def __post_init__(self) -> None:
        real("gain", self.gain, 0, np.inf, above=True)
        real("offset", self.offset, -np.inf, np.inf)
        real("gc_bias", self.gc_bias, 0, np.inf)
        real("gc_optimum", self.gc_optimum, 0, 1)
        real("depth", self.depth, 0, 1, above=True)

    def signal(self, values: ArrayLike) -> NDArray[Any]:
        """Numeric inputs as this client's assay gives them: an affine map.

        Parameters
        ----------
        values : array_like, any shape
            Of a numeric type; floating types are kept, others become float64.

        Returns
        -------
        ndarray
            A new array of the same shape; the same bits at gain 1 and offset 0.

        Raises
        ------
        PartitionError
            If the values are no numbers.
        """
        given = np.asarray(values)
        if given.dtype.kind not in "biuf":
            raise PartitionError(f"a signal holds numbers, not {given.dtype} values")
        kept = given.dtype if given.dtype.kind == "f" else np.dtype(np.float64)
        found = given.astype(kept)
        # Adding 0.0 would turn -0.0 into 0.0.
        if (self.gain, self.offset) != (1, 0):
            found = found * kept.type(self.gain) + kept.type(self.offset)
        return found

    def detection(self, gc: ArrayLike) -> Floats:
        """Probability that a peak is called: ``depth`` times the GC curve.

        Parameters
        ----------
        gc : array_like, any shape
            GC fractions, 0 to 1.

        Returns
        -------
        ndarray of float64
            In [0, 1], of the same shape; 1 for the reference assay.

        Raises
        ------
        PartitionError
            If a GC fraction is missing or outside 0 to 1.
        """
        fraction = np.asarray(gc, dtype=np.float64)
        wrong = ~((fraction >= 0) & (fraction <= 1))
        if wrong.any():
            at = int(wrong.argmax())
            raise PartitionError(
                f"row {at} (0-based): gc = {fraction.flat[at]}; give a fraction from 0 to 1"
            )
        curve: Floats = np.exp(-self.gc_bias * ((fraction - self.gc_optimum) / GC_WIDTH) ** 2 / 2)
        return self.depth * curve

    def labels(self, labels: NDArray[Any], gc: ArrayLike, seed: int) -> NDArray[Any]:
        """Labels as this client's assay gives them: the window of a missed peak carries 0.

        Parameters
        ----------
        labels : ndarray, shape (N,)
            0 or 1 in a numeric type or bool, which is kept.
        gc : array_like, shape (N,)
            GC fraction of each window.
        seed : int
            Of the draw. One seed misses nested sets: what a better assay misses, a worse one does.

        Returns
        -------
        ndarray, shape (N,)
            A new array: 0 stays 0, 1 stays 1 with probability ``detection(gc)``.

        Raises
        ------
        PartitionError
            If a label is neither 0 nor 1, a GC fraction is none, or the shapes differ.
        """
        whole("seed", seed, 0)
        given = np.asarray(labels)
        called = self.detection(gc)
        if given.ndim != 1 or called.shape != given.shape:
            raise PartitionError(
                f"labels have shape {given.shape}, gc {called.shape}: give one of each a row"
            )
        wrong = ~np.isin(given, (0, 1))
        if wrong.any():
            at = int(wrong.argmax())
            raise PartitionError(f"row {at} (0-based): label {given[at]!r}; give 0 or 1")
        missed = np.random.default_rng(seed).random(len(given)) >= called
        found = given.copy()
        found[missed] = 0
        return found


@dataclass(frozen=True, kw_only=True)
class AssayVariation:
    """How much the clients' assays differ.

    Parameters
    ----------
    dial : float
        0 to 5. 0: every client has the reference assay, exactly. At dial d:
        ``gain = exp(0.4 d z1)``, ``offset = 0.5 d z2`` (in units of the inputs; standardize them),
        ``gc_bias = d u1``, ``gc_optimum = 0.5 + 0.1 d z3`` held within 0.3 to 0.7, and
        ``depth = exp(-d u2)``, with z standard normal and u uniform on [0, 1).
    """

    dial: float

    def __post_init__(self) -> None:
        real("dial", self.dial, 0, 5)


def assay_shifts(
    scheme: AssayVariation,
    clients: Sequence[str],
    seed: int,
    batches: Sequence[str] | None = None,
) -> dict[str, AssayShift]:
    """Draw the assay of each client.

    A client's draw depends on the seed and the name of its batch alone: further clients do not
    move it, and a larger dial stretches the same draw.

    Parameters
    ----------
    scheme : AssayVariation
        How much assays differ.
    clients : sequence of str
        Names of the clients.
    seed : int
        Of the draw.
    batches : sequence of str, optional
        Assay batch of each client, as in `Partition.batches`; clients of one batch have one
        assay. Each has its own where it is not given.

    Returns
    -------
    dict of str to AssayShift
        In the order of the clients.

    Raises
    ------
    PartitionError
        If the seed is no whole number or there is not one batch a client.

    Examples
    --------
    >>> shifts = assay_shifts(AssayVariation(dial=0), ["a", "b"], seed=1)
    >>> shifts["a"] == shifts["b"] == AssayShift()
    True
    >>> shifts = assay_shifts(AssayVariation(dial=1), ["a", "b", "c"], 1, ["x", "x", "y"])
    >>> shifts["a"] == shifts["b"], shifts["a"] == shifts["c"]
    (True, False)
    """
    whole("seed", seed, 0)
    own = clients if batches is None else batches
    if len(own) != len(clients):
        raise PartitionError(f"{len(clients)} clients, {len(own)} batches: give one a client")
    return {
        client: _draw(scheme.dial, np.random.default_rng([seed, zlib.crc32(batch.encode())]))
        for client, batch in zip(clients, own, strict=True)
    }


def _draw(dial: float, rng: np.random.Generator) -> AssayShift:
    z1, z2, z3 = rng.standard_normal(3).tolist()
    u1, u2 = rng.random(2).tolist()
    return AssayShift(
        gain=float(np.exp(0.4 * dial * z1)),
        # Not -0.0 where the dial is 0.
        offset=0.5 * dial * z2 + 0.0,
        gc_bias=dial * u1,
        gc_optimum=min(max(0.5 + 0.1 * dial * z3, 0.3), 0.7),
        depth=float(np.exp(-dial * u2)),
    )
