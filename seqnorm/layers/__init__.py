"""Normalization layers for sequences, each in the place of its ``torch.nn`` twin.

A layer that has a twin is a subclass of it: the constructor's arguments and defaults, the keys of
its ``state_dict`` and the loading of old ones, and ``isinstance`` tests in training code carry
over. What is added is ``layout=``, and ``lengths=`` in the call: integers ``(N,)`` or booleans
``(N, L)``. Padded positions have no influence, come out 0 and get gradient 0.

=============  ===========================================================================
module         layers
=============  ===========================================================================
batch          BatchNorm1d, and over it
sync             SyncBatchNorm: over processes
ghost            GhostBatchNorm1d: over parts of the batch
renorm           BatchRenorm1d: corrected towards the running statistics
domain           DomainBatchNorm1d: one for each domain
instance       InstanceNorm1d
stateless      GroupNorm, LayerNorm, RMSNorm, NoNorm
response       FilterResponseNorm1d
conditional    FiLM, AdaIN: the affine map comes from elsewhere
attention      QKNorm: queries and keys
weights        WSConv1d: the filters in place of what they find
tanh           DynamicTanh: no statistics at all
factory        make_norm: by name
=============  ===========================================================================
"""

from seqnorm.layers.attention import QKNorm
from seqnorm.layers.batch import BatchNorm1d
from seqnorm.layers.conditional import AdaIN, FiLM
from seqnorm.layers.domain import DomainBatchNorm1d
from seqnorm.layers.factory import make_norm
from seqnorm.layers.ghost import GhostBatchNorm1d
from seqnorm.layers.instance import InstanceNorm1d
from seqnorm.layers.renorm import BatchRenorm1d
from seqnorm.layers.response import FilterResponseNorm1d
from seqnorm.layers.stateless import GroupNorm, LayerNorm, NoNorm, RMSNorm
from seqnorm.layers.sync import SyncBatchNorm, convert_sync_batchnorm
from seqnorm.layers.tanh import DynamicTanh
from seqnorm.layers.weights import WSConv1d

__all__ = [
    "AdaIN",
    "BatchNorm1d",
    "BatchRenorm1d",
    "DomainBatchNorm1d",
    "DynamicTanh",
    "FiLM",
    "FilterResponseNorm1d",
    "GhostBatchNorm1d",
    "GroupNorm",
    "InstanceNorm1d",
    "LayerNorm",
    "NoNorm",
    "QKNorm",
    "RMSNorm",
    "SyncBatchNorm",
    "WSConv1d",
    "convert_sync_batchnorm",
    "make_norm",
]
