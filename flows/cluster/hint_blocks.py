"""What a Dask worker does where hints correct colours that are there: no engine is opened, and no network asked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from flows.cluster.derived_blocks import agreement_of, bands, check_blocks, run_blocks, run_each
from flows.cluster.spreading import known_of, spread_hints
from flows.cluster.worker import BlockDone, BlockFailed
from pipeline.colour.lab import chroma_from_half
from pipeline.hints.recolouring import Recolouring
from pipeline.store import BlockTiming, ScanStore
from pipeline.tiling.infer import BlockResult
from pipeline.types import Roi


@dataclass(frozen=True)
class SpreadTask:
    """A scan whose hints are to be spread; ``hints_from`` is the version that they correct."""

    scan: str
    store: Path
    version: str
    attempt: str
    hints_from: str


@dataclass(frozen=True)
class HintTask:
    """All that a worker needs to make one block of a hinted version; ``tiles`` are those of it to be told."""

    scan: str
    store: Path
    version: str
    attempt: str
    hints_from: str
    index_yx: tuple[int, int]
    write_roi: Roi
    tiles: int
    topic: str


def run_spreads(tasks: tuple[SpreadTask, ...]) -> list[BlockDone | BlockFailed]:
    """Spread and keep the hints of some scans."""
    return run_each(tasks, _spread)


def run_hints(tasks: tuple[HintTask, ...]) -> list[BlockDone | BlockFailed]:
    """Make some hinted blocks of one topic."""
    return run_blocks(tasks, _hint)


def _spread(task: SpreadTask) -> None:
    store = ScanStore.open(task.store, writable=True)
    version = store.version(task.version)
    if version.has_correction:
        return
    made = spread_hints(store, store.version(task.hints_from), known_of(version.hints or {}))
    version.write_correction(made.correction, task.attempt)


@lru_cache(maxsize=2)
def _kept(store: Path, version: str, attempt: str) -> Recolouring:
    """What a version keeps of its hints, once for all blocks that a worker makes."""
    opened = ScanStore.open(store).version(version)
    return Recolouring(known_of(opened.hints or {}), opened.correction())


def _hint(task: HintTask) -> None:
    started = time.perf_counter()
    store = ScanStore.open(task.store, writable=True)
    before, version = store.version(task.hints_from), store.version(task.version)
    if version.attempt == task.attempt and version.has_block(task.index_yx):
        return  # Dask repeats a task whose result was lost with its worker
    check_blocks(store, before, task.write_roi)
    made = _kept(task.store, task.version, task.attempt)
    is_alike = (before.block_px, before.scale_factor) == (version.block_px, version.scale_factor)
    if is_alike and not made.touches(task.write_roi):
        version.copy_block(task.index_yx, before, task.attempt)
        return
    chroma = np.empty((2, *task.write_roi.shape_yx), np.float16)
    for band in bands(task.write_roi):
        rows = slice(band.y0 - task.write_roi.y0, band.y1 - task.write_roi.y0)
        half = before.read(band)
        if is_alike and not made.touches(band):
            chroma[:, rows] = half
            continue
        bare = store.uncoloured(band)
        colours = chroma_from_half(half, before.scale_factor)
        chroma[:, rows] = made.apply(colours, band, store.read_lightness(band), None if bare is None else ~bare)
    agreement = agreement_of(before, task.write_roi)
    seconds = time.perf_counter() - started
    version.write(task.index_yx, BlockResult(chroma, agreement), task.attempt, BlockTiming(0, seconds))
