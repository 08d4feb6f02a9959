"""What a Dask worker does where colours that are there are changed: no engine is opened, and no network asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from flows.cluster.worker import BlockDone, BlockFailed, Reporter, Task, failed
from pipeline.colour.grading import Grade, factor_for
from pipeline.colour.lab import chroma_from_half, lightness_from_samples
from pipeline.errors import StoreError, UsageError
from pipeline.store import BlockTiming, ChromaVersion, ScanStore
from pipeline.support.malloc import tune_process
from pipeline.tiling.infer import BlockResult
from pipeline.tiling.overlap_stats import OverlapStats
from pipeline.types import Roi

T = TypeVar("T", bound=Task)
F32 = NDArray[np.float32]
# Rows that are done at once: those of the store's chunks.
_BAND_PX = 512
# Of a scan, for a goal: half a million pixels know the spread of its colours to well below a per cent.
_SAMPLED_PX = 2**19
_WINDOW_PX = 2048  # the shards of the samples: each is read once


@dataclass(frozen=True)
class FactorTask:
    """A scan whose factor on chroma is to be found, of one version whose colours are made from those of another."""

    scan: str
    store: Path
    version: str
    attempt: str
    graded_from: str
    grade: Grade


@dataclass(frozen=True)
class GradeTask:
    """All that a worker needs to make one block of such a version; ``tiles`` are those that touch it, to be told."""

    scan: str
    store: Path
    version: str
    attempt: str
    graded_from: str
    grade: Grade
    index_yx: tuple[int, int]
    write_roi: Roi
    tiles: int
    topic: str


def run_factors(tasks: tuple[FactorTask, ...]) -> list[BlockDone | BlockFailed]:
    """Find and keep the factors of some scans. What goes wrong with one is that scan's."""
    return [_one(task, _find_factor) for task in tasks]


def run_grades(tasks: tuple[GradeTask, ...]) -> list[BlockDone | BlockFailed]:
    """Make some blocks of one topic. Repeating it changes nothing; what goes wrong with one is that block's."""
    tune_process()
    report = Reporter(tasks[0].topic)
    done = []
    for task in tasks:
        done.append(_one(task, _grade))
        report.add(task.scan, task.tiles)
    report.tell()
    return done


def _one(task: T, work: Callable[[T], None]) -> BlockDone | BlockFailed:
    started = time.perf_counter()
    try:
        work(task)
    except Exception as error:
        return failed(task, error)
    return BlockDone(task.scan, 0, time.perf_counter() - started)


def _find_factor(task: FactorTask) -> None:
    store = ScanStore.open(task.store, writable=True)
    version = store.version(task.version)
    if version.factor is not None:
        return
    try:
        factor = factor_for(task.grade, *sampled(store, store.version(task.graded_from)))
    except UsageError:
        store.remove_version(task.version)  # nothing will ever come of it
        raise
    version.write_factor(factor, task.attempt)


def sampled(store: ScanStore, version: ChromaVersion, most_px: int = _SAMPLED_PX) -> tuple[F32, F32]:
    """(2, 1, n) a*, b* and (1, n) L* of every so manieth pixel and row of the picture, read window by window.

    Pixels and not means: those would be calmer than the picture. Where nothing is to be coloured there is no picture.
    Raises StoreError.
    """
    height, width = store.info.shape_yx
    step = max(1, round((height * width / most_px) ** 0.5))
    chroma, lightness = [np.empty((2, 0), np.float32)], [np.empty(0, np.float32)]
    for y in range(0, height, _WINDOW_PX):
        for x in range(0, width, _WINDOW_PX):
            roi = Roi(y, y + _WINDOW_PX, x, x + _WINDOW_PX).clipped((height, width))
            every = slice(-y % step, None, step), slice(-x % step, None, step)
            bare = store.uncoloured(roi)
            kept = slice(None) if bare is None else ~bare[every].ravel()
            half = version.read(roi)[:, every[0], every[1]].reshape(2, -1)
            samples = lightness_from_samples(np.ascontiguousarray(store.read_scan(roi)[every]), store.info.tone)
            chroma.append(chroma_from_half(half[:, kept], version.scale_factor))
            lightness.append(samples.ravel()[kept])
    return np.concatenate(chroma, 1)[:, None], np.concatenate(lightness)[None]


def _grade(task: GradeTask) -> None:
    started = time.perf_counter()
    store = ScanStore.open(task.store, writable=True)
    before, version = store.version(task.graded_from), store.version(task.version)
    if version.attempt == task.attempt and version.has_block(task.index_yx):
        return  # Dask repeats a task whose result was lost with its worker
    check_blocks(store, before, task.write_roi)
    factor = 1.0 if task.grade.colourfulness is None else version.factor
    if factor is None:
        raise StoreError(f"{version.path}: its factor is gone, so its blocks would differ; run it again with --force")
    chroma = np.empty((2, *task.write_roi.shape_yx), np.float16)
    for band in _bands(task.write_roi):
        rows = slice(band.y0 - task.write_roi.y0, band.y1 - task.write_roi.y0)
        bare = store.uncoloured(band)
        coloured = None if bare is None else ~bare
        colours = chroma_from_half(before.read(band), before.scale_factor)
        chroma[:, rows] = task.grade.apply(colours, store.read_lightness(band), coloured, factor)
    told = before.agreement(task.write_roi)
    # How far the tiles agreed is told as it was: that of the colours before.
    scale = np.float32(before.scale_factor)
    agreement = OverlapStats(told.mean * scale, told.spread * scale, told.weight)
    seconds = time.perf_counter() - started
    version.write(task.index_yx, BlockResult(chroma, agreement), task.attempt, BlockTiming(0, seconds))


def check_blocks(store: ScanStore, before: ChromaVersion, roi: Roi) -> None:
    """Raises StoreError where colours that are read are not those that were written."""
    side = before.block_px
    for y in range(roi.y0 // side, -(-roi.y1 // side)):
        for x in range(roi.x0 // side, -(-roi.x1 // side)):
            if not before.has_block((y, x)):
                raise StoreError(
                    f"{store.path}: block {y}, {x} of version {before.name} is damaged, and so would be what is made "
                    "from it; make that version again first (colorize-archive run --force)"
                )


def _bands(roi: Roi) -> Iterator[Roi]:
    for y in range(roi.y0, roi.y1, _BAND_PX):
        yield replace(roi, y0=y, y1=min(y + _BAND_PX, roi.y1))
