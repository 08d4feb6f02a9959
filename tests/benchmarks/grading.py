"""Colours of a large scan from a small copy, then graded: python -m tests.benchmarks.grading [--megapixels 268]

A scan of so many megapixels (tests.benchmarks.giga) is coloured once with the palette of a copy of 1 megapixel, as
another program gives one back (tests.copies), and then graded: all of it, to a goal, and a part of it. The
table says what the whole commands took and, of that, their two stages; beside them the export of the colours as they
were, whose picture is removed and written again for this, because grades are measured by it: their stages in its
seconds, and their whole commands (for a small scan a command is hardly more than its start). Then come the processor
time and the most memory of all processes of a command. Below the table stand the bytes beyond the part that differ, the
colourfulness that was reached, how many tiles were predicted for all this, and the bytes that the graded versions take
in the store. Needs about 12 bytes of disk a pixel in ``--work``, which is emptied at the end.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from flows.cluster.grade_factors import sampled
from pipeline.colour.colourfulness import colourfulness
from pipeline.colour.grading import Grade
from pipeline.colour.lab import rgb_from_lab
from pipeline.store import ScanStore
from pipeline.support.files import size_bytes
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
    """Of one command: wall and processor seconds, those of stages, and the most memory of all its processes in GB."""

    seconds: float
    processor_seconds: float
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
    before = _processor_seconds()
    ran = run_watched([sys.executable, "-m", "flows.cli", *map(str, words), "--limit-memory", LIMIT])
    if ran.code != 0:
        raise SystemExit(f"{' '.join(map(str, words))}: ended with code {ran.code}:\n{ran.err}")
    record: dict[str, Any] = json.loads((output / "large.color.json").read_text())
    predicted = sum(_tiles(path) for path in (output / "large.zarr" / "versions").rglob("chroma/records/*.json"))
    spent = _processor_seconds() - before
    return Figures(ran.seconds, spent, record["work"]["seconds"], ran.peak_bytes / 1e9, predicted)


def _processor_seconds() -> float:
    """Of all processes that have ended so far."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _tiles(record: Path) -> int:
    return int(json.loads(record.read_text())["tiles"])


def differing_outside(output: Path, grade: Grade) -> int:
    """Bytes of colours beyond a grade's only region that differ."""
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
    return differing


def reached(output: Path) -> float:
    """Colourfulness of the current version, from other pixels than those that its factor was found with."""
    store = ScanStore.open(output / "large.zarr")
    version = store.version(json.loads((output / "large.color.json").read_text())["result"]["version"])
    chroma, lightness = sampled(store, version, 2**20)
    return colourfulness(rgb_from_lab(lightness, chroma))


def row(name: str, each: Figures, beside: float) -> str:
    """A line of the table; ``beside`` are the seconds of the export of the colours as they were."""
    colours, export = each.stages.get("colorize", 0.0), each.stages["export"]
    ratios = f"{(colours + export) / beside:.2f} | {each.seconds / beside:.2f}"
    took = f"{each.seconds:.1f} | {colours:.1f} | {export:.1f} | {ratios} | {each.processor_seconds:.1f}"
    return f"| {name} | {took} | {each.peak_gb:.2f} |"


def export_again(output: Path, exported: float) -> Figures:
    """Write the picture of the colours as they were again, after a grade; ``exported`` were the seconds before."""
    (picture,) = (path for path in output.glob("large.*.color.tif") if "_graded" not in path.name)
    picture.unlink()
    again = command(output, "reprocess", output, "--keep", 9, "--saturation", 1)
    # The record adds up what was spent on a version.
    return replace(again, stages={"export": again.stages["export"] - exported})


def measure(work: Path, megapixels: float) -> Iterator[str]:
    """Run all commands in a folder; the lines of the table and those below it, as they come."""
    side = round((megapixels * 1e6) ** 0.5)
    scans, output, copies = (work / name for name in ("scans", "out", "copies"))
    for folder in (scans, copies):
        folder.mkdir(parents=True)
    write_scan(scans / "large.tif", side)
    write_copy(scans / "large.tif", copies / "large.jpg")
    yield f"A scan of {side} x {side} pixels, --limit-memory {LIMIT}\n"
    yield (
        "| command | s | colours, s | export, s | stages / plain export | command / plain export | processor time, s "
        "| peak memory of all processes, GB |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    first = command(output, "run", scans, "-o", output, "--palette-from", copies, "--precision", "fp32")
    again = ("reprocess", output, "--keep", 9)
    command(output, *again, "--saturation", 0.8)
    plain = export_again(output, first.stages["export"])
    beside = plain.stages["export"]
    yield row("`run --palette-from`", first, beside)
    yield row("plain export", plain, beside)
    for words in (("--saturation", 0.9), ("--saturation", 0.9, "--warmth", 3), ("--hue-map", "blue>brown, violet:0.4")):
        yield row(f"`{' '.join(map(str, words))}`", command(output, *again, *words), beside)
    yield row(f"`--colourfulness {GOAL:g}`", command(output, *again, "--colourfulness", GOAL), beside)
    there = reached(output)
    command(output, *again, "--saturation", 1)
    quarter = f"{side // 8},{side // 8},{side // 4},{side // 4}"
    last = command(output, *again, "--saturation", 0.5, "--within", quarter)
    yield row("`--saturation 0.5 --within`", last, beside)
    grade = Grade.from_json(json.loads((output / "large.color.json").read_text())["settings"]["grade"])
    yield f"\n{last.predicted - first.predicted} tiles predicted for the grades."
    yield f"Colourfulness {there:.2f} for {GOAL:g}: {100 * abs(there / GOAL - 1):.2f} % away."
    yield f"{differing_outside(output, grade)} bytes of colours beyond the part differ."
    sizes = {path.name: size_bytes(path) / 1e6 for path in (output / "large.zarr" / "versions").iterdir()}
    graded = max(size for name, size in sizes.items() if "_graded" in name)
    yield f"In the store: {max(sizes.values()):.1f} MB for the colours, at most {graded:.3f} MB for a grade of them."


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
