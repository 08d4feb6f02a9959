"""How a run shares the processors of this machine among its workers."""

from __future__ import annotations

from engines.machine import processors
from pipeline.planning.plan import Workers, threads_that_fit

# Most threads in one process: with more, they begin to wait for Python's lock.
_MOST_THREADS = 8


def split_workers(workers: int | None, tile_yx: tuple[int, int] | None, limit_bytes: int) -> Workers:
    """The number of worker processes, of block threads in each, and of engine threads for each block.

    Each processor gets one block, and each block one engine thread: networks of this size gain more from many tiles at
    once than from many threads on one tile. Processes x threads x engine threads never exceeds the processors. Up to
    eight threads share a process, because decoding, inference and encoding all release Python's lock, and each further
    process costs memory. If ``limit_bytes`` does not hold a block for every processor, or if a tile is a whole scan
    (``tile_yx`` None), fewer blocks run at once and each engine gets more threads.
    """
    available = processors()
    processes = workers or _processes(available, tile_yx, limit_bytes)
    wanted = max(1, available // processes)
    threads = 1 if tile_yx is None else min(wanted, threads_that_fit(processes, tile_yx, limit_bytes))
    return Workers(processes, threads, max(1, available // (processes * threads)))


def _processes(available: int, tile_yx: tuple[int, int] | None, limit_bytes: int) -> int:
    """The fewest processes with at most eight threads each, fewer still if the memory is short."""
    if tile_yx is None:
        return 1
    wanted = -(-available // _MOST_THREADS)
    while wanted > 1 and threads_that_fit(wanted, tile_yx, limit_bytes) < 2:
        wanted -= 1
    return wanted
