"""How this distribution's commands read their arguments and treat a user's mistake."""

import contextlib
import functools
import io
import os
import re
import sys
from collections.abc import Callable, Iterable
from typing import Any

import tyro

from data_tools.errors import InputError

Command = Callable[..., None]


def run(program: str, description: str, commands: Iterable[Command]) -> None:
    """Run the command that the command line names.

    A mistake in the command line or in the input is one line on stderr and exit code 2, with no
    traceback; Ctrl-C is exit code 130.

    Parameters
    ----------
    program
        Name of the program.
    description
        Text at the top of ``--help``.
    commands
        Functions; their names, signatures and docstrings make the command line.
    """
    app = tyro.extras.SubcommandApp()
    for command in commands:
        app.command(_deferred(command))
    try:
        _parsed(app, program, description)()
        # Here, where a closed pipe is caught, and not when Python ends.
        sys.stdout.flush()
    except InputError as error:
        sys.stderr.write(f"{program}: error: {error}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: stopped\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of a pipe has had enough (`| head`); Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parsed(app: tyro.extras.SubcommandApp, program: str, description: str) -> Callable[[], None]:
    """Read the command line; tyro's complaint about it becomes an error of one line."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            command: Callable[[], None] = app.cli(prog=program, description=description)
            return command
    except SystemExit as stop:
        if not stop.code:
            raise
    raise InputError(f"{_unboxed(complaint.getvalue())}; see {program} --help")


def _deferred(command: Command) -> Callable[..., Callable[[], None]]:
    """Give the command with its arguments bound, to be called once the command line is read."""

    @functools.wraps(command)
    def bind(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(command, *args, **kwargs)

    return bind


def _unboxed(box: str) -> str:
    r"""Fold a box of tyro into one line, without its title and what it says about help.

    Examples
    --------
    >>> _unboxed("╭─ Missing ─╮\n│ No value. │\n│ ───────── │\n│ For full helptext │\n╰───╯")
    'No value'
    """
    plain = re.sub("\x1b\\[[0-9;]*m", "", box)
    lines = [line.strip(" │╭╮╰╯") for line in plain.splitlines()]
    sections = [""]
    for line in lines[1:]:
        if set(line) <= {"─", "-"}:
            sections.append("")
        else:
            sections[-1] += f" {line}"
    told = [
        section.strip().rstrip(".")
        for section in sections
        if section and not section.startswith((" Argument helptext", " For full helptext"))
    ]
    return "; ".join(told) or "the command line cannot be understood"
