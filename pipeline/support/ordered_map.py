"""The same function over many items, in a few threads, with ordered results and only a few of them in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class OrderedThreadMap:
    """A context manager; on exit, running tasks are awaited and pending ones are dropped.

    Parameters
    ----------
    threads : number of threads; with one, everything runs in the caller's own thread
    """

    def __init__(self, threads: int) -> None:
        self._ahead = threads + 1  # one more than threads: none is idle while the caller uses a result
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Each item with its result of ``work``, in order. An error of ``work`` is raised at its item's turn.

        Unlike ``ThreadPoolExecutor.map`` it takes only a few items ahead of those already used.
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
