"""What hints are worth: how far from the truth a picture is with 0, 1, 3, 10, 30 and 100 of them.

    python -m tests.benchmarks.hints DATA [--count 40] [--side 256] [--model default] [--megapixels 100]

A photograph of DATA that no model learned from is the truth, its lightness the scan. Points lie all over it, each far
from those before (of twenty random places the farthest one), and tell the truth's mean a*, b* of 5 x 5 pixels there.
What is beyond a hint's reach is compared bit by bit. Then a scan of two areas with an edge between them, a hint on one
side: CIEDE2000 of what comes over the edge, by its step of lightness; and areas without an edge, smooth and rough ones:
how much of a hint's colour comes through. Last, with ``--megapixels``, a large scan is
coloured, gets a hint, and another one: whole commands from the second changed hint to the new picture. With
``--picture FILE`` nothing is measured, and the first photographs are drawn: the model's colours, twelve points, what
comes of them, and the truth.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000

from engines.spec import find_model
from pipeline.colour.lab import lab_from_rgb, rgb_from_lab
from pipeline.hints.recolouring import Known, Recolouring, recolouring
from pipeline.hints.spreading import Seen
from pipeline.shapes import Shape
from pipeline.tiling.anchor import shrinking, square_means
from pipeline.types import Roi
from tests.benchmarks.giga import write_scan
from training.evaluation.colorizers import OnnxColorizer
from training.evaluation.evaluate import resized
from training.evaluation.subjects import find_subjects, spread

F32 = NDArray[np.float32]
COUNTS = (1, 3, 10, 30, 100)
EDGES = (5, 7, 10, 20, 30, 40)
AREAS = ("noise of 1 L*", "shading of 20 L*", "grain of 6 L*", "spots of 5 L*")
_OLIVE = (-8.0, 30.0)
_DRAWN, _DRAWN_PX = 12, 400


def _error(lightness: F32, chroma: F32, truth: F32) -> float:
    lab = lab_from_rgb(rgb_from_lab(lightness, np.ascontiguousarray(chroma)))
    return float(deltaE_ciede2000(np.moveaxis(lab, 0, -1), np.moveaxis(truth, 0, -1)).mean())


def scattered(count: int, seed: int) -> NDArray[np.float64]:
    """(count, 2) places in the unit square, each far from those before."""
    random = np.random.default_rng(seed)
    places = [random.random(2)]
    while len(places) < count:
        candidates = random.random((20, 2))
        nearest = ((candidates[:, None] - np.array(places)) ** 2).sum(-1).min(1)
        places.append(candidates[nearest.argmax()])
    return np.array(places)


def with_hints(lightness: F32, chroma: F32, known: list[Known]) -> tuple[Recolouring, F32]:
    """What hints make of the chroma of a picture in memory."""
    factor = shrinking(lightness.shape)
    smooth = np.stack([cv2.GaussianBlur(plane, (0, 0), max(lightness.shape) / 48) for plane in chroma])
    small = np.stack([square_means(np.ascontiguousarray(plane), factor) for plane in (lightness, *smooth)])
    seen = Seen(small[0], small[1:], factor, (lightness.shape[0], lightness.shape[1]))
    made = recolouring(
        known, seen, lambda roi: chroma[:, roi.rows, roi.columns], lambda roi: lightness[roi.rows, roi.columns]
    )
    return made, made.apply(chroma, Roi(0, lightness.shape[0], 0, lightness.shape[1]), lightness)


def _points(truth: F32, count: int, seed: int) -> list[Known]:
    smooth = [cv2.blur(np.ascontiguousarray(plane), (5, 5)) for plane in truth[1:]]
    known = []
    for y, x in (scattered(max(COUNTS), seed)[:count] * truth.shape[1:]).astype(int):
        ab = float(smooth[0][y, x]), float(smooth[1][y, x])
        known.append(Known(Shape("points", ((float(x), float(y)),)), ab))
    return known


def _changed_outside(made: Recolouring, before: F32, after: F32) -> int:
    """Bytes that differ outside the reach of all hints: of blocks that are said not to be touched, and of pixels."""
    height, width = before.shape[1:]
    differing = 0
    for y in range(0, height, 64):
        for x in range(0, width, 64):
            roi = Roi(y, y + 64, x, x + 64).clipped((height, width))
            if not made.touches(roi):
                one, other = (np.ascontiguousarray(each[:, roi.rows, roi.columns]) for each in (before, after))
                differing += int((one.view(np.uint8) != other.view(np.uint8)).sum())
    return differing


def _bleed(step: float) -> float:
    """The largest CIEDE2000 beyond an edge of so many L*, of a hint beside it."""
    random = np.random.default_rng(1)
    lightness = np.full((384, 512), 50 - step / 2, np.float32)
    lightness[:, 256:] += np.float32(step)
    lightness = cv2.GaussianBlur(lightness + random.normal(0, 1, lightness.shape).astype(np.float32), (0, 0), 0.7)
    chroma = np.zeros((2, *lightness.shape), np.float32)
    _, made = with_hints(lightness, chroma, [Known(Shape("points", ((200.0, 190.0),)), _OLIVE)])
    beyond = slice(258, None)
    before, after = (
        np.moveaxis(lab_from_rgb(rgb_from_lab(lightness[:, beyond], np.ascontiguousarray(each[:, :, beyond]))), 0, -1)
        for each in (chroma, made)
    )
    return float(deltaE_ciede2000(before, after).max())


def _kept(area: str) -> float:
    """The share of a hint's colour that is left at 40 to 80 px from it, in an area without an edge."""
    random = np.random.default_rng(3)
    noise = random.normal(0, 1, (256, 340)).astype(np.float32)
    if area.startswith("spots"):
        noise = cv2.GaussianBlur(noise, (0, 0), 2)
    sizes = {"noise": 1.0, "shading": 0.5, "grain": 6.0, "spots": 5.0}
    lightness = 50 + noise * np.float32(sizes[area.split()[0]] / noise.std())
    if area.startswith("shading"):
        lightness += np.linspace(-10, 10, lightness.shape[1], dtype=np.float32)
    chroma = np.zeros((2, *lightness.shape), np.float32)
    _, made = with_hints(lightness, chroma, [Known(Shape("points", ((100.0, 128.0),)), _OLIVE)])
    return float(made[1, 88:168, 140:180].mean() / _OLIVE[1])


def drawn(lightness: F32, chroma: F32, truth: F32, number: int) -> NDArray[np.uint8]:
    """(h, w, 3) RGB: a photograph in the model's colours, its hints, the colours with them, and the truth."""
    known = _points(truth, _DRAWN, number)
    rows = [chroma, np.zeros_like(chroma), with_hints(lightness, chroma, known)[1], truth[1:]]
    planes = (rgb_from_lab(lightness, np.ascontiguousarray(each)) for each in rows)
    shown = [np.rint(each * 255).astype(np.uint8) for each in planes]
    size = (_DRAWN_PX, round(_DRAWN_PX * lightness.shape[0] / lightness.shape[1]))
    shown = [cv2.resize(each, size, interpolation=cv2.INTER_CUBIC) for each in shown]
    factor = _DRAWN_PX / lightness.shape[1]
    for each in known:
        colour = rgb_from_lab(np.full((1, 1), 60, np.float32), np.float32(each.ab).reshape(2, 1, 1))[0, 0] * 255
        ((x, y),) = each.shape.numbers
        place = round((x + 0.5) * factor), round((y + 0.5) * factor)
        cv2.circle(shown[1], place, 7, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(shown[1], place, 5, [float(value) for value in colour], -1, cv2.LINE_AA)
    return np.concatenate(shown, 1)


def _command(*words: object) -> tuple[float, float]:
    """Wall seconds of a whole command, and those of processors that it and what it starts take."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "flows.cli", *map(str, words)], check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, taken


def _seconds_of_a_change(megapixels: float) -> str:
    """What a large scan's first colours and a changed hint take."""
    side = round((megapixels * 1e6) ** 0.5)
    with tempfile.TemporaryDirectory(prefix="colorize-archive-hints-") as name:
        folder = Path(name)
        scan, output = folder / "large.tif", folder / "out"
        write_scan(scan, side)
        run = ("run", scan, "-o", output)
        first = _command(*run)
        for place in (side // 2, side // 3):
            _command("hint", scan, "--at", f"{place},{place}", "--colour", "#556b2f", "--reach", 0.1)
            changed = _command(*run)
            stages = json.loads((output / "large.color.json").read_text())["work"]["seconds"]
    wall, taken = (f"{one:.1f} s and {other:.1f} s" for one, other in zip(first, changed, strict=True))
    told = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in stages.items())
    return (
        f"{megapixels:g} megapixels, first colours and a changed hint: {wall}, of processors {taken} "
        f"({100 * changed[1] / first[1]:.0f} %; the change: {told})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--count", type=int, default=40, help="of photographs, of each folder")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--model", default="default")
    parser.add_argument("--megapixels", type=float, default=0, help="of the large scan; 0 leaves it out")
    parser.add_argument("--picture", type=Path, help="draw the photographs instead, all in one JPEG")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    colorize = OnnxColorizer(find_model(args.model))
    errors, rows, outside, seconds = [], list[NDArray[np.uint8]](), 0, 0.0
    subjects = [each for folder in args.data for each in spread(find_subjects(folder, False).measured, args.count)]
    for number, subject in enumerate(subjects):
        if (rgb := subject.read()) is None:
            continue
        truth = lab_from_rgb(np.asarray(resized(rgb, args.side)).astype(np.float32) / np.float32(255))
        lightness = np.ascontiguousarray(truth[0])
        chroma = np.asarray(colorize(lightness, colorize.look(lightness)), np.float32)
        if args.picture is not None:
            rows.append(drawn(lightness, chroma, truth, number))
            continue
        row = [_error(lightness, chroma, truth)]
        for count in COUNTS:
            started = time.perf_counter()
            made, after = with_hints(lightness, chroma, _points(truth, count, number))
            seconds += time.perf_counter() - started
            outside += _changed_outside(made, chroma, after)
            row.append(_error(lightness, after, truth))
        errors.append(row)
    if args.picture is not None:
        picture = cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(args.picture), picture, [cv2.IMWRITE_JPEG_QUALITY, 80])
        return
    table, median = np.array(errors), np.median(errors, axis=0)
    print(f"{len(table)} held-out photographs, short side {args.side} px, model {args.model}\n")
    print("| hints | median CIEDE2000 | % below none | % below none, mean |\n|---|---|---|---|")
    mean = table.mean(0)
    for index, count in enumerate((0, *COUNTS)):
        shares = (100 * (1 - each[index] / each[0]) for each in (median, mean))
        print(f"| {count} | {median[index]:.2f} | {' | '.join(f'{share:.1f}' for share in shares)} |")
    print(f"\n{outside} bytes differ beyond the reach; {seconds / table[:, 1:].size:.2f} s for the hints of a picture")
    told = ", ".join(f"{_bleed(step):.2f} over {step} L*" for step in EDGES)
    print(f"CIEDE2000 that bleeds over an edge, at most: {told}")
    told = ", ".join(f"{100 * _kept(area):.0f} % through {area}" for area in AREAS)
    print(f"Left of a hint's colour after 40 to 80 px: {told}")
    if args.megapixels:
        print(_seconds_of_a_change(args.megapixels))


if __name__ == "__main__":
    main()
