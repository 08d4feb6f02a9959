"""Palettes of scans that one look does not do for: pages of unlike pictures, panoramas, and a gigapixel.

    python -m tests.benchmarks.palettes --data PHOTOGRAPHS [--model default] [--trials 5]

A page is 16 held-out photographs of 512 x 512 px side by side, a panorama 20 in a row. Each is coloured as one scan,
and each photograph alone: CIEDE2000 between the two, beside that of the photograph in gray, which is as far as colours
could be apart. The gigapixel is a photograph mirrored until it has 32768 x 32768 px, read as a store would give it:
the time of its palette on one processor is set against that of its tiles in the generator alone; a job takes longer.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import cv2
import numpy as np
from skimage.color import deltaE_ciede2000

from engines.palette import PaletteNetwork, palette_spec
from engines.spec import Model, find_model
from pipeline.colour.lab import lab_from_rgb, rgb_from_lab
from pipeline.palettes.windows import distribution_of, palette_grid
from pipeline.tiling.grid import TileAxis
from pipeline.types import Roi
from training.evaluation.colorizers import OnnxColorizer, tile_ms
from training.evaluation.subjects import Subject, find_subjects

SIDE = 512
GIGAPIXEL_SIDE = 2**15
STRIDE = 224


def _square(subject: Subject) -> np.ndarray | None:
    rgb = subject.read()
    if rgb is None:
        return None
    side = min(rgb.shape[:2])
    y, x = ((extent - side) // 2 for extent in rgb.shape[:2])
    return cv2.resize(rgb[y : y + side, x : x + side], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)


def _coloured(lightness: np.ndarray, colorize: OnnxColorizer) -> np.ndarray:
    """(h, w, 3) CIELAB of every fourth pixel."""
    chroma = colorize(lightness, colorize.look(lightness))
    lab = lab_from_rgb(rgb_from_lab(lightness, np.ascontiguousarray(chroma)))
    return np.moveaxis(lab, 0, -1)[::4, ::4]


def _apart(photographs: list[np.ndarray], columns: int, colorize: OnnxColorizer) -> np.ndarray:
    """(2,) mean CIEDE2000 between the photographs on one scan and alone, and between those alone and in gray."""
    rows = [np.hstack(photographs[i : i + columns]) for i in range(0, len(photographs), columns)]
    together = _coloured(_lightness(np.vstack(rows)), colorize)
    step, found = SIDE // 4, []
    for number, photograph in enumerate(photographs):
        row, column = divmod(number, columns)
        alone = _coloured(_lightness(photograph), colorize)
        here = together[row * step : (row + 1) * step, column * step : (column + 1) * step]
        gray = alone * np.array([1, 0, 0], np.float32)
        found.append([deltaE_ciede2000(here, alone).mean(), deltaE_ciede2000(gray, alone).mean()])
    return np.mean(found, axis=0)


def _lightness(rgb: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(lab_from_rgb(rgb.astype(np.float32) / np.float32(255))[0])


def _gigapixel(photograph: np.ndarray, model: Model, colorize: OnnxColorizer) -> str:
    shape_yx = (GIGAPIXEL_SIDE, GIGAPIXEL_SIDE)
    gray = cv2.cvtColor(cv2.resize(photograph, (4096, 4096)), cv2.COLOR_RGB2GRAY)
    unit = np.vstack([np.hstack([gray, gray[:, ::-1]]), np.hstack([gray[::-1], gray[::-1, ::-1]])])

    def read(roi: Roi) -> np.ndarray:
        return unit[np.ix_(np.arange(roi.y0, roi.y1) % len(unit), np.arange(roi.x0, roi.x1) % len(unit))]

    network = PaletteNetwork(palette_spec(model))
    card = network.card
    started = time.perf_counter()
    distribution_of(read, shape_yx, card.side_px, card.cells, network.see)
    seconds = time.perf_counter() - started
    tiles = len(TileAxis(GIGAPIXEL_SIDE, 256, STRIDE).starts) ** 2
    each = tile_ms(colorize) / 1000
    windows = len(palette_grid(shape_yx, card.cells).windows)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return (
        f"{windows} windows, {seconds:.0f} s; {tiles} tiles take the generator alone {tiles * each:.0f} s "
        f"({each * 1000:.1f} ms each, one processor): {100 * seconds / (tiles * each):.1f} %; "
        f"peak of this process {peak:.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="default")
    parser.add_argument("--trials", type=int, default=5)
    args = parser.parse_args()
    subjects = find_subjects(args.data, False).measured
    model = find_model(args.model)
    colorize = OnnxColorizer(model)
    first = next(each for subject in subjects if (each := _square(subject)) is not None)
    print(f"32768 x 32768 px: {_gigapixel(first, model, colorize)}\n", flush=True)
    print("| scan | CIEDE2000 to each photograph coloured alone | of those to gray |\n|---|---|---|")
    for name, count, columns in (("page of 4 x 4", 16, 4), ("panorama, 20 in a row", 20, 20)):
        figures = []
        for trial in range(args.trials):
            chosen = np.random.default_rng(trial).permutation(len(subjects))[: 2 * count]
            photographs = [each for i in chosen if (each := _square(subjects[i])) is not None][:count]
            figures.append(_apart(photographs, columns, colorize))
        (apart, gray), worst = np.mean(figures, axis=0), max(each[0] for each in figures)
        print(f"| {name} | {apart:.2f} (worst of {args.trials}: {worst:.2f}) | {gray:.2f} |", flush=True)


if __name__ == "__main__":
    main()
