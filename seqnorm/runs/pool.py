"""Worker processes for trials: each with its own threads, none outliving the run.

A trial uses a fixed number of threads whatever the number of workers, so that a table does not
depend on the machine's number of cores.
"""

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from seqnorm.runs.devices import limit_to

Message = tuple[str, int, float]
"""A job's name, its steps so far, and the seconds since it began."""
OnProgress = Callable[[str, int, float], None]


# glibc gives freed memory back to the system and asks for it again at every training step, which
# costs about an eighth of the time; these make it keep what it has.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}


class StoppedError(Exception):
    """The run is being stopped; the trial left a checkpoint."""


class Finished(NamedTuple):
    """A job that has ended: its key, what came of it, and what it took."""

    key: Any
    result: Any
    seconds: float


class _Worker:
    """What a worker process knows of the run."""

    tell: Callable[[Message], bool]
    """Tells the main process, and says whether it asks to stop."""
    began: float
    threads: int


def report_progress(name: str, step: int) -> None:
    """Called in a worker after every step: tells the main process, and stops when it asks."""
    if _Worker.tell((name, step, time.perf_counter() - _Worker.began)):
        raise StoppedError


def work_on(function: Callable[..., Any], arguments: Sequence[object]) -> tuple[Any, float]:
    """In a worker: do a job, and say how long it took."""
    from threadpoolctl import threadpool_limits

    _Worker.began = time.perf_counter()
    # Linear algebra takes a thread a core unless told otherwise, and its sums depend on them. What
    # the job needs is loaded by now, so that this finds it.
    with threadpool_limits(_Worker.threads, user_api="blas"):
        result = function(*arguments)
    return result, time.perf_counter() - _Worker.began


def keep_memory() -> None:
    """Let processes that are started from now on keep the memory that they have freed."""
    for name, value in _KEEP_MEMORY.items():
        os.environ.setdefault(name, value)


def end_with_parent(parent: int) -> None:
    """In a worker: leave Ctrl-C to the main process, and end when that is gone.

    Parameters
    ----------
    parent : int
        Process id of the one that started this one.
    """
    # Ctrl-C reaches the whole process group; the main process alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def prepare_worker(threads: int, tell: Callable[[Message], bool]) -> None:
    """In a worker, before its first job: fix what the bits depend on, and whom to tell."""
    _Worker.tell, _Worker.threads = tell, threads
    import torch

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # cuBLAS is deterministic only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def _start(stop: Any, progress: Any, devices: Any, threads: int, parent: int) -> None:
    end_with_parent(parent)
    limit_to(devices.get())

    def tell(message: Message) -> bool:
        progress.put(message)
        return bool(stop.is_set())

    prepare_worker(threads, tell)


def _die_with(parent: int) -> None:
    """End this worker when the main process was killed and cannot say so."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


class Place(Protocol):
    """Where jobs run: processes of this machine, or a cluster."""

    def begin(self, function: Callable[..., Any], arguments: Sequence[object]) -> Future[Any]:
        """Run a job; the future has what `work_on` gives."""

    def messages(self) -> Iterator[Message]:
        """Take what the jobs have told since the last call."""

    def stop(self) -> None:
        """Ask all jobs to leave a checkpoint and end."""

    def close(self) -> None:
        """Wait for the jobs that run, and end all workers."""


class Pool:
    """Runs jobs, a few at a time; jobs may be added while others finish.

    Parameters
    ----------
    workers
        Jobs at a time.
    threads
        Torch threads of each.
    on_progress
        Called in the main process with what a job tells: name, steps so far, seconds since it
        began.
    place
        Where the jobs run; processes of this machine unless given.
    devices
        GPUs over which the processes are shared out; none: they see what this process sees.
    """

    def __init__(
        self,
        workers: int,
        threads: int,
        on_progress: OnProgress,
        *,
        place: Place | None = None,
        devices: Sequence[str] = (),
    ) -> None:
        self._workers = workers
        self._on_progress = on_progress
        self._place: Place = place or _Processes(workers, threads, devices)
        self._queue: deque[tuple[Any, Callable[..., Any], Sequence[object]]] = deque()
        self._running: dict[Future[Any], Any] = {}

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._queue.clear()
            self._place.stop()
        self._place.close()

    def submit(self, key: object, function: Callable[..., Any], *arguments: object) -> None:
        """Queue a job under a key."""
        self._queue.append((key, function, arguments))

    def finished(self) -> Iterator[Finished]:
        """Yield each job as it finishes, until none is left.

        Raises what a job raised.
        """
        self._begin()
        while self._running:
            done, _ = wait(self._running, timeout=0.2, return_when=FIRST_COMPLETED)
            for message in self._place.messages():
                self._on_progress(*message)
            for future in done:
                key = self._running.pop(future)
                if future.exception() is None:
                    # Before anything is done with the result: no worker has to wait for that.
                    self._begin()
                result, seconds = future.result()
                yield Finished(key, result, seconds)
            self._begin()

    def _begin(self) -> None:
        while self._queue and len(self._running) < self._workers:
            key, function, arguments = self._queue.popleft()
            self._running[self._place.begin(function, arguments)] = key


class _Processes:
    """Processes of this machine."""

    def __init__(self, workers: int, threads: int, devices: Sequence[str]) -> None:
        keep_memory()
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._progress: multiprocessing.Queue[Message] = context.Queue()
        shares: multiprocessing.Queue[str | None] = context.Queue()
        for worker in range(workers):
            shares.put(devices[worker % len(devices)] if devices else None)
        self._executor = ProcessPoolExecutor(
            workers,
            mp_context=context,
            initializer=_start,
            initargs=(self._stop, self._progress, shares, threads, os.getpid()),
        )

    def begin(self, function: Callable[..., Any], arguments: Sequence[object]) -> Future[Any]:
        return self._executor.submit(work_on, function, arguments)

    def messages(self) -> Iterator[Message]:
        while True:
            try:
                yield self._progress.get_nowait()
            except queue.Empty:
                return

    def stop(self) -> None:
        self._stop.set()

    def close(self) -> None:
        self._executor.shutdown(wait=True)
        self._progress.close()
