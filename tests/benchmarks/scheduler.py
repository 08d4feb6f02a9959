"""Where the scheduler becomes the limit: python -m tests.benchmarks.scheduler [--workers 1 2 8 64 512] [--delay 1.2]

Three processes on this machine: a Dask scheduler; all workers, in one event loop, each with one thread, whose blocks do
nothing but wait ``--delay`` seconds; and a client. Messages go through TCP, as between machines. The client drives them
in two ways:

queue   the project's own :class:`flows.cluster.queue.BlockQueue`, which submits and collects block by block
map     ``Client.map`` with every block at once and no results collected: what the scheduler could do at best

Efficiency is the ideal time (blocks in rounds of ``workers``, each ``delay`` long) over the measured one. CPU
milliseconds a block of the three processes say who is busy: a process can do at most 1000 of them a second, and that
hardly depends on what else the machine does (last column), on which the blocks a second that it came to do depend. What
the processes do while nothing happens is in it, so only lines with many blocks a second mean something. ``--events`` is
how often a block tells its progress; a real one does so once a batch.

What is real: the tasks as they are pickled (a scan of 32768x32768 pixels at stride 64), the project's settings of the
cluster, and all of Dask. What is not: workers on other machines, with a network between them. Needs psutil.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import dask
import psutil
from distributed import Client, Scheduler, Worker, get_worker, wait

from engines.spec import EngineSpec
from flows.cluster.dask_cluster import _CONFIG as CLUSTER_CONFIG
from flows.cluster.dask_cluster import _quiet
from flows.cluster.queue import BlockQueue, Group
from flows.cluster.worker import BlockDone, BlockTask
from pipeline.tiling.grid import TileGrid

WORKERS, DELAYS_SECONDS = (1, 2, 8, 64, 512), (0.05, 0.2, 1.2, 5.0)
DRIVERS = ("queue", "map")
_ENOUGH = 0.9
_SIDE_PX, _TILE_PX, _STRIDE_PX, _BLOCK_PX = 32768, 256, 64, 2048
_TOPIC = "colorize-archive-benchmark"
_CONFIG = {
    **CLUSTER_CONFIG,
    # Hundreds of workers in one process would each look at the same memory twice a second, and sample its threads.
    "distributed.admin.system-monitor.interval": "1h",
    "distributed.worker.profile.enabled": False,
}


@dataclass(frozen=True)
class Load:
    """Blocks for a cluster: ``tasks`` of ``delay_seconds`` each on ``workers``, each telling ``events`` times."""

    workers: int
    delay_seconds: float
    tasks: int
    events: int = 0
    driver: str = "queue"

    @property
    def ideal_seconds(self) -> float:
        return math.ceil(self.tasks / self.workers) * self.delay_seconds


@dataclass(frozen=True)
class Measured:
    """What a load took: wall seconds, and CPU seconds of scheduler, client and all workers together.

    ``others`` is how many processors something else kept busy meanwhile.
    """

    load: Load
    seconds: float
    scheduler_seconds: float
    client_seconds: float
    workers_seconds: float
    others: float

    @property
    def tasks_per_second(self) -> float:
        return self.load.tasks / self.seconds

    @property
    def efficiency(self) -> float:
        return self.load.ideal_seconds / self.seconds

    @property
    def ceiling(self) -> float:
        """Tasks a second at which scheduler or client would be busy all the time, whichever is first."""
        return self.load.tasks / max(self.scheduler_seconds, self.client_seconds, 1e-9)


async def pretend(delay_seconds: float, events: int, group: Group) -> list[BlockDone]:
    """Stand in for ``run_blocks``: wait, tell as often as a block would, and say that it is done."""
    worker = get_worker() if events else None
    for _ in range(events):
        await asyncio.sleep(delay_seconds / events)
        if worker is not None:
            worker.log_event(_TOPIC, {"scan": group[0].scan, "tiles": 8})
    if not events:
        await asyncio.sleep(delay_seconds)
    return [BlockDone(task.scan, 1, delay_seconds) for task in group]


async def _serve_scheduler(pipe: Connection) -> None:
    async with Scheduler(host="127.0.0.1", port=0, dashboard=False, dashboard_address="127.0.0.1:0") as scheduler:
        pipe.send(scheduler.address)
        await asyncio.to_thread(pipe.recv)


async def _serve_workers(address: str, count: int, folder: str, pipe: Connection) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            worker = Worker(
                address,
                nthreads=1,
                memory_limit=0,
                local_directory=folder,
                dashboard=False,
                heartbeat_interval="10s",
            )
            await stack.enter_async_context(worker)
        pipe.send(count)
        await asyncio.to_thread(pipe.recv)


def _run_scheduler(pipe: Connection) -> None:
    _quiet()
    with dask.config.set(_CONFIG):
        asyncio.run(_serve_scheduler(pipe))


def _run_workers(address: str, count: int, folder: str, pipe: Connection) -> None:
    _quiet()
    with dask.config.set(_CONFIG):
        asyncio.run(_serve_workers(address, count, folder, pipe))


@contextlib.contextmanager
def _process(target: partial[None], wait_seconds: float) -> Iterator[tuple[psutil.Process, object]]:
    """A process that runs ``target`` for the body, and what it sent when it was ready."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(wait_seconds):
            raise TimeoutError(f"{target.func.__name__}: not ready within {wait_seconds:.0f} s")
        yield psutil.Process(process.pid), ours.recv()
        with contextlib.suppress(OSError):
            ours.send("stop")
        process.join(20)
    finally:
        process.terminate()
        process.join()


@dataclass(frozen=True)
class StandIn:
    """A cluster of ``workers`` that pretend, and its processes."""

    client: Client
    workers: int
    scheduler_process: psutil.Process
    workers_process: psutil.Process

    def cpu_seconds(self) -> tuple[float, float, float, float]:
        """Of scheduler, client and workers, since each began; and of everything on this machine."""
        each = (self.scheduler_process, psutil.Process(), self.workers_process)
        times = [process.cpu_times() for process in each]
        scheduler, client, workers = (time.user + time.system for time in times)
        machine = psutil.cpu_times()._asdict()
        busy = sum(machine.get(name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
        return scheduler, client, workers, busy


@contextlib.contextmanager
def stand_in(workers: int) -> Iterator[StandIn]:
    """A scheduler and ``workers`` workers, each in a process of its own, and a client here."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(_CONFIG))
        _quiet()
        folder = stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
        scheduler, address = stack.enter_context(_process(partial(_run_scheduler), 60))
        others = partial(_run_workers, str(address), workers, folder)
        working, _ = stack.enter_context(_process(others, 60 + workers))
        client = stack.enter_context(Client(str(address), set_as_default=False))
        client.wait_for_workers(workers, timeout=60)
        yield StandIn(client, workers, scheduler, working)


def groups(count: int) -> Iterator[Group]:
    """As many groups of one block each, as a scan of a gigapixel makes them."""
    side = (_SIDE_PX, _SIDE_PX)
    task = BlockTask(
        scan="scan",
        store=Path("/archive/results/scan.zarr"),
        version="0" * 16,
        grid=TileGrid.of(side, (_TILE_PX, _TILE_PX), (_STRIDE_PX, _STRIDE_PX)),
        block_px=_BLOCK_PX,
        index_yx=(0, 0),
        window="hann",
        engine=EngineSpec("identity", "/archive/model", (_TILE_PX, _TILE_PX), 8, 1, 1),
        attempt="0" * 32,
        topic=_TOPIC,
    )
    rows, columns = task.grid.block_counts_yx(_BLOCK_PX)
    task.grid.block((0, 0), _BLOCK_PX)  # as flows.cluster.queue.grouped does
    for number in range(count):
        yield (replace(task, index_yx=(number // columns % rows, number % columns)),)


def measure(cluster: StandIn, load: Load) -> Measured:
    """Run ``load`` once, after each worker has had a block."""
    run = partial(pretend, load.delay_seconds, load.events)
    warm = partial(pretend, 0.0, 0)
    with cluster.client.as_current():
        wait(cluster.client.map(warm, list(groups(2 * cluster.workers)), pure=False))
    if load.events:
        cluster.client.subscribe_topic(_TOPIC, lambda event: None)
    before, started = cluster.cpu_seconds(), time.perf_counter()
    if load.driver == "queue":
        done = sum(len(results) for results in BlockQueue(cluster.client, run=run).results(groups(load.tasks)))
    else:
        with cluster.client.as_current():
            done = len(wait(cluster.client.map(run, list(groups(load.tasks)), pure=False)).done)
    seconds = time.perf_counter() - started
    if done != load.tasks:
        raise AssertionError(f"{done} of {load.tasks} blocks came back")
    if load.events:
        cluster.client.unsubscribe_topic(_TOPIC)
    *used, busy = (b - a for a, b in zip(before, cluster.cpu_seconds(), strict=True))
    return Measured(load, seconds, used[0], used[1], used[2], max(0.0, busy - sum(used)) / seconds)


def to_table(measured: Sequence[Measured]) -> str:
    """Markdown."""
    lines = [
        "| driver | workers | s a block | blocks | ideal blocks/s | blocks/s | efficiency |"
        " CPU ms a block: scheduler | client | workers | others, processors |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for each in measured:
        load = each.load
        cpu = (each.scheduler_seconds, each.client_seconds, each.workers_seconds)
        cells = [
            load.driver,
            f"{load.workers}",
            f"{load.delay_seconds:g}",
            f"{load.tasks:,}",
            f"{load.workers / load.delay_seconds:,.1f}",
            f"{each.tasks_per_second:,.1f}",
            f"{each.efficiency:.2f}",
            *(f"{1000 * seconds / load.tasks:.2f}" for seconds in cpu),
            f"{each.others:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def conclusion(measured: Sequence[Measured]) -> str:
    """For each driver: the highest rate, up to where the workers are kept busy, and how far the processors would go."""
    lines = []
    for driver in dict.fromkeys(each.load.driver for each in measured):
        mine = [each for each in measured if each.load.driver == driver]
        best = max(mine, key=lambda each: each.tasks_per_second)
        kept, lost = _rates(mine)
        words = [
            f"{driver}: at most {best.tasks_per_second:,.0f} blocks/s"
            + (f"; efficiency at least {_ENOUGH:.0%} up to {max(kept):,.1f} blocks/s" if kept else "")
            + (f"; below it from {min(lost):,.1f} on" if lost else ""),
            f"  a scheduler and a client with a processor each: {best.ceiling:,.0f} blocks/s;"
            f" {_ENOUGH:.0%} of that keeps 8, 64, 512 workers busy with blocks of at least "
            + ", ".join(f"{workers / best.ceiling / _ENOUGH:.2g} s" for workers in (8, 64, 512)),
        ]
        lines += words
    return "\n".join(lines)


def _rates(measured: Sequence[Measured]) -> tuple[list[float], list[float]]:
    """Ideal rates, workers by seconds, that were kept up with, and that were not."""
    rates = {each.load.workers / each.load.delay_seconds: each.efficiency for each in measured}
    kept = [rate for rate, efficiency in rates.items() if efficiency >= _ENOUGH]
    return kept, [rate for rate in rates if rate not in kept]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--delay", type=float, nargs="+", default=DELAYS_SECONDS, help="seconds of a block")
    parser.add_argument("--tasks-per-worker", type=int, default=8)
    parser.add_argument("--most-tasks", type=int, default=2048, help="of one line of the table")
    parser.add_argument("--events", type=int, default=0, help="messages of progress that each block sends")
    parser.add_argument("--driver", nargs="+", choices=DRIVERS, default=DRIVERS)
    arguments = parser.parse_args()
    measured = []
    for workers in arguments.workers:
        with stand_in(workers) as cluster:
            for delay_seconds in arguments.delay:
                for driver in arguments.driver:
                    tasks = min(workers * arguments.tasks_per_worker, max(workers, arguments.most_tasks))
                    load = Load(workers, delay_seconds, tasks, arguments.events, driver)
                    measured.append(measure(cluster, load))
                    print(to_table(measured).splitlines()[-1], file=sys.stderr, flush=True)
    print(f"{to_table(measured)}\n\n{conclusion(measured)}")


if __name__ == "__main__":
    main()
