"""The Dask cluster that runs the blocks: a local one made for the run, one of GPU workers, or an existing one."""

from __future__ import annotations

import contextlib
import logging
import platform
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from importlib.metadata import version
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.machine import no_semaphores
from flows.events import Message, tell
from flows.options import ClusterOptions
from flows.request import CUDA, LOCAL
from pipeline.errors import UsageError
from pipeline.planning.limits import CLIENT_BYTES, SERVER_BYTES
from pipeline.planning.plan import Workers
from pipeline.support.text import reason_of

if TYPE_CHECKING:
    from distributed import Client, LocalCluster
    from distributed.security import Security

    from engines.spec import EngineSpec

_CONNECT_SECONDS = 15
_FIRST_WORKER_SECONDS = 60
_HELD_SECONDS = 120  # longer than comparing versions takes
_KILL_SECONDS = 9.0  # Dask's patience with a local worker process: four to end by itself, five to be gone once killed
# Packages whose versions must match on both sides, so that blocks arrive and come out the same.
_SAME_PACKAGES = ("colorize-archive", "dask", "distributed", "cloudpickle", "numpy", "zarr", "numcodecs")
# Above every level: a worker's errors reach the user as failures of scans, in one line each.
_SILENT = logging.CRITICAL + 1
_CONFIG = {
    # A machine busy with other work may take minutes to start a worker.
    "distributed.comm.timeouts.connect": "120s",
    # A worker without a heartbeat for this long hangs: its nanny restarts it, and its blocks are done again.
    "distributed.scheduler.worker-ttl": "60s",
    # Tasks wait at the scheduler, not at a worker that may be slower than the others.
    "distributed.scheduler.worker-saturation": 1.0,
    # Results are a few bytes, so there is nothing to spill, and a paused worker would wait for memory never freed.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
    # Nobody looks at the pages of a cluster that lives as long as a run; what serves them takes time to import.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}
# A worker is restarted if it needs this many times its planned memory: a leak must not take down the machine.
_LEAK_FACTOR = 2.0
_log = logging.getLogger(__name__)


def _quiet() -> None:
    for name in ("", ".scheduler", ".worker", ".nanny", ".core", ".client", ".event"):
        logging.getLogger(f"distributed{name}").setLevel(_SILENT)


def _configure() -> None:
    """Set Dask's defaults and our own settings, for clusters made for the run.

    A site's settings (its files, and ``DASK_`` variables) are meant for its own clusters, and many of them break a
    short-lived local one: encryption with certificates, missing folders, modules to load, workers that leave after an
    hour. Existing schedulers are contacted with the site's settings.
    """
    import dask
    import distributed  # noqa: F401 - brings its defaults

    dask.config.refresh(paths=[], env={})
    dask.config.set(_CONFIG)


def check_semaphores() -> None:
    """Raise UsageError if this machine has no shared memory, which the queue of every worker process needs."""
    if reason := no_semaphores():
        raise UsageError(
            f"/dev/shm: no semaphore can be made there ({reason}), so no worker process could start; mount a tmpfs on "
            "it that this user may write to, or give a --scheduler"
        )


def _local_cluster(workers: Workers, limit_bytes: int) -> LocalCluster:
    from distributed import LocalCluster

    check_semaphores()
    _quiet()
    _configure()
    share = (limit_bytes - CLIENT_BYTES - SERVER_BYTES) / workers.processes
    with _deaf_to_interrupt():
        return LocalCluster(
            n_workers=workers.processes,
            threads_per_worker=workers.threads,
            processes=True,
            local_directory=tempfile.gettempdir(),
            dashboard_address="127.0.0.1:0",  # any free port: several runs on one machine must not meet
            worker_dashboard_address=None,
            scheduler_kwargs={"dashboard": False},
            memory_limit=int(_LEAK_FACTOR * share),
            silence_logs=_SILENT,
        )


@contextlib.contextmanager
def _deaf_to_interrupt() -> Iterator[None]:
    """Block SIGINT for threads and processes started in the body, and for those that they start later.

    A terminal sends Ctrl-C to workers as well. The command ends them itself; they would only add a second message.
    """
    resource_tracker.ensure_running()  # the first call unblocks the signal in the thread that makes it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cuda_cluster() -> LocalCluster:
    """A cluster with one worker pinned to each GPU, with the resource ``GPU`` declared. Raises UsageError."""
    _quiet()
    _configure()
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise UsageError(
            f"cluster cuda: dask-cuda is not installed ({error}); pip install '.[cuda]', or use --cluster local"
        ) from error
    try:
        # Two threads: while one waits for the GPU, the other reads and writes.
        return LocalCUDACluster(threads_per_worker=2, resources={"GPU": 1}, silence_logs=_SILENT, memory_limit=0)
    except Exception as error:  # no driver or no GPU: each layer raises its own type
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UsageError(f"cluster cuda: no GPU can be used ({reason[0]}); use --cluster local") from error


# The cluster that the current command is starting.
_starting: ContextVar[tuple[Workers, Future[LocalCluster]] | None] = ContextVar("starting", default=None)


def _warmed(workers: Workers, limit_bytes: int, engine: EngineSpec | None) -> LocalCluster:
    """A local cluster whose workers have opened their engine."""
    from distributed import Client

    cluster = _local_cluster(workers, limit_bytes)
    with Client(cluster, set_as_default=False) as client, _engines_open(client, engine):
        return cluster


@contextlib.contextmanager
def prestarted(
    workers: Workers, options: ClusterOptions, limit_bytes: int, engine: EngineSpec | None
) -> Iterator[None]:
    """Start the local cluster in the background, so that it comes up while the scans are looked at.

    :func:`open_cluster` takes it over in the body; it is closed at the end, used or not.
    """
    if options.scheduler is not None or options.kind != LOCAL:
        yield
        return
    check_semaphores()
    with ThreadPoolExecutor(1) as pool:
        cluster = pool.submit(_warmed, workers, limit_bytes, engine)
        token = _starting.set((workers, cluster))
        try:
            yield
        finally:
            _starting.reset(token)
            # An error in starting was raised where the cluster was requested.
            if cluster.exception() is None:
                _close(cluster.result())


def _close(cluster: LocalCluster) -> None:
    """Close a local cluster. A worker slow to end does not fail the run, whose work is done by then.

    Dask kills a worker that has not ended within four seconds, and raises a ``TimeoutError`` without a message if the
    system needs more than five more seconds, as a loaded machine may. The worker ends all the same.
    """
    try:
        cluster.close()
    except TimeoutError:
        _log.warning("a worker process was killed and took more than %g s to go", _KILL_SECONDS)


@contextlib.contextmanager
def _closed_after(cluster: LocalCluster) -> Iterator[LocalCluster]:
    try:
        yield cluster
    finally:
        _close(cluster)


def _started(workers: Workers, limit_bytes: int, stack: contextlib.ExitStack) -> LocalCluster:
    starting = _starting.get()
    if starting is not None and starting[0] == workers:
        return starting[1].result()
    return stack.enter_context(_closed_after(_local_cluster(workers, limit_bytes)))


@contextlib.contextmanager
def _engines_open(client: Client, engine: EngineSpec | None) -> Iterator[None]:
    """Make every present and future worker open ``engine`` once at its start, so that no first block waits for it."""
    from flows.cluster.worker import EnginePlugin

    if engine is None:
        yield
        return
    plugin = EnginePlugin(engine, f"colorize-archive-{uuid.uuid4().hex}")
    client.register_plugin(plugin)
    try:
        yield
    finally:
        # If the scheduler is gone, so are its plugins, and the call would wait for it.
        if client.status == "running":
            with contextlib.suppress(Exception):
                client.unregister_worker_plugin(plugin.name)


@contextlib.contextmanager
def open_cluster(
    workers: Workers,
    options: ClusterOptions,
    limit_bytes: int,
    engine: EngineSpec | None,
    seconds_left: float = float("inf"),
) -> Iterator[Client]:
    """A client of the requested cluster, with ``engine`` open on its workers; a new cluster lives as long as the body.

    An existing cluster without workers is given a minute for the first one, or ``seconds_left`` if that is less.

    Raises
    ------
    UsageError : no scheduler answers, its workers' versions differ from this machine's, or there is no GPU.
    """
    from distributed import Client

    _quiet()
    with contextlib.ExitStack() as stack:
        if options.scheduler is not None:
            client = stack.enter_context(_connected(options))
            seconds = min(_FIRST_WORKER_SECONDS, seconds_left)
            with _first_worker(client, str(options.scheduler), seconds):
                check_versions(client, engine)
        else:
            made = stack.enter_context(_closed_after(_cuda_cluster())) if options.kind == CUDA else None
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
        raise UsageError(
            f"scheduler {scheduler}: no answer within {_CONNECT_SECONDS} s ({reason_of(error)}): no block could be "
            "run; start it (dask scheduler), check address and TLS files, or leave --scheduler out"
        ) from error


@contextlib.contextmanager
def _first_worker(client: Client, scheduler: str, seconds: float) -> Iterator[None]:
    """If there is no worker, ask for one, wait ``seconds`` at most, and keep it for the body.

    An adaptive cluster starts workers for tasks that wait, and ends them when nothing runs: so a task is submitted that
    ends with the body. Without a worker the run goes on: its blocks wait at the scheduler, and its deadline can end it.
    """
    from distributed import Event

    if client.nthreads():
        yield
        return
    tell(Message(f"scheduler {scheduler} has no workers yet; blocks wait until one joins"))
    over = Event(f"colorize-archive-{uuid.uuid4().hex}", client=client)
    asked = client.submit(over.wait, _HELD_SECONDS, pure=False)
    try:
        try:
            client.wait_for_workers(1, timeout=max(seconds, 0.1))
        except TimeoutError:
            tell(
                Message(f"scheduler {scheduler} still has no workers; those that join later are not asked for versions")
            )
        yield
    finally:
        over.set()
        asked.cancel()


def check_versions(client: Client, engine: EngineSpec | None) -> None:
    """Compare Python and packages of every worker with this machine's.

    Only functions of the standard library are sent, so that a worker without this project can answer, too. If all
    workers have the project, one of our functions then asks whether the engine runs there.

    Raises
    ------
    UsageError : some versions differ; names the first such worker with all differences, and counts the others.
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
    """On this machine: the version of a backend that can compute in ``precision``, or why it cannot."""
    from engines.errors import EngineError
    from engines.registry import check_precision, usable_version

    try:
        check_precision(backend, precision)
        return usable_version(backend)
    except EngineError as error:
        return f"not usable: {error}"


def _engines_that_differ(client: Client, engine: EngineSpec) -> dict[str, list[str]]:
    """Workers whose engine differs from this machine's, with the difference."""
    here = engine_state(engine.backend, engine.precision)
    there = client.run(engine_state, engine.backend, engine.precision)
    return {
        worker: [f"engine {engine.backend} {answer} (here {here}); another --engine or --precision may run there"]
        for worker, answer in there.items()
        if answer != here
    }
