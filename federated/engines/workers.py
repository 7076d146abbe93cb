"""Clients in a few processes that stay for the whole run, so that all cores are used.

A client that hangs, or whose process dies, takes nobody with it. A client stays with its worker,
where its rows are in memory already, and what goes to all clients is sent to each worker once.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from flwr.app import Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp

from data_tools.errors import InputError
from federated.engines.in_process import InProcessGrid, OnReply
from federated.flower import CLIENT_APP_RAISED, message_of
from seqnorm.runs.pool import end_with_parent, keep_memory

__all__ = ["WorkerGrid"]


class WorkerGrid(InProcessGrid):
    """Flower's grid over clients in worker processes; use it in a ``with`` block.

    Parameters
    ----------
    app : ClientApp
        Of a module that can be imported, since the workers import it.
    nodes : sequence of dict
        The configuration of each node; their numbers are 1, 2, … in this order.
    run_config : dict
        What every client gets as its run's configuration.
    workers : int
        Processes.
    sizes : sequence of int, optional
        How much work each node is, to give every worker as much; None: all alike.
    on_reply : callable, optional
        As for `InProcessGrid`.

    Notes
    -----
    The records that Flower keeps for a node live in its worker, and are lost with it.
    """

    def __init__(
        self,
        app: ClientApp,
        nodes: Sequence[UserConfig],
        run_config: UserConfig,
        workers: int,
        sizes: Sequence[int] | None = None,
        on_reply: OnReply = lambda kind, done, of: None,
    ) -> None:
        super().__init__(app, nodes, run_config, on_reply)
        given = [1] * len(nodes) if sizes is None else list(sizes)
        shares = _shares(given, min(workers, len(nodes)))
        self._workers = [
            _Worker(app, {n: nodes[n - 1] for n in share}, run_config) for share in shares
        ]
        self._home = {
            number: worker
            for worker, share in zip(self._workers, shares, strict=True)
            for number in share
        }

    def __enter__(self) -> WorkerGrid:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.end()

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,
    ) -> Iterable[Message]:
        """Have the clients do what the messages ask.

        A client that takes more than ``timeout`` seconds is ended and has no reply; one whose
        process died has an error as its reply. Both workers are started again.
        """
        orders = list(messages)
        for message in orders:
            self._home[message.metadata.dst_node_id].queue.append(message)
        replies: list[Message] = []
        settled = 0
        for worker in self._workers:
            worker.send()
        while any(worker.queue for worker in self._workers):
            for worker in _ready(self._workers, timeout):
                reply, kind = worker.take(timeout), orders[0].metadata.message_type
                if reply is not _STILL_AT_WORK:
                    settled += 1
                    replies += [reply] if reply is not None else []
                    self._on_reply(kind, settled, len(orders))
        return replies


_STILL_AT_WORK: Any = object()
_START_SECONDS = 300
# Imported once for all workers.
_PRELOADED = ["federated.client_app", "federated.tasks.windows"]


@dataclass
class _Worker:
    """One process, with the orders that it has not yet answered."""

    app: ClientApp
    nodes: dict[int, UserConfig]
    run_config: UserConfig
    queue: deque[Message] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.since = 0.0
        self.ready = False
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        self.pipe, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, self.app, self.nodes, self.run_config), daemon=True
        )
        keep_memory()
        self.process.start()
        theirs.close()

    def send(self) -> None:
        """Hand over all orders, those of equal content together."""
        if not self.ready:
            self._wait_until_ready()
        self.since = time.monotonic()
        runs: list[tuple[RecordDict, list[Message]]] = []
        for message in self.queue:
            if runs and runs[-1][0] is message.content:
                runs[-1][1].append(message)
            else:
                runs.append((message.content, [message]))
        try:
            for content, together in runs:
                self.pipe.send((content, [message.metadata for message in together]))
        except (BrokenPipeError, ConnectionResetError):
            return  # it has died; `take` finds out

    def _wait_until_ready(self) -> None:
        """Wait for the process to have begun, which is not time that a client takes."""
        try:
            if not self.pipe.poll(_START_SECONDS):
                raise InputError(
                    f"a worker process did not begin within {_START_SECONDS} s; is the machine "
                    "out of memory?"
                )
            self.pipe.recv()
        except (EOFError, ConnectionResetError):
            pass  # it has died; `take` finds out
        self.ready = True

    def take(self, timeout: float | None) -> Any:
        """Next reply; None for a client that took too long, an error for one that died."""
        try:
            if self.pipe.poll():
                reply = self.pipe.recv()
                self.queue.popleft()
                self.since = time.monotonic()
                return reply
        except (EOFError, ConnectionResetError):
            lost = self.queue.popleft()
            self.end()
            code = self.process.exitcode
            self._again()
            return Message(
                Error(CLIENT_APP_RAISED, f"its process died with exit code {code}"), reply_to=lost
            )
        if timeout is not None and time.monotonic() - self.since > timeout:
            self.queue.popleft()
            self.end()
            self._again()
            return None
        return _STILL_AT_WORK

    def _again(self) -> None:
        self.ready = False
        self._start()
        if self.queue:
            self.send()

    def end(self) -> None:
        """End the process and wait until it is gone."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _ready(workers: Sequence[_Worker], timeout: float | None) -> list[_Worker]:
    """Workers that have something to say, or have been silent for too long."""
    busy = [worker for worker in workers if worker.queue]
    left = None
    if timeout is not None:
        now = time.monotonic()
        left = max(0.0, min(worker.since + timeout - now for worker in busy)) + 0.01
    said = wait([worker.pipe for worker in busy], left)
    if said:
        return [worker for worker in busy if worker.pipe in said]
    return busy


def _shares(sizes: Sequence[int], workers: int) -> list[list[int]]:
    """Numbers of the nodes of each worker: the largest first, always to who has least.

    Examples
    --------
    >>> _shares([5, 1, 4, 2], 2)
    [[1, 2], [3, 4]]
    """
    shares: list[list[int]] = [[] for _ in range(workers)]
    loads = [0] * workers
    for node in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        least = loads.index(min(loads))
        shares[least].append(node + 1)
        loads[least] += max(1, sizes[node])
    return [sorted(share) for share in shares]


def _serve(
    pipe: Connection[Any, Any], app: ClientApp, nodes: dict[int, UserConfig], run_config: UserConfig
) -> None:
    """What a worker process does until its pipe is closed."""
    end_with_parent(os.getppid())
    # Python looks for garbage among all modules again and again, which never become any.
    gc.freeze()
    grid = InProcessGrid(app, [], run_config)
    for number, config in nodes.items():
        grid.add_node(number, config)
    pipe.send("ready")
    while True:
        try:
            content, orders = pipe.recv()
        except (EOFError, OSError):
            return
        for metadata in orders:
            pipe.send(grid.call(message_of(content, metadata)))
