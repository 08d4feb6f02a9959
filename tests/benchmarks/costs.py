"""What a run costs: python -m tests.benchmarks.costs --rates [--side 4096], and then without --rates for the tables

``--rates`` measures :class:`pipeline.planning.cost.Rates` of one processor of this machine, on a gray scan made by
tests.benchmarks.giga. Every stage runs alone in one process with one thread, the code of the stages itself, and its
processor seconds are counted: they are nearly the same when something else keeps the machine busy, which wall seconds
are not. Waiting for a disk is not in them.

ingest, export   the whole scan, tiled TIFF to store, store to pyramid
blocks           all blocks with an engine that gives its input back, at strides 256 and 64: the difference is the
                 blending of tiles, the rest is what a block takes however many tiles it has
tile             all blocks at stride 256 with the real engine, less the same with that other one
start, scan      the whole command on one and on 24 scans of 64x64 pixels: processor seconds of all its processes over
                 the number of processors, the best of three

``--check`` runs the whole command on the same scan and says what the rates predict for it and what it took.

The tables are of :data:`pipeline.planning.cost.MEASURED`, in which those figures are kept, and of GPUs by the tiles a
second that ``--tiles-per-second`` names: those are no measurements. The scheduler's figure is
tests.benchmarks.scheduler's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from engines.machine import processors
from engines.select import choose
from engines.spec import EngineSpec, find_model
from flows.cluster.worker import BlockFailed, BlockTask, engine_for, run_blocks
from pipeline.export import export_picture, output_image
from pipeline.ingest import ingest, source_of
from pipeline.planning.cost import MEASURED, Cost, Fleet, Rates, Workload, cost_of, count, to_table
from pipeline.planning.plan import batch_for
from pipeline.store import ChromaVersion, ScanStore
from pipeline.tiling.grid import TileGrid
from tests.benchmarks.giga import write_scan

TILE_PX, BLOCK_PX = 256, 2048
COARSE, FINE = 256, 64
STRIDES = (256, 128, 64, 32)
_SMALL_SCANS, _SMALL_PX, _STARTS = 24, 64, 3


@dataclass(frozen=True)
class Coloured:
    """What blocks took: processor seconds, tiles predicted, and the version that they are in."""

    seconds: float
    predictions: int
    version: ChromaVersion


def processor_seconds(work: Callable[[], object]) -> float:
    """Of all threads of this process while ``work`` runs."""
    started = time.process_time()
    work()
    return time.process_time() - started


def coloured(store: ScanStore, backend: str, stride: int) -> Coloured:
    """Make all blocks of a version as a worker with one thread would."""
    grid = TileGrid.of(store.info.shape_yx, (TILE_PX, TILE_PX), (stride, stride))
    batch = batch_for(grid.tile_yx)
    engine = EngineSpec(backend, str(find_model("efficientnet-unet").folder), grid.tile_yx, batch, 1, 1)
    version = store.create_version(f"{backend}-{stride}", {}, BLOCK_PX, 1.0, "2000-01-01T00:00:00")
    tasks = [
        BlockTask(
            scan="scan",
            store=store.path,
            version=version.name,
            grid=grid,
            block_px=BLOCK_PX,
            index_yx=block.index_yx,
            window="hann",
            engine=engine,
            attempt=version.attempt,
            topic="",
        )
        for block in grid.blocks(BLOCK_PX)
    ]
    engine_for(engine).predict(np.full((batch, 1, TILE_PX, TILE_PX), 50, np.float32))

    def work() -> None:
        for task in tasks:
            for result in run_blocks((task,)):
                if isinstance(result, BlockFailed):
                    raise result.error

    seconds = processor_seconds(work)
    version.finish()
    info = store.info
    return Coloured(seconds, count(Workload.of(info, grid, BLOCK_PX)).predictions, version)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure_stages(folder: Path, side: int) -> Rates:
    """Every rate but those of start and scheduler, which stay as they are in MEASURED."""
    scan, place, picture = folder / "scan.tif", folder / "scan.zarr", folder / "scan.color.tif"
    write_scan(scan, side)
    source, pixels = source_of(scan), side * side
    ingest_seconds = processor_seconds(lambda: ingest(scan, place, source, force=True, threads=1))
    store = ScanStore.open(place, writable=True)
    coarse, fine = (coloured(store, "identity", stride) for stride in (COARSE, FINE))
    real = coloured(store, choose()[0].backend, COARSE)
    export_seconds = processor_seconds(
        lambda: export_picture("tiff", picture, output_image(store, real.version, "benchmark", ""), 1)
    )
    blend_seconds = (fine.seconds - coarse.seconds) / (fine.predictions - coarse.predictions)
    return replace(
        MEASURED,
        seconds_per_tile=(real.seconds - coarse.seconds) / real.predictions,
        ingest_megapixels_per_second=pixels / 1e6 / ingest_seconds,
        block_megapixels_per_second=pixels / 1e6 / (coarse.seconds - coarse.predictions * blend_seconds),
        blend_megapixels_per_second=TILE_PX**2 / 1e6 / blend_seconds,
        export_megapixels_per_second=pixels / 1e6 / export_seconds,
        scan_left=folder_bytes(place / "scan") / pixels,
        chroma_left=folder_bytes(real.version.path) / pixels / 4,
        picture_left=picture.stat().st_size / pixels / 3 * 3 / 4,
    )


def run_command(scans: Path, output: Path, *words: str) -> tuple[float, float]:
    """The whole command: wall seconds, and processor seconds of all its processes."""
    command = [sys.executable, "-m", "flows.cli", "run", str(scans), "--output", str(output), "--force", *words]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, used


def measure_start(folder: Path) -> tuple[float, float]:
    """Seconds that a run takes to start, and that each further scan takes beside its pixels.

    Processor seconds over processors, so it is the least: a start that waits for something takes longer.
    """
    best = []
    for scans in (1, _SMALL_SCANS):
        place = folder / f"{scans}"
        place.mkdir()
        for number in range(scans):
            gray = np.random.default_rng(number).integers(0, 255, (_SMALL_PX, _SMALL_PX), np.uint8)
            cv2.imwrite(str(place / f"{number}.png"), gray)
        words = ("--engine", "identity", "--tile", f"{_SMALL_PX}")
        used = [run_command(place, folder / f"out-{scans}", *words) for _ in range(_STARTS)]
        print(f"{scans} scans of {_SMALL_PX}x{_SMALL_PX}: wall and processor seconds {used}", file=sys.stderr)
        best.append(min(seconds for _, seconds in used) / processors())
    each = max(0.0, best[1] - best[0]) / (_SMALL_SCANS - 1)
    return best[0] - each, each


def check(folder: Path, rates: Rates) -> str:
    """The whole command on the scan that the rates were measured on: projected and measured seconds."""
    output = folder / "out"
    seconds, _ = run_command(folder / "scan.tif", output, "--stride", "128", "--window", "hann")
    record = json.loads((output / "scan.color.json").read_text())
    shape_yx = (record["source"]["height_px"], record["source"]["width_px"])
    workload = Workload(1, shape_yx, stride_yx=(128, 128), block_px=record["work"]["block_px"])
    cost = cost_of(workload, rates, Fleet.of_processors(processors()))
    stages = " ".join(f"{name} {value:.1f} s" for name, value in record["work"]["seconds"].items())
    return f"projected {cost.wall_seconds:.1f} s, measured {seconds:.1f} s ({stages}) for {shape_yx} at stride 128"


def processor_table(rates: Rates, count_of: int) -> str:
    """Costs on one machine of ``count_of`` processors."""
    return to_table(_costs(rates, Fleet.of_processors(count_of)))


def gpu_table(rates: Rates, tiles_per_second: float, gpus: int, count_of: int) -> str:
    """Costs if a GPU did ``tiles_per_second``, with ``count_of`` processors for ingest and export."""
    assumed = replace(rates, seconds_per_tile=1 / tiles_per_second)
    return to_table(_costs(assumed, Fleet.of_gpus(gpus, count_of)))


def _costs(rates: Rates, fleet: Fleet) -> dict[str, Cost]:
    kinds = {
        "1 scan of 8 megapixels": (1, (2048, 4096)),
        "10,000 scans of 8 megapixels": (10_000, (2048, 4096)),
        "1 scan of 10 gigapixels": (1, (100_000, 100_000)),
    }
    return {
        f"{name}, stride {stride}": cost_of(Workload(*kind, stride_yx=(stride, stride)), rates, fleet)
        for name, kind in kinds.items()
        for stride in STRIDES
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rates", action="store_true", help="measure them and print them")
    parser.add_argument("--check", action="store_true", help="with --rates: run the whole command, too")
    parser.add_argument("--side", type=int, default=4096, help="of the scan to measure on")
    parser.add_argument("--processors", type=int, default=processors(), help="of the machine that runs the command")
    parser.add_argument("--tiles-per-second", type=float, nargs="+", default=[], help="of a GPU, as you measured them")
    parser.add_argument("--gpus", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.rates:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            rates = measure_stages(Path(name), arguments.side)
            start, each = measure_start(Path(name))
            rates = replace(rates, start_seconds=start, seconds_per_scan=each)
            print(f"{choose()[0]}; {arguments.side}x{arguments.side}, seconds of one processor\n")
            for field, value in asdict(rates).items():
                print(f"{field}={value:.4g},")
            if arguments.check:
                print(f"\n{check(Path(name), rates)}")
        return
    if not arguments.tiles_per_second:
        print(processor_table(MEASURED, arguments.processors))
    for tiles_per_second in arguments.tiles_per_second:
        print(f"If a GPU does {tiles_per_second:,.0f} tiles a second:\n")
        print(f"{gpu_table(MEASURED, tiles_per_second, arguments.gpus, arguments.processors)}\n")


if __name__ == "__main__":
    main()
