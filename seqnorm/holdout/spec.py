"""The spec of an experiment: a frozen dataclass, read from TOML, checked before any work."""

from dataclasses import field as dataclass_field
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from seqnorm.holdout.hypotheses import Hypothesis
from seqnorm.toml_spec import (
    STRICT,
    Count,
    Fraction,
    Names,
    SpecError,
    named_files,
)

__all__ = [
    "FILES",
    "Cells",
    "Claim",
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
]

FILES = (
    *("data.genome", "data.peaks", "data.exclude", "data.motif"),
    *("table.file", "table.motif", "simulation.motif", "evaluation.motifs"),
)
"""Keys that name files."""

SOURCES = ("data", "table", "simulation")
"""Where windows come from; a spec has one of these."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


@dataclass(frozen=True, config=STRICT)
class Data:
    """Files, relative to the spec, and how wide a window is.

    ``score`` is what column 5 of the peaks and of what is excluded may hold.
    """

    genome: str
    peaks: str
    exclude: str | None = None
    motif: str | None = None
    width: Annotated[int, Field(ge=20)] = 500
    jitter: Annotated[int, Field(ge=0)] = 20
    seed: int = 0
    score: Literal["integer", "number"] = "integer"


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
    any: ``control="permuted"`` gives the windows of each chromosome each other's labels, and
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

    Training windows that are near-duplicates of a validation or test window (they share at least
    ``similar`` of their minimizers) are left out and counted; 0 does not look for them.
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
    similar: Annotated[float, Field(ge=0, le=1)] = 0.0


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


def _batch_size(given: object) -> object:
    """Say in one fault what may stand there, not one for each type."""
    if given == "auto" or (type(given) is int and given >= 2):
        return given
    raise PydanticCustomError(
        "batch_size", "Input should be a whole number of at least 2, or 'auto'"
    )


@dataclass(frozen=True, config=STRICT)
class Training:
    """The training loop; see `seqnorm.training.TrainingConfig`."""

    learning_rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    # Half of what `seqnorm.training.TrainingConfig` takes: folds add to it.
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**42)], ...], Field(min_length=1)]
    tuning_seeds: Count = 1
    epochs: Count = 12
    batch_size: Annotated[int | Literal["auto"], PlainValidator(_batch_size)] = 64
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    patience: Count = 5
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    device: str = "auto"
    threads: Count = 1


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """Threshold, intervals, and what is decided before the run.

    ``margin`` is the difference below which two norms count as equivalent, and ``stopping`` the
    rule that ends the experiment, in words. ``unit`` is what the error of a mean over chromosomes
    is taken from: the blocks that they consist of and the seeds, or the chromosomes themselves,
    whose spread holds those of blocks and of training besides their own. ``motifs`` is a file of
    a collection, such as JASPAR's, in which the filters of the first layer are looked up.
    """

    false_alarm_rate: Fraction = 0.01
    resamples: Annotated[int, Field(ge=100)] = 1000
    confidence: Fraction = 0.95
    margin: Fraction = 0.01
    unit: Literal["block", "chromosome"] = "block"
    motifs: str | None = None
    stopping: str = "Every seed of the spec is run, and none is added after a look at the result."


@dataclass(frozen=True, config=STRICT)
class Claim(Hypothesis):
    """A hypothesis, of the first task, model and kind of negatives unless it names others."""

    task: str | None = None
    model: str | None = None
    negatives: Kind | None = None


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
    hypotheses: tuple[Claim, ...] = ()

    @property
    def block(self) -> int:
        """Bases of a block; those of a simulation are its isochores, which are independent."""
        return self.split.block if self.simulation is None else self.simulation.isochore

    @property
    def files(self) -> dict[str, str]:
        """The files that it names, by their keys."""
        return named_files(self, FILES)

    @property
    def motif(self) -> str | None:
        """File of the motif that a baseline looks for."""
        source = self.data or self.table or self.simulation
        return None if source is None else source.motif
