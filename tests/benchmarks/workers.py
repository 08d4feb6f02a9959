"""One worker against two, and the same bytes from any: python -m tests.benchmarks.workers [--runs 3] [--side 8192]

Speed: seconds of the stage ``colorize``, as the sidecar gives them, of one scan (tests.benchmarks.giga, stride 256), in
rounds, one after the other:

one   one worker with one thread. The command has no option for threads: it gives a worker every processor that it has.
      So the whole command is pinned to one processor (sched_setaffinity before it starts, as ``taskset -c 0`` does),
      and its plan is then one worker, one thread, one engine thread. Client, scheduler and server share that processor
two   two workers with one thread and one engine thread each: ``--workers 2`` on two processors, shared with them too

Both have the window ``average`` and no anchor, which one worker makes while the other waits. Both get ``--limit-memory
4GiB``: at 2 GiB, two workers get smaller blocks than one, and other blocks are other work. The plan's block sizes are
printed; at stride 256 a block of 512 px has four tiles, which is half of a batch.

The engine alone, once in a process pinned to one processor and then in two processes on one each, says how much of a
factor of two the machine has to give: processors share memory, caches, and sometimes their host.

Bytes: one scan at stride 192, window hann, with its anchor, by 1, 2 and 4 workers, each with two block sizes, brought
about by ``--limit-memory``. Pictures and chroma samples must all be the same; chroma shard files must be among runs of
one block size.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path

import tifffile
import zarr

from engines.registry import open_engine
from engines.select import choose
from flows.resources import split_workers
from pipeline.errors import UsageError
from pipeline.planning.plan import batch_for, make_plan
from pipeline.support.files import file_sha256
from pipeline.tiling.grid import TileGrid
from pipeline.types import ScanInfo
from tests.benchmarks.default_engine import default_spec
from tests.benchmarks.giga import write_scan
from tests.benchmarks.gigapixel import Others, sample_tiles
from tests.benchmarks.whole_job import PLAIN_WORDS

TILE = (256, 256)
WORKERS = (1, 2, 4)
_AT_LEAST = 1.8
_BYTES_SIDE, _BYTES_STRIDE = 2048, 192
_GIB = 2**30


@dataclass(frozen=True)
class Made:
    """What one run made: stage seconds, plan, and hashes of its picture, chroma samples and chroma shard files.

    ``others`` is how many processors something else kept busy meanwhile.
    """

    workers: int
    block_px: int
    blocks: int
    seconds: float
    others: float
    picture: str
    chroma: str
    shards: tuple[tuple[str, str], ...]


def colour(scan: Path, output: Path, workers: int, processors: Collection[int], *words: str) -> Made:
    """Run the whole command on ``processors``."""
    command = [sys.executable, "-m", "flows.cli", "run", str(scan), "--output", str(output)]
    with Others() as others:
        subprocess.run(
            [*command, "--workers", str(workers), *words],
            check=True,
            capture_output=True,
            preexec_fn=partial(os.sched_setaffinity, 0, processors),
        )
    work = json.loads((output / f"{scan.stem}.color.json").read_text())["work"]
    (array,) = [path.parent for path in output.rglob("zarr.json") if path.parent.name == "chroma"]
    shards = sorted(path for path in (array / "c").rglob("*") if path.is_file())
    return Made(
        workers,
        work["block_px"],
        work["blocks"],
        work["seconds"]["colorize"],
        others.processors,
        file_sha256(output / f"{scan.stem}.color.tif"),
        _samples_sha256(array),
        tuple((str(path.relative_to(array)), file_sha256(path)) for path in shards),
    )


def _samples_sha256(array: Path, rows: int = 2048) -> str:
    """Of the samples, whatever blocks they are stored in."""
    chroma, digest = zarr.open_array(str(array), mode="r"), hashlib.sha256()
    for plane in range(2):
        for top in range(0, chroma.shape[1], rows):
            digest.update(chroma[plane, top : top + rows].tobytes())
    return digest.hexdigest()


_gate: list[Barrier] = []


def _meet_at(gate: Barrier) -> None:
    _gate.append(gate)


def _alone(processor: int, scan: Path, count: int) -> float:
    """Tiles a second of one engine with one thread on ``processor``; starts when all processes are ready."""
    os.sched_setaffinity(0, {processor})
    _, tiles = sample_tiles(scan, TILE[0])
    batch = batch_for(TILE)
    spec = default_spec(TILE, batch, 1, 1)
    with open_engine(spec) as engine:
        engine.predict(tiles[:batch])
        _gate[0].wait()
        started = time.perf_counter()
        for number in range(-(-count // batch)):
            engine.predict(tiles.take(range(number * batch, number * batch + batch), axis=0, mode="wrap"))
        return -(-count // batch) * batch / (time.perf_counter() - started)


def engines_alone(scan: Path, processors: list[int], count: int) -> float:
    """Tiles a second of all engines together, one on each of ``processors``."""
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(len(processors))
    with context.Pool(len(processors), _meet_at, (gate,)) as pool:
        return sum(pool.starmap(_alone, [(each, scan, count) for each in processors], chunksize=1))


def measure_speed(scan: Path, folder: Path, runs: int, count: int, limit: str) -> None:
    """Rounds of one and two workers; a table and whether the ratio is what it must be."""
    processors = sorted(os.sched_getaffinity(0))[:2]
    if len(processors) < 2:
        raise SystemExit("two processors are needed")
    words, rounds = ("--stride", "256", "--limit-memory", limit, *PLAIN_WORDS), []
    for number in range(runs):
        alone = engines_alone(scan, processors[:1], count), engines_alone(scan, processors, count)
        one = colour(scan, folder / f"one-{number}", 1, processors[:1], *words)
        two = colour(scan, folder / f"two-{number}", 2, processors, *words)
        colours = one.seconds, two.seconds, one.seconds / two.seconds
        rounds.append((*colours, *alone, alone[1] / alone[0], one.others, two.others))
        print(f"round {number + 1}: one {one.seconds:.1f} s, two {two.seconds:.1f} s", flush=True)
    names = (
        "one worker, one thread: colorize, s",
        "two workers, one thread each: colorize, s",
        "one / two",
        "one engine alone, tiles/s",
        "two engines alone, tiles/s",
        "two engines / one",
        "processors that something else kept busy, one worker",
        "processors that something else kept busy, two workers",
    )
    with tifffile.TiffFile(scan) as tiff:
        height, width = tiff.pages[0].shape
    print(f"\n{choose()[0]}; {height}x{width}, tile 256, stride 256, {runs} rounds;", end=" ")
    print(f"{one.blocks} blocks of {one.block_px} px for one worker, {two.blocks} of {two.block_px} px for two\n")
    print("| figure | median | range |\n|---|---|---|")
    columns = list(zip(*rounds, strict=True))
    for name, values in zip(names, columns, strict=True):
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f}-{max(values):.2f} |")
    ratio = statistics.median(columns[2])
    print(
        f"\nTwo workers against one: {ratio:.2f}, {'' if ratio >= _AT_LEAST else 'NOT '}at least {_AT_LEAST}",
        flush=True,
    )


def limits_for(shape_yx: tuple[int, int], workers: int) -> dict[int, int]:
    """For each block size that the plan can choose, the smallest ``--limit-memory`` in bytes that makes it."""
    info = ScanInfo(shape_yx, 1, "uint8")
    grid = TileGrid.of(shape_yx, TILE, (_BYTES_STRIDE, _BYTES_STRIDE))
    found: dict[int, int] = {}
    for limit in range(_GIB, 8 * _GIB, _GIB // 16):
        try:
            plan = make_plan(info, grid, batch_for(TILE), split_workers(workers, TILE, limit), limit)
        except UsageError:
            continue
        found.setdefault(plan.block_px, limit)
    return found


def compare_bytes(scan: Path, folder: Path) -> None:
    """Run every number of workers with two block sizes, and say whether everything is the same."""
    limits = {workers: limits_for((_BYTES_SIDE, _BYTES_SIDE), workers) for workers in WORKERS}
    common = sorted(set.intersection(*(set(found) for found in limits.values())))[:2]
    made = []
    for workers, found in limits.items():
        for block_px in common if len(common) == 2 else found:
            words = ["--stride", str(_BYTES_STRIDE), "--window", "hann", "--limit-memory", str(found[block_px])]
            output = folder / f"bytes-{workers}-{block_px}"
            made.append(colour(scan, output, workers, os.sched_getaffinity(0), *words))
            print(f"workers {workers}: {made[-1].blocks} blocks of {made[-1].block_px} px", flush=True)
    print()
    print(_verdict("pictures", made, [(each.picture,) for each in made]))
    print(_verdict("chroma samples", made, [(each.chroma,) for each in made]))
    for block_px in sorted({each.block_px for each in made}):
        same = [each for each in made if each.block_px == block_px]
        files = f"{len(same[0].shards)} chroma shard files of {block_px} px"
        print(_verdict(files, same, [each.shards for each in same]))


def _verdict(what: str, made: list[Made], hashes: list[tuple]) -> str:
    """One line: the same in all runs, or which run differs from the one before it, and how much."""
    runs = [f"workers {each.workers}, {each.block_px} px" for each in made]
    for (before, mine), (after, other) in pairwise(zip(runs, hashes, strict=True)):
        if mine != other:
            differing = len(set(mine) ^ set(other)) // 2
            return f"{what}: NOT the same: {differing} of {len(mine)} between ({before}) and ({after})"
    digest = hashlib.sha256(repr(hashes[0]).encode()).hexdigest()[:12]
    return f"{what}: the same bytes in {len(made)} runs ({'; '.join(runs)}), SHA-256 {digest}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", type=int, default=8192, help="of the scan whose speed is measured: 2896 to 8192")
    parser.add_argument("--sample", type=int, default=512, help="tiles of each measurement of the engine alone")
    parser.add_argument("--limit-memory", default="4GiB", help="of the runs whose speed is measured")
    parser.add_argument("--only", choices=["speed", "bytes"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if arguments.only != "bytes":
            write_scan(folder / "large.tif", arguments.side)
            measure_speed(folder / "large.tif", folder, arguments.runs, arguments.sample, arguments.limit_memory)
        if arguments.only != "speed":
            write_scan(folder / "small.tif", _BYTES_SIDE)
            compare_bytes(folder / "small.tif", folder)


if __name__ == "__main__":
    main()
