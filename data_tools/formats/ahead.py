"""Work on the next blocks of a file while the last one is looked at, in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_THREADS = 4


def worked_ahead(
    items: Iterable[Item], work: Callable[[Item], Result]
) -> Iterator[tuple[Item, Result]]:
    """Give each item with what `work` makes of it, in order, the next ones already under way.

    NumPy lets go of the interpreter's lock while it works, so that threads do help. One item more
    than there are threads is held. An error of `work` is raised where its result would be given.

    Examples
    --------
    >>> list(worked_ahead("ab", str.upper))
    [('a', 'A'), ('b', 'B')]
    """
    threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    if threads < 2:
        yield from ((item, work(item)) for item in items)
        return
    with ThreadPoolExecutor(threads) as pool:
        under_way: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                under_way.append((item, pool.submit(work, item)))
                if len(under_way) > threads:
                    first, result = under_way.popleft()
                    yield first, result.result()
            while under_way:
                first, result = under_way.popleft()
                yield first, result.result()
        finally:
            for _, result in under_way:
                result.cancel()
