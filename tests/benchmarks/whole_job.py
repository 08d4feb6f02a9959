"""The whole job against its engine and against MONAI: python -m tests.benchmarks.whole_job [--runs 3]

One 2048x4096 scan, tile 256, stride 128, the shipped default model. In each round, one after the other:

engine   the engine alone predicting the same tiles, compiled and warm, with as many at once as the job has
job      the whole command, from the shell's point of view: start, server, cluster, ingest, colour, export
MONAI    SlidingWindowInferer over the same weights in torch; same tile, overlap, batch and processors; inference only

All three do the same: the job has the window ``average`` and no anchor, which only it could have.

Medians and ratios of the rounds are printed as a Markdown table. Memory is from a run of its own: the largest sum over
all processes of the command of their proportional set size (shared pages counted once), sampled ten times a second.
Needs: pip install '.[train,bench]'.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from engines.machine import processors
from engines.registry import open_engine
from engines.select import choose
from engines.spec import find_model
from flows.resources import split_workers
from pipeline.colour.lab import lightness_from_samples
from pipeline.planning.plan import batch_for
from pipeline.readers import open_scan
from pipeline.tiling.grid import TileGrid
from tests.benchmarks.default_engine import default_spec
from tests.processes import run_watched

SCAN = Path(__file__).parents[1] / "scans" / "sunset-beach.jpg"
TILE, STRIDE = (256, 256), (128, 128)
# What the engine alone, or another program, does as well: every tile once, averaged.
PLAIN_WORDS = ("--window", "average", "--no-anchor", "--model", "efficientnet-unet")


def read_lightness() -> np.ndarray:
    with open_scan(SCAN) as reader:
        height, width = reader.info.shape_yx
        return lightness_from_samples(reader.read(slice(0, height), slice(0, width)))


def engine_seconds(lightness: np.ndarray) -> float:
    """Predict the grid's tiles with the job's own split of the processors."""
    workers = split_workers(None, TILE, 2 * 2**30)
    grid = TileGrid.of(lightness.shape, TILE, STRIDE)
    batch = batch_for(TILE)
    spec = default_spec(TILE, batch, workers.engine_threads, workers.threads)
    tiles = np.stack([lightness[y : y + 256, x : x + 256] for y in grid.y.starts for x in grid.x.starts])[:, None]
    batches = [tiles[i : i + batch] for i in range(0, len(tiles), batch)]
    with open_engine(spec) as engine, ThreadPoolExecutor(workers.blocks_at_once) as pool:
        list(pool.map(engine.predict, batches[: 2 * workers.blocks_at_once]))
        started = time.perf_counter()
        list(pool.map(engine.predict, batches))
        return time.perf_counter() - started


def job_command(folder: str) -> list[str]:
    words = ["run", str(SCAN), "--output", folder, "--stride", str(STRIDE[0]), *PLAIN_WORDS]
    return [sys.executable, "-m", "flows.cli", *words]


def job() -> tuple[float, float, str]:
    """Wall seconds of the whole command, of its stages alone, and its own line about them."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        ran = subprocess.run(job_command(folder), capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - started
        stages = json.loads((Path(folder) / f"{SCAN.stem}.color.json").read_text())["work"]["seconds"]
        line = next(line for line in ran.stderr.splitlines() if line.startswith("done"))
        return seconds, sum(stages.values()), line.split(";")[-1].strip(" )")


def job_peak_bytes() -> int:
    """Peak memory of all processes, in a run of its own: watching them costs time."""
    with tempfile.TemporaryDirectory() as folder:
        ran = run_watched(job_command(folder))
        assert ran.code == 0, ran.err
        return ran.peak_bytes


def monai_seconds(lightness: np.ndarray) -> float:
    """MONAI's sliding window over the generator in torch, evaluation mode, no gradients."""
    import torch
    from monai.inferers import SlidingWindowInferer

    from training.export import load_generator

    torch.set_num_threads(processors())
    generator = load_generator(find_model("efficientnet-unet")).eval()
    inferer = SlidingWindowInferer(roi_size=TILE, sw_batch_size=batch_for(TILE), overlap=0.5, mode="constant")
    scaled = torch.from_numpy(lightness * 0.02 - 1)[None, None]
    with torch.inference_mode():
        generator(scaled[:, :, :256, :256].repeat(batch_for(TILE), 1, 1, 1))
        started = time.perf_counter()
        inferer(scaled, generator)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--without-monai", action="store_true")
    arguments = parser.parse_args()
    lightness = read_lightness()
    rounds = []
    for number in range(arguments.runs):
        engine = engine_seconds(lightness)
        seconds, stages, line = job()
        monai = float("nan") if arguments.without_monai else monai_seconds(lightness)
        rounds.append(
            (engine, stages, seconds, monai, stages / engine, seconds / engine, monai / stages, monai / seconds)
        )
        print(
            f"round {number + 1}: engine {engine:.1f} s, job {seconds:.1f} s ({line}), MONAI {monai:.1f} s", flush=True
        )
    names = (
        "engine alone, s",
        "job from first to last stage, s",
        "whole command, s",
        "MONAI, inference only, s",
        "stages / engine",
        "command / engine",
        "MONAI / stages",
        "MONAI / command",
    )
    print(f"\n{choose()[0]}; {processors()} processors; 2048x4096, tile 256, stride 128, {arguments.runs} rounds\n")
    print("| figure | median | range |\n|---|---|---|")
    for name, values in zip(names, zip(*rounds, strict=True), strict=True):
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f}-{max(values):.2f} |")
    print(f"| peak memory of all processes, GB | {job_peak_bytes() / 1e9:.2f} | one run |")


if __name__ == "__main__":
    main()
