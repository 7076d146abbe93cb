"""What a Flower run is configured with: a spec, one cell of it, a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data_tools.errors import InputError
from federated.cell import Cell, cells_of
from federated.spec import Spec, as_json, from_json, load_spec

if TYPE_CHECKING:
    from flwr.app import UserConfig

__all__ = ["read_run_config", "run_config"]


def run_config(spec: Spec, cell: Cell, folder: Path) -> UserConfig:
    """What a Flower run must be configured with to be this cell.

    Parameters
    ----------
    spec : Spec
    cell : Cell
    folder : path
        Of the run, as absolute.
    """
    return {"spec": as_json(spec), "folder": str(folder.absolute()), **cell.as_config()}


def read_run_config(config: UserConfig, node_config: UserConfig) -> tuple[Spec, Cell, Path]:
    """Read what :func:`run_config` wrote, or what a person has given to ``flwr run``.

    Parameters
    ----------
    config : dict
        ``spec`` is the spec as JSON, or names a TOML file. What else is left out or empty is the
        first that the spec names, and ``folder`` the folder of the run.
    node_config : dict
        A node's ``folder`` goes before that of the run.

    Returns
    -------
    spec : Spec
    cell : Cell
    folder : path

    Raises
    ------
    InputError
        If there is no spec, or a value is none of the spec's.
    """
    text = str(config.get("spec", ""))
    if not text:
        raise InputError("run config: 'spec' is missing; name a TOML file")
    spec = from_json(text) if text.lstrip().startswith("{") else load_spec(text)
    given = {key: value for key, value in config.items() if value != ""}
    try:
        cell = Cell.from_config(cells_of(spec)[0].as_config() | given)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"run config: learning-rate or seed: {error}") from error
    known = cells_of(spec)
    if cell not in known:
        raise InputError(
            f"run config: the spec has no cell {cell.id}; it has {', '.join(c.id for c in known)}"
        )
    folder = node_config.get("folder") or given.get("folder") or Path("runs") / spec.name
    return spec, cell, Path(str(folder)).absolute()
