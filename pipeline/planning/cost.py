"""The cost of a run: seconds, processor or GPU hours, disk and network, from a few measured rates. No I/O.

Tiles, blocks and bytes are counted exactly, axis by axis, because a scan of ten gigapixels at stride 32 has ten million
tiles. Seconds are a model: the work of each resource divided by its capacity; the most loaded resource decides.

engines      predict tiles: a thread of a processor each, or a GPU each
blocks       processor work around the engine: read samples, cut and blend tiles, compress and write chroma
streams      ingest and export, by the processors of the machine that runs the command
scheduler    hands out one task after the other, on one processor
storage      moves every byte of store and picture

A worker's thread predicts and blends one block at a time; if several threads share an engine, one blends while another
predicts. Stages of different scans overlap unless they use the same processors; those of one scan follow each other.
Not included: scans that fail, other work on the machines, reading the scan files themselves (twice: once for the hash,
once for the samples), and a slow start of GPU engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from math import ceil, inf

import numpy as np

from pipeline.errors import UsageError
from pipeline.store.arrays import CHUNK_PX
from pipeline.tiling.grid import TileAxis, TileGrid
from pipeline.types import ScanInfo

# Blocks of small scans share a task until it has this many tiles; see flows.cluster.queue.
TASK_TILES = 64
_CHROMA_BYTES = 4
_PICTURE_CHANNELS = 3
# Pixels of all levels of a pyramid, relative to the first: 1 + 1/4 + 1/16 + ...
_PYRAMID = 4 / 3
_MEGA, _HOUR_SECONDS = 1e6, 3600.0


@dataclass(frozen=True)
class Rates:
    """Measured rates.

    Attributes
    ----------
    seconds_per_tile : seconds of one engine for one tile of the workload's size
    ingest_megapixels_per_second, export_megapixels_per_second : scan pixels per second of one processor
    block_megapixels_per_second : scan pixels that one processor reads, averages, compresses and writes
    blend_megapixels_per_second : tile pixels that one processor cuts out and adds up
    scan_left, chroma_left, picture_left : fraction of the bytes that remains after compression
    start_seconds : once per run; seconds_per_scan : per scan, independent of its size, one scan after the other
    scheduler_seconds_per_task : shortest time between two tasks that scheduler and client hand out
    storage_bytes_per_second : rate of the whole storage, reading and writing together
    """

    seconds_per_tile: float
    ingest_megapixels_per_second: float
    block_megapixels_per_second: float
    blend_megapixels_per_second: float
    export_megapixels_per_second: float
    scan_left: float
    chroma_left: float
    picture_left: float
    start_seconds: float
    seconds_per_scan: float
    scheduler_seconds_per_task: float
    storage_bytes_per_second: float = inf

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and field.name.endswith("per_second")):
                raise UsageError(f"rate {field.name} {value}: a cost would be negative or infinite; measure it again")


# One processor of a shared two-processor machine, OpenVINO 2026, the model `default`, tile 256, 8-bit gray:
# python -m tests.benchmarks.costs --rates; the scheduler's rate is from python -m tests.benchmarks.scheduler.
MEASURED = Rates(
    seconds_per_tile=0.049,
    ingest_megapixels_per_second=89.0,
    block_megapixels_per_second=24.0,
    blend_megapixels_per_second=243.0,
    export_megapixels_per_second=21.0,
    scan_left=0.73,
    chroma_left=0.69,
    picture_left=0.42,
    start_seconds=4.0,
    seconds_per_scan=0.054,
    scheduler_seconds_per_task=0.0055,
)


@dataclass(frozen=True)
class Workload:
    """Scans of one size and how they are cut.

    Attributes
    ----------
    scans : number of scans
    shape_yx, channels, dtype : of each scan, as in :class:`pipeline.types.ScanInfo`
    tile_yx, stride_yx, block_px : the grid, and the side of an output block
    """

    scans: int
    shape_yx: tuple[int, int]
    tile_yx: tuple[int, int] = (256, 256)
    stride_yx: tuple[int, int] = (128, 128)
    block_px: int = 2048
    channels: int = 1
    dtype: str = "uint8"

    def __post_init__(self) -> None:
        if min(self.scans, self.block_px) < 1:
            raise UsageError(f"{self.scans} scans, block of {self.block_px} px: each must be at least 1")

    @classmethod
    def of(cls, info: ScanInfo, grid: TileGrid, block_px: int, scans: int = 1) -> Workload:
        """``scans`` scans like ``info``."""
        stride_yx = (grid.y.stride, grid.x.stride)
        return cls(scans, info.shape_yx, grid.tile_yx, stride_yx, block_px, info.channels, info.dtype)

    @cached_property
    def grid(self) -> TileGrid:
        return TileGrid.of(self.shape_yx, self.tile_yx, self.stride_yx)

    @property
    def scan_pixels(self) -> int:
        """Pixels of one scan."""
        return self.shape_yx[0] * self.shape_yx[1]

    @property
    def sample_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Fleet:
    """The available machines.

    Attributes
    ----------
    engines : number of engines that predict at once: processor threads, or GPUs
    threads : number of threads that feed each engine, with a processor each
    processors : number of processors of the machine that ingests and exports
    is_shared : the engines run on these same processors
    """

    engines: int
    threads: int
    processors: int
    is_shared: bool

    def __post_init__(self) -> None:
        if min(self.engines, self.threads, self.processors) < 1:
            raise UsageError(f"{self}: nothing would ever end; each must be at least 1")

    @classmethod
    def of_processors(cls, processors: int) -> Fleet:
        """One machine whose processors do everything, one block each."""
        return cls(processors, 1, processors, True)

    @classmethod
    def of_gpus(cls, gpus: int, processors: int, threads: int = 2) -> Fleet:
        """``gpus`` GPUs, each fed by ``threads`` processors, and a machine with ``processors`` more for the streams."""
        return cls(gpus, threads, processors, False)


@dataclass(frozen=True)
class Counts:
    """Counts for all scans together.

    Attributes
    ----------
    tiles : tiles of the grids
    predictions : predicted tiles; those on block edges count once for each block
    blocks, tasks : output blocks, and tasks of the scheduler, which are fewer if small scans share tasks
    samples_read : scan pixels that blocks read, including margins and whole 512-px chunks
    """

    tiles: int
    predictions: int
    blocks: int
    tasks: int
    samples_read: int


@dataclass(frozen=True)
class _Bytes:
    @property
    def total_bytes(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True)
class Disk(_Bytes):
    """Bytes on disk: samples and chroma of the store, pictures, and unnamed temporary files."""

    scan_bytes: int
    chroma_bytes: int
    picture_bytes: int
    temporary_bytes: int


@dataclass(frozen=True)
class Traffic(_Bytes):
    """Bytes to and from the storage of the store and the pictures, without temporary files.

    Attributes
    ----------
    scan_written_bytes, scan_to_blocks_bytes, scan_to_export_bytes : samples
    chroma_written_bytes, chroma_to_export_bytes : a*, b*
    picture_written_bytes, picture_hashed_bytes : the picture is read once more for its SHA-256
    """

    scan_written_bytes: int
    scan_to_blocks_bytes: int
    scan_to_export_bytes: int
    chroma_written_bytes: int
    chroma_to_export_bytes: int
    picture_written_bytes: int
    picture_hashed_bytes: int


@dataclass(frozen=True)
class Load:
    """Seconds that each resource would need by itself, at full capacity."""

    engines: float
    blocks: float
    streams: float
    scheduler: float
    storage: float

    @property
    def limit(self) -> str:
        """The most loaded resource."""
        return max((field.name for field in fields(self)), key=lambda name: float(getattr(self, name)))


@dataclass(frozen=True)
class Cost:
    """The cost of a workload.

    Attributes
    ----------
    wall_seconds : from the command to its end
    engine_hours : prediction time of all engines
    processor_hours : processor work around the engines, and that of the engines if they run on processors
    held_hours : engines times wall time: the hours to pay for if GPUs are rented for the run
    """

    workload: Workload
    fleet: Fleet
    counts: Counts
    load: Load
    disk: Disk
    traffic: Traffic
    wall_seconds: float
    engine_hours: float
    processor_hours: float
    held_hours: float

    @property
    def limit(self) -> str:
        return self.load.limit


def tiles_per_block(axis: TileAxis, block_px: int) -> list[int]:
    """Number of tiles that touch each block along one axis."""
    return [len(axis.touching(begin, end)) for begin, end in _ranges(axis, block_px)]


def pixels_read(axis: TileAxis, block_px: int) -> int:
    """Pixels along one axis that all blocks together read, in whole chunks of the store."""
    total = 0
    for begin, end in _ranges(axis, block_px):
        starts = axis.touching(begin, end)
        first = starts[0] // CHUNK_PX * CHUNK_PX
        last = ceil((starts[-1] + axis.size) / CHUNK_PX) * CHUNK_PX
        total += min(last, axis.extent) - first
    return total


def _ranges(axis: TileAxis, block_px: int) -> list[tuple[int, int]]:
    return [(begin, min(axis.extent, begin + block_px)) for begin in range(0, axis.extent, block_px)]


def tasks_of(tiles: Iterable[int], most_tiles: int = TASK_TILES) -> int:
    """Number of tasks for blocks with these numbers of tiles, in order: neighbours share a task up to ``most_tiles``.

    >>> tasks_of([30, 30, 30, 200, 4])
    4
    """
    tasks, held = 0, inf
    for count in tiles:
        if held + count > most_tiles:
            tasks, held = tasks + 1, 0
        held += count
    return tasks


def count(workload: Workload) -> Counts:
    """Count tiles, blocks, tasks and samples without enumerating the tiles."""
    grid, scans = workload.grid, workload.scans
    rows, columns = (tiles_per_block(axis, workload.block_px) for axis in (grid.y, grid.x))
    read = pixels_read(grid.y, workload.block_px) * pixels_read(grid.x, workload.block_px)
    return Counts(
        tiles=scans * len(grid),
        predictions=scans * sum(rows) * sum(columns),
        blocks=scans * len(rows) * len(columns),
        tasks=scans * tasks_of(y * x for y, x in product(rows, columns)),
        samples_read=scans * read,
    )


def disk_of(workload: Workload, rates: Rates, at_once: int = 1) -> Disk:
    """Bytes on disk, while ``at_once`` scans are being exported."""
    pixels = workload.scans * workload.scan_pixels
    picture_bytes = _PICTURE_CHANNELS * workload.sample_bytes
    # Lower levels wait uncompressed.
    waiting = min(at_once, workload.scans) * workload.scan_pixels * picture_bytes * (_PYRAMID - 1)
    return Disk(
        scan_bytes=round(pixels * workload.channels * workload.sample_bytes * rates.scan_left),
        chroma_bytes=round(pixels * _CHROMA_BYTES * rates.chroma_left),
        picture_bytes=round(pixels * picture_bytes * _PYRAMID * rates.picture_left),
        temporary_bytes=round(waiting),
    )


def traffic_of(workload: Workload, rates: Rates, counts: Counts, disk: Disk) -> Traffic:
    """Bytes that cross the network if store and pictures are on network storage and nothing is cached."""
    sample_bytes = workload.channels * workload.sample_bytes * rates.scan_left
    return Traffic(
        scan_written_bytes=disk.scan_bytes,
        scan_to_blocks_bytes=round(counts.samples_read * sample_bytes),
        scan_to_export_bytes=disk.scan_bytes,
        chroma_written_bytes=disk.chroma_bytes,
        chroma_to_export_bytes=disk.chroma_bytes,
        picture_written_bytes=disk.picture_bytes,
        picture_hashed_bytes=disk.picture_bytes,
    )


def cost_of(workload: Workload, rates: Rates, fleet: Fleet) -> Cost:
    """The cost of ``workload`` on ``fleet`` at ``rates``."""
    counts = count(workload)
    disk = disk_of(workload, rates, fleet.processors)
    traffic = traffic_of(workload, rates, counts, disk)
    megapixels = workload.scans * workload.scan_pixels / _MEGA
    tile_megapixels = counts.predictions * workload.tile_yx[0] * workload.tile_yx[1] / _MEGA
    engine = counts.predictions * rates.seconds_per_tile
    blocks = megapixels / rates.block_megapixels_per_second + tile_megapixels / rates.blend_megapixels_per_second
    streams = megapixels / rates.ingest_megapixels_per_second + megapixels / rates.export_megapixels_per_second
    each_scan = workload.scans * rates.seconds_per_scan
    load = Load(
        engines=engine / fleet.engines,
        blocks=blocks / (fleet.engines * fleet.threads),
        streams=streams / fleet.processors + each_scan,
        scheduler=counts.tasks * rates.scheduler_seconds_per_task,
        storage=traffic.total_bytes / rates.storage_bytes_per_second,
    )
    wall = rates.start_seconds + max(
        _overlapped(_colorize_seconds(engine, blocks, counts.tasks, load, fleet), load.streams, workload, fleet),
        load.storage,
    )
    around = blocks + streams + each_scan
    return Cost(
        workload,
        fleet,
        counts,
        load,
        disk,
        traffic,
        wall_seconds=wall,
        engine_hours=engine / _HOUR_SECONDS,
        processor_hours=(around + (engine if fleet.is_shared else 0.0)) / _HOUR_SECONDS,
        held_hours=fleet.engines * wall / _HOUR_SECONDS,
    )


def _colorize_seconds(engine: float, blocks: float, tasks: int, load: Load, fleet: Fleet) -> float:
    """Seconds for equal tasks in rounds; within a round, an engine predicts for one thread while the others blend."""
    rounds, turns = ceil(tasks / (fleet.engines * fleet.threads)), ceil(tasks / fleet.engines)
    return max(rounds * (engine + blocks) / tasks, turns * engine / tasks, load.scheduler)


def _overlapped(colorize: float, streams: float, workload: Workload, fleet: Fleet) -> float:
    """Seconds for scan after scan: while one is coloured, the next is ingested and the previous one exported."""
    if fleet.is_shared:
        return colorize + streams
    return max(colorize, streams) + min(colorize, streams) / workload.scans


def to_table(costs: Mapping[str, Cost]) -> str:
    """A Markdown table with one line for each named cost."""
    lines = [
        "| what | tiles | predicted | tasks | time | engine hours | processor-hours | held engine hours |"
        " store | picture | temporary | network | limit |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, cost in costs.items():
        lines.append(f"| {' | '.join([name, *_cells(cost)])} |")
    return "\n".join(lines)


def _cells(cost: Cost) -> list[str]:
    counts, disk = cost.counts, cost.disk
    return [
        f"{counts.tiles:,}",
        f"{counts.predictions:,}",
        f"{counts.tasks:,}",
        say_seconds(cost.wall_seconds),
        *(_say_hours(hours) for hours in (cost.engine_hours, cost.processor_hours, cost.held_hours)),
        say_bytes(disk.scan_bytes + disk.chroma_bytes),
        say_bytes(disk.picture_bytes),
        say_bytes(disk.temporary_bytes),
        say_bytes(cost.traffic.total_bytes),
        cost.limit,
    ]


def say_seconds(seconds: float) -> str:
    """For people.

    >>> say_seconds(12.34), say_seconds(900), say_seconds(40_000), say_seconds(4e6)
    ('12 s', '15 min', '11 h', '46 days')
    """
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 48)):
        if seconds < size * most:
            return f"{_say(seconds / size)} {unit}"
    return f"{_say(seconds / 86_400)} days"


def say_bytes(count: float) -> str:
    """For people.

    >>> say_bytes(8_388_608), say_bytes(123e9)
    ('8.4 MB', '123 GB')
    """
    unit, size = next(((u, s) for u, s in (("TB", 1e12), ("GB", 1e9)) if count >= s), ("MB", 1e6))
    return f"{_say(count / size)} {unit}"


def _say(value: float) -> str:
    """Two digits below ten, whole numbers above."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _say_hours(hours: float) -> str:
    return _say(hours) if hours >= 0.001 else "< 0.001"
