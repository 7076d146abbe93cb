"""A bar on stderr while something long goes on, where a person sees it."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


def shown(items: Sequence[Item], what: str) -> Iterable[Item]:
    """Give the items one by one, with a bar of how many are done; none where stderr is a file."""
    if len(items) < 2 or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, console=Console(stderr=True), transient=True)


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Give what a long call is to tell ``(done, total)``; None where stderr is a file."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
