"""Colours of a large scan from a small copy, then graded: python -m tests.benchmarks.grading [--megapixels 268]

A scan of so many megapixels (tests.benchmarks.giga) is coloured once with the palette of a copy of 1 megapixel, as
another program gives one back (tests.copies), and then graded three times: all of it, a part of it, and to a goal. The
table says what the whole commands took beside the export of the same picture, which they end with, and the most memory
of all their processes; below it stand the blocks of the part that were made, the bytes beyond it that differ, the
colourfulness that was reached, and how many tiles were predicted for all this. Needs about 12 bytes of disk a pixel in
``--work``, which is emptied at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from flows.cluster.grade_blocks import sampled
from pipeline.colour.colourfulness import colourfulness
from pipeline.colour.grading import Grade
from pipeline.colour.lab import rgb_from_lab
from pipeline.store import ScanStore
from pipeline.types import Roi
from tests.benchmarks.giga import write_scan
from tests.copies import handled
from tests.processes import run_watched

LIMIT = "1.5GiB"  # of what is projected, at most, which is more than is taken
GOAL = 20.0
_COPY_PX = 1000
_BAND_PX = 512


@dataclass(frozen=True)
class Figures:
    """Of one command: wall seconds, those of its stages, and the most memory of all its processes in GB."""

    seconds: float
    stages: dict[str, float]
    peak_gb: float
    predicted: int


def tinted(gray: np.ndarray) -> np.ndarray:
    """(h, w, 3) RGB of (h, w) gray: two colours that change slowly over it."""
    x = np.linspace(-1, 1, gray.shape[1], dtype=np.float32)[None]
    y = np.linspace(-1, 1, gray.shape[0], dtype=np.float32)[:, None]
    lightness = gray.astype(np.float32) * np.float32(100 / 255)
    chroma = np.stack([18 * np.sin(3 * x + y), 22 * np.cos(2 * y - x)]).astype(np.float32)
    return np.asarray(np.rint(np.clip(rgb_from_lab(lightness, chroma), 0, 1) * 255), np.uint8)


def write_copy(scan: Path, path: Path) -> None:
    """A copy of a scan, as another program might give it back."""
    gray = tifffile.imread(scan)
    less = 2 * _COPY_PX / max(gray.shape)
    if less < 1:
        gray = cv2.resize(gray, None, fx=less, fy=less, interpolation=cv2.INTER_AREA)
    copy, _ = handled(tinted(gray))
    cv2.imwrite(str(path), cv2.cvtColor(copy, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])


def command(output: Path, *words: object) -> Figures:
    """Run ``colorize-archive``. Raises SystemExit where it fails."""
    ran = run_watched([sys.executable, "-m", "flows.cli", *map(str, words), "--limit-memory", LIMIT])
    if ran.code != 0:
        raise SystemExit(f"{' '.join(map(str, words))}: ended with code {ran.code}:\n{ran.err}")
    record: dict[str, Any] = json.loads((output / "large.color.json").read_text())
    predicted = sum(_tiles(path) for path in (output / "large.zarr" / "versions").rglob("chroma/records/*.json"))
    return Figures(ran.seconds, record["work"]["seconds"], ran.peak_bytes / 1e9, predicted)


def _tiles(record: Path) -> int:
    return int(json.loads(record.read_text())["tiles"])


def differing_outside(output: Path, grade: Grade) -> tuple[int, int, int]:
    """Bytes of stored colours beyond a grade's only region that differ; blocks in all, and those it touches."""
    store = ScanStore.open(output / "large.zarr")
    made = store.version(json.loads((output / "large.color.json").read_text())["result"]["version"])
    before, region = store.version(made.settings["graded_from"]), grade.regions[0].region
    height, width = store.info.shape_yx
    differing = 0
    for y in range(0, height, _BAND_PX):
        band = Roi(y, min(y + _BAND_PX, height), 0, width)
        weight = region.weight(band, (height, width))
        outside = np.ones(band.shape_yx, bool) if weight is None else weight == 0
        one, other = (np.ascontiguousarray(each.read(band)[:, outside]).view(np.uint8) for each in (made, before))
        differing += int((one != other).sum())
    side = made.block_px
    blocks = [Roi(y, y + side, x, x + side) for y in range(0, height, side) for x in range(0, width, side)]
    return differing, len(blocks), sum(region.part_of(block) is not None for block in blocks)


def reached(output: Path) -> float:
    """Colourfulness of the current version, from other pixels than those that its factor was found with."""
    store = ScanStore.open(output / "large.zarr")
    version = store.version(json.loads((output / "large.color.json").read_text())["result"]["version"])
    chroma, lightness = sampled(store, version, 2**20)
    return colourfulness(rgb_from_lab(lightness, chroma))


def row(name: str, each: Figures) -> str:
    colours, export = each.stages.get("colorize", 0.0), each.stages["export"]
    figures = f"{each.seconds:.1f} | {colours:.1f} | {export:.1f} | {each.seconds / export:.2f} | {each.peak_gb:.2f}"
    return f"| `{name}` | {figures} |"


def measure(work: Path, megapixels: float) -> Iterator[str]:
    """Run all commands in a folder; the lines of the table and those below it, as they come."""
    side = round((megapixels * 1e6) ** 0.5)
    scans, output, copies = (work / name for name in ("scans", "out", "copies"))
    for folder in (scans, copies):
        folder.mkdir(parents=True)
    write_scan(scans / "large.tif", side)
    write_copy(scans / "large.tif", copies / "large.jpg")
    yield f"A scan of {side} x {side} pixels, --limit-memory {LIMIT}\n"
    yield "| command | s | colours, s | export, s | command / export | peak memory of all processes, GB |"
    yield "|---|---|---|---|---|---|"
    first = command(output, "run", scans, "-o", output, "--palette-from", copies, "--precision", "fp32")
    yield row("run --palette-from", first)
    again = ("reprocess", output, "--keep", 9)
    yield row("--saturation 0.9 --warmth 3", command(output, *again, "--saturation", 0.9, "--warmth", 3))
    yield row(f"--colourfulness {GOAL:g}", command(output, *again, "--colourfulness", GOAL))
    there = reached(output)
    command(output, *again, "--saturation", 1)
    quarter = f"{side // 8},{side // 8},{side // 4},{side // 4}"
    last = command(output, *again, "--saturation", 0.5, "--within", quarter)
    yield row("--saturation 0.5 --within", last)
    grade = Grade.from_json(json.loads((output / "large.color.json").read_text())["settings"]["grade"])
    differing, blocks, touched = differing_outside(output, grade)
    yield f"\n{last.predicted - first.predicted} tiles predicted for the grades."
    yield f"Colourfulness {there:.2f} for {GOAL:g}: {100 * abs(there / GOAL - 1):.2f} % away."
    yield f"The part touches {touched} of {blocks} blocks; {differing} bytes beyond it differ."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=268.4)
    parser.add_argument("--work", type=Path, help="a folder with room; it is made, and removed at the end")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="colorize-archive-grading-", dir=arguments.work))
    try:
        for line in measure(work, arguments.megapixels):
            print(line, flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
