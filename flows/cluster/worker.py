"""What a Dask worker runs: output blocks, from samples in the store to chroma in the store."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from distributed import Worker, WorkerPlugin, get_worker
from numpy.typing import NDArray

from engines.errors import EngineError, ModelError
from engines.palette import PaletteNetwork
from engines.registry import open_engine
from engines.spec import PALETTE, Engine, EngineSpec, OnDevice
from pipeline.errors import ColorizeError, StoreBusyError, StoreError
from pipeline.palettes.answers import PLAIN, Taste, answers_of, sureness
from pipeline.palettes.doubt import Calibration, doubt_of, spread_of
from pipeline.palettes.series import sureness_of
from pipeline.palettes.windows import distribution_of, palette_of
from pipeline.quality.score import refined
from pipeline.store import BlockTiming, ChromaVersion, ScanStore
from pipeline.support.array_backend import HOST, Device
from pipeline.support.malloc import tune_process
from pipeline.support.text import reason_of
from pipeline.tiling.anchor import Anchor, anchor_of, overview, shrinking
from pipeline.tiling.grid import Block, TileGrid, TileOrigins
from pipeline.tiling.infer import BlockInput, ReusedTiles, colorize_blocks, lightness_roi
from pipeline.tiling.palette import Palette
from pipeline.types import Roi

_ENGINES_KEPT = 3
_TELL_SECONDS = 1.0
_TRIES = 5
# Part of Dask's own worker log, which its dashboard shows, and which a run's own cluster does not print.
_log = logging.getLogger("distributed.worker.blocks")
_engines: dict[EngineSpec, Engine] = {}
_engines_lock = threading.Lock()


@dataclass(frozen=True)
class Reuse:
    """A finished version of a coarser grid, whose tiles need not be predicted again."""

    version: str
    grid: TileGrid


@dataclass(frozen=True)
class BlockTask:
    """All that a worker needs to make one block; a few hundred bytes. ``grid`` is that of level 0."""

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
    anchor: bool = False
    takes_palette: bool = False
    level: int = 0

    @property
    def block(self) -> Block:
        """Of the grid of this task's level."""
        return refined(self.grid, self.level).block(self.index_yx, self.block_px)

    def at(self, level: int) -> BlockTask:
        """The same block at another level of refinement."""
        return replace(self, level=level)


@dataclass(frozen=True)
class AnchorTask:
    """A scan whose palette is to be made.

    ``engine`` takes the whole of it, shrunk, or is the palette network, which looks at it; ``taste`` says what is taken
    of its distribution. Where it ``is_series``, what comes of it is kept for the joining of its series.
    """

    scan: str
    store: Path
    version: str
    attempt: str
    engine: EngineSpec
    taste: Taste
    is_series: bool = False


@dataclass(frozen=True)
class BlockDone:
    """A block that is stored: its scan, the tiles predicted for it, and the seconds that they took."""

    scan: str
    tiles: int
    seconds: float


class Task(Protocol):
    """Work on one scan."""

    @property
    def scan(self) -> str: ...

    @property
    def store(self) -> Path: ...


class _ChangedError(Exception):
    """A block was written by another worker while this one read it."""


@dataclass(frozen=True)
class BlockFailed:
    """A block that could not be made, and why."""

    scan: str
    error: Exception


def failed(task: Task, error: Exception) -> BlockFailed:
    """A failure as it can travel: with its traceback as a note, which the run's log shows, and which pickling loses.

    Errors that are not the project's own also go to this worker's log.
    """
    if not isinstance(error, ColorizeError | EngineError):
        _log.error("%s: a block could not be made", task.store, exc_info=error)
    with_traceback = "".join(traceback.format_exception(error)).rstrip()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # it holds something of this process
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"In the worker:\n{with_traceback}")
    return BlockFailed(task.scan, error)


def engine_for(spec: EngineSpec) -> Engine:
    """This process's engine for ``spec``: opened once, shared by its threads, kept while the process lives.

    The oldest goes when there are more than three, so that a worker that serves many runs does not fill up.
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


class Reporter:
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


def chosen_tiles(version: ChromaVersion, task: BlockTask, level: int) -> TileOrigins:
    """Tiles that touch the task's block and were chosen for a refinement, in raster order."""
    grid = refined(task.grid, level)
    chosen = version.chosen(level)
    rows, columns = ({start: i for i, start in enumerate(axis.starts)} for axis in (grid.y, grid.x))
    return tuple(tile for tile in task.at(level).block.tile_origins if chosen[rows[tile[0]], columns[tile[1]]])


def _reused(store: ScanStore, version: ChromaVersion, task: BlockTask, roi: Roi) -> ReusedTiles | None:
    """Tiles that need not be predicted: of the levels below, or of a version with twice the stride."""
    if task.level:
        extra = tuple(tile for level in range(1, task.level) for tile in chosen_tiles(version, task, level))
        reused = ReusedTiles(task.grid, version.read(roi), version.agreement(roi, task.level), extra)
        # Two workers may have the same block, if one of them was taken for lost. A block written by one while the other
        # reads it has no level, or this level.
        if version.level_of(task.index_yx) >= task.level or not version.has_block(task.index_yx):
            raise _ChangedError
        return reused
    if task.reuse is not None:
        before = store.version(task.reuse.version)
        return ReusedTiles(task.reuse.grid, before.read(roi), before.agreement(roi))
    return None


def _work(task: BlockTask) -> BlockInput:
    """Read what a block needs."""
    store = ScanStore.open(task.store)
    version = store.version(task.version)
    block = task.block
    grid = refined(task.grid, task.level)
    return BlockInput(
        grid=grid,
        block=block,
        window=task.window,
        samples=store.read_seen(lightness_roi(grid, block)),
        reused=_reused(store, version, task, block.write_roi),
        anchor=version.anchor(store.info.shape_yx) if task.anchor and not task.takes_palette else None,
        palette=version.palette(store.info.shape_yx) if task.takes_palette else None,
        chosen=chosen_tiles(version, task, task.level) if task.level else None,
    )


def device_of(engine: Engine) -> Device:
    """Where ``engine`` takes its tiles and leaves its predictions."""
    if isinstance(engine, OnDevice):
        return Device(engine.array_namespace, engine.to_device, engine.to_host)
    return HOST


def _made(tasks: tuple[BlockTask, ...], engine: Engine) -> Iterator[BlockDone]:
    """Predict, blend and store blocks that share their engine's batches."""
    report = Reporter(tasks[0].topic)
    alone = len(tasks) == 1
    tiles: list[int] = []

    def begun(task: BlockTask) -> BlockInput:
        work = _work(task)
        tiles.append(len(work.tile_origins()))
        # Known tiles are done; those of a large block are told batch by batch.
        if not task.level:
            report.add(task.scan, len(work.block.tile_origins) - (tiles[-1] if alone else 0))
        return work

    def predicted(count: int) -> None:
        if alone and not tasks[0].level:
            report.add(tasks[0].scan, count)

    spec = tasks[0].engine
    started = time.perf_counter()
    # Inputs are passed on one by one and not kept here, so that a block's samples are freed once its lightness is made.
    works = map(begun, tasks)
    made = colorize_blocks(works, spec.tile_yx, engine.predict, spec.batch, predicted, device_of(engine))
    for index, (task, coloured) in enumerate(zip(tasks, made, strict=True)):
        seconds = time.perf_counter() - started
        version = ScanStore.open(task.store, writable=True).version(task.version)
        version.write(task.index_yx, coloured, task.attempt, BlockTiming(tiles[index], seconds, task.level))
        yield BlockDone(task.scan, tiles[index], seconds)
        started = time.perf_counter()
    report.tell()


def _is_there(task: BlockTask) -> bool:
    """Whether the block was finished before: Dask repeats a task whose result was lost with its worker."""
    version = ScanStore.open(task.store).find_version(task.version)
    return version is not None and version.attempt == task.attempt and version.has_block(task.index_yx, task.level)


def _catch_up(tasks: tuple[BlockTask, ...]) -> None:
    """Remake the lower levels of blocks without a valid record, after a stop between writing shard and record."""
    for level in range(max((task.level for task in tasks), default=0)):
        below = [task.at(level) for task in tasks if level < task.level]
        for task in below:
            version = ScanStore.open(task.store).version(task.version)
            if not _is_there(task) and (not level or chosen_tiles(version, task, level)):
                for _ in _made((task,), engine_for(task.engine)):
                    pass


def run_anchors(tasks: tuple[AnchorTask, ...]) -> list[BlockDone | BlockFailed]:
    """Make the palettes of some scans. What goes wrong with one is that scan's.

    The palette network goes when they are made: blocks need its memory.
    """
    tune_process()
    with contextlib.ExitStack() as opened:
        # Loading a network takes longer than a palette.
        network_of = functools.cache(lambda spec: opened.enter_context(PaletteNetwork(spec)))
        return [_made_anchor(task, network_of) for task in tasks]


def _made_anchor(task: AnchorTask, network_of: Callable[[EngineSpec], PaletteNetwork]) -> BlockDone | BlockFailed:
    started = time.perf_counter()
    try:
        store = ScanStore.open(task.store)
        version = store.version(task.version)
        if version.attempt == task.attempt and not version.has_anchor:
            if task.engine.network == PALETTE:
                _make_palette(store, version, network_of(task.engine), task)
            else:
                version.write_anchor(_anchor(store, task.engine), task.attempt)
    except Exception as error:
        return failed(task, error)
    return BlockDone(task.scan, 0, time.perf_counter() - started)


def _make_palette(store: ScanStore, version: ChromaVersion, network: PaletteNetwork, task: AnchorTask) -> None:
    """Look at the scan, keep its palette, and before it how wrong that probably is."""
    card, shape_yx = network.card, store.info.shape_yx
    distribution = distribution_of(store.read_seen, shape_yx, card.side_px, card.cells, network.see)
    colours_ab = np.array(card.colours_ab, np.float32)
    version.write_answers(answers_of(distribution, colours_ab), task.attempt)
    palette = palette_of(distribution, colours_ab, shape_yx, card.gain, task.taste)
    if card.has_doubt:
        calibration = Calibration(*card.cell_doubt)
        if task.taste.is_cautious:
            kept = sureness(calibration.expect(spread_of(distribution, colours_ab)).astype(np.float32))
            palette = replace(palette, cells=palette.cells * kept)
        spread = spread_of(distribution, colours_ab, _chosen_ab(palette, task.taste, card.gain))
        cells = calibration.expect(spread).astype(np.float32)
        version.write_doubt(doubt_of(spread, Calibration(*card.scan_doubt)), cells, task.attempt)
    if task.is_series:
        seen = overview(store.read_seen, shape_yx, shrinking(shape_yx))
        own = np.concatenate([palette.cells, sureness_of(distribution)[None]])
        version.write_reading(seen, own, task.attempt)
    else:
        version.write_anchor(palette, task.attempt)


def _chosen_ab(palette: Palette, taste: Taste, gain: float) -> NDArray[np.float32] | None:
    """What spreads are measured around; None is the mean, for which they were calibrated with the model's own gain."""
    return None if taste == PLAIN else palette.cells / np.float32(gain)


def _anchor(store: ScanStore, spec: EngineSpec) -> Anchor:
    side = spec.tile_yx[0]
    try:
        return anchor_of(store.read_seen, store.info.shape_yx, side, engine_for(spec).predict)
    except StoreError:
        raise
    except Exception as error:  # each runtime has its own kinds
        raise ModelError(
            f"{spec.model_folder}: cannot colour a shrunk scan of {side}x{side} px ({reason_of(error)}), "
            "so there would be no common palette; give --no-anchor, or a model that takes tiles of any size"
        ) from error


def run_blocks(tasks: tuple[BlockTask, ...]) -> list[BlockDone | BlockFailed]:
    """Make some blocks of one engine and topic. Repeating it changes nothing.

    An error in one of several blocks is that block's failure alone: the others are then made one by one.
    """
    tune_process()
    for _ in range(_TRIES):
        try:
            missing = tuple(task for task in tasks if not _is_there(task))
            _catch_up(missing)
            there = [BlockDone(task.scan, 0, 0.0) for task in tasks if task not in missing]
            return [*there, *(_made(missing, engine_for(missing[0].engine)) if missing else ())]
        except _ChangedError:
            continue
        except Exception as error:
            if len(tasks) == 1:
                return [failed(tasks[0], error)]
            break
    if len(tasks) == 1:
        busy = StoreBusyError(f"{tasks[0].store}: other workers write the same block again and again; run it again")
        return [BlockFailed(tasks[0].scan, busy)]
    return [result for task in tasks for result in run_blocks((task,))]
