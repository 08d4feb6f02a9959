"""The Dask cluster that runs the blocks: one made for the run, one of GPU workers, or one that is already there."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import signal
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.progress import listener
from pipeline.errors import UsageError
from pipeline.plan import CLIENT_BYTES, SERVER_BYTES, Workers, threads_that_fit

if TYPE_CHECKING:
    from distributed import Client, LocalCluster
    from distributed.security import Security

    from engines.spec import EngineSpec

LOCAL, CUDA = "local", "cuda"
_CONNECT_SECONDS = 15
# Threads that one process may have: with more, they begin to wait for Python's lock.
_MOST_THREADS = 8
# What must be the same on both sides for the blocks to arrive, and to be the same blocks.
_SAME_PACKAGES = ("colorize-archive", "dask", "distributed", "cloudpickle", "numpy", "zarr", "numcodecs")
# Above every level: what a worker has to say reaches the user as the failure of a scan, in one line.
_SILENT = logging.CRITICAL + 1
_CONFIG = {
    # A machine that is busy with something else starts a worker in minutes, not never.
    "distributed.comm.timeouts.connect": "120s",
    # A worker that has not been heard of for a while hangs: its nanny starts it anew and its blocks are done again.
    "distributed.scheduler.worker-ttl": "60s",
    # Tasks wait at the scheduler, not at a worker that may be slower than the others.
    "distributed.scheduler.worker-saturation": 1.0,
    # Results are a few bytes, so there is nothing to spill, and a pause would wait for memory that nobody gives back.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}
# A worker is ended and started anew where it needs this much more than the plan: a leak must not take the machine.
_LEAK_FACTOR = 2.0


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster.

    Attributes
    ----------
    kind : "local", or "cuda" for one pinned worker a GPU of this machine
    scheduler : address (tcp://host:8786) or scheduler file of a cluster that is already there; None makes one
    tls_ca, tls_cert, tls_key : PEM files for a scheduler with TLS; what is not given is Dask's own configuration
    """

    kind: str = LOCAL
    scheduler: str | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def _quiet() -> None:
    for name in ("", ".scheduler", ".worker", ".nanny", ".core", ".client", ".event"):
        logging.getLogger(f"distributed{name}").setLevel(_SILENT)


def _local_cluster(workers: Workers, limit_bytes: int) -> LocalCluster:
    import dask
    from distributed import LocalCluster

    _quiet()
    dask.config.set(_CONFIG)
    share = (limit_bytes - CLIENT_BYTES - SERVER_BYTES) / workers.processes
    with _deaf_to_interrupt():
        return LocalCluster(
            n_workers=workers.processes,
            threads_per_worker=workers.threads,
            processes=True,
            dashboard_address="127.0.0.1:0",  # any free port: several runs on one machine must not meet
            worker_dashboard_address=None,
            memory_limit=int(_LEAK_FACTOR * share),
            silence_logs=_SILENT,
        )


@contextlib.contextmanager
def _deaf_to_interrupt() -> Iterator[None]:
    """Threads and processes begun in the body, and those that they begin later, do not see SIGINT.

    A terminal sends Ctrl-C to workers as well; the command ends them itself, and theirs would be a second message.
    """
    resource_tracker.ensure_running()  # the first call unblocks the signal in the thread that makes it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cuda_cluster() -> LocalCluster:
    """One worker a GPU, pinned to it, with the resource ``GPU`` declared. Raises UsageError."""
    import dask

    _quiet()
    dask.config.set(_CONFIG)
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise UsageError(
            f"cluster cuda: dask-cuda is not installed ({error}); pip install '.[cuda]', or use --cluster local"
        ) from error
    try:
        # Two threads: while one waits for the GPU, the other reads and writes.
        return LocalCUDACluster(threads_per_worker=2, resources={"GPU": 1}, silence_logs=_SILENT, memory_limit=0)
    except Exception as error:  # no driver, no GPU: each layer has its own kind
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UsageError(f"cluster cuda: no GPU can be used ({reason[0]}); use --cluster local") from error


_starting: list[tuple[Workers, Future[LocalCluster]]] = []


def _warmed(workers: Workers, limit_bytes: int, engine: EngineSpec | None) -> LocalCluster:
    """A local cluster whose workers have their engine open."""
    from distributed import Client

    cluster = _local_cluster(workers, limit_bytes)
    with Client(cluster, set_as_default=False) as client, _engines_open(client, engine):
        return cluster


@contextlib.contextmanager
def prestarted(
    workers: Workers, options: ClusterOptions, limit_bytes: int, engine: EngineSpec | None
) -> Iterator[None]:
    """Start the local cluster in the background, so that it comes up while Prefect's server does.

    :func:`open_cluster` takes it over for the body; it is closed at the end whether or not anything used it.
    """
    if options.scheduler is not None or options.kind != LOCAL:
        yield
        return
    with ThreadPoolExecutor(1) as pool:
        _starting.append((workers, pool.submit(_warmed, workers, limit_bytes, engine)))
        try:
            yield
        finally:
            _, cluster = _starting.pop()
            # What went wrong in starting was raised where the cluster was wanted.
            if cluster.exception() is None:
                cluster.result().close()


def _started(workers: Workers, limit_bytes: int, stack: contextlib.ExitStack) -> LocalCluster:
    for wanted, cluster in _starting:
        if wanted == workers:
            return cluster.result()
    return stack.enter_context(_local_cluster(workers, limit_bytes))


@contextlib.contextmanager
def _engines_open(client: Client, engine: EngineSpec | None) -> Iterator[None]:
    """Every worker, now or later, opens ``engine`` once when it starts; the body need not wait for its first block."""
    from flows.blocks import EnginePlugin

    if engine is None:
        yield
        return
    plugin = EnginePlugin(engine, f"colorize-archive-{uuid.uuid4().hex}")
    client.register_plugin(plugin)
    try:
        yield
    finally:
        # A scheduler that is gone has no plugins either, and it would be waited for.
        if client.status == "running":
            with contextlib.suppress(Exception):
                client.unregister_worker_plugin(plugin.name)


@contextlib.contextmanager
def open_cluster(
    workers: Workers, options: ClusterOptions, limit_bytes: int, engine: EngineSpec | None
) -> Iterator[Client]:
    """A client of the wanted cluster, whose workers have ``engine`` open; one made for this lives as long as the body.

    Raises
    ------
    UsageError : no scheduler answers, its workers have other versions than this machine, or there is no GPU.
    """
    from distributed import Client

    _quiet()
    with contextlib.ExitStack() as stack:
        if options.scheduler is not None:
            client = stack.enter_context(_connected(options))
            if not client.nthreads():
                listener().said(f"scheduler {options.scheduler} has no workers yet; blocks wait until one joins")
            check_versions(client, engine)
        else:
            made = stack.enter_context(_cuda_cluster()) if options.kind == CUDA else None
            cluster = made or _started(workers, limit_bytes, stack)
            client = stack.enter_context(Client(cluster, set_as_default=False))
        stack.enter_context(_engines_open(client, engine))
        yield client


def _security(options: ClusterOptions) -> Security:
    from distributed.security import Security

    given = {
        "tls_ca_file": options.tls_ca,
        "tls_client_cert": options.tls_cert,
        "tls_client_key": options.tls_key,
    }
    for path in filter(None, given.values()):
        if not Path(path).is_file():
            raise UsageError(f"{path}: no such file; give the PEM file that the cluster's administrator handed out")
    return Security(**{name: value for name, value in given.items() if value})


def _connected(options: ClusterOptions) -> Client:
    from distributed import Client

    scheduler = str(options.scheduler)
    given: dict[str, Any] = {"address": scheduler} if "://" in scheduler else {"scheduler_file": scheduler}
    if scheduler.startswith("tls://") or options.tls_ca or options.tls_cert or options.tls_key:
        given["security"] = _security(options)
    try:
        return Client(**given, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UsageError(
            f"scheduler {scheduler}: no answer within {_CONNECT_SECONDS} s ({reason}): no block could be run; "
            "start it (dask scheduler), check address and TLS files, or leave --scheduler out"
        ) from error


def check_versions(client: Client, engine: EngineSpec | None) -> None:
    """Compare Python and packages of every worker with this machine's.

    Only functions of the standard library are sent, so that a worker without this project can answer too; and where all
    have it, one of ours, which asks whether the engine runs there.

    Raises
    ------
    UsageError : some are not the same; names the first worker with all that differs there, and how many others.
    """
    packages = list(_SAME_PACKAGES)
    ours: dict[str, Callable[[], str]] = {name: lambda name=name: version(name) for name in packages}  # type: ignore[misc]
    here = {"python": platform.python_version().rsplit(".", 1)[0], **{name: ask() for name, ask in ours.items()}}
    there = {"python": client.run(platform.python_version)}
    for name in packages:
        there[name] = client.run(version, name, on_error="return")
    wrong: dict[str, list[str]] = {}
    for name, answers in there.items():
        for worker, answer in answers.items():
            text = "missing" if isinstance(answer, BaseException) else str(answer)
            if (text.rsplit(".", 1)[0] if name == "python" else text) != here[name]:
                wrong.setdefault(worker, []).append(f"{name} {text} (here {here[name]})")
    if not wrong and engine is not None:
        wrong = _engines_that_differ(client, engine)
    if wrong:
        worker, what = next(iter(wrong.items()))
        others = f"; {len(wrong) - 1} more workers differ" if len(wrong) > 1 else ""
        raise UsageError(
            f"worker {worker}: {', '.join(what)}{others}: blocks would fail or get other bytes; install the same there"
        )


def engine_state(backend: str, precision: str) -> str:
    """Of this process's machine: the version of a backend that can compute in ``precision``, or why it cannot."""
    from engines.errors import EngineError
    from engines.select import check_precision, usable_version

    try:
        check_precision(backend, precision)
        return usable_version(backend)
    except EngineError as error:
        return f"not usable: {error}"


def _engines_that_differ(client: Client, engine: EngineSpec) -> dict[str, list[str]]:
    """Workers whose engine is not this machine's, with what they say."""
    here = engine_state(engine.backend, engine.precision)
    there = client.run(engine_state, engine.backend, engine.precision)
    return {
        worker: [f"engine {engine.backend} {answer} (here {here}); another --engine or --precision may run there"]
        for worker, answer in there.items()
        if answer != here
    }
