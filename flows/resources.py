"""How a run shares the processors of this machine among its workers."""

from __future__ import annotations

from engines.machine import processors
from pipeline.planning.plan import Workers, threads_that_fit

# Threads that one process may have: with more, they begin to wait for Python's lock.
_MOST_THREADS = 8


def split_workers(workers: int | None, tile_yx: tuple[int, int] | None, limit_bytes: int) -> Workers:
    """How many worker processes, block threads in each, and engine threads for each block.

    One block a processor and one engine thread a block: networks of this size gain more from many tiles at once than
    from many threads on one tile, and processes x threads x engine threads is never more than the processors. Up to
    eight threads share a process, because decoding, inference and encoding all release Python's lock; each further
    process costs its memory. Where ``limit_bytes`` does not hold a block for every processor, and where a tile is a
    whole scan (``tile_yx`` None), fewer blocks run at once and each engine gets more threads.
    """
    available = processors()
    processes = workers or _processes(available, tile_yx, limit_bytes)
    wanted = max(1, available // processes)
    threads = 1 if tile_yx is None else min(wanted, threads_that_fit(processes, tile_yx, limit_bytes))
    return Workers(processes, threads, max(1, available // (processes * threads)))


def _processes(available: int, tile_yx: tuple[int, int] | None, limit_bytes: int) -> int:
    """As few as give every process at most eight threads, as long as the memory holds them."""
    if tile_yx is None:
        return 1
    wanted = -(-available // _MOST_THREADS)
    while wanted > 1 and threads_that_fit(wanted, tile_yx, limit_bytes) < 2:
        wanted -= 1
    return wanted
