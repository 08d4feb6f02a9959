"""What a Dask worker does for grades with a goal: no engine is opened, and no network asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.cluster.derived_blocks import run_each
from flows.cluster.worker import BlockDone, BlockFailed
from pipeline.colour.grading import Grade, factor_for
from pipeline.colour.lab import chroma_from_half, lightness_from_samples
from pipeline.errors import UsageError
from pipeline.store import ChromaVersion, ScanStore
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


def run_factors(tasks: tuple[FactorTask, ...]) -> list[BlockDone | BlockFailed]:
    """Find and keep the factors of some scans."""
    return run_each(tasks, _find_factor)


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
