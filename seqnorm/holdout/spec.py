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
    "FILES",
    "Cells",
    "Data",
    "Evaluation",
    "Model",
    "Negatives",
    "Simulation",
    "Spec",
    "SpecError",
    "Split",
    "Table",
    "Task",
    "Training",
    "as_toml",
    "check_model",
    "load_spec",
]

FILES = (
    *("data.genome", "data.peaks", "data.exclude", "data.motif"),
    *("table.file", "table.motif", "simulation.motif"),
)
"""Keys that name files."""

SOURCES = ("data", "table", "simulation")
"""Where windows come from; a spec has one of these."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


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
class Table:
    """A table of sequences of one width with their places and labels, one column a task.

    Columns ``chrom``, ``start`` and ``end`` have to be there; rows whose label is -1 (not known)
    are left out.
    """

    file: str
    sequence: str = "sequence"
    chrom: str = "chrom"
    start: str = "start"
    end: str = "end"
    motif: str | None = None
    seed: int = 0


@dataclass(frozen=True, config=STRICT)
class Simulation:
    """A simulated genome (`data_tools.simulation.World`) whose chromosomes have a stated GC.

    ``gc`` gives the mean GC fraction of each chromosome by its name, ``bases`` their length, and
    ``motif`` the JASPAR matrix that positive windows hold.
    """

    motif: str
    gc: dict[str, Fraction]
    bases: Count = 1_000_000
    training_bases: Count = 2_000_000
    spread: Annotated[float, Field(ge=0, lt=0.5)] = 0.03
    isochore: Count = 20_000
    cpg: Annotated[float, Field(gt=0)] = 0.25
    width: Annotated[int, Field(ge=20)] = 200
    spacing: Count = 400
    prevalence: Fraction = 0.2
    confounding: Annotated[float, Field(ge=0, le=1)] = 0.0
    decoys: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: int = 0


@dataclass(frozen=True, config=STRICT)
class Task:
    """What is to be learnt, where a spec has several things.

    Of a table: ``label`` is the column of labels, and only rows with the values of ``where``
    take part. Of a simulation: ``confounding`` and ``prevalence`` take the place of its own. Of
    any: ``control="permuted"`` gives the windows that train and choose each other's labels, and
    ``control="composition"`` shuffles every window, keeping its dinucleotides.
    """

    name: Name
    label: str | None = None
    where: dict[str, str] = dataclass_field(default_factory=dict)
    confounding: Annotated[float, Field(ge=0, le=1)] | None = None
    prevalence: Fraction | None = None
    control: Literal["permuted", "composition"] | None = None


@dataclass(frozen=True, config=STRICT)
class Split:
    """Who trains, who chooses, who tests.

    An empty ``validation`` sets aside every ``validation_every``-th block of the training
    chromosomes. ``primary`` are the test chromosomes on which the question is answered. With
    ``design = "leave_one_out"`` each of the test chromosomes is left out in turn while all others
    train, and ``train`` names those that are never left out, if any.
    """

    test: Names
    primary: Names
    train: tuple[str, ...] = ()
    design: Literal["fixed", "leave_one_out"] = "fixed"
    validation: tuple[str, ...] = ()
    validation_every: Annotated[int, Field(ge=2)] = 5
    validation_offset: Annotated[int, Field(ge=0)] = 0
    block: Count = 1_000_000
    few_positives: Count = 50


Kind = Literal["random", "gc_matched", "flank", "shuffled"]


@dataclass(frozen=True, config=STRICT)
class Negatives:
    """Background windows: kinds to train with; the evaluation always uses random ones.

    Of tables and simulations, which have negatives of their own, ``random`` are all of these and
    ``gc_matched`` those with the GC of a positive of their chromosome. ``shuffled`` are
    dinucleotide shuffles of the positives.
    """

    kinds: Annotated[tuple[Kind, ...], Field(min_length=1)] = ("random",)
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
class Cells:
    """Some of the cells: the combinations of what it names, and of all of what it does not."""

    tasks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    negatives: tuple[Kind, ...] = ()
    norms: tuple[str, ...] = ()


@dataclass(frozen=True, config=STRICT)
class Spec:
    """A whole experiment.

    It has one source of windows: ``data`` (a genome and peaks), ``table`` or ``simulation``.
    Without ``cells`` it compares all norms for every task, model and kind of negatives.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    question: str
    split: Split
    models: Annotated[tuple[Model, ...], Field(min_length=1)]
    norms: Names
    training: Training
    data: Data | None = None
    table: Table | None = None
    simulation: Simulation | None = None
    tasks: tuple[Task, ...] = (Task("main"),)
    cells: tuple[Cells, ...] = ()
    negatives: Negatives = dataclass_field(default_factory=Negatives)
    evaluation: Evaluation = dataclass_field(default_factory=Evaluation)

    @property
    def motif(self) -> str | None:
        """File of the motif that a baseline looks for."""
        source = self.data or self.table or self.simulation
        return None if source is None else source.motif


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
    spec = read_spec(Spec, path, overrides, check=_check, files=FILES, runnable=runnable)
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
    given = [name for name in SOURCES if getattr(spec, name) is not None]
    if len(given) != 1:
        raise ValueError(
            f"a spec has one of the tables {', '.join(SOURCES)}, this one has "
            f"{' and '.join(given) or 'none'}"
        )
    _check_split(spec.split)
    _check_tasks(spec, given[0])
    _check_cells(spec)
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
        tasks=[task.name for task in spec.tasks],
    )
    if spec.training.tuning_seeds > len(spec.training.seeds):
        raise ValueError("key 'training.tuning_seeds' is larger than the number of seeds")
    for model in spec.models:
        check_model(model, spec.norms)


def _check_split(split: Split) -> None:
    if split.validation_offset >= split.validation_every:
        raise ValueError("key 'split.validation_offset' must be below 'split.validation_every'")
    check_disjoint(train=split.train, validation=split.validation, test=split.test)
    for chrom in split.primary:
        if chrom not in split.test:
            raise ValueError(f"primary chromosome '{chrom}' must be one of the test chromosomes")
    if split.design == "fixed" and not split.train:
        raise ValueError("key 'split.train' is missing; add it")
    if split.design == "leave_one_out" and len(split.test) + len(split.train) < 2:
        raise ValueError("key 'split.test' names one chromosome: none is left to learn from")


_OF_SOURCE = {"label": "table", "where": "table", "confounding": "simulation"}
_OF_SOURCE["prevalence"] = "simulation"


def _check_tasks(spec: Spec, source: str) -> None:
    for number, task in enumerate(spec.tasks):
        for key, owner in _OF_SOURCE.items():
            if getattr(task, key) and owner != source:
                raise ValueError(f"key 'tasks.{number}.{key}' is of a {owner}; this is of {source}")
        if source == "table" and task.label is None:
            raise ValueError(f"key 'tasks.{number}.label' is missing; name a column of the table")
    if source != "data" and "flank" in spec.negatives.kinds:
        raise ValueError("key 'negatives.kinds': flanks are drawn from a genome's bases alone")
    if spec.simulation is not None:
        for chrom in (*spec.split.train, *spec.split.validation, *spec.split.test):
            if chrom not in spec.simulation.gc:
                raise ValueError(f"chromosome '{chrom}' has no GC; add it to 'simulation.gc'")


def _check_cells(spec: Spec) -> None:
    known: dict[str, list[str]] = {
        "tasks": [task.name for task in spec.tasks],
        "models": [model.name for model in spec.models],
        "negatives": list(spec.negatives.kinds),
        "norms": list(spec.norms),
    }
    for number, cells in enumerate(spec.cells):
        for key, names in known.items():
            for name in getattr(cells, key):
                if name not in names:
                    raise ValueError(
                        f"key 'cells.{number}.{key}' names '{name}'; the spec has "
                        f"{', '.join(names)}"
                    )


def check_model(model: Model, norms: Sequence[str]) -> None:
    """Build a model once with each norm.

    Raises
    ------
    ValueError
        For a norm, a model or an option that does not exist or that do not go together.
    """
    # torch is loaded only here, so that a spec with a typo is refused at once.
    from seqnorm.kinds import parse_choice
    from seqnorm.models import build_model

    for norm in norms:
        parse_choice(norm)
    for option in ("name", "norm", "seed"):
        if option in model.options:
            raise ValueError(
                f"model '{model.name}': '{option}' is no option of a model; the spec's own "
                "keys name, norms and training.seeds set it"
            )
    for norm in norms:
        build_model(model.name, norm, seed=0, **model.options)
