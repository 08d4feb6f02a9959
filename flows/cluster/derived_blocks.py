"""Work on colours that are there, of which others are made: no engine is opened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np

from flows.cluster.worker import BlockDone, BlockFailed, Reporter, Task, failed
from pipeline.errors import StoreError
from pipeline.store import ChromaVersion, ScanStore
from pipeline.support.malloc import tune_process
from pipeline.tiling.overlap_stats import OverlapStats
from pipeline.types import Roi

# Rows that are done at once: those of the store's chunks.
BAND_PX = 512
# Blocks go together up to so many pixels: one of the largest.
_GROUP_PX = 4096 * 4096


class DerivedTask(Task, Protocol):
    """A block to make; ``tiles`` are those of it to be told."""

    @property
    def tiles(self) -> int: ...

    @property
    def topic(self) -> str: ...


T = TypeVar("T", bound=Task)
D = TypeVar("D", bound=DerivedTask)


def run_each(tasks: Iterable[T], work: Callable[[T], None]) -> list[BlockDone | BlockFailed]:
    """Do ``work`` for some scans. What goes wrong with one is that scan's."""
    return [_one(task, work) for task in tasks]


def run_blocks(tasks: tuple[D, ...], work: Callable[[D], None]) -> list[BlockDone | BlockFailed]:
    """Make some blocks of one topic. Repeating it changes nothing; what goes wrong with one is that block's."""
    tune_process()
    report = Reporter(tasks[0].topic)
    done = []
    for task in tasks:
        done.append(_one(task, work))
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


def grouped_blocks(tasks: Iterable[D], block_px: int) -> Iterator[tuple[D, ...]]:
    """The tasks in groups that go to a worker together."""
    group = list[D]()
    for task in tasks:
        group.append(task)
        if len(group) * block_px**2 >= _GROUP_PX:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)


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


def bands(roi: Roi) -> Iterator[Roi]:
    """A block in bands, from top to bottom."""
    for y in range(roi.y0, roi.y1, BAND_PX):
        yield replace(roi, y0=y, y1=min(y + BAND_PX, roi.y1))


def agreement_of(before: ChromaVersion, roi: Roi) -> OverlapStats:
    """How far the tiles of the colours before agreed, which stays told of what is made from them."""
    told, scale = before.agreement(roi), np.float32(before.scale_factor)
    return OverlapStats(told.mean * scale, told.spread * scale, told.weight)
