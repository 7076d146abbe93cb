"""Clients as Flower simulates them: actors of Ray, for many cores or a cluster."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from flwr.app import Context, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from data_tools.errors import InputError
from federated.flower import muted, simulate_with_ray

__all__ = ["run_in_ray"]

T = TypeVar("T")


def run_in_ray(
    app: ClientApp,
    nodes: int,
    run_config: UserConfig,
    body: Callable[[Grid], T],
    *,
    actors: int = 2,
) -> T:
    """Run what a server does over clients that Ray's actors hold.

    Parameters
    ----------
    app : ClientApp
    nodes : int
        Clients; their ``partition-id`` is 0, 1, ….
    run_config : dict
        What every client gets as its run's configuration.
    body : callable
        What the server does, in a thread of this process.
    actors : int
        Clients at a time, a core each.

    Returns
    -------
    object
        What ``body`` returned.

    Raises
    ------
    InputError
        If Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("Ray is not installed; run: pip install 'seqnorm[federated-ray]'")
    results: list[T] = []
    server = ServerApp()

    @server.main()  # type: ignore[untyped-decorator, unused-ignore]
    def main(grid: Grid, context: Context) -> None:
        results.append(body(grid))

    backend = {
        "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        "init_args": {"num_cpus": actors, "log_to_driver": False, "include_dashboard": False},
    }
    with muted(), tempfile.TemporaryDirectory() as folder:
        # Flower reads a client's configuration from an app's folder; its API takes none.
        values = (f"{key} = {json.dumps(v, ensure_ascii=False)}" for key, v in run_config.items())
        Path(folder, "pyproject.toml").write_text("\n".join([_APP, *values]))
        simulate_with_ray(server, app, nodes, backend, folder)
    return results[0]


_APP = """[project]
name = "simulated"
version = "0.0.0"
[tool.flwr.app]
publisher = "seqnorm"
[tool.flwr.app.components]
serverapp = "federated.server_app:app"
clientapp = "federated.client_app:app"
[tool.flwr.app.config]
"""
