"""Where clients run: in this process, in workers, in Ray's actors, or trained together.

The bits are the same, but of clients that are trained together: these agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

from data_tools.errors import InputError

if TYPE_CHECKING:
    from flwr.app import UserConfig
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid

    from federated.engines.in_process import OnReply

__all__ = ["ENGINES", "WITH_PROCESSES", "Engine", "run_on"]

Engine = Literal["in-process", "workers", "vectorized", "ray"]

ENGINES: dict[Engine, str] = {
    "in-process": "one client after the other in this process; nothing to start",
    "workers": "clients in processes that stay; all cores, and a client that hangs is ended",
    "vectorized": "small models of many clients trained as one stack, in this process",
    "ray": "Flower's simulation on Ray, for a cluster",
}
"""Engines, and what each is for."""

WITH_PROCESSES = ("workers", "ray")
"""Engines that have processes for clients."""

T = TypeVar("T")


def run_on(
    engine: str,
    app: ClientApp,
    nodes: Sequence[UserConfig],
    run_config: UserConfig,
    body: Callable[[Grid], T],
    *,
    workers: int = 1,
    sizes: Sequence[int] | None = None,
    on_reply: OnReply = lambda kind, done, of: None,
) -> T:
    """Run what a server does over clients on an engine.

    Parameters
    ----------
    engine : str
        A key of :data:`ENGINES`.
    app : ClientApp
    nodes : sequence of dict
        Configuration of each client. Ray gives its own: ``partition-id`` 0, 1, ….
    run_config : dict
        What every client gets as its run's configuration.
    body : callable
        What the server does.
    workers : int
        Processes, of engines that have any.
    sizes : sequence of int, optional
        How much work each client is.
    on_reply : callable, optional
        See `InProcessGrid`; Ray does not call it.

    Returns
    -------
    object
        What ``body`` returned.

    Raises
    ------
    InputError
        For an unknown engine, or one that is not installed.
    """
    if engine == "in-process":
        from federated.engines.in_process import InProcessGrid

        return body(InProcessGrid(app, nodes, run_config, on_reply))
    if engine == "workers":
        from federated.engines.workers import WorkerGrid

        with WorkerGrid(app, nodes, run_config, workers, sizes, on_reply) as grid:
            return body(grid)
    if engine == "vectorized":
        from federated.engines.vectorized import VectorizedGrid

        return body(VectorizedGrid(app, nodes, run_config, on_reply))
    if engine == "ray":
        from federated.engines.ray import run_in_ray

        return run_in_ray(app, len(nodes), run_config, body, actors=workers)
    raise InputError(f"unknown engine {engine!r}; choose one of {', '.join(ENGINES)}")
