"""The spec of a federated experiment: a frozen dataclass, from TOML, checked before any work."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from federated.spec_check import check_spec, unknown
from seqnorm.holdout.spec import Model
from seqnorm.toml_spec import (
    STRICT,
    Count,
    Fraction,
    Names,
    SpecError,
    checked,
    named_files,
    read_spec,
    write_toml,
)

if TYPE_CHECKING:
    from federated.partition.holdings import AnyScheme

__all__ = [
    "Assay",
    "Data",
    "Model",
    "Participation",
    "Partition",
    "Spec",
    "SpecError",
    "Strategy",
    "Study",
    "Table",
    "Training",
    "as_json",
    "as_toml",
    "data_files",
    "from_json",
    "load_spec",
]

_FILES = ("data.genome", "data.peaks", "data.exclude", "table.path")


@dataclass(frozen=True, config=STRICT)
class Data:
    """Files, relative to the spec, and which windows are drawn from them.

    Positives lie around the summits of the peaks on ``chromosomes``, negatives at random on the
    same ones. ``validation`` and ``test`` are the fractions of each client's windows that choose
    and that are reported; the rest is trained on. The windows of the chromosomes ``unseen`` are
    those of a site that never trains. ``both_classes``: a client whose training, validation or
    test windows are of one class is an error.
    """

    genome: str
    peaks: str
    chromosomes: Names
    unseen: tuple[str, ...] = ()
    exclude: str | None = None
    width: Annotated[int, Field(ge=20)] = 250
    jitter: Annotated[int, Field(ge=0)] = 0
    seed: Annotated[int, Field(ge=0)] = 0
    negatives_per_positive: Count = 3
    validation: Fraction = 0.15
    test: Fraction = 0.25
    both_classes: bool = True


@dataclass(frozen=True, config=STRICT)
class Table:
    """A CSV file, relative to the spec, whose rows come from several sites.

    Attributes
    ----------
    path
        The file, with a header.
    label
        Column of 0 and 1, for a logistic model; or else
    time, event
        Columns of how long each row was followed and of whether that ended with the event (1) or
        without it (0), for a Cox model.
    features
        Columns that the model sees; None: all that have no other part here and are not
        ``partition.column``.
    part
        Column that says ``train`` or ``test``; None: ``test`` is drawn by ``seed``.
    validation
        Fraction of each client's training rows that choose instead, drawn by ``seed``, from those
        with label (or event) 0 and 1 alike. With 0 nothing can be chosen.
    test
        Fraction of each client's rows that are reported, drawn likewise; None: 0.25.
    """

    path: str
    label: str | None = None
    time: str | None = None
    event: str | None = None
    features: Names | None = None
    part: str | None = None
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.15
    test: Fraction | None = None
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=STRICT)
class Partition:
    """Who holds which rows: a scheme of `federated.partition.SCHEMES` with its own keys.

    A key that is None takes the scheme's default, and must be None where the scheme has none of
    the name.
    """

    scheme: str
    clients: Count | None = None
    seed: int | None = None
    min_rows: int | None = None
    alpha: float | None = None
    rho: float | None = None
    exponent: float | None = None
    chromosomes: tuple[tuple[str, ...], ...] | None = None
    column: str | None = None
    sites: tuple[str, ...] | None = None
    sizes: str | None = None

    def with_dial(self, value: float) -> "Partition":
        """The same scheme with another value of its dial.

        Examples
        --------
        >>> Partition("gc_skew", clients=3, rho=0.5).with_dial(0.9).rho
        0.9
        """
        from federated.partition import SCHEMES

        name = SCHEMES[self.scheme].dial_name
        changed: dict[str, Any] = {} if name is None else {name: value}
        return replace(self, **changed)

    def build(self) -> "AnyScheme":
        """Make the scheme.

        Raises
        ------
        ValueError
            For a scheme that does not exist, a key that it lacks or does not have, or a value
            that cannot be.

        Examples
        --------
        >>> Partition("gc_skew", clients=3, rho=0.5).build()
        GCSkew(clients=3, seed=0, min_rows=1, rho=0.5)
        """
        from federated.partition import SCHEMES

        if self.scheme not in SCHEMES:
            raise ValueError(unknown("partition.scheme", self.scheme, SCHEMES))
        kind = SCHEMES[self.scheme]
        given = {k: v for k, v in vars(self).items() if v is not None and k != "scheme"}
        known = {field.name: field for field in fields(kind)}
        for key in given:
            if key not in known:
                raise ValueError(
                    f"key 'partition.{key}': scheme '{self.scheme}' has no such dial; it has "
                    f"{', '.join(known)}"
                )
        try:
            return kind(**given)
        except TypeError as error:
            # The dial has no default, on purpose: the question hangs on it.
            missing = [name for name in known if f"'{name}'" in str(error)]
            raise ValueError(
                f"key 'partition.{missing[0]}' is missing; scheme '{self.scheme}' needs it"
            ) from error
        except ValueError as error:
            raise ValueError(f"table 'partition': {error}") from error


@dataclass(frozen=True, config=STRICT)
class Assay:
    """How much the clients' assays differ; see `federated.partition.AssayVariation`.

    Of windows the peaks that a client's assay misses carry label 0 among what it trains on and
    chooses with; test windows, and those of the unseen site, keep the label of the files. Of a
    table every numeric feature of a client is read with its gain and offset, the latter in standard
    deviations of the feature over all rows; features of two values stay. Under the scheme
    ``batch_confounded`` the clients of a batch have one assay.
    """

    dial: Annotated[float, Field(ge=0, le=5)]
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=STRICT)
class Training:
    """Rounds, and how a client trains in each.

    A round of a client is ``local_epochs`` times through its rows (1 unless given), or, instead of
    these, ``local_steps`` steps of the optimizer whatever the client's number of rows.
    ``patience``: rounds without a better mean over the clients of the validation metric after
    which a run stops; None runs all rounds. ``clip``: largest gradient norm. ``threads``: of
    torch, a client. ``timeout``: seconds that a client may take for a round.
    """

    rounds: Count
    learning_rates: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
    # The upper bound is that of `seqnorm.training.TrainingConfig`.
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**43)], ...], Field(min_length=1)]
    local_epochs: Count | None = None
    local_steps: Count | None = None
    batch_size: Annotated[int, Field(ge=2)] = 32
    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: Annotated[float, Field(gt=0)] = 5.0
    threads: Count = 1
    patience: Count | None = None
    timeout: Annotated[float, Field(gt=0)] = 3600.0

    def __post_init__(self) -> None:
        if self.local_epochs is None and self.local_steps is None:
            object.__setattr__(self, "local_epochs", 1)  # the class is frozen


@dataclass(frozen=True, config=STRICT)
class Strategy:
    """How the server aggregates; see `federated.strategies.check_strategy`."""

    name: str = "fedavg"
    options: dict[str, Any] = dataclass_field(default_factory=dict)


@dataclass(frozen=True, config=STRICT)
class Participation:
    """Who takes part in a round.

    A ``fraction`` of the clients is drawn each round. Of these each, with the probability of that
    name, is away (``dropout``), fails in the middle of the round (``crashes``), or is done too late
    for its reply to count, though not for what it keeps itself (``stragglers``); all three are
    functions of seed, round and client. With fewer than ``minimum`` usable replies a round leaves
    the weights as they are; after more than ``failed_rounds`` of these in a row the run stops.
    ``start``: the local state of a client without a past: ``"server"``, the server's, or
    ``"adapt:K"``, statistics of K of its own rows without their labels, or ``"shrink:K"``, between
    these and the mean over the clients, for which clients send local statistics too; see
    `federated.policy.start_local` and `federated.spread`.
    """

    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    minimum: Count = 1
    start: str = "server"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    crashes: Annotated[float, Field(ge=0, lt=1)] = 0.0
    stragglers: Annotated[float, Field(ge=0, lt=1)] = 0.0
    failed_rounds: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, config=STRICT)
class Study:
    """What ``federated study`` varies beside norms, policies and seeds, and what it compares with.

    Attributes
    ----------
    skews
        Values of the dial of the partition's scheme, such as ``rho`` of ``gc_skew``; or
    skew_of
        with ``"assay"``, of the assays' dial.
    participations
        Values of ``participation.fraction``.
    references
        Whether a model of all rows, and one of each client's, are trained too.
    """

    skews: tuple[float, ...] = ()
    skew_of: Literal["partition", "assay"] = "partition"
    participations: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()
    references: bool = True


@dataclass(frozen=True, config=STRICT)
class Spec:
    """A whole experiment: every norm under every policy, at every learning rate and seed.

    The rows are windows of a genome (``data``) or those of a CSV file (``table``), one of the two.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    question: str
    norms: Names
    policies: Names
    partition: Partition
    model: Model
    training: Training
    data: Data | None = None
    table: Table | None = None
    strategy: Strategy = dataclass_field(default_factory=Strategy)
    participation: Participation = dataclass_field(default_factory=Participation)
    assay: Assay | None = None
    study: Study | None = None

    def with_skew(self, value: float) -> "Spec":
        """The same experiment at another value of what its study's ``skews`` are values of."""
        if self.study is not None and self.study.skew_of == "assay":
            return replace(self, assay=replace(self.assay or Assay(0.0), dial=value))
        return replace(self, partition=self.partition.with_dial(value))


def load_spec(path: str | Path, overrides: Sequence[str] = (), *, runnable: bool = True) -> Spec:
    """Read and check a spec.

    Parameters
    ----------
    path
        TOML file. File names inside it are relative to its folder and come back absolute.
    overrides
        ``"key=value"`` with a dotted key, such as ``"training.rounds=3"``; the value is read as
        TOML, else as a string.
    runnable
        Whether the data files have to be there; a report needs none.

    Raises
    ------
    SpecError
        One line that names the file, the key, what is wrong and what to do.
    """
    return read_spec(Spec, path, overrides, check=check_spec, files=_FILES, runnable=runnable)


def data_files(spec: Spec) -> dict[str, str]:
    """Files that a spec names, by key, such as ``"data.genome"``; those left out are not in it."""
    return named_files(spec, _FILES)


def as_toml(spec: Spec) -> str:
    """Write a spec so that `load_spec` reads the same spec back."""
    return write_toml(spec)


def as_json(spec: Spec) -> str:
    """Write a spec as JSON, as the configuration of a Flower run carries it."""
    return json.dumps(asdict(spec), ensure_ascii=False)


def from_json(text: str) -> Spec:
    """Read what `as_json` wrote, with all checks but that the data files are there.

    Raises
    ------
    SpecError
        For what is no JSON, or not the JSON of a spec.

    Examples
    --------
    >>> from_json("{")
    Traceback (most recent call last):
    seqnorm.toml_spec.SpecError: the spec of the run is not JSON: Expecting property name enclosed \
in double quotes: line 1 column 2 (char 1); it must be what federated.spec.as_json writes
    """
    advice = "it must be what federated.spec.as_json writes"
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"the spec of the run is not JSON: {error}; {advice}") from error
    if not isinstance(raw, dict):
        raise SpecError(f"the spec of the run is no table of keys; {advice}")
    return checked(Spec, raw, "the spec of the run", check_spec)
