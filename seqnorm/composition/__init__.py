"""BackgroundNorm: a filter's response to DNA as a z-score under the sequence's own composition."""

from seqnorm.composition.background import Background, background_of
from seqnorm.composition.moments import background_moments
from seqnorm.composition.norm import BackgroundNorm
from seqnorm.composition.zscore import background_zscore

__all__ = [
    "Background",
    "BackgroundNorm",
    "background_moments",
    "background_of",
    "background_zscore",
]
