"""A bar on stderr while something long goes on, where a person sees it."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")


def shown(items: Sequence[Item], what: str) -> Iterable[Item]:
    """Give the items one by one, with a bar of how many are done; none where stderr is a file."""
    if len(items) < 2 or not sys.stderr.isatty():
        yield from items
        return
    with _bar() as bar:
        yield from bar.track(items, description=what)


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give what a long call is to tell ``(done, total)``; None where stderr is a file."""
    if not sys.stderr.isatty():
        yield None
        return
    with _bar() as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import Progress

    # What is written to stdout meanwhile stands above the bar, unless it goes to a file or pipe.
    return Progress(
        console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    )
