"""Build a norm by its name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from seqnorm.kinds import parse_norm
from seqnorm.layers.batch import BatchNorm1d
from seqnorm.layers.instance import InstanceNorm1d
from seqnorm.layers.stateless import GroupNorm, LayerNorm, NoNorm, RMSNorm


def make_norm(kind: str, channels: int, layout: str = "NCL", *, affine: bool = True) -> nn.Module:
    """Build a norm by name; all but ``"none"`` add 1e-5 and may be affine, so that they compare.

    Parameters
    ----------
    kind : str
        See :func:`seqnorm.kinds.parse_norm`.
    channels : int
        Channels of the input.
    layout : {"NCL", "NLC"}
        Order of the input's axes.
    affine : bool
        Whether a weight (and, but for ``"rms"``, a bias) per channel is learned.

    Returns
    -------
    torch.nn.Module
        Called as ``norm(x, lengths=None)``.

    Raises
    ------
    ValueError
        As :func:`seqnorm.kinds.parse_norm`.

    Examples
    --------
    >>> norm = make_norm("group:2", channels=4, layout="NLC")
    >>> type(norm).__name__, norm.num_groups, norm.layout
    ('GroupNorm', 2, 'NLC')
    """
    name, groups = parse_norm(kind, channels)
    if groups is not None:
        return GroupNorm(groups, channels, affine=affine, layout=layout)
    builders: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: BatchNorm1d(channels, affine=affine, layout=layout),
        "layer": lambda: LayerNorm(channels, elementwise_affine=affine, layout=layout),
        "layer_seq": lambda: LayerNorm(
            channels, elementwise_affine=affine, over="CL", layout=layout
        ),
        "instance": lambda: InstanceNorm1d(channels, affine=affine, layout=layout),
        "rms": lambda: RMSNorm(channels, eps=1e-5, elementwise_affine=affine, layout=layout),
        "none": lambda: NoNorm(layout=layout),
    }
    return builders[name]()
