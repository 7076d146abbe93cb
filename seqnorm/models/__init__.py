"""Models for DNA in which the normalization layer is an argument."""

from seqnorm.models.cnn import CNN
from seqnorm.models.factory import MODELS, build_model
from seqnorm.models.residual import ResidualCNN
from seqnorm.models.reverse_complement import ReverseComplementAverage, reverse_complement
from seqnorm.models.transformer import Transformer

__all__ = [
    "CNN",
    "MODELS",
    "ResidualCNN",
    "ReverseComplementAverage",
    "Transformer",
    "build_model",
    "reverse_complement",
]
