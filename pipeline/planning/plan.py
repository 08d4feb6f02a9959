"""The cost of a scan, computed before any work starts, and the block size that fits.

The byte counts are the memory that the stages hold at once, derived from the code and checked against a measured run in
the tests.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

from pipeline.errors import UsageError
from pipeline.planning.limits import CLIENT_BYTES, KEPT_BYTES, MIB, SERVER_BYTES, WORKER_BYTES, too_much
from pipeline.store import BLOCK_SIZES_PX, SCAN_SHARD_PX
from pipeline.tiling.grid import TileAxis, TileGrid
from pipeline.types import ScanInfo

# A worker's second engine, for the whole scan shrunk to 512 px, and a window of the scan during shrinking.
ANCHOR_BYTES = 120 * MIB
# A U-Net holds a few full-resolution feature maps while a tile passes through it.
_ACTIVATION_BYTES_PER_PX = 260
# Lightness 4, two sums 8, coverage 4, one float16 copy 4, its encoded chunks 4, temporaries of RGB reduction 12.
_BLOCK_BYTES_PER_PX = 36
_WIDEST_SAMPLE_BYTES = 6
# There is one window more in memory than threads. Ingesting a shard holds samples, chunks and the shard; exporting a
# segment holds samples, stored and wide chroma, L*, RGB, its half-size copy and encoded tiles.
_INGEST_COPIES = 3
_EXPORT_PX = 2**20
_EXPORT_BYTES_PER_PX = 40
# A scan with at most this many tiles is not divided among the workers if they have other scans to do.
_SMALL_TILES = 128
# Threads of an ingest and of an export: with more threads the disk is the limit.
STREAM_THREADS = 4
# Kept free for ingest and export of the neighbouring scans when the number of threads is chosen.
_STREAM_BYTES = 352 * MIB


@dataclass(frozen=True)
class Workers:
    """Division of the processors: ``processes`` x ``threads`` blocks at once, each with ``engine_threads``."""

    processes: int
    threads: int
    engine_threads: int

    @property
    def blocks_at_once(self) -> int:
        return self.processes * self.threads


@dataclass(frozen=True)
class LibraryMemory:
    """Memory that libraries hold beside our own arrays.

    Attributes
    ----------
    engine_bytes : in each worker, beyond a float32 engine with one stream
    decoder_bytes : for the scan's reader (:class:`pipeline.types.ScanReader`); 0 if the file is not read
    writer_bytes : for the formats in which the result is written
    palette_bytes : for the palette network in each worker, which is freed before blocks are computed
    """

    engine_bytes: int = 0
    decoder_bytes: int = 0
    writer_bytes: int = 0
    palette_bytes: int = 0


NO_LIBRARY_MEMORY = LibraryMemory()


@dataclass(frozen=True)
class Plan:
    """Projected work and cost of one scan.

    Attributes
    ----------
    megapixels, tiles : size of the scan; number of tiles in its grid
    block_px, blocks : side of an output block; number of blocks
    predictions : predicted tiles; those on block edges count once for each block
    stream_threads : threads of the ingest and of the export
    memory_bytes : peak of all processes together
    disk_bytes : store, result and temporary files, before compression
    """

    megapixels: float
    tiles: int
    block_px: int
    blocks: int
    predictions: int
    stream_threads: int
    memory_bytes: int
    disk_bytes: int


def batch_for(tile_yx: tuple[int, int]) -> int:
    """Tiles per prediction: eight of 256x256, one of 512x1024 or more."""
    return max(1, min(8, 8 * 256 * 256 // (tile_yx[0] * tile_yx[1])))


def _tiles_per_block(axis: TileAxis, block_px: int) -> list[int]:
    return [len(axis.touching(b, min(axis.extent, b + block_px))) for b in range(0, axis.extent, block_px)]


def _filled(tiles: int, batch: int) -> int:
    """Tiles that the engine computes: every batch is padded to full size."""
    return -(-tiles // batch) * batch


def _makespan(tiles: list[int], workers: int) -> int:
    """Tiles that the busiest of ``workers`` predicts if the largest blocks go first."""
    load = [0] * workers
    for count in sorted(tiles, reverse=True):
        heapq.heappush(load, heapq.heappop(load) + count)
    return max(load)


def _tile_bytes(tile_yx: tuple[int, int], batch: int) -> int:
    return batch * tile_yx[0] * tile_yx[1] * _ACTIVATION_BYTES_PER_PX


def threads_that_fit(processes: int, tile_yx: tuple[int, int], limit_bytes: int) -> int:
    """Number of smallest blocks that each of ``processes`` can compute at once within ``limit_bytes``; at least 1."""
    sides = [BLOCK_SIZES_PX[-1] + 2 * side for side in tile_yx]
    each = sides[0] * sides[1] * (_BLOCK_BYTES_PER_PX + _WIDEST_SAMPLE_BYTES) + _tile_bytes(tile_yx, batch_for(tile_yx))
    free = limit_bytes - CLIENT_BYTES - SERVER_BYTES - processes * (WORKER_BYTES + ANCHOR_BYTES) - _STREAM_BYTES
    return max(1, free // (each * processes))


def _memory_bytes(
    info: ScanInfo,
    grid: TileGrid,
    block_px: int,
    batch: int,
    workers: Workers,
    has_anchor: bool,
    held: LibraryMemory,
    scans: int,
    stream_threads: int,
) -> int:
    sample_bytes = _sample_bytes(info)
    rows, columns = grid.block_counts_yx(block_px)
    height, width = (
        min(block_px, axis.extent) + 2 * (axis.size - 1) if len(axis.starts) > 1 else axis.covered_extent
        for axis in (grid.y, grid.x)
    )
    block_bytes = (
        min(height, grid.y.covered_extent) * min(width, grid.x.covered_extent) * (_BLOCK_BYTES_PER_PX + sample_bytes)
    )
    colorize = min(workers.blocks_at_once, rows * columns) * (block_bytes + _tile_bytes(grid.tile_yx, batch))
    colorize = max(colorize, workers.processes * held.palette_bytes)
    pixels = info.shape_yx[0] * info.shape_yx[1]
    ingest = ingest_bytes(info, stream_threads, held.decoder_bytes)
    export = (stream_threads + 1) * min(_EXPORT_PX, pixels) * _EXPORT_BYTES_PER_PX + held.writer_bytes
    each = WORKER_BYTES + held.engine_bytes + (ANCHOR_BYTES if has_anchor and not held.palette_bytes else 0)
    fixed = CLIENT_BYTES + SERVER_BYTES + workers.processes * each
    # With several scans, one is exported and another ingested while a third is coloured.
    stages = max(colorize, ingest + export) if scans == 1 else colorize + ingest + export
    return fixed + stages + KEPT_BYTES


def ingest_bytes(info: ScanInfo, threads: int, decoder_bytes: int = 0) -> int:
    """Most memory that an ingest holds, beside the reader's cache; ``decoder_bytes`` is the reader's."""
    window_px = min(SCAN_SHARD_PX**2, info.shape_yx[0] * info.shape_yx[1])
    return (threads + 1) * window_px * _sample_bytes(info) * _INGEST_COPIES + decoder_bytes


def _sample_bytes(info: ScanInfo) -> int:
    """Bytes of a pixel's samples in memory, with its mask; L* samples are held as float32."""
    samples = info.channels * np.dtype(info.dtype).itemsize
    return (samples if info.tone == "srgb" else 4) + (info.result_dtype.itemsize if info.mask else 0)


def _disk_bytes(info: ScanInfo, pictures: int) -> int:
    picture_bytes = (4 if info.mask == "alpha" else 3) * info.result_dtype.itemsize
    # Five thirds: a picture with its smaller levels, and these once more while they wait in temporary files.
    return int(info.shape_yx[0] * info.shape_yx[1] * (_sample_bytes(info) + 4 + pictures * picture_bytes * 5 / 3))


def make_plan(
    info: ScanInfo,
    grid: TileGrid,
    batch: int,
    workers: Workers,
    limit_bytes: int,
    scans: int = 1,
    begun_px: int | None = None,
    has_anchor: bool = False,
    held: LibraryMemory = NO_LIBRARY_MEMORY,
    pictures: int = 1,
    memory_bytes: int | None = None,
) -> Plan:
    """Choose the block size with the shortest projected run that stays below ``limit_bytes``.

    Ingest and export get as many threads as fit beside it, because the engine takes longer than both.

    Parameters
    ----------
    scans : scans in the run; if there are many, a small one need not occupy every worker and its blocks may be large
    begun_px : block size of an interrupted run, kept if it fits, so that its finished blocks count
    has_anchor : whether the workers first compute a palette of the whole scan
    held : memory held by libraries
    pictures : number of formats in which the result is written
    memory_bytes : memory of the machine or its container; a larger ``limit_bytes`` is reduced to it

    Raises
    ------
    UsageError : not even the smallest block fits; the message says how much would.
    """
    most_threads = min(STREAM_THREADS, 2 * workers.blocks_at_once * workers.engine_threads)

    within_bytes = min(limit_bytes, memory_bytes or limit_bytes)

    def needed_bytes(block_px: int, stream_threads: int) -> int:
        return _memory_bytes(info, grid, block_px, batch, workers, has_anchor, held, scans, stream_threads)

    best: tuple[int, int, int] | None = None
    is_one_of_many = scans >= workers.blocks_at_once and len(grid) <= _SMALL_TILES
    sharing = 1 if is_one_of_many else workers.blocks_at_once
    for block_px in BLOCK_SIZES_PX:
        fitting = (n for n in range(most_threads, 0, -1) if needed_bytes(block_px, n) <= within_bytes)
        stream_threads = next(fitting, 0)
        if not stream_threads:
            continue
        rows, columns = (_tiles_per_block(axis, block_px) for axis in (grid.y, grid.x))
        span = _makespan([_filled(a * b, batch) for a in rows for b in columns], sharing)
        if best is None or span < best[0]:
            best = span, block_px, stream_threads
        if block_px == begun_px:
            best = 0, block_px, stream_threads
    if best is None:
        smallest_bytes = needed_bytes(BLOCK_SIZES_PX[-1], 1)
        projected = f"projected memory {smallest_bytes / 2**30:.2f} GiB even with {BLOCK_SIZES_PX[-1]}-px blocks"
        instead = "a smaller --tile, or fewer --workers"
        raise UsageError(too_much(projected, smallest_bytes, limit_bytes, memory_bytes, instead), "limit-memory")
    _, block_px, stream_threads = best
    rows, columns = (_tiles_per_block(axis, block_px) for axis in (grid.y, grid.x))
    return Plan(
        megapixels=info.megapixels,
        tiles=len(grid),
        block_px=block_px,
        blocks=len(rows) * len(columns),
        predictions=sum(rows) * sum(columns),
        stream_threads=stream_threads,
        memory_bytes=needed_bytes(block_px, stream_threads),
        disk_bytes=_disk_bytes(info, pictures),
    )
