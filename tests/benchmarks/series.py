"""What a series is worth: how far its pictures agree, and what that costs or gains in truth.

    python -m tests.benchmarks.series DATA [--pairs 200] [--side 256] [--model default]

Two pictures of each held-out photograph of DATA: two crops that overlap (two thirds of the long side each), two
exposures (one darker with more contrast, one lighter and turned by 0.7 degrees), or two scans (one with grain and
blurred, at 0.8 of the size), in turn. Each is coloured alone, and both as a series. CIEDE2000 between both results, at
the same places of the photograph, and of both to the truth. Then unlike pictures: each photograph in one series with
nine others, alone and within it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000

from engines.spec import find_model
from pipeline.colour.lab import lab_from_rgb, rgb_from_lab
from pipeline.palettes.series import Reading, join, sureness_of
from pipeline.tiling.palette import Palette
from training.evaluation.colorizers import Look, OnnxColorizer
from training.evaluation.evaluate import resized
from training.evaluation.subjects import find_subjects, spread

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
KINDS = ("crops", "exposures", "scans")
_UNLIKE = 10


@dataclass(frozen=True)
class View:
    """A picture of a photograph.

    Attributes
    ----------
    lightness : its L*
    truth : the true L*, a*, b*
    matrix : (2, 3), from its x, y, 1 to those of the photograph
    """

    lightness: F32
    truth: F32
    matrix: NDArray[np.float64]


def _lab(rgb: NDArray) -> F32:
    return lab_from_rgb(rgb.astype(np.float32) / np.float32(255))


def _crop(lab: F32, x0: int, x1: int, y0: int, y1: int) -> View:
    part = np.ascontiguousarray(lab[:, y0:y1, x0:x1])
    return View(part[0], part, np.array([[1, 0, x0], [0, 1, y0]], float))


def _toned(lightness: F32, gamma: float, gain: float, offset: float) -> F32:
    return np.asarray(np.clip(100 * gain * (lightness / 100) ** gamma + offset, 0, 100), np.float32)


def _turned(lab: F32, degrees: float, scale: float) -> View:
    height, width = lab.shape[1:]
    size = round(width * scale), round(height * scale)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, scale)
    turn[:, 2] += np.array(size) / 2 - (width / 2, height / 2)
    centres = turn.copy()
    centres[:, 2] += turn[:, :2] @ (0.5, 0.5) - 0.5
    laid = np.stack([cv2.warpAffine(p, centres, size, borderMode=cv2.BORDER_REFLECT) for p in lab])
    return View(laid[0], laid, cv2.invertAffineTransform(turn))


def views_of(lab: F32, kind: str, seed: int) -> tuple[View, View]:
    """Two pictures of a photograph, as two scans of a series show it."""
    height, width = lab.shape[1:]
    draw = np.random.default_rng(seed)
    if kind == "crops":
        if width >= height:
            part = 2 * width // 3
            return _crop(lab, 0, part, 0, height), _crop(lab, width - part, width, 0, height)
        part = 2 * height // 3
        return _crop(lab, 0, width, 0, part), _crop(lab, 0, width, height - part, height)
    if kind == "exposures":
        one, other = _crop(lab, 0, width, 0, height), _turned(lab, 0.7, 1.0)
        dark, light = _toned(one.lightness, 1.3, 0.95, 0), _toned(other.lightness, 0.8, 0.9, 8)
        return View(dark, one.truth, one.matrix), View(light, other.truth, other.matrix)
    one, other = _crop(lab, 0, width, 0, height), _turned(lab, -0.4, 0.8)
    grain = cv2.GaussianBlur(other.lightness, (0, 0), 0.7) + draw.normal(0, 2, other.lightness.shape)
    return one, View(np.clip(grain, 0, 100).astype(np.float32), other.truth, other.matrix)


def _results(views: list[View], colorize: OnnxColorizer) -> tuple[list[F32], list[F32]]:
    """The chroma of each picture alone, and within the series of all."""
    looks = [colorize.look(view.lightness) for view in views]
    readings = [
        Reading(f"{n:03}", view.lightness, look.palette, sureness_of(look.distribution))
        for n, (view, look) in enumerate(zip(views, looks, strict=True))
    ]
    joined = [each.palette for _, each in sorted(join(readings).items())]
    alone = [colorize(view.lightness, look) for view, look in zip(views, looks, strict=True)]
    within = [
        chroma if palette is look.palette else colorize(view.lightness, _with(palette))
        for view, look, palette, chroma in zip(views, looks, joined, alone, strict=True)
    ]
    return alone, within


def _with(palette: Palette) -> Look:
    return Look(np.zeros((0, 0, 0), np.float32), np.zeros((0, 2), np.float32), palette)


def _difference(lightness: F32, one: F32, other: F32) -> NDArray:
    """(h, w) CIEDE2000 of two a*, b* on one lightness, as they are in pictures."""
    seen = [lab_from_rgb(rgb_from_lab(lightness, np.ascontiguousarray(each))) for each in (one, other)]
    return np.asarray(deltaE_ciede2000(*(np.moveaxis(each, 0, -1) for each in seen)))


def _error(view: View, chroma: F32) -> float:
    return float(_difference(view.truth[0], chroma, view.truth[1:]).mean())


def _apart(views: tuple[View, View], chromas: list[F32]) -> float:
    """Mean CIEDE2000 between both pictures where both show the photograph, on the lightness of the first."""
    first, second = views
    way = np.linalg.inv(np.vstack([second.matrix, (0, 0, 1)])) @ np.vstack([first.matrix, (0, 0, 1)])
    way[:2, 2] += way[:2, :2] @ (0.5, 0.5) - 0.5
    size = first.lightness.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    laid = np.stack([cv2.warpAffine(np.ascontiguousarray(p), way[:2], size, flags=flags) for p in chromas[1]])
    inside = cv2.warpAffine(np.ones_like(second.lightness), way[:2], size, flags=flags) > 0.99
    return float(_difference(first.truth[0], chromas[0], laid.astype(np.float32))[inside].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--model", default="default")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    colorize = OnnxColorizer(find_model(args.model))
    subjects = spread(find_subjects(args.data, False).measured, args.pairs)
    labs = [_lab(np.asarray(resized(rgb, args.side))) for each in subjects if (rgb := each.read()) is not None]
    figures: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in KINDS}
    for n, lab in enumerate(labs):
        kind = KINDS[n % len(KINDS)]
        views = views_of(lab, kind, n)
        row: list[float] = []
        for made in _results(list(views), colorize):
            row += [_apart(views, made), float(np.mean([_error(v, c) for v, c in zip(views, made, strict=True)]))]
        figures[kind].append(tuple(row))
        print(f"{n + 1} of {len(labs)}", end="\r", file=sys.stderr, flush=True)
    print(f"{len(labs)} pairs, short side {args.side} px\n")
    print("| pairs | apart: alone | series | ratio | to the truth: alone | series | change, % |")
    print("|---|---|---|---|---|---|---|")
    every = [row for rows in figures.values() for row in rows]
    for name, found in (*figures.items(), ("all", every)):
        apart, error, joint, joint_error = np.mean(found, axis=0)
        told = f"{apart:.2f} | {joint:.2f} | {joint / apart:.2f} | {error:.3f} | {joint_error:.3f}"
        print(f"| {name} ({len(found)}) | {told} | {100 * (joint_error / error - 1):+.2f} |")
    alone, within = [], []
    for start in range(0, len(labs) - _UNLIKE + 1, _UNLIKE):
        views_ = [View(lab[0], lab, np.eye(3)[:2]) for lab in labs[start : start + _UNLIKE]]
        for view, own, joint in zip(views_, *_results(views_, colorize), strict=True):
            alone.append(_error(view, own))
            within.append(alone[-1] if joint is own else _error(view, joint))
    change = 100 * (np.mean(within) / np.mean(alone) - 1)
    told = f"{np.mean(alone):.3f} alone, {np.mean(within):.3f} within ({change:+.2f} %)"
    print(f"\n{len(alone)} unlike pictures in series of {_UNLIKE}: to the truth {told}")


if __name__ == "__main__":
    main()
