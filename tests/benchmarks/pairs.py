"""python -m tests.benchmarks.pairs draw SCANS... --to FOLDER [--models default efficientnet-unet] [--count 60]
python -m tests.benchmarks.pairs count FOLDER ANSWERS

A blind comparison of two models. `draw` colours scans with both, by the command, and writes pictures with one model's
colours on the left and the other's on the right: `FOLDER/pairs/NN.jpg`, sides drawn by chance, and `FOLDER/key.json`,
which whoever answers must not see. ANSWERS has a line for each pair, its number and `left`, `right` or `same`:

    01 left
    02 same

`count` says how often each model was preferred, with a 95 % interval (Wilson 1927); `same` counts half for each.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

_LONG_SIDE_PX = 1024
_GAP_PX = 12
_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff")
_Z = 1.96


def drawn(given: list[Path], count: int, seed: int) -> list[Path]:
    """``count`` of the pictures below ``given``, by chance; files that are given themselves are all among them."""
    named = [path for path in given if path.is_file()]
    below = sorted(p for folder in given if folder.is_dir() for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES)
    return named + random.Random(seed).sample(below, min(len(below), max(0, count - len(named))))


def gray_copies(pictures: list[Path], folder: Path) -> None:
    """The pictures in gray, at most ``_LONG_SIDE_PX`` long, under numbers."""
    folder.mkdir(parents=True)
    for number, path in enumerate(pictures, 1):
        gray = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if gray is None:
            raise SystemExit(f"{path}: OpenCV cannot read it; leave it out")
        scale = min(1.0, _LONG_SIDE_PX / max(gray.shape))
        size_xy = round(gray.shape[1] * scale), round(gray.shape[0] * scale)
        cv2.imwrite(str(folder / f"{number:02}.png"), cv2.resize(gray, size_xy, interpolation=cv2.INTER_AREA))


def colour(scans: Path, output: Path, model: str) -> None:
    """All scans by one model, as the command does it."""
    words = ["run", str(scans), "--output", str(output), "--model", model, "--format", "png"]
    subprocess.run([sys.executable, "-m", "flows.cli", *words], check=True)


def draw(given: list[Path], to: Path, models: tuple[str, str], count: int, seed: int) -> None:
    """Colour, and write pairs and key."""
    pictures = drawn(given, count, seed)
    gray_copies(pictures, to / "scans")
    for model in models:
        colour(to / "scans", to / model, model)
    (to / "pairs").mkdir()
    sides = random.Random(seed + 1)
    key = {}
    for number, path in enumerate(pictures, 1):
        left, right = sides.sample(models, 2)
        both = [cv2.imread(str(to / model / f"{number:02}.color.png")) for model in (left, right)]
        gap = np.full((both[0].shape[0], _GAP_PX, 3), 255, np.uint8)
        cv2.imwrite(str(to / "pairs" / f"{number:02}.jpg"), np.hstack([both[0], gap, both[1]]))
        key[f"{number:02}"] = {"left": left, "right": right, "picture": path.name}
    (to / "key.json").write_text(json.dumps(key, indent=1))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Interval of 95 % of a share of ``count`` answers."""
    middle = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2))
    return middle - half, middle + half


def preferred(key: dict[str, dict[str, str]], answers: dict[str, str]) -> dict[str, float]:
    """How often each model was preferred. Raises SystemExit for pairs without an answer and words that are none."""
    if missing := sorted(set(key) - set(answers)):
        raise SystemExit(f"no answer to {', '.join(missing)}")
    told: dict[str, float] = {}
    for number, sides in key.items():
        answer = answers[number]
        if answer not in ("left", "right", "same"):
            raise SystemExit(f"{number} {answer}: the answers are left, right and same")
        for side in ("left", "right"):
            worth = 0.5 if answer == "same" else float(answer == side)
            told[sides[side]] = told.get(sides[side], 0.0) + worth
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    drawing = what.add_parser("draw")
    drawing.add_argument("scans", type=Path, nargs="+")
    drawing.add_argument("--to", type=Path, required=True)
    drawing.add_argument("--models", nargs=2, default=("default", "efficientnet-unet"))
    drawing.add_argument("--count", type=int, default=60)
    drawing.add_argument("--seed", type=int, default=1)
    counting = what.add_parser("count")
    counting.add_argument("folder", type=Path)
    counting.add_argument("answers", type=Path)
    asked = parser.parse_args()
    if asked.what == "draw":
        draw(asked.scans, asked.to, tuple(asked.models), asked.count, asked.seed)
        return
    key = json.loads((asked.folder / "key.json").read_text())
    answers = dict(line.split()[:2] for line in asked.answers.read_text().splitlines() if line.strip())
    for model, count in sorted(preferred(key, answers).items()):
        low, high = wilson(count / len(key), len(key))
        print(f"{model}: preferred in {count:g} of {len(key)} pairs, {count / len(key):.0%} [{low:.0%}, {high:.0%}]")


if __name__ == "__main__":
    main()
