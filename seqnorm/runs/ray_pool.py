"""Jobs on a Ray cluster: many machines, or this one, behind the interface of processes.

Ray moves jobs between its processes by pickle: who can reach a cluster's ports can run code on it.
A cluster that is started here listens to this machine alone, and to nobody without its token unless
Ray was imported before; how another one is guarded is up to who runs it (https://docs.ray.io/en/latest/ray-security).
"""

import importlib.util
import itertools
import logging
import math
import os
import platform
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from data_tools.errors import InputError
from seqnorm.runs.devices import cores
from seqnorm.runs.pool import Message, StoppedError, keep_memory, prepare_worker, work_on

__all__ = ["Cluster"]

LOCAL = "local"
_SAME = ("seqnorm", "torch", "numpy", "scikit-learn")
"""Distributions whose versions decide on bits."""


class Cluster:
    """A Ray cluster in which the jobs of a run are done; use it in a ``with`` block.

    Parameters
    ----------
    address : str
        As Ray takes it, such as ``"10.0.0.1:6379"``; ``"auto"`` is the one that this machine is
        part of, and ``"local"`` starts one here for the length of the run.
    workers : int, optional
        Jobs at a time; None: as many as there are cores for.
    threads : int
        Torch threads of each, and cores that it holds.
    device : str
        Of the spec, ``"auto"`` or ``"cpu"``. For the first the cluster's GPUs, if it has any, are
        shared out evenly.
    folder : path
        Of the run; all nodes have to see it.

    Raises
    ------
    InputError
        If Ray is not installed, the cluster cannot be reached or holds too few cores, a node does
        not see the folder or has other versions, or the device is a GPU by its name.
    """

    def __init__(
        self, address: str, workers: int | None, threads: int, device: str, folder: Path
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise InputError("Ray is not installed; run: pip install 'seqnorm[ray]'")
        if device.startswith("cuda"):
            raise InputError(
                f"--ray {address}: training.device is {device!r}; on a cluster it is 'auto', "
                "which takes its GPUs if there are any, or 'cpu'"
            )
        self._address, self._threads, self._folder = address, threads, folder
        self._running: dict[Future[Any], tuple[int, Any]] = {}
        self._numbers = itertools.count()
        self._connect(workers)
        try:
            self._survey(workers, device)
        except BaseException:
            self._ray.shutdown()
            raise

    def _connect(self, workers: int | None) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # Else a warning on the standard error output of every run without a GPU.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        options: dict[str, Any] = {}
        if self._address == LOCAL:
            if "ray" not in sys.modules:
                # Ray reads these when it is imported, and not again.
                os.environ.setdefault("RAY_AUTH_MODE", "token")
                os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            # Jobs are processes of the processes that are started now.
            keep_memory()
            held = cores() if workers is None else workers * self._threads
            options = {"num_cpus": held, "_node_ip_address": "127.0.0.1"}
        else:
            self._knock()
        import ray

        self._ray: Any = ray
        try:
            ray.init(
                address=self._address,
                include_dashboard=False if self._address == LOCAL else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
            raise self._unreachable(error) from error

    def _knock(self) -> None:
        """Find out at once whether somebody listens there: Ray would try for many minutes."""
        host, _, port = self._address.rpartition(":")
        if not (host and port.isdigit()) or "//" in host:
            return
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> InputError:
        first = str(error).strip().split("\n")[0]
        return InputError(
            f"--ray {self._address}: no cluster can be used there ({first}); give the address of "
            "the head node of one with the same versions of Python and Ray, or 'local'"
        )

    def _survey(self, workers: int | None, device: str) -> None:
        """Count what the cluster has, and look at every node."""
        ray = self._ray
        nodes = [node for node in ray.nodes() if node["Alive"]]
        self.nodes = len(nodes)
        gpus = sum(int(node["Resources"].get("GPU", 0)) for node in nodes)
        self.device = "cuda" if gpus and device == "auto" else "cpu"
        # A job runs on one node: what is left over on each is no room together.
        taken = nodes if self.device == "cpu" else [n for n in nodes if n["Resources"].get("GPU")]
        room = sum(int(node["Resources"].get("CPU", 0)) // self._threads for node in taken)
        if room < 1:
            raise InputError(
                f"--ray {self._address}: no node has the {self._threads} cores of a worker; lower "
                "training.threads or add nodes"
            )
        self.workers = room if workers is None else min(workers, room)
        share = 0.0
        if self.device == "cuda":
            # No job lies across two GPUs: as many share one as the fullest has to take.
            share = math.floor(1e4 / math.ceil(self.workers / gpus)) / 1e4
        driver = ray.get_runtime_context().get_node_id()
        # With the main process, so that it is lost only when all is.
        self._board = ray.remote(_Board).options(num_cpus=0, **self._on(driver)).remote()
        self._job = ray.remote(_job).options(
            num_cpus=self._threads, num_gpus=share, max_retries=0, scheduling_strategy="SPREAD"
        )
        own = _versions()
        for node in nodes:
            self._check(node, own)

    def _on(self, node: str) -> dict[str, Any]:
        strategy = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        return {"scheduling_strategy": strategy(node, soft=False)}

    def _check(self, node: dict[str, Any], own: dict[str, str]) -> None:
        look = self._ray.remote(_look).options(num_cpus=0, **self._on(node["NodeID"]))
        name = node["NodeManagerHostname"]
        try:
            versions, sees = self._ray.get(look.remote(str(self._folder)))
        except self._ray.exceptions.RayError as error:
            last = str(error).strip().split("\n")[-1]
            raise InputError(
                f"--ray {self._address}: node {name} cannot do a job ({last}); install the same "
                "versions there as here"
            ) from error
        if not sees:
            raise InputError(
                f"{self._folder}: node {name} of the cluster does not see this folder; give an "
                "--out on a file system that all nodes share"
            )
        for library, version in own.items():
            if versions[library] != version:
                raise InputError(
                    f"--ray {self._address}: node {name} has {library} {versions[library]}, this "
                    f"machine {version}; the results would differ; install the same versions"
                )

    def __enter__(self) -> "Cluster":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ray.shutdown()

    def begin(self, function: Callable[..., Any], arguments: Sequence[object]) -> Future[Any]:
        """Run a job; the future has what `work_on` gives, or raises what the job raised."""
        number = next(self._numbers)
        reference = self._job.remote(self._board, number, self._threads, function, arguments)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        self._running[future] = number, reference
        reference.future().add_done_callback(lambda done: self._settle(future, done))
        return future

    def _settle(self, future: Future[Any], done: Future[Any]) -> None:
        error = done.exception()
        self._running.pop(future, None)
        if error is None:
            future.set_result(done.result())
            return
        cause = error.cause if isinstance(error, self._ray.exceptions.RayTaskError) else error
        if isinstance(cause, self._ray.exceptions.RayError):
            cause = _broken(cause)
        future.set_exception(cause)

    def messages(self) -> Iterator[Message]:
        """Take what the jobs have told since the last call."""
        try:
            yield from self._ray.get(self._board.take.remote())
        except self._ray.exceptions.RayError as error:
            raise _broken(error) from error

    def stop(self) -> None:
        """Ask all jobs to leave a checkpoint and end; those that have not begun never will."""
        # Where the board is lost, so are the jobs: they tell it of every step.
        with suppress(self._ray.exceptions.RayError):
            begun = self._ray.get(self._board.stop.remote())
            for number, reference in list(self._running.values()):
                if number not in begun:
                    # It waits for room on the cluster, perhaps for ever.
                    self._ray.cancel(reference)

    def close(self) -> None:
        """Wait for the jobs that run."""
        for future in list(self._running):
            future.exception()


def _broken(error: Exception) -> BrokenProcessPool:
    broken = BrokenProcessPool(str(error))
    broken.__cause__ = error
    return broken


class _Board:
    """Where jobs tell how far they are, and read whether they should stop."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._begun: set[int] = set()
        self._stop = False

    def enter(self, number: int) -> bool:
        self._begun.add(number)
        return self._stop

    def tell(self, message: Message) -> bool:
        self._messages.append(message)
        return self._stop

    def take(self) -> list[Message]:
        taken, self._messages = self._messages, []
        return taken

    def stop(self) -> set[int]:
        self._stop = True
        return self._begun


def _job(
    board: Any,
    number: int,
    threads: int,
    function: Callable[..., Any],
    arguments: Sequence[Any],
) -> Any:
    """What a worker of the cluster does."""
    import ray

    if ray.get(board.enter.remote(number)):
        raise StoppedError
    prepare_worker(threads, lambda message: bool(ray.get(board.tell.remote(message))))
    return work_on(function, arguments)


def _look(folder: str) -> tuple[dict[str, str], bool]:
    """What a node has."""
    return _versions(), (Path(folder) / ".lock").exists()


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version()} | {name: metadata.version(name) for name in _SAME}
