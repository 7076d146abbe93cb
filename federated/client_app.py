"""ClientApp: what runs at a client, in this process, in a Ray actor or on a SuperNode."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from data_tools.errors import InputError
from federated.faults import crashes, is_late
from federated.messages import answer, read_order
from federated.run_config import read_run_config
from federated.site import Learner, Site
from federated.tasks import open_task

__all__ = ["app", "site_of"]

app = ClientApp()


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Tell the client's name, which a node's number does not; none for a node too many."""
    return Message(answer(_client(context), 0, 0, {}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train for a round."""
    round_, received, terms = read_order(message)
    site = site_of(context)
    fate = (site.learner.spec.participation, site.learner.cell.seed, site.client, round_)
    crashes(*fate)
    examples, metrics, arrays = site.train(round_, received, terms)
    is_late(*fate)
    return Message(answer(site.client, round_, examples, metrics, arrays), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the server's model, with what this client keeps of its own."""
    round_, received, _ = read_order(message)
    site = site_of(context)
    return Message(
        answer(site.client, round_, 0, site.evaluate(round_, received)), reply_to=message
    )


def site_of(context: Context) -> Site:
    """The client of a node, ready for a round."""
    learner, folder = _learner_of(context)
    # The bits of a sum depend on how many threads share it.
    torch.set_num_threads(learner.spec.training.threads)
    kept = folder / "cells" / learner.cell.id / "clients"
    return Site(learner, _client(context), kept)


def _client(context: Context) -> str:
    """Name of this node's client: as its configuration says, or by its number."""
    clients = _learner_of(context)[0].task.clients
    name = context.node_config.get("client")
    if name is None:
        if "partition-id" not in context.node_config:
            raise InputError(f"node config: give this node its client, one of {clients}")
        number = int(context.node_config["partition-id"])
        return clients[number] if 0 <= number < len(clients) else ""
    if name not in clients:
        raise InputError(f"node config: the run has no client {name!r}; it has {clients}")
    return str(name)


def _learner_of(context: Context) -> tuple[Learner, Path]:
    """Build once, not for every message."""
    key = tuple(sorted(context.run_config.items()))
    return _built(key, str(context.node_config.get("folder", "")))


@lru_cache(maxsize=4)
def _built(
    config: tuple[tuple[str, bool | float | int | str], ...], folder: str
) -> tuple[Learner, Path]:
    spec, cell, where = read_run_config(dict(config), {"folder": folder})
    return Learner(spec, cell, open_task(spec, where)), where
