"""What a generator makes of true palettes: CIEDE2000 below gray, beside the palette itself enlarged.

    python -m tests.benchmarks.true_palettes --data PHOTOGRAPHS [--model default] [--limit 300]

Each held-out photograph is brought to a short side of 256 px; its true a*, b* are averaged over grids of cells,
enlarged by cubic convolution, and given to the generator with the true lightness.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from skimage.color import deltaE_ciede2000

from engines.machine import processors
from engines.spec import find_model
from pipeline.colour.lab import lab_from_rgb, rgb_from_lab
from pipeline.tiling.palette import Palette
from training.evaluation.colorizers import Look, OnnxColorizer
from training.evaluation.evaluate import resized
from training.evaluation.subjects import Subject, find_subjects, spread

CELLS = (8, 16, 24, 32, 64)


def _error(lightness: np.ndarray, chroma: np.ndarray, truth: np.ndarray) -> float:
    lab = lab_from_rgb(rgb_from_lab(lightness, np.ascontiguousarray(chroma)))
    return float(deltaE_ciede2000(np.moveaxis(lab, 0, -1), truth).mean())


def measure(subject: Subject, colorize: OnnxColorizer) -> np.ndarray | None:
    """(1 + 2 len(CELLS)) CIEDE2000: of gray, then for each grid of the enlarged palette and of the generator."""
    rgb = subject.read()
    if rgb is None:
        return None
    lab = lab_from_rgb(resized(rgb, 256).astype(np.float32) / np.float32(255))
    shape_yx, truth = lab.shape[1:], np.moveaxis(lab, 0, -1)
    found = [_error(lab[0], np.zeros_like(lab[1:]), truth)]
    for cells in CELLS:
        short = min(shape_yx)
        rows, columns = (max(1, round(cells * side / short)) for side in shape_yx)
        means = [cv2.resize(plane, (columns, rows), interpolation=cv2.INTER_AREA) for plane in lab[1:]]
        palette = Palette(np.stack(means), (shape_yx[0] / rows, shape_yx[1] / columns))
        look = Look(np.zeros((0, 0, 0), np.float32), np.zeros((0, 2), np.float32), palette)
        found += [_error(lab[0], palette.under((0, 0), shape_yx), truth)]
        found += [_error(lab[0], colorize(lab[0], look), truth)]
    return np.array(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="default")
    parser.add_argument("--limit", type=int, default=300)
    args = parser.parse_args()
    subjects = spread(find_subjects(args.data, False).measured, args.limit)
    colorize = OnnxColorizer(find_model(args.model))
    with ThreadPoolExecutor(processors()) as pool:
        made = [each for each in pool.map(lambda s: measure(s, colorize), subjects) if each is not None]
    gray, *others = np.mean(made, axis=0)
    print(f"{len(made)} held-out pictures; gray: CIEDE2000 {gray:.2f}\n")
    print("| cells along the short side | palette enlarged, % below gray | generator, % below gray |\n|---|---|---|")
    for index, cells in enumerate(CELLS):
        plain, made_of_it = (100 * (1 - value / gray) for value in others[2 * index : 2 * index + 2])
        print(f"| {cells} | {plain:.1f} | {made_of_it:.1f} |")


if __name__ == "__main__":
    main()
