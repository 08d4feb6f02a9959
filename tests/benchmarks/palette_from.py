"""What palettes from coloured copies are worth, and whether wrong copies are refused.

    python -m tests.benchmarks.palette_from DATA [--count 40] [--pairs 200] [--side 256] [--model default]

A photograph of DATA is the truth, its lightness the scan. The copy is a stand-in for what another program gives back:
at most 1 megapixel, JPEG 85, shifted by 3 and -2 px, scaled by 1.2 %, turned by 0.4 degrees, less contrast and
brighter, 2 % cropped. CIEDE2000 to the truth with its palette and the model's generator stands beside that of the same
copy laid exactly where it belongs, of the photograph itself as copy, of it warped by 1 % of the short side (registered,
too), and of the palette network's own palette. ``--count`` is of these; ``--pairs`` of the photographs that are
registered only: right, with another one's copy, with their own mirrored.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000

from engines.spec import find_model
from pipeline.colour.lab import lab_from_rgb, lightness_from_samples, rgb_from_lab
from pipeline.errors import PaletteCopyError
from pipeline.palettes.copies import laid_on
from pipeline.palettes.registration import Registration, register
from pipeline.tiling.palette import Palette
from tests.copies import U8, handled, warped
from training.evaluation.colorizers import Look, OnnxColorizer
from training.evaluation.evaluate import resized
from training.evaluation.subjects import find_subjects, spread

F32 = NDArray[np.float32]
CELLS = (24, 32, 48, 64)
COPIES = ("copy", "copy, laid exactly", "photograph", "photograph, warped")


def _lab(rgb: U8) -> F32:
    return lab_from_rgb(rgb.astype(np.float32) / np.float32(255))


def _error(lightness: F32, chroma: F32, truth: F32) -> float:
    lab = lab_from_rgb(rgb_from_lab(lightness, np.ascontiguousarray(chroma)))
    return float(deltaE_ciede2000(np.moveaxis(lab, 0, -1), np.moveaxis(truth, 0, -1)).mean())


def _at(matrix: NDArray[np.float64]) -> Registration:
    first, second = ((float(row[0]), float(row[1]), float(row[2])) for row in matrix)
    return Registration((first, second), 1.0, 1.0, 1.0)


def _errors(rgb: U8, colorize: OnnxColorizer) -> list[float]:
    """CIEDE2000 of gray and of the network's palette; then, for each number of cells, of the ``COPIES``."""
    truth = _lab(rgb)
    shape_yx, lightness = (truth.shape[1], truth.shape[2]), truth[0]
    copy, exact = handled(rgb)
    copy_lab = _lab(copy)
    warped_lab = _lab(warped(rgb, 0.01))
    found, of_warped = register(lightness, copy_lab[0]), register(lightness, warped_lab[0])

    def error(palette: Palette) -> float:
        look = Look(np.zeros((0, 0, 0), np.float32), np.zeros((0, 2), np.float32), palette)
        return _error(lightness, colorize(lightness, look), truth)

    errors = [_error(lightness, np.zeros_like(truth[1:]), truth), error(colorize.look(lightness).palette)]
    for cells in CELLS:
        errors += [
            error(laid_on(shape_yx, copy_lab, found, cells)),
            error(laid_on(shape_yx, copy_lab, _at(exact), cells)),
            error(laid_on(shape_yx, truth, _at(np.eye(3)[:2]), cells)),
            error(laid_on(shape_yx, warped_lab, of_warped, cells)),
        ]
    return errors


def _is_refused(scan: F32, copy: F32) -> bool:
    try:
        register(scan, copy)
    except PaletteCopyError:
        return True
    return False


def _refused(photographs: list[U8]) -> str:
    scans = [np.asarray(lightness_from_samples(rgb)) for rgb in photographs]
    copies = [np.asarray(lightness_from_samples(handled(rgb)[0])) for rgb in photographs]
    started = time.perf_counter()
    right = sum(map(_is_refused, scans, copies))
    seconds = (time.perf_counter() - started) / len(scans)
    half = scans[: max(1, len(scans) // 2)]
    swapped = sum(map(_is_refused, half, copies[len(scans) - len(half) :]))
    mirrored = sum(
        _is_refused(scan, np.ascontiguousarray(copy[:, ::-1])) for scan, copy in zip(half, copies, strict=False)
    )
    return (
        f"refused: {right} of {len(scans)} right copies ({seconds:.2f} s each), {swapped} of {len(half)} of other "
        f"pictures, {mirrored} of {len(half)} mirrored"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--model", default="default")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    subjects = find_subjects(args.data, False).measured
    colorize = OnnxColorizer(find_model(args.model))

    def photographs(count: int) -> list[U8]:
        read = (subject.read() for subject in spread(subjects, count))
        return [np.asarray(resized(rgb, args.side)) for rgb in read if rgb is not None]

    made = [_errors(rgb, colorize) for rgb in photographs(args.count)]
    gray, network, *others = np.mean(made, axis=0)
    print(f"{len(made)} held-out photographs, short side {args.side} px\n")
    print("| palette | CIEDE2000 | % below gray |\n|---|---|---|")
    print(f"| none (gray) | {gray:.2f} | 0.0 |\n| palette network | {network:.2f} | {100 * (1 - network / gray):.1f} |")
    for index, cells in enumerate(CELLS):
        for name, value in zip(COPIES, others[len(COPIES) * index :], strict=False):
            print(f"| {name}, {cells} cells | {value:.2f} | {100 * (1 - value / gray):.1f} |")
    print(f"\n{_refused(photographs(args.pairs))}", flush=True)


if __name__ == "__main__":
    main()
