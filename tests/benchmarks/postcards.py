"""Many small scans against their engine: python -m tests.benchmarks.postcards [--scans 500] [--side 480x720]

Postcards cut from the photographs in tests/scans, coloured by one command at stride 256 (window ``average``, no
anchor), and the engine alone predicting as many tiles in full batches, before and after. What lies between the two is
what starting, reading, storing, scoring and exporting a small scan costs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from engines.machine import processors
from engines.registry import open_engine
from engines.select import choose
from flows.resources import split_workers
from pipeline.planning.plan import batch_for
from pipeline.tiling.grid import TileGrid
from tests.benchmarks.default_engine import default_spec
from tests.benchmarks.whole_job import PLAIN_WORDS, read_lightness

SCANS = Path(__file__).parents[1] / "scans"
TILE = (256, 256)


def make_postcards(folder: Path, count: int, shape_yx: tuple[int, int]) -> None:
    """Crops at random places of the photographs, each other than the rest."""
    random = np.random.default_rng(1)
    photographs = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(SCANS.glob("*.[jp][pn]g"))]
    fitting = [p for p in photographs if p.shape[0] > shape_yx[0] and p.shape[1] > shape_yx[1]]
    for number in range(count):
        photograph = fitting[number % len(fitting)]
        y, x = (random.integers(0, extent - side) for extent, side in zip(photograph.shape, shape_yx, strict=True))
        cv2.imwrite(str(folder / f"postcard{number:04}.jpg"), photograph[y : y + shape_yx[0], x : x + shape_yx[1]])


def engine_tiles_per_second(seconds: float = 8.0) -> float:
    """Full batches on all processors, warm, for about ``seconds``."""
    workers = split_workers(None, TILE, 2 * 2**30)
    batch = batch_for(TILE)
    spec = default_spec(TILE, batch, workers.engine_threads, workers.threads)
    lightness = read_lightness()
    tiles = np.stack([lightness[:256, x : x + 256] for x in range(0, 2048, 256)])[:, None]
    with open_engine(spec) as engine, ThreadPoolExecutor(workers.blocks_at_once) as pool:
        list(pool.map(engine.predict, [tiles] * 2 * workers.blocks_at_once))
        done, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            list(pool.map(engine.predict, [tiles] * 4 * workers.blocks_at_once))
            done += 4 * workers.blocks_at_once * batch
        return done / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scans", type=int, default=500)
    parser.add_argument("--side", default="480x720")
    arguments = parser.parse_args()
    height, width = map(int, arguments.side.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder) / "scans"
        scans.mkdir()
        make_postcards(scans, arguments.scans, (height, width))
        rates = [engine_tiles_per_second()]
        started = time.perf_counter()
        words = ["run", str(scans), "--output", str(Path(folder) / "out"), "--stride", "256", *PLAIN_WORDS]
        subprocess.run([sys.executable, "-m", "flows.cli", *words], capture_output=True, check=True)
        seconds = time.perf_counter() - started
        rates.append(engine_tiles_per_second())
    tiles = arguments.scans * len(TileGrid.of((height, width), TILE, TILE))
    engine = tiles / statistics.mean(rates)
    print(f"{choose()[0]}; {processors()} processors; {arguments.scans} scans of {arguments.side}, stride 256\n")
    print("| figure | value |\n|---|---|")
    print(f"| tiles | {tiles} |\n| engine alone, s | {engine:.1f} |\n| whole command, s | {seconds:.1f} |")
    print(f"| command / engine | {seconds / engine:.2f} |")
    print(f"| a scan, ms | {1000 * seconds / arguments.scans:.0f} |")
    print(f"| of it beside the engine, ms | {1000 * (seconds - engine) / arguments.scans:.0f} |")


if __name__ == "__main__":
    main()
