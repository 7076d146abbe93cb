"""The z-score of a scan: every position less its mean, over its standard deviation.

The convolution is a matrix product, of the filters with windows of the sequence from which the
composition has been subtracted: ``sum_c w_c (x_c - f_c)`` at each tap. So nothing large is there
to cancel, and a position costs what it costs in a convolution. Where a whole sequence is known,
the standard deviation is one number for each sequence and filter but for the K - 1 positions at the
ends, and goes into the filters; elsewhere it comes from a second product, with what is known.
"""

from __future__ import annotations

import contextlib
import dataclasses

import torch
from torch import Tensor

from seqnorm.backends.plan import ACTIVATIONS, activate, compute_dtype, hide
from seqnorm.backends.reference import affine
from seqnorm.composition.background import (
    Background,
    chain,
    check_bases,
    check_order,
    frequencies,
    local_frequencies,
)
from seqnorm.composition.moments import centred_taps, variance
from seqnorm.composition.taps import Taps
from seqnorm.functional import concrete, valid_positions

__all__ = ["background_zscore", "check_scan", "check_window"]


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A bank of filters and what to judge their responses by, in the type of the arithmetic."""

    weight: Tensor  # (O, 4, K), without the offsets of its taps
    taps: Taps
    order: int
    window: int | None
    pseudocount: float
    eps: float
    scale: Tensor | None
    bias: Tensor | None
    detach: bool

    def __call__(self, bases: Tensor) -> Tensor:
        """Score ``(N, 4, L)``; whole sequences and others apart, each as if it were alone."""
        first, last = self.taps.inside(bases.shape[2])
        whole = (bases.sum(1) == 1).all(1)
        # The short way takes known bases for constants, which they are unless x has a gradient.
        short = not bases.requires_grad and first < last
        count = concrete(whole.sum()) if short else None
        if not count:
            return self.anywhere(bases)
        if count == bases.shape[0]:
            return self.complete(bases)
        mixed = torch.cat([self.complete(bases[whole]), self.anywhere(bases[~whole])])
        return mixed[torch.argsort(whole.logical_not().int(), stable=True).argsort()]

    def anywhere(self, bases: Tensor) -> Tensor:
        """Score sequences in which any base may be unknown."""
        background = self.background(bases)
        source = bases.detach() if self.detach else bases
        known = self.taps.windows(source.sum(1, keepdim=True))[:, 0]
        return self.standardized(self.centred(bases, background), background, known)

    def complete(self, bases: Tensor) -> Tensor:
        """Score sequences of known bases, beyond whose ends there is nothing."""
        background = self.background(bases)
        centred = self.centred(bases, background)
        z = self.standardized(centred, background, None)
        inside = self.taps.windows(torch.ones_like(bases[:1, :1]))[:, 0]
        first, last = self.taps.inside(bases.shape[2])
        for end in (slice(0, first), slice(last, z.shape[2])):
            known = inside[..., end].expand(bases.shape[0], -1, -1)
            there = background
            if self.window is not None:
                there = Background(background.frequencies[..., end])
            z[..., end] = self.standardized(centred[..., end], there, known)
        return z

    def background(self, bases: Tensor) -> Background:
        """Of each sequence, or of the window about each output."""
        taps, source = self.taps, bases.detach() if self.detach else bases
        if self.window is None:
            chained = chain(source, self.pseudocount) if self.order else None
            return Background(frequencies(source), chained)
        centre, count = (taps.span - 1) // 2 - taps.left, taps.outputs(bases.shape[2])
        return Background(local_frequencies(source, self.window, centre, taps.stride, count))

    def centred(self, bases: Tensor, background: Background) -> Tensor:
        """Windows ``(N, 4 K, P)`` of bases less what is expected where a base is known."""
        mass = self.taps.windows(bases.sum(1, keepdim=True))
        expected = background.frequencies.to(bases.dtype)
        expected = expected if self.window is not None else expected[..., None]
        return (self.taps.windows(bases) - mass * expected[:, :, None]).flatten(1, 2)

    def standardized(self, centred: Tensor, background: Background, known: Tensor | None) -> Tensor:
        """``response * scale / sqrt(var + eps) + bias``, as ``(N, O, P)``."""
        var = variance(self.weight, background, known, self.taps.dilation)
        rstd = var.add_(self.eps).rsqrt_()
        filters = self.weight.flatten(1)
        if self.scale is not None:
            filters = filters * self.scale[:, None]
        filters = filters.expand(centred.shape[0], -1, -1)
        bias = None if self.bias is None else self.bias[:, None]
        if rstd.shape[2] != 1:
            return affine(torch.bmm(filters, centred), rstd, bias)
        if bias is None:
            return torch.bmm(filters * rstd, centred)
        return torch.baddbmm(bias, filters * rstd, centred)


def background_zscore(
    x: Tensor,
    weight: Tensor,
    *,
    order: int = 0,
    window: int | None = None,
    lengths: Tensor | None = None,
    padding: str | int = "same",
    stride: int = 1,
    dilation: int = 1,
    scale: Tensor | None = None,
    bias: Tensor | None = None,
    pseudocount: float = 0.0,
    eps: float = 1e-5,
    activation: str | None = None,
    detach_composition: bool = False,
) -> Tensor:
    """Scan sequences with filters, as z-scores under the composition of each sequence.

    ``activation((conv(x) - mean) / sqrt(var + eps) * scale + bias)``, with mean and variance of
    the response at that position to a random sequence of the same composition: see
    :func:`background_moments`. Taps on unknown bases or beyond the ends count in neither, so
    that scores at borders are as calibrated as others.

    Parameters
    ----------
    x : Tensor
        ``(N, 4, L)``, one-hot, columns of zeros where a base is unknown. A mixture of bases
        counts by its parts.
    weight : Tensor
        ``(O, 4, K)``, filters or log-odds matrices. A number added to all bases of a tap changes
        nothing.
    order : {0, 1}
        0: independent bases at the frequencies of the sequence. 1: a Markov chain with the
        sequence's own dinucleotides, which see the lack of CpG.
    window : int, optional
        Of order 0: composition of this many bases about each position in place of the whole
        sequence, for long inputs. At least what a filter spans; cut off at the ends.
    lengths : Tensor, optional
        Integers ``(N,)`` or booleans ``(N, L)``, as for :func:`seqnorm.normalize`.
    padding, stride, dilation
        As for :func:`torch.nn.functional.conv1d`.
    scale, bias : Tensor, optional
        ``(O,)``.
    pseudocount : float
        Of order 1: see :func:`seqnorm.composition.background_of`.
    eps : float
        Added to the variance, in the units of ``weight`` squared; above 0.
    activation : {"relu", "gelu"}, optional
        Applied last.
    detach_composition : bool
        False: derivatives by ``x`` are complete, also through the composition. True: frequencies,
        transitions and variance are constants to them; then the derivative by a base is its
        weight less the mean weight of its tap, over the standard deviation, and derivatives times
        ``x`` sum to the z-score. Derivatives by ``weight`` are complete in either case.

    Returns
    -------
    Tensor
        ``(N, O, P)``, P as from the convolution, of the type of ``x``; computed in float32 at
        least, also under autocast. 0 at padded positions; ``activation(bias)`` where no base is
        known or the background does not vary.

    Raises
    ------
    ValueError
        For arguments that do not fit; the message names the value and the remedy.

    Notes
    -----
    Composition is estimated from the sequence that is scored: the variance of a score over the
    positions of one sequence falls short of 1 by a share of the order of K / L. Memory beyond the
    output is 4 K numbers for each position, 10 K where bases are unknown under a window, and K**2
    / 2 with order 1 where bases are unknown, padded, or ``x`` has a gradient.

    Examples
    --------
    >>> import torch
    >>> x = torch.eye(4)[torch.randint(0, 4, (2, 100))].transpose(1, 2)
    >>> background_zscore(x, torch.randn(8, 4, 5), order=1).shape
    torch.Size([2, 8, 100])
    """
    check_scan(weight, order, window, pseudocount, eps, activation)
    if x.dim() != 3 or x.shape[1] != 4 or not x.is_floating_point():
        raise ValueError(
            "expected one-hot sequences (N, 4, L) of a floating type, "
            f"got shape {tuple(x.shape)}, {x.dtype}"
        )
    for name, value in (("scale", scale), ("bias", bias)):
        if value is not None and tuple(value.shape) != (weight.shape[0],):
            raise ValueError(
                f"{name} must have shape ({weight.shape[0]},), one value per filter, "
                f"got {tuple(value.shape)}"
            )
    taps = Taps.of(weight.shape[2], padding, stride, dilation)
    check_window(window, taps)
    if taps.outputs(x.shape[2]) == 0:
        raise ValueError(
            f"filters span {taps.span} bases, the input with its padding has only "
            f"{x.shape[2] + taps.left + taps.right}; give longer sequences or more padding"
        )
    wide = compute_dtype(x)
    valid = valid_positions(lengths, x.shape[0], x.shape[2], x.device)
    bases = hide(x, None if valid is None else valid[:, None]).to(wide)
    check_bases(bases)
    with _exact(x):
        score = Scorer(
            weight=centred_taps(weight.to(wide)),
            taps=taps,
            order=order,
            window=window,
            pseudocount=pseudocount,
            eps=eps,
            scale=None if scale is None else scale.to(wide),
            bias=None if bias is None else bias.to(wide),
            detach=detach_composition,
        )
        y = hide(activate(score(bases), activation), taps.valid(x, lengths))
    return y.to(x.dtype)


def check_scan(
    weight: Tensor,
    order: int,
    window: int | None,
    pseudocount: float,
    eps: float,
    activation: str | None,
) -> None:
    """Refuse filters and options that cannot be."""
    check_order(order, window, pseudocount)
    if weight.dim() != 3 or weight.shape[1] != 4 or not weight.is_floating_point():
        raise ValueError(
            "filters must have shape (O, 4, K), weights of A, C, G, T at K taps, and a floating "
            f"type, got shape {tuple(weight.shape)}, {weight.dtype}; only the response to one-hot "
            "bases has a background"
        )
    if not eps > 0:
        raise ValueError(f"eps must be above 0, where a sequence of one base ends, got {eps}")
    if activation is not None and activation not in ACTIVATIONS:
        raise ValueError(f"activation must be 'relu', 'gelu' or None, got {activation!r}")


def check_window(window: int | None, taps: Taps) -> None:
    """Refuse a window that a filter looks out of."""
    if window is not None and window < taps.span:
        raise ValueError(
            f"window={window} is narrower than a filter, which spans {taps.span} bases; "
            "some hundred bases make a composition"
        )


def _exact(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Keep autocast, where it is on, from narrowing the products."""
    if not torch.is_autocast_enabled(x.device.type):
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)
