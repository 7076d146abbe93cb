"""Specs as frozen dataclasses in TOML files: read, override, explain a mistake, write.

What a spec says is the matter of the dataclass; this is how it gets in and out. Rules are strict:
no text for a number, no unknown key, and every mistake is one line that names the file, the key,
the fault and the remedy.
"""

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from data_tools.errors import InputError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

S = TypeVar("S", bound="DataclassInstance")

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
"""Configuration of every dataclass of a spec."""

Names = Annotated[tuple[str, ...], Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]

_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


class SpecError(InputError):
    """The spec is wrong: names the file, the key, the fault and the remedy."""


def read_spec(
    kind: type[S],
    path: str | Path,
    overrides: Sequence[str] = (),
    *,
    check: Callable[[S], None],
    files: Sequence[str] = (),
    runnable: bool = True,
) -> S:
    """Read a spec from a TOML file and check it.

    Parameters
    ----------
    kind
        Dataclass of the whole spec.
    path
        TOML file.
    overrides
        ``"key=value"`` with a dotted key, such as ``"training.batch_size=8"``; the value is read
        as TOML, else as a string.
    check
        Raises ``ValueError`` for what the types of the keys cannot say.
    files
        Keys that name files, relative to the folder of the spec: dotted, or else of the table
        ``data``. They come back absolute. Keys and tables that are left out name none.
    runnable
        Whether these files have to be there.

    Raises
    ------
    SpecError
        One line that names the file, the key, what is wrong and what to do.
    """
    path = Path(path)
    raw = _read(path)
    for override in overrides:
        _override(raw, override)
    spec = checked(kind, raw, str(path), check)
    spec = _with_absolute_paths(spec, path.resolve().parent, files)
    if runnable:
        _check_files(spec, path, files)
    return spec


def checked(kind: type[S], raw: Mapping[str, Any], where: str, check: Callable[[S], None]) -> S:
    """Turn tables of plain values into a spec.

    Parameters
    ----------
    kind, check
        As for `read_spec`.
    raw
        The tables.
    where
        Where they come from; begins the message.

    Raises
    ------
    SpecError
        One line.

    Examples
    --------
    >>> from pydantic.dataclasses import dataclass
    >>> @dataclass(frozen=True, config=STRICT)
    ... class Oven:
    ...     degrees: int
    >>> checked(Oven, {"degrees": 180}, "cake.toml", lambda oven: None)
    Oven(degrees=180)
    >>> checked(Oven, {"degree": 180}, "a.toml", lambda oven: None)
    Traceback (most recent call last):
    seqnorm.toml_spec.SpecError: a.toml: unknown key 'degree'; did you mean 'degrees'? (and 1 more)
    """
    try:
        spec = _validate(kind, raw)
    except ValidationError as error:
        raise SpecError(f"{where}: {_explain(kind, error)}") from None
    try:
        check(spec)
    except ValueError as error:
        raise SpecError(f"{where}: {error}") from error
    return spec


def check_once(**keys: Sequence[object]) -> None:
    """Raise ``ValueError`` if something stands twice under a key; ``__`` stands for a dot.

    Examples
    --------
    >>> check_once(norms=["batch", "layer"], training__seeds=[1, 1])
    Traceback (most recent call last):
    ValueError: key 'training.seeds' names something twice; name each once
    """
    for key, values in keys.items():
        if len(set(values)) < len(values):
            name = key.replace("__", ".")
            raise ValueError(f"key '{name}' names something twice; name each once")


# --- in ------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SpecError(f"{path}: no such spec; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
        raise SpecError(f"{path}: not a TOML file: {error}") from error
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from error


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise SpecError(
            f"override '{override}' is not of the form key=value, as training.batch_size=8"
        )
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


def _validate(kind: type[S], raw: Mapping[str, Any]) -> S:
    # By way of JSON, which has no tuples and no dataclasses: there the strict rules (no text for
    # a number, no number for a flag) still let a list be a tuple and a table a dataclass.
    return TypeAdapter(kind).validate_json(json.dumps(raw, default=str))


def _explain(kind: type[Any], error: ValidationError) -> str:
    """Say the first fault in one line, with the nearest key that exists."""
    faults = error.errors()
    # A mistyped key is also a missing one: the unknown name tells more.
    fault = next((f for f in faults if f["type"] in _UNKNOWN), faults[0])
    where = ".".join(str(part) for part in fault["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if fault["type"] in _UNKNOWN:
        known = _keys_at(kind, fault["loc"][:-1])
        near = get_close_matches(str(fault["loc"][-1]), known, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
        return f"unknown key '{where}'; {hint}{more}"
    if fault["type"] in ("missing", "missing_argument"):
        return f"key '{where}' is missing; add it{more}"
    return f"key '{where}': {fault['msg']}, got {fault['input']!r}{more}"


def _keys_at(kind: type[Any], location: tuple[int | str, ...]) -> list[str]:
    """Names that the spec knows at a place."""
    here: Any = kind
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


def _place(key: str) -> tuple[str, str]:
    """Table and key of a file."""
    table, dot, name = key.partition(".")
    return (table, name) if dot else ("data", key)


def _with_absolute_paths(spec: S, folder: Path, files: Sequence[str]) -> S:
    changed = asdict(spec)
    for key in files:
        table, name = _place(key)
        if changed[table] is not None and changed[table][name] is not None:
            changed[table][name] = str((folder / changed[table][name]).resolve())
    return _validate(type(spec), changed)


def named_files(spec: object, files: Sequence[str]) -> dict[str, str]:
    """Files that a spec names, by their dotted keys; those left out are not in it.

    Parameters
    ----------
    spec
        The whole spec.
    files
        Keys, as for `read_spec`.
    """
    places = [_place(key) for key in files]
    values = {f"{t}.{name}": getattr(getattr(spec, t), name, None) for t, name in places}
    return {key: str(value) for key, value in values.items() if value is not None}


def _check_files(spec: object, path: Path, files: Sequence[str]) -> None:
    for key, file in named_files(spec, files).items():
        if not Path(file).is_file():
            raise SpecError(f"{path}: key '{key}': no such file: {file}")


# --- out -----------------------------------------------------------------------------------


def write_toml(spec: "DataclassInstance") -> str:
    """Write a spec as TOML that `read_spec` reads back as the same spec.

    Examples
    --------
    >>> from pydantic.dataclasses import dataclass
    >>> @dataclass(frozen=True, config=STRICT)
    ... class Cake:
    ...     name: str
    ...     data: dict[str, int]
    >>> print(write_toml(Cake("plum", {"eggs": 3})))
    name = "plum"
    <BLANKLINE>
    [data]
    eggs = 3
    <BLANKLINE>
    """
    values = asdict(spec)
    tables = [text for key, value in values.items() for text in _tables(_key(key), value)]
    return _lines(values) + "\n" + "\n".join(tables)


def _is_tables(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(isinstance(entry, dict) for entry in value)


def _lines(table: Mapping[str, Any]) -> str:
    """The keys of a table that are no tables themselves."""
    return "".join(
        f"{_key(key)} = {_value(value)}\n"
        for key, value in table.items()
        if value is not None and not isinstance(value, dict) and not _is_tables(value)
    )


def _tables(path: str, value: Any) -> list[str]:
    """A table, or a list of tables, with the tables in them; nothing for another value."""
    if not isinstance(value, dict) and not _is_tables(value):
        return []
    several = not isinstance(value, dict)
    found: list[str] = []
    for table in value if several else [value]:
        found.append((f"[[{path}]]\n" if several else f"[{path}]\n") + _lines(table))
        for key, inner in table.items():
            # An empty table within a table is what leaving it out means.
            found += _tables(f"{path}.{_key(key)}", inner) if inner != {} else [""]
    return found


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    # A JSON string, number or boolean is the same in TOML, but for DEL, which json.dumps leaves
    # as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
