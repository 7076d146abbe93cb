"""What the commands that run an experiment share: their options, and how they end."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from seqnorm.runs.devices import cores

__all__ = ["Overrides", "flat", "run_attended", "say"]

Overrides = tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]]
"""``--override key=value …``, which may be given several times."""

T = TypeVar("T")


def flat(overrides: tuple[tuple[str, ...], ...]) -> list[str]:
    """All overrides, in the order in which they were given."""
    return [item for group in overrides for item in group]


def say(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def run_attended(
    command: Sequence[str],
    spec: Path,
    question: str,
    folder: Path,
    overrides: Sequence[str],
    workers: int | None,
    run: Callable[[int], T],
    options: Sequence[str] = (),
) -> T:
    """Run an experiment for somebody at a terminal.

    Parameters
    ----------
    command : sequence of str
        How it was called, such as ``["seqnorm", "holdout"]``.
    spec : path
    question : str
        Of the spec.
    folder : path
        Of the run.
    overrides : sequence of str
    workers : int, optional
        Processes; one a core unless given.
    run : callable
        Gets the number of processes.
    options : sequence of str
        Further ones that going on takes.

    Raises
    ------
    SystemExit
        With 130 when the run was stopped, after telling how to go on.
    """
    say(f"{question}\nrun folder: {folder}")
    try:
        return run(cores() if workers is None else workers)
    except KeyboardInterrupt:
        again = shlex.join([*command, str(spec), "--out", str(folder), *options, "--resume"])
        if overrides:
            again += " --override " + shlex.join(overrides)
        say(f"\nstopped; nothing is lost. Go on with:\n  {again}")
        raise SystemExit(130) from None
