"""A bar on stderr while something long goes on, where a person sees it."""

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def shown(items: Sequence[Item], what: str) -> Iterable[Item]:
    """Give the items one by one, with a bar of how many are done; none where stderr is a file."""
    if len(items) < 2 or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, console=Console(stderr=True), transient=True)
