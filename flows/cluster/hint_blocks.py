"""What a Dask worker does where hints correct colours that are there: no engine is opened, and no network asked."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flows.cluster.derived_blocks import BAND_PX, agreement_of, bands, check_blocks, run_blocks, run_each
from flows.cluster.worker import BlockDone, BlockFailed
from pipeline.colour.lab import chroma_from_half
from pipeline.errors import StoreError
from pipeline.hints.recolouring import Known, Recolouring, recolouring
from pipeline.hints.spreading import Seen
from pipeline.shapes import Shape
from pipeline.store import BlockTiming, ChromaVersion, ScanStore
from pipeline.tiling.anchor import overview, shrinking, square_means
from pipeline.tiling.infer import BlockResult
from pipeline.types import Roi

F32 = NDArray[np.float32]


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


def known_of(record: Mapping[str, Any]) -> tuple[Known, ...]:
    """The hints of what a hinted version keeps. Raises StoreError."""
    try:
        return tuple(
            Known(
                Shape(each["kind"], tuple(tuple(numbers) for numbers in each["numbers"])),
                (float(each["ab"][0]), float(each["ab"][1])),
                float(each["reach"]),
            )
            for each in record["known"]
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StoreError(f"the hints in the store are damaged ({error}); run it again with --force") from error


def spread_hints(store: ScanStore, before: ChromaVersion, known: tuple[Known, ...]) -> Recolouring:
    """Look at a scan of the store under its hints, and spread them over the colours of the version ``before``.

    :meth:`Recolouring.apply` then shows any region, also of hints that no version has yet. Raises StoreError.
    """
    shape_yx = store.info.shape_yx
    factor = shrinking(shape_yx)
    lightness = overview(store.read_seen, shape_yx, factor)
    seen = Seen(lightness, _predicted(before, shape_yx, lightness.shape, factor), factor, shape_yx)

    @lru_cache(maxsize=4)
    def chunk(y: int, x: int) -> tuple[F32, F32]:
        roi = Roi(y, y + 2 * BAND_PX, x, x + 2 * BAND_PX).clipped(shape_yx)
        return chroma_from_half(before.read(roi), before.scale_factor), store.read_lightness(roi)

    def place(roi: Roi) -> tuple[tuple[F32, F32], slice, slice]:
        y, x = roi.y0 // BAND_PX * BAND_PX, roi.x0 // BAND_PX * BAND_PX
        return chunk(y, x), slice(roi.y0 - y, roi.y1 - y), slice(roi.x0 - x, roi.x1 - x)

    def read_chroma(roi: Roi) -> F32:
        (chroma, _), rows, columns = place(roi)
        return chroma[:, rows, columns]

    def read_lightness(roi: Roi) -> F32:
        (_, lightness), rows, columns = place(roi)
        return lightness[rows, columns]

    return recolouring(known, seen, read_chroma, read_lightness)


def _predicted(before: ChromaVersion, shape_yx: tuple[int, int], small_yx: tuple[int, ...], factor: int) -> F32:
    """(2, h, w) smooth a*, b* that are there, of the shrunk scan: those of the palette, which are at hand."""
    size = small_yx[1], small_yx[0]
    if before.has_anchor:
        cells = before.palette(shape_yx).cells
    else:
        side = max(BAND_PX, factor)
        rows = []
        for y in range(0, shape_yx[0], side):
            band = Roi(y, min(y + side, shape_yx[0]), 0, shape_yx[1])
            chroma = chroma_from_half(before.read(band), before.scale_factor)
            rows.append(np.stack([square_means(np.ascontiguousarray(plane), factor) for plane in chroma]))
        cells = np.concatenate(rows, axis=1)
    planes = [np.ascontiguousarray(plane, np.float32) for plane in cells]
    return np.stack([np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)) for plane in planes])


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
