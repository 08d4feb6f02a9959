"""The same work on many pieces, in a few threads, with the results in order and only a few of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class OrderedThreadMap:
    """A context manager; on leaving, what has begun is waited for and what has not is dropped.

    Parameters
    ----------
    threads : at work at once; with one, everything runs in the caller's own thread
    """

    def __init__(self, threads: int) -> None:
        self._ahead = threads + 1  # one more than there are threads: none is idle while a result is being used
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Each item with the result of ``work`` on it, in order. What ``work`` raises is raised in its item's place.

        Unlike ``ThreadPoolExecutor.map`` it takes items only a few ahead of what has been used.
        """
        if self._pool is None:
            for item in items:
                yield item, work(item)
            return
        pending: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            pending.append((item, self._pool.submit(work, item)))
            if len(pending) == self._ahead:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
