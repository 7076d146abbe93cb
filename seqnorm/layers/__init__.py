"""Normalization layers for sequences, each in the place of its ``torch.nn`` twin.

Every layer is a subclass of its twin: the constructor's arguments and defaults, the keys of its
``state_dict`` and the loading of old ones, and ``isinstance`` tests in training code carry over.
What is added is ``layout=``, and ``lengths=`` in the call: integers ``(N,)`` or booleans
``(N, L)``. Padded positions have no influence, come out 0 and get gradient 0.
"""

from seqnorm.layers.factory import make_norm
from seqnorm.layers.running import BatchNorm1d, InstanceNorm1d
from seqnorm.layers.stateless import GroupNorm, LayerNorm, NoNorm, RMSNorm

__all__ = [
    "BatchNorm1d",
    "GroupNorm",
    "InstanceNorm1d",
    "LayerNorm",
    "NoNorm",
    "RMSNorm",
    "make_norm",
]
