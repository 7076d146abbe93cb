"""The spec of an experiment: a frozen dataclass, read from TOML, checked before any work."""

from collections.abc import Sequence
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from data_tools.splits import check_disjoint
from seqnorm.toml_spec import (
    STRICT,
    Count,
    Fraction,
    Names,
    SpecError,
    check_once,
    read_spec,
    write_toml,
)

__all__ = [
    "DATA_FILES",
    "Data",
    "Evaluation",
    "Model",
    "Negatives",
    "Spec",
    "SpecError",
    "Split",
    "Training",
    "as_toml",
    "check_model",
    "load_spec",
]

DATA_FILES = ("genome", "peaks", "exclude", "motif")
"""Keys of the data table that name files."""


@dataclass(frozen=True, config=STRICT)
class Data:
    """Files, relative to the spec, and how wide a window is."""

    genome: str
    peaks: str
    exclude: str | None = None
    motif: str | None = None
    width: Annotated[int, Field(ge=20)] = 500
    jitter: Annotated[int, Field(ge=0)] = 20
    seed: int = 0


@dataclass(frozen=True, config=STRICT)
class Split:
    """Who trains, who chooses, who tests.

    An empty ``validation`` sets aside every ``validation_every``-th block of the training
    chromosomes. ``primary`` are the test chromosomes on which the question is answered.
    """

    train: Names
    test: Names
    primary: Names
    validation: tuple[str, ...] = ()
    validation_every: Annotated[int, Field(ge=2)] = 5
    validation_offset: Annotated[int, Field(ge=0)] = 0
    block: Count = 1_000_000
    few_positives: Count = 50


@dataclass(frozen=True, config=STRICT)
class Negatives:
    """Background windows: kinds to train with; the evaluation always uses random ones."""

    kinds: Annotated[tuple[Literal["random", "gc_matched", "flank"], ...], Field(min_length=1)] = (
        "random",
    )
    per_positive: Count = 5
    evaluation: Annotated[int, Field(ge=100)] = 3000


@dataclass(frozen=True, config=STRICT)
class Model:
    """A model by name, with the options of its constructor."""

    name: str
    options: dict[str, Any] = dataclass_field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Training:
    """The training loop; see `seqnorm.training.TrainingConfig`."""

    learning_rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    # The upper bound is that of `seqnorm.training.TrainingConfig`.
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**43)], ...], Field(min_length=1)]
    tuning_seeds: Count = 1
    epochs: Count = 12
    batch_size: Annotated[int, Field(ge=2)] = 64
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    patience: Count = 5
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    threads: Count = 1


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """Threshold, intervals."""

    false_alarm_rate: Fraction = 0.01
    resamples: Annotated[int, Field(ge=100)] = 1000
    confidence: Fraction = 0.95


@dataclass(frozen=True, config=STRICT)
class Spec:
    """A whole experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    question: str
    data: Data
    split: Split
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    norms: Names
    training: Training
    negatives: Negatives = dataclass_field(default_factory=Negatives)
    evaluation: Evaluation = dataclass_field(default_factory=Evaluation)


def load_spec(path: str | Path, overrides: Sequence[str] = (), *, runnable: bool = True) -> Spec:
    """Read and check a spec.

    Parameters
    ----------
    path
        TOML file. File names inside it are relative to its folder and come back absolute.
    overrides
        ``"key=value"`` with a dotted key, such as ``"training.epochs=3"``; the value is read as
        TOML, else as a string.
    runnable
        Whether the data files and the device have to be there; a report needs neither.

    Raises
    ------
    SpecError
        One line that names the file, the key, what is wrong and what to do.
    """
    spec = read_spec(Spec, path, overrides, check=_check, files=DATA_FILES, runnable=runnable)
    if runnable:
        from seqnorm.training import resolve_device

        try:
            resolve_device(spec.training.device)
        except ValueError as error:
            raise SpecError(f"{path}: key 'training.device': {error}") from error
    return spec


def as_toml(spec: Spec) -> str:
    """Write a spec so that `load_spec` reads the same spec back."""
    return write_toml(spec)


def _check(spec: Spec) -> None:
    """Check what concerns several keys, and the names that other modules own."""
    check_disjoint(train=spec.split.train, validation=spec.split.validation, test=spec.split.test)
    for chrom in spec.split.primary:
        if chrom not in spec.split.test:
            raise ValueError(f"primary chromosome '{chrom}' must be one of the test chromosomes")
    check_once(
        norms=spec.norms,
        split__train=spec.split.train,
        split__validation=spec.split.validation,
        split__test=spec.split.test,
        split__primary=spec.split.primary,
        negatives__kinds=spec.negatives.kinds,
        training__seeds=spec.training.seeds,
        training__learning_rates=spec.training.learning_rates,
        models=[model.name for model in spec.models],
    )
    if spec.training.tuning_seeds > len(spec.training.seeds):
        raise ValueError("key 'training.tuning_seeds' is larger than the number of seeds")
    if spec.split.validation_offset >= spec.split.validation_every:
        raise ValueError("key 'split.validation_offset' must be below 'split.validation_every'")
    for model in spec.models:
        check_model(model, spec.norms)


def check_model(model: Model, norms: Sequence[str]) -> None:
    """Build a model once with each norm.

    Raises
    ------
    ValueError
        For a norm, a model or an option that does not exist or that do not go together.
    """
    # torch is loaded only here, so that a spec with a typo is refused at once.
    from seqnorm.kinds import parse_norm
    from seqnorm.models import build_model

    for norm in norms:
        parse_norm(norm)
    for option in ("name", "norm", "seed"):
        if option in model.options:
            raise ValueError(
                f"model '{model.name}': '{option}' is no option of a model; the spec's own "
                "keys name, norms and training.seeds set it"
            )
    for norm in norms:
        build_model(model.name, norm, seed=0, **model.options)
