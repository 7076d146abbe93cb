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
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Any

OnProgress = Callable[[str, int], None]


# glibc gives freed memory back to the system and asks for it again at every training step, which
# costs about an eighth of the time; these make it keep what it has.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}


class StoppedError(Exception):
    """The run is being stopped; the trial left a checkpoint."""


class _Worker:
    """What a worker process knows of the run."""

    stop: Event
    progress: "multiprocessing.Queue[tuple[str, int]]"


def report_progress(name: str, epoch: int) -> None:
    """Called in a worker after every epoch: tells the main process, and stops when it asks."""
    _Worker.progress.put((name, epoch))
    if _Worker.stop.is_set():
        raise StoppedError


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


def _start(
    stop: Event, progress: "multiprocessing.Queue[tuple[str, int]]", threads: int, parent: int
) -> None:
    end_with_parent(parent)
    _Worker.stop, _Worker.progress = stop, progress
    import torch

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # cuBLAS is deterministic only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def _die_with(parent: int) -> None:
    """End this worker when the main process was killed and cannot say so."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


class Pool:
    """Runs jobs in worker processes; jobs may be added while others finish.

    Parameters
    ----------
    workers
        Number of processes.
    threads
        Torch threads of each.
    on_progress
        Called in the main process with a job's name and its epoch.
    """

    def __init__(self, workers: int, threads: int, on_progress: OnProgress) -> None:
        keep_memory()
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._progress: multiprocessing.Queue[tuple[str, int]] = context.Queue()
        self._on_progress = on_progress
        self._waiting: dict[Future[Any], Any] = {}
        self._executor = ProcessPoolExecutor(
            workers,
            mp_context=context,
            initializer=_start,
            initargs=(self._stop, self._progress, threads, os.getpid()),
        )

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._stop.set()
        self._executor.shutdown(wait=True, cancel_futures=kind is not None)
        self._progress.close()

    def submit(self, key: object, function: Callable[..., Any], *arguments: object) -> None:
        """Queue a job under a key."""
        self._waiting[self._executor.submit(function, *arguments)] = key

    def finished(self) -> Iterator[tuple[Any, Any]]:
        """Yield the key and result of each job as it finishes, until none is left.

        Raises what a job raised.
        """
        while self._waiting:
            done, _ = wait(self._waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            self._drain()
            for future in done:
                yield self._waiting.pop(future), future.result()

    def _drain(self) -> None:
        while True:
            try:
                self._on_progress(*self._progress.get_nowait())
            except queue.Empty:
                return
