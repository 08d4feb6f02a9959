"""What a Dask worker runs: output blocks, from samples in the store to chroma in the store."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from distributed import Worker, WorkerPlugin, get_worker

from engines.select import open_engine
from engines.spec import Engine, EngineSpec
from pipeline.color import lightness_from_samples
from pipeline.colorize import BlockWork, Known, colorize_blocks, lightness_roi
from pipeline.grid import TileGrid
from pipeline.process import tune_process
from pipeline.store import ScanStore

_ENGINES_KEPT = 2
_TELL_SECONDS = 1.0
_engines: dict[EngineSpec, Engine] = {}
_engines_lock = threading.Lock()


@dataclass(frozen=True)
class Reuse:
    """A finished version of a coarser grid, whose tiles need not be predicted again."""

    version: str
    grid: TileGrid


@dataclass(frozen=True)
class BlockTask:
    """All that a worker needs to make one block; a few hundred bytes."""

    scan: str
    store: Path
    version: str
    grid: TileGrid
    block_px: int
    index_yx: tuple[int, int]
    window: str
    engine: EngineSpec
    attempt: str
    topic: str
    reuse: Reuse | None = None


@dataclass(frozen=True)
class BlockDone:
    """A block that is stored: its scan, the tiles predicted for it, and the seconds that they took."""

    scan: str
    tiles: int
    seconds: float


@dataclass(frozen=True)
class BlockFailed:
    """A block that could not be made, and why."""

    scan: str
    error: Exception


def engine_for(spec: EngineSpec) -> Engine:
    """This process's engine for ``spec``: opened once, shared by its threads, kept while the process lives.

    The oldest goes when there are more than two, so that a worker that serves many runs does not fill up.
    """
    with _engines_lock:
        if spec not in _engines:
            while len(_engines) >= _ENGINES_KEPT:
                _engines.pop(next(iter(_engines)))
            _engines[spec] = open_engine(spec)
        return _engines[spec]


class EnginePlugin(WorkerPlugin):
    """Opens a run's engine when a worker starts, once a process.

    A worker that joins later, or that its nanny starts anew, gets it as well. The engine stays until the process ends
    or others take its place: another run on the same workers may be using it.
    """

    def __init__(self, spec: EngineSpec, name: str) -> None:
        self._spec = spec
        self.name = name

    async def setup(self, worker: Worker) -> None:
        # In a thread: compiling can take long, and a worker that does not answer meanwhile counts as lost. What goes
        # wrong here will go wrong again, and be reported, where a block needs the engine.
        with contextlib.suppress(Exception):
            await asyncio.to_thread(engine_for, self._spec)


class _Reporter:
    """Tells the scheduler's listeners how many tiles are done, at most once a second: each message costs it time."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._tiles: dict[str, int] = {}
        self._told = time.monotonic()
        try:
            self._worker: Worker | None = get_worker()
        except ValueError:
            self._worker = None

    def add(self, scan: str, tiles: int) -> None:
        self._tiles[scan] = self._tiles.get(scan, 0) + tiles
        if time.monotonic() - self._told > _TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        if self._worker is not None:
            for scan, tiles in self._tiles.items():
                self._worker.log_event(self._topic, {"scan": scan, "tiles": tiles})
        self._tiles.clear()
        self._told = time.monotonic()


def _work(task: BlockTask) -> BlockWork:
    """Read what a block needs."""
    store = ScanStore.open(task.store)
    block = task.grid.block(task.index_yx, task.block_px)
    lightness = lightness_from_samples(store.read_scan(lightness_roi(task.grid, block)))
    known = None
    if task.reuse is not None:
        before = store.version(task.reuse.version)
        known = Known(task.reuse.grid, before.read(block.write_roi).astype(np.float32))
    return BlockWork(task.grid, block, task.window, lightness, known)


def _made(tasks: tuple[BlockTask, ...], engine: Engine) -> Iterator[BlockDone]:
    """Predict, blend and store blocks that share their engine's batches."""
    report = _Reporter(tasks[0].topic)
    alone = len(tasks) == 1
    tiles: list[int] = []

    def works() -> Iterator[BlockWork]:
        for task in tasks:
            work = _work(task)
            tiles.append(len(work.tiles_yx()))
            # Known tiles are done; those of a large block are told batch by batch.
            report.add(task.scan, len(work.block.tiles_yx) - (tiles[-1] if alone else 0))
            yield work

    def predicted(count: int) -> None:
        if alone:
            report.add(tasks[0].scan, count)

    spec = tasks[0].engine
    started = time.perf_counter()
    chromas = colorize_blocks(works(), spec.tile_yx, engine.predict, spec.batch, predicted)
    for index, (task, chroma) in enumerate(zip(tasks, chromas, strict=True)):
        seconds = time.perf_counter() - started
        version = ScanStore.open(task.store, writable=True).version(task.version)
        version.write(task.index_yx, chroma, task.attempt, tiles[index], seconds)
        yield BlockDone(task.scan, tiles[index], seconds)
        started = time.perf_counter()
    report.tell()


def _is_there(task: BlockTask) -> bool:
    """Whether the block was finished before: Dask repeats a task whose result was lost with its worker."""
    version = ScanStore.open(task.store).find_version(task.version)
    return version is not None and version.attempt == task.attempt and version.has_block(task.index_yx)


def run_blocks(tasks: tuple[BlockTask, ...]) -> list[BlockDone | BlockFailed]:
    """Make some blocks of one engine and topic. Repeating it changes nothing.

    What goes wrong with one of several blocks is that block's: the others are then made each for itself.
    """
    tune_process()
    try:
        missing = tuple(task for task in tasks if not _is_there(task))
        there = [BlockDone(task.scan, 0, 0.0) for task in tasks if task not in missing]
        return [*there, *(_made(missing, engine_for(missing[0].engine)) if missing else ())]
    except Exception as error:
        if len(tasks) == 1:
            return [BlockFailed(tasks[0].scan, error)]
    return [result for task in tasks for result in run_blocks((task,))]
