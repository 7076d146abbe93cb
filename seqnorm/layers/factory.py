"""Build a norm by its name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from seqnorm.kinds import parse_norm
from seqnorm.layers.running import BatchNorm1d, InstanceNorm1d
from seqnorm.layers.stateless import GroupNorm, LayerNorm, NoNorm, RMSNorm


def make_norm(kind: str, channels: int, layout: str = "NCL") -> nn.Module:
    """Build a norm by name; all but ``"none"`` are affine and add 1e-5, so that they compare.

    Parameters
    ----------
    kind : str
        See :func:`seqnorm.kinds.parse_norm`.
    channels : int
        Channels of the input.
    layout : {"NCL", "NLC"}
        Order of the input's axes.

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
        return GroupNorm(groups, channels, layout=layout)
    builders: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: BatchNorm1d(channels, layout=layout),
        "layer": lambda: LayerNorm(channels, layout=layout),
        "layer_seq": lambda: LayerNorm(channels, over="CL", layout=layout),
        "instance": lambda: InstanceNorm1d(channels, affine=True, layout=layout),
        "rms": lambda: RMSNorm(channels, eps=1e-5, layout=layout),
        "none": lambda: NoNorm(layout=layout),
    }
    return builders[name]()
