"""The whole command from 8 to 1074 megapixels: python -m tests.benchmarks.gigapixel [--stride 256] [--work DIR]

The sample scan of 2048x4096 pixels, then square scans of ``--sides`` pixels, made by tests.benchmarks.giga in
``--work`` if they are not there. For each, one after the other:

engine   the engine alone predicting the scan's own tiles, compiled and warm, with as many at once as the job has; a
         sample of them, spread over the scan and gone round until ``--sample`` tiles are done, scaled to all of them
job      the whole command in a process of its own, its memory (proportional set size of all its processes, shared pages
         counted once) looked at ten times a second, which costs it a little time; window ``average`` and no anchor, so
         that it predicts what the engine does
engine   once more: shared machines drift within minutes, so the job is held against the mean of before and after

Results are kept in ``gigapixel.json`` in ``--work``, each scan's as soon as it is there; a scan that is in it is not
run again unless ``--again``. What the command writes is removed after each scan. Needs psutil, and disk for about ten
bytes a pixel of the largest scan. ``--only-print`` prints the table of what is there.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from engines.machine import processors
from engines.registry import open_engine
from engines.select import choose
from engines.spec import find_model
from flows.options import parse_memory
from flows.resources import split_workers
from pipeline.colour.lab import lightness_from_samples
from pipeline.planning.plan import batch_for
from pipeline.readers import open_scan
from pipeline.support.files import write_json
from pipeline.tiling.grid import TileGrid
from pipeline.tiling.infer import reflected_out
from tests.benchmarks.default_engine import default_spec
from tests.benchmarks.giga import PHOTOGRAPHS, write_scan
from tests.benchmarks.whole_job import PLAIN_WORDS
from tests.processes import run_watched

PLAIN = PHOTOGRAPHS / "sunset-beach.jpg"
WORK = Path(tempfile.gettempdir()) / "colorize-archive-gigapixel"
SIDES = (2896, 8192, 16384, 32768)
TILE = (256, 256)
_DISTINCT_TILES = 1024
_FLAT_FROM_MEGAPIXELS, _FLAT_WITHIN = 60, 0.15
_SMALL_MEGAPIXELS = 10

Record = dict[str, Any]

ROWS = {
    "tiles": "{tiles:,}",
    "whole command, s": "{command:.1f}",
    "stages, s": "{stages:.1f}",
    "ingest, colour, export, s": "{ingest:.1f}, {colorize:.1f}, {export:.1f}",
    "engine alone, s": "{engine:.1f}",
    "engine before and after, tiles/s": "{before:.1f}, {after:.1f}",
    "command / engine": "{command_to_engine:.2f}",
    "stages / engine": "{stages_to_engine:.2f}",
    "whole command, MP/s": "{command_speed:.2f}",
    "stages, MP/s": "{stages_speed:.2f}",
    "ingest, MP/s": "{ingest_speed:.1f}",
    "export, MP/s": "{export_speed:.1f}",
    "peak memory of all processes, GB": "{peak:.2f}",
    "block, px": "{block_px}",
    "tiles predicted / tiles": "{predicted:.2f}",
    "the same with what fills batches up": "{computed:.2f}",
    "processors that something else kept busy": "{others:.2f}",
}


def sample_tiles(scan: Path, stride: int) -> tuple[TileGrid, np.ndarray]:
    """The scan's grid, and (N, 1, 256, 256) L* of at most 1024 of them, evenly spread."""
    with open_scan(scan) as reader:
        height, width = reader.info.shape_yx
        grid = TileGrid.of((height, width), TILE, (stride, stride), find_model("efficientnet-unet").card.size_multiple)
        chosen = np.linspace(0, len(grid) - 1, min(_DISTINCT_TILES, len(grid))).round().astype(int)
        tiles = []
        for number in chosen:
            y, x = grid.y.starts[number // len(grid.x.starts)], grid.x.starts[number % len(grid.x.starts)]
            rows, columns = slice(y, min(y + TILE[0], height)), slice(x, min(x + TILE[1], width))
            tiles.append(reflected_out(lightness_from_samples(reader.read(rows, columns)), TILE))
    return grid, np.stack(tiles)[:, None]


def engine_speed(tiles: np.ndarray, count: int, limit_bytes: int) -> float:
    """Tiles a second over at least ``count`` predictions, with the job's own split of the processors."""
    workers, batch = split_workers(None, TILE, limit_bytes), batch_for(TILE)
    spec = default_spec(TILE, batch, workers.engine_threads, workers.threads)
    at_once = workers.blocks_at_once

    def predict(number: int) -> None:
        first = number * batch
        engine.predict(tiles.take(range(first, first + batch), axis=0, mode="wrap"))

    batches = -(-count // batch)
    with open_engine(spec) as engine, ThreadPoolExecutor(at_once) as pool:
        list(pool.map(predict, range(2 * at_once)))
        started = time.perf_counter()
        list(pool.map(predict, range(batches)))
        return batches * batch / (time.perf_counter() - started)


class Others:
    """``processors``: how many of them something else kept busy on average while the body and its processes ran."""

    def __enter__(self) -> Others:
        self._before = time.perf_counter(), _busy_seconds(), _own_seconds()
        return self

    def __exit__(self, *exc: object) -> None:
        after = time.perf_counter(), _busy_seconds(), _own_seconds()
        wall, busy, own = (b - a for a, b in zip(self._before, after, strict=True))
        self.processors = max(0.0, busy - own) / wall


def _busy_seconds() -> float:
    times = psutil.cpu_times()._asdict()
    return sum(times.get(name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))


def _own_seconds() -> float:
    """Of this process and of those below it that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def job(scan: Path, stride: int, limit: str, output: Path) -> Record:
    """The whole command: wall seconds, peak memory, and what its sidecar says about the work."""
    shutil.rmtree(output, ignore_errors=True)
    words = ["run", str(scan), "--output", str(output), "--stride", str(stride), "--limit-memory", limit, *PLAIN_WORDS]
    try:
        with Others() as others:
            ran = run_watched([sys.executable, "-m", "flows.cli", *words])
        if ran.code != 0:
            raise SystemExit(f"{scan}: the command ended with code {ran.code}:\n{ran.err}")
        work = json.loads((output / f"{scan.stem}.color.json").read_text())["work"]
    finally:
        shutil.rmtree(output, ignore_errors=True)
    return {"command": ran.seconds, "peak": ran.peak_bytes / 1e9, "others": others.processors, **work}


def measure(scan: Path, stride: int, limit: str, count: int, output: Path) -> Record:
    """Engine, job, engine; as plain JSON values."""
    grid, sample = sample_tiles(scan, stride)
    before = engine_speed(sample, count, parse_memory(limit))
    done = job(scan, stride, limit, output)
    after = engine_speed(sample, count, parse_memory(limit))
    assert done["tiles"] == len(grid), f"{done['tiles']} tiles in the job, {len(grid)} in the sample's grid"
    return {
        **done,
        "scan": scan.stem,
        "engine_before": before,
        "engine_after": after,
        "computed": computed_tiles(grid, done["block_px"]),
    }


def computed_tiles(grid: TileGrid, block_px: int) -> int:
    """Tiles that the engine computes: each block's own, and what fills its last batch up, whose shape is fixed."""
    batch = batch_for(TILE)
    return sum(-(-len(block.tile_origins) // batch) * batch for block in grid.blocks(block_px))


def figures(record: Record) -> dict[str, float]:
    """What the table shows, worked out from a record."""
    seconds, megapixels, tiles = record["seconds"], record["megapixels"], record["tiles"]
    before, after = record["engine_before"], record["engine_after"]
    engine, stages = (tiles / before + tiles / after) / 2, sum(seconds.values())
    return {
        **seconds,
        "megapixels": megapixels,
        "tiles": tiles,
        "command": record["command"],
        "stages": stages,
        "engine": engine,
        "before": before,
        "after": after,
        "command_to_engine": record["command"] / engine,
        "stages_to_engine": stages / engine,
        "command_speed": megapixels / record["command"],
        "stages_speed": megapixels / stages,
        "ingest_speed": megapixels / seconds["ingest"],
        "export_speed": megapixels / seconds["export"],
        "peak": record["peak"],
        "others": record["others"],
        "block_px": record["block_px"],
        "predicted": record["predictions"] / tiles,
        "computed": record["computed"] / tiles,
    }


def print_table(records: list[Record], stride: int, limit: str) -> None:
    """One column for each scan, smallest first; then what must hold."""
    records = sorted(records, key=lambda record: record["megapixels"])
    columns = [figures(record) for record in records]
    print(f"\n{choose()[0]}; {processors()} processors; tile {TILE[0]}, stride {stride}, --limit-memory {limit}\n")
    print("| figure |", " | ".join(f"{record['scan']}, {record['megapixels']:.1f} MP" for record in records), "|")
    print("|---|" + "---|" * len(records))
    for name, text in ROWS.items():
        print(f"| {name} |", " | ".join(text.format(**column) for column in columns), "|")
    mosaics = [c for c, record in zip(columns, records, strict=True) if record["scan"] != PLAIN.stem]
    print(f"\n{flatness(mosaics)}\n{speed(mosaics)}")


def flatness(columns: list[dict[str, float]]) -> str:
    """Whether memory stays the same from 67 megapixels up."""
    large = [c for c in columns if c["megapixels"] > _FLAT_FROM_MEGAPIXELS]
    if len(large) < 2:
        return "Memory from 67 MP up: fewer than two scans to compare"
    peaks = [c["peak"] for c in large]
    spread = max(peaks) / min(peaks) - 1
    verdict = "flat" if spread <= _FLAT_WITHIN else "NOT flat"
    sizes = f"{large[0]['megapixels']:.0f} to {large[-1]['megapixels']:.0f} MP"
    peak = f"{min(peaks):.2f}-{max(peaks):.2f} GB"
    return f"Memory from {sizes}: {peak}, {spread:.1%} apart: {verdict} within {_FLAT_WITHIN:.0%}"


def speed(columns: list[dict[str, float]]) -> str:
    """Stages of the biggest scan against those of the 8-megapixel one."""
    small = [c for c in columns[:-1] if c["megapixels"] < _SMALL_MEGAPIXELS]
    if not small:
        return "Stages, MP/s: fewer than two scans to compare"
    first, last = small[-1], columns[-1]
    machine = (last["before"] + last["after"]) / (first["before"] + first["after"])
    return (
        f"Stages, MP/s: {last['stages_speed']:.2f} at {last['megapixels']:.0f} MP, {first['stages_speed']:.2f} at "
        f"{first['megapixels']:.1f} MP: {last['stages_speed'] / first['stages_speed']:.2f} times as fast "
        f"(the engine alone then was {machine:.2f} times as fast)"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sides", type=int, nargs="*", default=list(SIDES))
    parser.add_argument("--stride", type=int, default=256)
    parser.add_argument("--limit-memory", default="2GiB", help="given to the command")
    parser.add_argument("--sample", type=int, default=1024, help="tiles of each measurement of the engine")
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--without-plain", action="store_true")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only-print", action="store_true")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    kept = arguments.work / "gigapixel.json"
    records: dict[str, Record] = json.loads(kept.read_text()) if kept.is_file() else {}
    scans = [] if arguments.without_plain else [PLAIN]
    scans += [arguments.work / f"giga-{side}.tif" for side in sorted(arguments.sides)]
    names = {scan: f"{scan.stem}, stride {arguments.stride}, {arguments.limit_memory}" for scan in scans}
    for scan, name in names.items():
        if arguments.only_print or (name in records and not arguments.again):
            continue
        if scan != PLAIN and not scan.is_file():
            write_scan(scan, int(scan.stem.split("-")[1]), arguments.photographs)
        output = arguments.work / "output"
        records[name] = measure(scan, arguments.stride, arguments.limit_memory, arguments.sample, output)
        write_json(kept, records)
        stages = sum(records[name]["seconds"].values())
        print(f"{name}: command {records[name]['command']:.1f} s, stages {stages:.1f} s", flush=True)
    print_table([records[name] for name in names.values() if name in records], arguments.stride, arguments.limit_memory)


if __name__ == "__main__":
    main()
