"""Build a model by its name, with weights that depend on the seed alone."""

from typing import Any

import torch
from torch import nn

from seqnorm.models.cnn import CNN
from seqnorm.models.reverse_complement import ReverseComplementAverage
from seqnorm.models.transformer import Transformer

MODELS: dict[str, type[nn.Module]] = {"cnn": CNN, "transformer": Transformer}


def build_model(name: str, norm: str, seed: int, **options: Any) -> ReverseComplementAverage:
    """Build a model that averages over both strands.

    Parameters
    ----------
    name
        ``"cnn"`` or ``"transformer"``.
    norm
        Kind of normalization; see `seqnorm.make_norm`.
    seed
        Of the initial weights. Models that differ in ``norm`` alone start from the same weights.
    **options
        Further arguments of the model.

    Raises
    ------
    ValueError
        For an unknown name, or an option that the model does not take.

    Examples
    --------
    >>> a, b = (build_model("cnn", norm, seed=1) for norm in ("batch", "none"))
    >>> bool((a.model.head.weight == b.model.head.weight).all())
    True
    """
    if name not in MODELS:
        raise ValueError(f"model '{name}' does not exist; choose one of {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return ReverseComplementAverage(MODELS[name](norm=norm, **options))
        except TypeError as error:
            raise ValueError(f"model '{name}': {error}") from error
