"""How a run ends before its time: by a fault of the machine, a killed worker, a polite kill."""

import signal
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_tools.errors import InputError
from seqnorm.checkpoint import CheckpointError


@contextmanager
def faults_in_one_line(folder: Path) -> Iterator[None]:
    """Turn what the machine refuses into a line that says what to do."""
    try:
        yield
    except InputError:
        raise
    except CheckpointError as error:
        raise InputError(str(error)) from error
    except BrokenProcessPool as error:
        raise InputError(
            f"{folder}: a worker was killed, as happens when memory runs out; go on with --resume "
            "and fewer --workers"
        ) from error
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: {error.strerror or error}; see to it and go on with "
            "--resume, or give another --out"
        ) from error


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Let a polite kill stop the run as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
