"""Ingest alone and export alone: python -m tests.benchmarks.streams [--side 8192] [--runs 3]

Three gray tiled TIFFs, made of the photographs in tests/scans (mirrored, laid side by side, deflate): ``side`` squared,
twice that side squared, and one that is 1024 rows tall and 16 times ``side`` wide. For each, every time in a process of
its own and one after the other:

ingest   the scan into its store: decode, hash, compress, write
export   the store to the coloured pyramid: read, compose, encode, write, flush to the disk; its chroma is smooth and
         random, about as strong as what the default model gives photographs, and about a fiftieth of the pixels leave
         the gamut

Medians and ranges of the runs in megapixels a second, and from one more run the peak memory (proportional set size,
sampled ten times a second), are printed as a Markdown table. The last line is a process that only imports the code:
what is above it is what the stage itself takes. Needs: pip install '.[dev]', and disk for about 12 bytes a pixel of the
largest scan.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile

from pipeline.export import export_picture, output_image
from pipeline.ingest import ingest, source_of
from pipeline.readers import open_scan
from pipeline.store import BlockTiming, ScanStore
from pipeline.tiling.grid import TileGrid
from pipeline.tiling.infer import BlockResult
from pipeline.tiling.overlap_stats import OverlapStats, squares
from tests.processes import run_watched

SCANS = Path(__file__).parents[1] / "scans"
TILE_PX, SHEET_PX, BLOCK_PX = 256, 4096, 2048
CHROMA_MEAN, CHROMA_SPREAD = (0.0, 3.0), (4.0, 7.0)
AT_REST_SECONDS = 2.5  # a file younger than a file system's clock tick is hashed twice


def read_sheets() -> list[np.ndarray]:
    """Every photograph as (4096, 4096) uint8 gray, continued by its mirror images."""
    sheets = []
    for path in sorted(p for p in SCANS.iterdir() if p.suffix in {".jpg", ".png", ".tif"}):
        with open_scan(path) as reader:
            height, width = reader.info.shape_yx
            gray = reader.read(slice(0, height), slice(0, width)).reshape(height, width, -1)[..., 0]
        gray = gray if gray.dtype == np.uint8 else (gray >> 8).astype(np.uint8)
        mirrored = np.block([[gray, gray[:, ::-1]], [gray[::-1], gray[::-1, ::-1]]])
        times_yx = [-(-SHEET_PX // extent) for extent in mirrored.shape]
        sheets.append(np.tile(mirrored, times_yx)[:SHEET_PX, :SHEET_PX])
    return sheets


def scan_tiles(shape_yx: tuple[int, int], sheets: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The tiles of a scan in which the sheets lie side by side, a different one in each place."""
    for y in range(0, shape_yx[0], TILE_PX):
        for x in range(0, shape_yx[1], TILE_PX):
            sheet = sheets[(y // SHEET_PX + x // SHEET_PX) % len(sheets)]
            yield sheet[y % SHEET_PX :, x % SHEET_PX :][:TILE_PX, :TILE_PX]


def make_scan(path: Path, shape_yx: tuple[int, int]) -> None:
    encoding = {"compression": "adobe_deflate", "compressionargs": {"level": 1}, "predictor": True}
    tiles = scan_tiles(shape_yx, read_sheets())
    tile = (TILE_PX, TILE_PX)
    tifffile.imwrite(path, tiles, shape=shape_yx, dtype="uint8", tile=tile, photometric="minisblack", **encoding)


def make_chroma(store: ScanStore) -> None:
    """A finished version ``v`` of smooth random colours."""
    version = store.create_version("v", {}, BLOCK_PX, 1.0, "2000-01-01T00:00:00")
    size = (BLOCK_PX, BLOCK_PX)
    for block in TileGrid.of(store.info.shape_yx, size, size).blocks(BLOCK_PX):
        knots = np.random.default_rng(block.index_yx).normal(size=(2, 9, 9)).astype(np.float32)
        planes = [
            cv2.resize(plane, size, interpolation=cv2.INTER_CUBIC) * np.float32(spread) + np.float32(mean)
            for plane, spread, mean in zip(knots, CHROMA_SPREAD, CHROMA_MEAN, strict=True)
        ]
        height, width = block.write_roi.shape_yx
        agreed = np.zeros((4, squares(height), squares(width)), np.float32)
        coloured = BlockResult(np.stack(planes)[:, :height, :width], OverlapStats(agreed[:2], agreed[2], agreed[3]))
        version.write(block.index_yx, coloured, version.attempt, BlockTiming(1, 0.0))
    version.finish()


def run_stage(stage: str, folder: Path) -> None:
    """What the child process does: one stage, its seconds into a file."""
    scan, place = folder / "scan.tif", folder / "scan.zarr"
    threads = len(os.sched_getaffinity(0))
    if stage == "ingest":
        source = source_of(scan)
        started = time.perf_counter()
        ingest(scan, place, source, force=True, threads=threads)
    elif stage == "export":
        store = ScanStore.open(place)
        started = time.perf_counter()
        export_picture(
            "tiff", folder / "scan.color.tif", output_image(store, store.version("v"), "benchmark", ""), threads
        )
    else:
        started = time.perf_counter()
        time.sleep(0.5)
    (folder / "seconds").write_text(str(time.perf_counter() - started))


def stage_command(stage: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "tests.benchmarks.streams", "--stage", stage, "--folder", str(folder)]


def stage_seconds(stage: str, folder: Path) -> float:
    subprocess.run(stage_command(stage, folder), check=True)
    return float((folder / "seconds").read_text())


def stage_peak_bytes(stage: str, folder: Path) -> int:
    ran = run_watched(stage_command(stage, folder))
    assert ran.code == 0, ran.err
    return ran.peak_bytes


def measure(stage: str, folder: Path, megapixels: float, runs: int) -> str:
    """Two cells of the table: megapixels a second, peak megabytes."""
    speeds = [megapixels / stage_seconds(stage, folder) for _ in range(runs)]
    peak = stage_peak_bytes(stage, folder) / 1e6
    return f"{statistics.median(speeds):.0f} ({min(speeds):.0f}-{max(speeds):.0f}) | {peak:.0f}"


def measure_shape(shape_yx: tuple[int, int], runs: int) -> str:
    """One line of the table."""
    megapixels = shape_yx[0] * shape_yx[1] / 1e6
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        make_scan(folder / "scan.tif", shape_yx)
        time.sleep(AT_REST_SECONDS)
        ingested = measure("ingest", folder, megapixels, runs)
        make_chroma(ScanStore.open(folder / "scan.zarr", writable=True))
        exported = measure("export", folder, megapixels, runs)
        result = (folder / "scan.color.tif").stat().st_size / 1e6
    return f"| {shape_yx[0]} x {shape_yx[1]} | {megapixels:.0f} | {ingested} | {exported} | {result:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        run_stage(arguments.stage, arguments.folder)
        return
    side = arguments.side
    print(f"{len(os.sched_getaffinity(0))} processors, median and range of {arguments.runs} runs\n")
    print("| rows x columns | MP | ingest, MP/s | peak, MB | export, MP/s | peak, MB | result, MB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for shape_yx in ((side, side), (2 * side, 2 * side), (1024, 16 * side)):
        print(measure_shape(shape_yx, arguments.runs), flush=True)
    with tempfile.TemporaryDirectory() as name:
        peak = stage_peak_bytes("import", Path(name)) / 1e6
    print(f"| imports alone | | | {peak:.0f} | | {peak:.0f} | |")


if __name__ == "__main__":
    main()
