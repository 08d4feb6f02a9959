"""Which blocks go to the cluster, together with which others, in which order, and how many at once.

Dask places and repeats the tasks; this decides what a task is. A block of a large scan is a task of its own. Small
scans' blocks go together, until they have enough tiles that starting a task is not what they wait for. The order is
that of the rows: neighbours share the 512-px chunks under their margins, which the operating system still has in
memory.

Only some tasks are with the cluster at a time, whoever submits them. That keeps the scheduler's memory and the restart
of a broken run small, and lets a run that is told to stop do so within a block.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from distributed import Client, Future, as_completed

from flows.blocks import BlockDone, BlockFailed, BlockTask, run_blocks

# A task for each thread at work and two more waiting for it: a worker never idles for want of the next one.
_PER_THREAD = 3
_GROUP_TILES = 64
# How long the number of workers is taken to be what it was.
_THREADS_SECONDS = 5.0
Result = BlockDone | BlockFailed
Group = tuple[BlockTask, ...]


def grouped(tasks: Iterable[BlockTask], most_tiles: int) -> Iterator[Group]:
    """Put neighbouring blocks together as long as a task has at most ``most_tiles`` tiles, or one block.

    All blocks of a group have the same engine and go to the same topic.
    """
    group: list[BlockTask] = []
    tiles = 0
    for task in tasks:
        count = len(task.grid.block(task.index_yx, task.block_px).tiles_yx)
        fits = tiles + count <= most_tiles and group and task.engine == group[0].engine
        if group and not fits:
            yield tuple(group)
            group, tiles = [], 0
        group.append(task)
        tiles += count
    if group:
        yield tuple(group)


class BlockQueue:
    """Gives groups of blocks to a cluster, a bounded number at a time over all callers.

    Parameters
    ----------
    run : what a worker calls with a group
    per_thread : groups in flight for each thread that the cluster has at the moment
    """

    def __init__(
        self,
        client: Client,
        run: Callable[[Group], Sequence[Result]] = run_blocks,
        per_thread: int = _PER_THREAD,
    ) -> None:
        self._client = client
        self._run = run
        self._per_thread = per_thread
        self._free = threading.Condition()
        self._in_flight = 0
        self.most_in_flight = 0
        self._threads, self._threads_until = 1, 0.0

    def threads(self) -> int:
        """Threads that the cluster has now, at least one: more when workers join, fewer when they leave."""
        if time.monotonic() >= self._threads_until:
            self._threads = max(1, sum(self._client.nthreads().values()))
            self._threads_until = time.monotonic() + _THREADS_SECONDS
        return self._threads

    def group_tiles(self, tiles: int, batch: int) -> int:
        """Most tiles for one task where ``tiles`` are to be predicted: a few tasks for every thread, full batches."""
        share = tiles // (self._per_thread * self.threads())
        return max(batch, min(_GROUP_TILES, share // batch * batch))

    def results(self, groups: Iterable[Group]) -> Iterator[list[Result]]:
        """Run ``groups`` and give what each came to, as they end. Closing the iterator cancels what has not started.

        A group that the cluster lost (a worker that died again and again, a scheduler that is gone) is tried once more
        block by block, if it had several; a block that is lost is a failed one.
        """
        done: as_completed = as_completed(loop=self._client.loop)
        running: dict[Future, Group] = {}
        single: deque[Group] = deque()

        def submit(group: Group) -> None:
            self._enter()
            future = self._client.submit(self._run, group, pure=False)
            future.add_done_callback(self._leave)
            running[future] = group
            done.add(future)

        def ended(future: Future) -> list[Result]:
            group = running.pop(future)
            try:
                return list(future.result())
            except Exception as error:
                if len(group) == 1:
                    return [BlockFailed(group[0].scan, error)]
                single.extend((task,) for task in group)
                return []

        try:
            for group in groups:
                submit(group)
                for future in done.next_batch(block=False):
                    yield ended(future)
            while running or single:
                while single:
                    submit(single.popleft())
                yield ended(next(done))
        finally:
            if running:
                self._client.cancel(list(running))

    def _enter(self) -> None:
        with self._free:
            # The time-out is for workers that join while nothing ends.
            while self._in_flight >= self._per_thread * self.threads():
                self._free.wait(timeout=_THREADS_SECONDS)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)

    def _leave(self, _: Future) -> None:
        with self._free:
            self._in_flight -= 1
            self._free.notify()
