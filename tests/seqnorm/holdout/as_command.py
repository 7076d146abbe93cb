"""The experiment as a user runs it: a command in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def command(demo: Path, small: list[str], folder: Path, *more: str) -> list[str]:
    """The program with its arguments."""
    program = str(Path(sys.executable).parent / "seqnorm")
    return [program, "holdout", str(demo), "--out", str(folder), *more, "--override", *small]


@contextmanager
def begun(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Begin it in a process group of its own, which a signal can be sent to, and leave none."""
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:  # its test has failed
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition: object, seconds: float = 120) -> None:
    """Wait until something holds, and not for ever."""
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
