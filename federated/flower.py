"""All that this package uses of Flower though Flower does not call it public."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flwr.app import Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

__all__ = [
    "CLIENT_APP_RAISED",
    "Muted",
    "Run",
    "TaskIdentity",
    "empty_run",
    "identify",
    "message_of",
    "muted",
    "reply_message",
    "simulate_with_ray",
]

CLIENT_APP_RAISED = 2
"""Flower's code of an error message for what a ClientApp raised."""

_LOGGER = "flwr"


def identify(run_id: int = 1, node_id: int = 1, task_id: int = 1) -> None:
    """Say who this process is, which Flower asks whenever a message is made.

    Does nothing in a process to which Flower has said so itself.
    """
    for name, value in (("run_id", run_id), ("node_id", node_id), ("task_id", task_id)):
        try:
            getattr(TaskIdentity, name)
        except RuntimeError:
            setattr(TaskIdentity, name, value)


def message_of(content: RecordDict, metadata: Metadata) -> Message:
    """The message that had this content and this head, in another process."""
    message: Message = Message(content=content, metadata=metadata)  # type: ignore[call-overload]
    return message


def empty_run(run_id: int) -> Run:
    """What Flower tells of a run of which nothing but the number is known."""
    return Run.create_empty(run_id)


def reply_message(content: RecordDict, node: int) -> Message:
    """A reply to a training message, as if a node had sent it.

    Parameters
    ----------
    content : RecordDict
    node : int
        Who replies; its number means nothing to Flower's strategies.
    """
    identify()
    asked = Message(content=RecordDict(), dst_node_id=node, message_type="train")
    return Message(content=content, reply_to=asked)


class Muted(logging.Filter):
    """Lets only errors pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is an error."""
        return record.levelno >= logging.ERROR


@contextmanager
def muted() -> Iterator[None]:
    """Keep Flower's notes and warnings off the screen for the length of a block."""
    logger, block = logging.getLogger(_LOGGER), Muted()
    logger.addFilter(block)
    try:
        yield
    finally:
        logger.removeFilter(block)


def simulate_with_ray(
    server: ServerApp,
    client: ClientApp,
    nodes: int,
    backend: dict[str, Any],
    folder: str,
) -> None:
    """Run Flower's simulation with a configuration for the clients, which its API does not take.

    Parameters
    ----------
    server, client : ServerApp and ClientApp
    nodes : int
    backend : dict
        See `flwr.simulation.run_simulation`.
    folder : str
        With a ``pyproject.toml``, from which Flower reads the configuration of every client.
    """
    # Here, since they take a second to import, and Ray's client needs none of them.
    from flwr.simulation.run_simulation import _run_simulation
    from flwr.supercore.constant import NOOP_FEDERATION_ID
    from flwr.supercore.telemetry import EventType

    identify()
    run = Run.create_empty(TaskIdentity.run_id)
    run.primary_task_id = TaskIdentity.task_id
    run.federation_id = NOOP_FEDERATION_ID
    _run_simulation(
        num_supernodes=nodes,
        exit_event=EventType.PYTHON_API_RUN_SIMULATION_LEAVE,
        client_app=client,
        server_app=server,
        backend_config=backend,
        app_dir=folder,
        is_app=True,
        run=run,
    )
