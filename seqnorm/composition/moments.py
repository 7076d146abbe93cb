r"""Mean and variance of a filter's response to a background: exact sums over its taps.

With weights :math:`w_{ck}` of base c at tap k, and bases :math:`X_k` with frequencies
:math:`f_c`, the response :math:`\sum_k w_{X_k k}` has, over the taps that fall on known bases,

.. math::

    \text{mean} &= \sum_k \sum_c f_c w_{ck}

    \text{variance} &= \sum_k \sum_{c<d} f_c f_d (w_{ck} - w_{dk})^2
        + 2 \sum_{k<j} \sum_{ab} S^{(j-k)}_{ab} w_{ak} w_{bj}

    S^{(m)}_{ab} &= f_a (T^m)_{ab} - f_a f_b

The first sum of the variance is the familiar :math:`\sum_c f_c w_c^2 - (\sum_c f_c w_c)^2` of each
tap, written with positive terms only, so that nothing cancels. The second is there if bases follow
one another by transitions T, under which f is stationary; it is derived here. T to the power m is
followed through the deviation S, which decays, and the products of weights at a lag do not depend
on the sequence: 16 multiplications for each sequence, filter and pair of taps.

That scores of weight matrices are to be judged against the composition of the sequence is old:
Staden (1989), "Methods for calculating the probabilities of finding patterns in sequences",
Computer Applications in the Biosciences 5(2), 89-96, which takes the whole distribution for
independent bases.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seqnorm.composition.background import SLACK, Background
from seqnorm.functional import concrete

__all__ = ["background_moments", "centred_taps", "variance"]

PAIRS = ([0, 0, 0, 1, 1, 2], [1, 2, 3, 2, 3, 3])


def background_moments(
    weight: Tensor,
    frequencies: Tensor,
    transitions: Tensor | None = None,
    *,
    known: Tensor | None = None,
    dilation: int = 1,
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the response of filters to random DNA, at one position.

    Parameters
    ----------
    weight : Tensor
        ``(O, 4, K)``: O filters, weights of A, C, G, T at K taps. Differentiable, as is all else.
    frequencies : Tensor
        ``(N, 4)``, of each of N backgrounds, or ``(4,)`` for one.
    transitions : Tensor, optional
        ``(N, 4, 4)`` or ``(4, 4)``; row a holds the probabilities of what follows base a. The
        frequencies must be stationary under them, as those of
        :func:`seqnorm.composition.background_of` are. None: independent bases.
    known : Tensor, optional
        ``(N, K, P)``, 1 or True where a tap falls on a known base, for each of P positions, or
        ``(K, P)`` for one background. None: all taps.
    dilation : int
        Bases from one tap to the next.

    Returns
    -------
    mean, var : Tensor
        ``(N, O)``, or ``(N, O, P)`` if ``known`` is given; without N for one background. Of the
        type of ``weight``, float32 at least.

    Raises
    ------
    ValueError
        For shapes that do not fit, numbers that are no frequencies, or frequencies that are not
        stationary.

    Examples
    --------
    A filter that counts A and T in two bases, on DNA with 20 % GC:

    >>> import torch
    >>> weight = torch.tensor([1.0, 0.0, 0.0, 1.0])[None, :, None].expand(1, 4, 2)
    >>> mean, var = background_moments(weight, torch.tensor([0.4, 0.1, 0.1, 0.4]))
    >>> round(mean.item(), 4), round(var.item(), 4)
    (1.6, 0.32)
    """
    wide = torch.promote_types(weight.dtype, torch.float32)
    single = frequencies.dim() == 1
    if single:
        frequencies = frequencies[None]
        transitions = None if transitions is None else transitions[None]
        known = None if known is None else known[None]
    _check(weight, frequencies, transitions, known, dilation)
    background = Background(frequencies, transitions)
    if known is not None:
        known = known.to(wide)
    # A shift of all bases of a tap shifts the mean alone.
    shift = weight.to(wide).mean(1, keepdim=True)
    taps = weight.to(wide) - shift
    mean = _over_taps(taps, frequencies.to(wide), known)
    mean = mean + _over_taps(shift, torch.ones_like(frequencies[:, :1], dtype=wide), known)
    var = variance(taps, background, known, dilation)
    if known is None:
        mean, var = mean[..., 0], var[..., 0]
    return (mean[0], var[0]) if single else (mean, var)


def centred_taps(weight: Tensor) -> Tensor:
    """Weights less the average over the bases of their tap: of no effect on a z-score.

    It takes away an offset of any size, in which the z-score would drown; as the result does not
    depend on it, it is left out of the graph of derivatives.
    """
    return weight - weight.detach().mean(1, keepdim=True)


def variance(
    taps: Tensor, background: Background, known: Tensor | None, dilation: int = 1
) -> Tensor:
    """Variance ``(N, O, P)`` of the response, in the type of the taps; a new tensor.

    Parameters
    ----------
    taps : Tensor
        ``(O, 4, K)``, without offset: see :func:`centred_taps`.
    background : Background
        Of N sequences; with frequencies ``(N, 4, P)`` and no transitions, of P positions.
    known : Tensor or None
        ``(N, K, P)``. None: all taps, and P is 1 if the background is of sequences.
    dilation : int
        Bases from one tap to the next.
    """
    f = background.frequencies
    i, j = PAIRS
    gaps = (taps[:, i] - taps[:, j]).square()
    var = _over_taps(gaps, (f[:, i] * f[:, j]).to(taps.dtype), known)
    if background.transitions is None or taps.shape[2] == 1:
        return var
    pairs = _covariances(taps, f, background.transitions, dilation)
    if known is None:
        return (var + 2 * pairs.sum(2, keepdim=True)).clamp_min(0)
    lags = range(1, taps.shape[2])
    both = torch.cat([known[:, :-lag] * known[:, lag:] for lag in lags], 1)
    # Rounding may leave a little less than nothing where the bases determine one another.
    return torch.baddbmm(var, pairs, both, alpha=2).clamp_min(0)


def _over_taps(values: Tensor, shares: Tensor, known: Tensor | None) -> Tensor:
    """Sum over taps, and over F kinds in their shares, as ``(N, O, P)``.

    ``values`` is ``(O, F, K)``, ``shares`` ``(N, F)`` or, of each position, ``(N, F, P)``.
    Products are by sequence throughout, so that the bits of one do not depend on the others.
    """
    n, filters = shares.shape[0], values.shape[0]
    if shares.dim() == 2:
        table = _mix(shares, values)
        return table.sum(2, keepdim=True) if known is None else torch.bmm(table, known)
    if known is None:
        return torch.bmm(values.sum(2).expand(n, -1, -1), shares)
    features = (shares[:, :, None] * known[:, None]).flatten(1, 2)
    return torch.bmm(values.reshape(filters, -1).expand(n, -1, -1), features)


def _mix(shares: Tensor, values: Tensor) -> Tensor:
    """``(N, F)`` and ``(O, F, K)`` to ``(N, O, K)``."""
    n, (filters, kinds, taps) = shares.shape[0], values.shape
    flat = values.transpose(0, 1).reshape(kinds, filters * taps)
    mixed = torch.bmm(shares[:, None], flat.expand(n, -1, -1))
    return mixed.view(n, filters, taps)


def _covariances(taps: Tensor, f: Tensor, transitions: Tensor, dilation: int) -> Tensor:
    """``(N, O, K (K - 1) / 2)``: of taps k and k + lag, by lag, then by k."""
    step = torch.linalg.matrix_power(transitions, dilation)
    deviation = f[:, :, None] * (step - f[:, None])
    found = []
    for lag in range(1, taps.shape[2]):
        products = taps[:, :, None, :-lag] * taps[:, None, :, lag:]
        found.append(_mix(deviation.flatten(1).to(taps.dtype), products.flatten(1, 2)))
        deviation = deviation @ step
    return torch.cat(found, 2)


def _check(
    weight: Tensor,
    frequencies: Tensor,
    transitions: Tensor | None,
    known: Tensor | None,
    dilation: int,
) -> None:
    if weight.dim() != 3 or weight.shape[1] != 4 or weight.shape[2] < 1:
        raise ValueError(f"weight must have shape (O, 4, K), got {tuple(weight.shape)}")
    n, size = frequencies.shape[0], weight.shape[2]
    if tuple(frequencies.shape) != (n, 4):
        raise ValueError(
            f"frequencies must have shape (N, 4) or (4,), got {tuple(frequencies.shape)}"
        )
    if transitions is not None and tuple(transitions.shape) != (n, 4, 4):
        raise ValueError(
            f"transitions must have shape {(n, 4, 4)}, a row for each base, for frequencies of "
            f"shape {tuple(frequencies.shape)}, got {tuple(transitions.shape)}"
        )
    if known is not None and (known.dim() != 3 or tuple(known.shape[:2]) != (n, size)):
        raise ValueError(
            f"known must have shape ({n}, {size}, P), taps before positions, "
            f"got {tuple(known.shape)}"
        )
    if dilation < 1:
        raise ValueError(f"dilation must be 1 or more, got {dilation}")
    total = frequencies.sum(1)
    wrong = (frequencies < -SLACK).any(1) | ~((total - 1).abs() < SLACK) & (total != 0)
    if concrete(wrong.sum()):
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"frequencies[{row}] = {frequencies[row].tolist()} must be 0 or more and sum to 1; "
            "divide counts by their sum"
        )
    if transitions is None:
        return
    next_ = torch.einsum("na,nab->nb", frequencies, transitions.to(frequencies.dtype))
    moved = ~((next_ - frequencies).abs() < SLACK).all(1)
    if concrete(moved.sum()):
        row = int(moved.nonzero()[0])
        raise ValueError(
            f"frequencies[{row}] = {frequencies[row].tolist()} are not stationary: one step of "
            f"transitions makes them {next_[row].tolist()}; are the rows of transitions what "
            "follows each base, and the frequencies their left eigenvector?"
        )
