"""What a Dask worker does where colours that are there are changed: no engine is opened, and no network asked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.cluster.derived_blocks import agreement_of, bands, check_blocks, run_blocks, run_each
from flows.cluster.worker import BlockDone, BlockFailed
from pipeline.colour.grading import Grade, factor_for
from pipeline.colour.lab import chroma_from_half, lightness_from_samples
from pipeline.errors import StoreError, UsageError
from pipeline.store import BlockTiming, ChromaVersion, ScanStore
from pipeline.tiling.infer import BlockResult
from pipeline.types import Roi

F32 = NDArray[np.float32]
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
    """All that a worker needs to make one block of such a version; ``tiles`` are those that touch it, to be told.

    ``alike`` names a version with the same colours but in the grade's last region; empty where there is none.
    """

    scan: str
    store: Path
    version: str
    attempt: str
    graded_from: str
    grade: Grade
    alike: str
    index_yx: tuple[int, int]
    write_roi: Roi
    tiles: int
    topic: str


def run_factors(tasks: tuple[FactorTask, ...]) -> list[BlockDone | BlockFailed]:
    """Find and keep the factors of some scans."""
    return run_each(tasks, _find_factor)


def run_grades(tasks: tuple[GradeTask, ...]) -> list[BlockDone | BlockFailed]:
    """Make some graded blocks of one topic."""
    return run_blocks(tasks, _grade)


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
    if _is_copied(task, store, version):
        return
    check_blocks(store, before, task.write_roi)
    grade, shape_yx = task.grade, store.info.shape_yx
    factor = 1.0 if grade.colourfulness is None else version.factor
    if factor is None:
        raise StoreError(f"{version.path}: its factor is gone, so its blocks would differ; run it again with --force")
    chroma = np.empty((2, *task.write_roi.shape_yx), np.float16)
    for band in bands(task.write_roi):
        rows = slice(band.y0 - task.write_roi.y0, band.y1 - task.write_roi.y0)
        half = before.read(band)
        if before.scale_factor == version.scale_factor and not grade.touches(band):
            chroma[:, rows] = half
            continue
        bare = store.uncoloured(band)
        coloured = None if bare is None else ~bare
        lightness = store.read_lightness(band)
        graded = grade.apply(chroma_from_half(half, before.scale_factor), lightness, coloured, factor)
        chroma[:, rows] = grade.apply_regions(graded, band, shape_yx, lightness, coloured)
    agreement = agreement_of(before, task.write_roi)
    seconds = time.perf_counter() - started
    version.write(task.index_yx, BlockResult(chroma, agreement), task.attempt, BlockTiming(0, seconds))


def _is_copied(task: GradeTask, store: ScanStore, version: ChromaVersion) -> bool:
    """Take over the block of the version that has the same colours but in the last region, where that is not here."""
    alike = store.find_version(task.alike) if task.alike else None
    last = task.grade.regions[-1].region if task.grade.regions else None
    if alike is None or last is None or last.part_of(task.write_roi) is not None:
        return False
    is_same_layout = (alike.block_px, alike.scale_factor) == (version.block_px, version.scale_factor)
    if not is_same_layout or not alike.has_block(task.index_yx):
        return False
    version.copy_block(task.index_yx, alike, task.attempt)
    return True
