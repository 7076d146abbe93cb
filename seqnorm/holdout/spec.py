"""The spec of an experiment: a frozen dataclass, read from TOML, checked before any work."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from dataclasses import field as dataclass_field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from data_tools.errors import InputError
from data_tools.splits import check_disjoint

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


DATA_FILES = ("genome", "peaks", "exclude", "motif")
"""Keys of the data table that name files."""


class SpecError(InputError):
    """The spec is wrong: names the file, the key, the fault and the remedy."""


@dataclass(frozen=True, config=_STRICT)
class Data:
    """Files, relative to the spec, and how wide a window is."""

    genome: str
    peaks: str
    exclude: str | None = None
    motif: str | None = None
    width: Annotated[int, Field(ge=20)] = 500
    jitter: Annotated[int, Field(ge=0)] = 20
    seed: int = 0


@dataclass(frozen=True, config=_STRICT)
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


@dataclass(frozen=True, config=_STRICT)
class Negatives:
    """Background windows: kinds to train with; the evaluation always uses random ones."""

    kinds: Annotated[tuple[Literal["random", "gc_matched", "flank"], ...], Field(min_length=1)] = (
        "random",
    )
    per_positive: Count = 5
    evaluation: Annotated[int, Field(ge=100)] = 3000


@dataclass(frozen=True, config=_STRICT)
class Model:
    """A model by name, with the options of its constructor."""

    name: str
    options: dict[str, Any] = dataclass_field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
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


@dataclass(frozen=True, config=_STRICT)
class Evaluation:
    """Threshold, intervals."""

    false_alarm_rate: Fraction = 0.01
    resamples: Annotated[int, Field(ge=100)] = 1000
    confidence: Fraction = 0.95


@dataclass(frozen=True, config=_STRICT)
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
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpecError(f"{path}: no such spec; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise SpecError(f"{path}: not a TOML file: {error}") from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error
    for override in overrides:
        _override(raw, override)
    try:
        spec = _validate(raw)
    except ValidationError as error:
        raise SpecError(f"{path}: {_explain(error)}") from None
    try:
        _check(spec)
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from error
    spec = _with_absolute_paths(spec, path.resolve().parent)
    if runnable:
        _check_machine(path, spec)
    return spec


def _check_machine(path: Path, spec: Spec) -> None:
    """Check what is not in the spec but must be here: files and a device."""
    from seqnorm.training import resolve_device

    for key in DATA_FILES:
        name = getattr(spec.data, key)
        if name is not None and not Path(name).is_file():
            raise SpecError(f"{path}: key 'data.{key}': no such file: {name}")
    try:
        resolve_device(spec.training.device)
    except ValueError as error:
        raise SpecError(f"{path}: key 'training.device': {error}") from error


def _validate(raw: dict[str, Any]) -> Spec:
    # By way of JSON, which has no tuples and no dataclasses: there the strict rules (no text for
    # a number, no number for a flag) still let a list be a tuple and a table a dataclass.
    return TypeAdapter(Spec).validate_json(json.dumps(raw, default=str))


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SpecError(f"override '{override}' is not of the form key=value, as training.epochs=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    table: Any = raw
    for parent in parents:
        table = table.setdefault(parent, {}) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        raise SpecError(f"override '{override}': '{'.'.join(parents)}' is not a table")
    table[last] = value


def _explain(error: ValidationError) -> str:
    """Say the first fault in one line, with the nearest key that exists."""
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if fault["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _keys_at(fault["loc"][:-1])
        near = get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key '{where}'; {hint}{more}"
    if fault["type"] in ("missing", "missing_argument"):
        return f"key '{where}' is missing; add it{more}"
    return f"key '{where}': {fault['msg']}, got {fault['input']!r}{more}"


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """Names that the spec knows at a place."""
    here: Any = Spec
    for part in location:
        if isinstance(part, int):
            continue
        annotation = next(f.type for f in fields(here) if f.name == part)
        candidates = [annotation, *get_args(annotation)]
        candidates += [inner for c in candidates for inner in get_args(c)]
        here = next((c for c in candidates if is_dataclass(c)), None)
        if here is None:
            return []
    return [f.name for f in fields(here)]


def _check(spec: Spec) -> None:
    """Check what concerns several keys, and the names that other modules own."""
    # torch is loaded only here, so that a spec with a typo is refused at once.
    from seqnorm.kinds import parse_norm
    from seqnorm.models import build_model

    check_disjoint(train=spec.split.train, validation=spec.split.validation, test=spec.split.test)
    for chrom in spec.split.primary:
        if chrom not in spec.split.test:
            raise ValueError(f"primary chromosome '{chrom}' must be one of the test chromosomes")
    for label, values in (
        ("norms", spec.norms),
        ("split.train", spec.split.train),
        ("split.validation", spec.split.validation),
        ("split.test", spec.split.test),
        ("split.primary", spec.split.primary),
        ("negatives.kinds", spec.negatives.kinds),
        ("training.seeds", spec.training.seeds),
        ("training.learning_rates", spec.training.learning_rates),
        ("models", [model.name for model in spec.models]),
    ):
        if len(set(values)) < len(values):
            raise ValueError(f"key '{label}' names something twice; name each once")
    if spec.training.tuning_seeds > len(spec.training.seeds):
        raise ValueError("key 'training.tuning_seeds' is larger than the number of seeds")
    if spec.split.validation_offset >= spec.split.validation_every:
        raise ValueError("key 'split.validation_offset' must be below 'split.validation_every'")
    for norm in spec.norms:
        parse_norm(norm)
    for model in spec.models:
        for option in ("name", "norm", "seed"):
            if option in model.options:
                raise ValueError(
                    f"model '{model.name}': '{option}' is no option of a model; the spec's own "
                    "keys name, norms and training.seeds set it"
                )
        for norm in spec.norms:
            build_model(model.name, norm, seed=0, **model.options)


def _with_absolute_paths(spec: Spec, folder: Path) -> Spec:
    changed = asdict(spec)
    for key in DATA_FILES:
        if changed["data"][key] is not None:
            changed["data"][key] = str((folder / changed["data"][key]).resolve())
    return _validate(changed)


def as_toml(spec: Spec) -> str:
    """Write a spec so that `load_spec` reads the same spec back."""
    lines: list[str] = []
    tables: list[str] = []
    for key, value in asdict(spec).items():
        if key == "models":
            for model in value:
                options = "".join(f"{k} = {_toml(v)}\n" for k, v in model["options"].items())
                tables.append(f"[[models]]\nname = {_toml(model['name'])}\n")
                tables.append(f"[models.options]\n{options}" if options else "")
        elif isinstance(value, dict):
            body = "".join(f"{k} = {_toml(v)}\n" for k, v in value.items() if v is not None)
            tables.append(f"[{key}]\n{body}")
        else:
            lines.append(f"{key} = {_toml(value)}\n")
    return "".join(lines) + "\n" + "\n".join(tables)


def _toml(value: Any) -> str:
    # A JSON string, number, boolean or list is the same in TOML, but for the escaped slash
    # and DEL, which json.dumps leaves as they are.
    return json.dumps(value, ensure_ascii=False)
