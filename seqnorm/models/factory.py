"""Build a model by its name, with weights that depend on the seed alone."""

import difflib
import inspect
from typing import Any

import torch

from seqnorm.models.base import SequenceModel
from seqnorm.models.cnn import CNN
from seqnorm.models.residual import ResidualCNN
from seqnorm.models.reverse_complement import ReverseComplementAverage
from seqnorm.models.transformer import Transformer

MODELS: dict[str, type[SequenceModel]] = {
    "cnn": CNN,
    "residual": ResidualCNN,
    "transformer": Transformer,
}


def build_model(name: str, norm: str, seed: int, **options: Any) -> ReverseComplementAverage:
    """Build a model that averages over both strands.

    Parameters
    ----------
    name
        ``"cnn"``, ``"residual"`` or ``"transformer"``.
    norm
        Name of the normalization, ``KIND``, ``KIND@PLACE`` or ``KIND@PLACE+VARIANT``; see
        `seqnorm.kinds.parse_choice`. The variant is what an experiment does with the model and
        changes nothing here.
    seed
        Of the initial weights. Models that differ in ``norm`` alone start from the same weights,
        those of their norms apart.
    **options
        Further arguments of the model.

    Raises
    ------
    ValueError
        For an unknown name, or an option that the model does not have or cannot take.

    Examples
    --------
    >>> a, b = (build_model("cnn", norm, seed=1) for norm in ("batch", "none"))
    >>> bool((a.model.head.weight == b.model.head.weight).all())
    True
    """
    if name not in MODELS:
        raise ValueError(f"model '{name}' does not exist; choose one of {', '.join(MODELS)}")
    model = MODELS[name]
    known = [option for option in inspect.signature(model).parameters if option != "norm"]
    for option in options:
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise ValueError(
                f"model '{name}' has no option '{option}'; {hint}Valid: {', '.join(known)}"
            )
    with torch.random.fork_rng(devices=[]):
        # Unlike torch.manual_seed, this leaves the generators of other devices alone.
        torch.default_generator.manual_seed(seed)
        return ReverseComplementAverage(model(norm=norm, **options))
