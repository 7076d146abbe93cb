"""Change the norms of a model that exists: convert, fold, recalibrate, freeze, merge."""

from seqnorm.surgery.folding import Folding, fold
from seqnorm.surgery.frozen import freeze, unfreeze
from seqnorm.surgery.keras import from_keras, to_keras
from seqnorm.surgery.merge import merge_batchnorm
from seqnorm.surgery.precise import Recalibration, recalibrate
from seqnorm.surgery.swap import Conversion, convert

__all__ = [
    "Conversion",
    "Folding",
    "Recalibration",
    "convert",
    "fold",
    "freeze",
    "from_keras",
    "merge_batchnorm",
    "recalibrate",
    "to_keras",
    "unfreeze",
]
