"""The stages of batches of scans: what a run asks of whoever runs them, and threads of this process that do.

While one batch is coloured, the next is ingested and the previous one exported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

from flows.cluster.queue import BlockQueue
from flows.run.batches import ScanBatch
from flows.run.stages import colorize_batch, export_batch, ingest_batch

STAGES_AT_ONCE = 3


class Stage(Protocol):
    """One stage of a batch, which waits for the one before it."""

    def wait(self, seconds: float | None = None) -> None:
        """Until it has ended, or ``seconds`` have passed."""
        ...

    def error(self) -> BaseException | None:
        """What it broke off with; None if it has done its work."""
        ...

    def result(self) -> Any:
        """The batch after it; the outcomes of its scans after the last."""
        ...


Submit = Callable[[ScanBatch], Sequence[Stage]]
"""Begins ingest, colorize and export of a batch, in this order."""


@dataclass(frozen=True)
class _InThread:
    future: Future[Any]

    def wait(self, seconds: float | None = None) -> None:
        wait([self.future], seconds)

    def error(self) -> BaseException | None:
        return self.future.exception()

    def result(self) -> Any:
        return self.future.result()


@contextlib.contextmanager
def stage_threads(queue: BlockQueue, topic: str) -> Iterator[Submit]:
    """Threads that run the stages, in the order in which they were submitted."""
    pool = ThreadPoolExecutor(STAGES_AT_ONCE, thread_name_prefix="stage")
    deadline = queue.deadline

    def submit(batch: ScanBatch) -> Sequence[Stage]:
        ingested = pool.submit(ingest_batch, batch, deadline)
        coloured = pool.submit(lambda: colorize_batch(ingested.result(), queue, topic, deadline))
        exported = pool.submit(lambda: export_batch(coloured.result(), deadline))
        return [_InThread(each) for each in (ingested, coloured, exported)]

    try:
        yield submit
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
