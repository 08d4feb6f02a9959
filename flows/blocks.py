"""What a Dask worker runs: one output block, from samples in the store to chroma in the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.select import open_engine
from engines.spec import Engine, EngineSpec
from pipeline.color import lightness_from_samples
from pipeline.colorize import colorize_block, lightness_roi
from pipeline.grid import TileGrid
from pipeline.store import ScanStore

_ENGINES_KEPT = 2
_engines: dict[EngineSpec, Engine] = {}
_engines_lock = threading.Lock()


@dataclass(frozen=True)
class BlockTask:
    """All that a worker needs to make one block; a few hundred bytes."""

    scan: str
    store: Path
    grid: TileGrid
    block_px: int
    index_yx: tuple[int, int]
    window: str
    engine: EngineSpec
    attempt: str
    topic: str


@dataclass(frozen=True)
class BlockTimes:
    """Seconds that a block took, by what they went into."""

    tiles: int
    read: float
    colorize: float
    write: float


def engine_for(spec: EngineSpec) -> Engine:
    """This process's engine for ``spec``: opened once, shared by its threads, kept while the process lives.

    The oldest goes when there are more than two, so that a worker that serves many runs does not fill up.
    """
    with _engines_lock:
        if spec not in _engines:
            while len(_engines) >= _ENGINES_KEPT:
                del _engines[next(iter(_engines))]
            _engines[spec] = open_engine(spec)
        return _engines[spec]


def warm_up(spec: EngineSpec | None) -> None:
    """Load what every block needs, and the engine if it is known already."""
    if spec is not None:
        engine_for(spec)


def _reporter(task: BlockTask) -> Callable[[int], None]:
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return lambda tiles: None
    return lambda tiles: worker.log_event(task.topic, {"scan": task.scan, "tiles": tiles})


def run_block(task: BlockTask) -> BlockTimes:
    """Predict, blend and store one block. Repeating it writes the same bytes again."""
    engine = engine_for(task.engine)
    started = time.perf_counter()
    store = ScanStore.open(task.store, writable=True)
    block = task.grid.block(task.index_yx, task.block_px)
    lightness = lightness_from_samples(store.read_scan(lightness_roi(task.grid, block)))
    read = time.perf_counter()
    report = _reporter(task)
    chroma = colorize_block(task.grid, block, task.window, lightness, engine.predict, task.engine.batch, report)
    coloured = time.perf_counter()
    store.write_chroma(block.write_roi, chroma, task.attempt)
    written = time.perf_counter()
    return BlockTimes(len(block.tiles_yx), read - started, coloured - read, written - coloured)
