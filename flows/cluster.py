"""The Dask cluster that runs the blocks: one made for the run, or one that is already there."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from pipeline.errors import UsageError
from pipeline.plan import Workers, threads_that_fit

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

_CONNECT_SECONDS = 15
_START_TIMEOUT = "120s"
_WORKER_TTL = "60s"
# Above every level: what a worker has to say reaches the user as the failure of a scan, in one line.
_SILENT = logging.CRITICAL + 1


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split_workers(workers: int | None, tile_yx: tuple[int, int] | None, limit_bytes: int) -> Workers:
    """How many worker processes, block threads in each, and engine threads for each block.

    One block a processor and one engine thread a block: networks of this size gain more from many tiles at once than
    from many threads on one tile, and processes x threads x engine threads is never more than the processors. One
    process is enough, because decoding, inference and encoding all release Python's lock; each further one costs its
    memory. Where ``limit_bytes`` does not hold a block for every processor, and where a tile is a whole scan
    (``tile_yx`` None), fewer blocks run at once and each engine gets more threads.
    """
    available = processors()
    processes = workers or 1
    wanted = max(1, available // processes)
    threads = 1 if tile_yx is None else min(wanted, threads_that_fit(processes, tile_yx, limit_bytes))
    return Workers(processes, threads, max(1, available // (processes * threads)))


def _quiet() -> None:
    for name in ("", ".scheduler", ".worker", ".nanny", ".core", ".client", ".event"):
        logging.getLogger(f"distributed{name}").setLevel(_SILENT)


def _local_cluster(workers: Workers) -> LocalCluster:
    import dask
    from distributed import LocalCluster

    _quiet()
    # A machine that is busy with something else starts a worker in minutes, not never.
    # A worker that has not been heard of for a while hangs: its nanny starts it anew and its blocks are done again.
    timeouts = {"distributed.comm.timeouts.connect": _START_TIMEOUT, "distributed.scheduler.worker-ttl": _WORKER_TTL}
    dask.config.set(timeouts)
    return LocalCluster(
        n_workers=workers.processes,
        threads_per_worker=workers.threads,
        processes=True,
        dashboard_address="127.0.0.1:0",  # any free port: several runs on one machine must not meet
        worker_dashboard_address=None,
        memory_limit=0,
        silence_logs=_SILENT,
    )


_starting: list[tuple[Workers, Future[LocalCluster]]] = []


def _warmed(workers: Workers, warm: Callable[[], object]) -> LocalCluster:
    """A local cluster whose workers have run ``warm`` once."""
    from distributed import Client

    cluster = _local_cluster(workers)
    with Client(cluster, set_as_default=False) as client:
        client.run(warm, on_error="ignore")
    return cluster


@contextlib.contextmanager
def prestarted(workers: Workers, scheduler: str | None, warm: Callable[[], object]) -> Iterator[None]:
    """Start the local cluster in the background, so that it comes up while Prefect's server does.

    :func:`open_cluster` takes it over for the body; it is closed at the end whether or not anything used it. ``warm``
    runs on every worker first; what goes wrong in it will go wrong again, and be reported, where it matters.
    """
    if scheduler is not None:
        yield
        return
    with ThreadPoolExecutor(1) as pool:
        _starting.append((workers, pool.submit(_warmed, workers, warm)))
        try:
            yield
        finally:
            _, cluster = _starting.pop()
            # What went wrong in starting was raised where the cluster was wanted.
            if cluster.exception() is None:
                cluster.result().close()


def _started(workers: Workers, stack: contextlib.ExitStack) -> LocalCluster:
    for wanted, cluster in _starting:
        if wanted == workers:
            return cluster.result()
    return stack.enter_context(_local_cluster(workers))


_clients: list[Client] = []


@contextlib.contextmanager
def _opened(client: Client) -> Iterator[Client]:
    _clients.append(client)
    try:
        yield client
    finally:
        _clients.remove(client)


def open_client() -> Client:
    """The client of the cluster that is open; every scan of a run shares it."""
    return _clients[-1]


@contextlib.contextmanager
def open_cluster(workers: Workers, scheduler: str | None = None) -> Iterator[Client]:
    """A client of ``scheduler``, or of a local cluster that lives as long as the body.

    Raises
    ------
    UsageError : no scheduler answers at that address.
    """
    from distributed import Client

    _quiet()
    with contextlib.ExitStack() as stack:
        if scheduler is None:
            client = Client(_started(workers, stack), set_as_default=False)
            yield stack.enter_context(_opened(stack.enter_context(client)))
            return
        try:
            client = Client(scheduler, timeout=_CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"scheduler {scheduler}: no answer within {_CONNECT_SECONDS} s: no block could be run; "
                "start it (dask scheduler) or leave --scheduler out"
            ) from error
        yield stack.enter_context(_opened(stack.enter_context(client)))
