"""How blocks are grouped into tasks for the cluster, in which order, and how many tasks are in flight.

Dask places and repeats the tasks; this module decides what a task is. A block of a large scan is a task of its own.
Blocks of small scans are grouped until they have enough tiles to outweigh the cost of starting a task. Blocks go row by
row: neighbours share the 512-px chunks under their margins, which the operating system still has in memory.

The number of tasks in flight is bounded over all callers. That keeps the scheduler's memory and the restart of a broken
run small, and lets a run stop within a block: when its deadline has passed, blocks that a worker has begun are
finished, and those that wait at the scheduler are taken back.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from distributed import Client, Future, as_completed

from flows.cluster.grade_factors import FactorTask, run_factors
from flows.cluster.hint_blocks import HintTask, SpreadTask, run_hints, run_spreads
from flows.cluster.worker import AnchorTask, BlockDone, BlockFailed, BlockTask, run_anchors, run_blocks
from flows.deadline import Deadline
from pipeline.planning.cost import TASK_TILES

# One task running and two waiting for each thread: a worker never idles for lack of work.
_PER_THREAD = 3
# How long a count of the cluster's threads is reused.
_THREADS_SECONDS = 5.0
Result = BlockDone | BlockFailed
Group = tuple[BlockTask, ...]
_Tasks = Any  # a tuple of blocks, or of scans whose palettes or factors are to be made


def grouped(tasks: Iterable[BlockTask], most_tiles: int) -> Iterator[Group]:
    """Group neighbouring blocks so that each task has at most ``most_tiles`` tiles, or a single block.

    All blocks of a group have the same engine and go to the same topic.
    """
    group: list[BlockTask] = []
    tiles = 0
    for task in tasks:
        count = len(task.grid.block(task.index_yx, task.block_px).tile_origins)
        fits = tiles + count <= most_tiles and group and task.engine == group[0].engine
        if group and not fits:
            yield tuple(group)
            group, tiles = [], 0
        group.append(task)
        tiles += count
    if group:
        yield tuple(group)


class BlockQueue:
    """Submits groups of blocks to a cluster, a bounded number at a time over all callers.

    Parameters
    ----------
    run : the function that a worker calls with a group
    per_thread : groups in flight for each current thread of the cluster
    deadline : when it has passed, no more groups go to the cluster
    """

    def __init__(
        self,
        client: Client,
        run: Callable[[Group], Sequence[Result]] = run_blocks,
        per_thread: int = _PER_THREAD,
        deadline: Deadline | None = None,
    ) -> None:
        self._client = client
        self._run = run
        self._per_thread = per_thread
        self._free = threading.Condition()
        self._in_flight = 0
        self.deadline = deadline or Deadline()
        self._submitted: set[Future] = set()
        self._threads, self._threads_until = 1, 0.0

    def threads(self) -> int:
        """Current number of threads of the cluster, at least one; changes as workers join and leave."""
        if time.monotonic() >= self._threads_until:
            self._threads = max(1, sum(self._client.nthreads().values()))
            self._threads_until = time.monotonic() + _THREADS_SECONDS
        return self._threads

    def group_tiles(self, tiles: int, batch: int) -> int:
        """Most tiles for one task out of ``tiles``: a few tasks for every thread, in full batches of ``batch``."""
        share = tiles // (self._per_thread * self.threads())
        return max(batch, min(TASK_TILES, share // batch * batch))

    def anchors(self, groups: Iterable[tuple[AnchorTask, ...]]) -> Iterator[list[Result]]:
        """Make the palettes of groups of scans, as :meth:`results` makes blocks."""
        return self._results(groups, run_anchors)

    def factors(self, groups: Iterable[tuple[FactorTask, ...]]) -> Iterator[list[Result]]:
        """Find the factors of groups of scans, as :meth:`results` makes blocks."""
        return self._results(groups, run_factors)

    def spreads(self, groups: Iterable[tuple[SpreadTask, ...]]) -> Iterator[list[Result]]:
        """Spread the hints of groups of scans, as :meth:`results` makes blocks."""
        return self._results(groups, run_spreads)

    def hints(self, groups: Iterable[tuple[HintTask, ...]]) -> Iterator[list[Result]]:
        """Make blocks of colours that hints correct, as :meth:`results` makes them of predictions."""
        return self._results(groups, run_hints)

    def results(self, groups: Iterable[Group]) -> Iterator[list[Result]]:
        """Run ``groups`` and yield the results of each as it ends. Closing the iterator cancels groups not yet started.

        If the cluster loses a group of several blocks (its workers died repeatedly, or the scheduler is gone), its
        blocks are tried once more one by one; a lost single block counts as failed.
        """
        return self._results(groups, self._run)

    def take_back(self) -> None:
        """Cancel the groups that no worker has begun, or all submitted groups if the run was cancelled."""
        with self._free:
            futures = list(self._submitted)
            self._free.notify_all()
        with contextlib.suppress(Exception):  # a cluster that is gone has nothing to take back
            begun: set[str] = set()
            if not self.deadline.is_cancelled:
                begun = {key for keys in self._client.processing().values() for key in keys}
            self._client.cancel([future for future in futures if future.key not in begun])

    def _results(self, groups: Iterable[_Tasks], run: Callable[[_Tasks], Sequence[Result]]) -> Iterator[list[Result]]:
        done: as_completed = as_completed(loop=self._client.loop)
        running: dict[Future, _Tasks] = {}
        waiting = iter(groups)
        single: deque[_Tasks] = deque()
        try:
            while True:
                for future, group in self._submit(run, waiting, single, is_idle=not running):
                    running[future] = group
                    done.add(future)
                if not running:
                    return
                for group, result in self._ended(running, done.next_batch()):
                    if isinstance(result, Exception) and self.deadline.is_over:
                        continue  # taken back
                    if isinstance(result, Exception) and len(group) > 1:
                        single.extend((task,) for task in group)
                    else:
                        yield [BlockFailed(group[0].scan, result)] if isinstance(result, Exception) else result
        finally:
            if running:
                self._client.cancel(list(running))

    def _submit(
        self, run: Callable[[_Tasks], Sequence[Result]], waiting: Iterator[_Tasks], single: deque[_Tasks], is_idle: bool
    ) -> Iterator[tuple[Future, _Tasks]]:
        """Submit as many groups as there is room for, in one message; an idle caller waits for room."""
        room = self._claim(is_idle)
        futures: list[Future] = []
        try:
            taken = [single.popleft() for _ in range(min(room, len(single)))]
            taken += itertools.islice(waiting, room - len(taken))
            futures = self._client.map(run, taken, pure=False) if taken else []
        finally:
            self._release(room - len(futures))
        with self._free:
            self._submitted.update(futures)
        for future in futures:
            future.add_done_callback(self._out)
        if futures and self.deadline.is_over:
            self.take_back()  # the deadline passed since the claim
        yield from zip(futures, taken, strict=True)

    def _ended(
        self, running: dict[Future, _Tasks], futures: list[Future]
    ) -> Iterator[tuple[_Tasks, list[Result] | Exception]]:
        """The groups that ended, each with its results or its error; results are fetched in one message if possible."""
        good = [future for future in futures if future.status == "finished"]
        try:
            results = dict(zip(good, self._client.gather(good), strict=True))
        except Exception:  # lost between ending and fetching
            results = {}
        for future in futures:
            group = running.pop(future)
            try:
                yield group, results[future] if future in results else future.result()
            except Exception as error:
                yield group, error

    def _claim(self, wait: bool) -> int:
        """Claim all free places for groups. With ``wait``, at least one, unless the deadline has passed."""
        with self._free:
            # The time-out is for workers that join while nothing ends.
            while (room := self._room()) < 1 and wait and not self.deadline.is_over:
                self._free.wait(timeout=_THREADS_SECONDS)
            room = max(0, room)
            self._in_flight += room
            return room

    def _room(self) -> int:
        return 0 if self.deadline.is_over else self._per_thread * self.threads() - self._in_flight

    def _out(self, future: Future) -> None:
        """Note that a group is no longer with the cluster."""
        with self._free:
            self._submitted.discard(future)
        self._release(1)

    def _release(self, places: int) -> None:
        with self._free:
            self._in_flight -= places
            self._free.notify_all()
