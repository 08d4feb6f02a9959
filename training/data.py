"""Photographs in, batches of lightness and chroma out.

A folder of photographs is split 80/20 by source photograph, never by file, so that a crop of a training picture is
never in the test. Every batch is a function of (seed, step) alone: a resumed run sees the batches it would have seen.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.color import lab_from_rgb
from training.config import Phase, Recipe
from training.errors import DataError

_ENDINGS = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}
_TEST_OF = 5
_LEAST_CHROMA = 3.0


@dataclass(frozen=True)
class Photograph:
    """A colour photograph on disk; ``group`` names the photograph that it was cut from."""

    path: Path
    group: str
    licence: str = ""
    source: str = ""


def _manifest(folder: Path) -> dict[str, dict[str, str]]:
    for place in (folder, *folder.parents[:2]):
        table = place / "MANIFEST.tsv"
        if table.is_file():
            with table.open(newline="", encoding="utf-8") as lines:
                rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
                return {str((place / row["file"]).resolve()): row for row in rows}
    return {}


def find_photographs(folder: Path) -> list[Photograph]:
    """All pictures under ``folder``, sorted, with the groups of a ``MANIFEST.tsv`` in it or up to two folders above.

    Without a manifest each file is its own group, named by its content.

    Raises
    ------
    DataError : no picture under ``folder``.
    """
    rows = _manifest(folder.resolve())
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in _ENDINGS):
        row = rows.get(str(path.resolve()), {})
        group = row.get("group") or hashlib.sha256(path.read_bytes()).hexdigest()
        found.append(Photograph(path, group, row.get("licence", ""), row.get("source", "")))
    if not found:
        raise DataError(f"{folder}: no pictures ({', '.join(sorted(_ENDINGS))}); give a folder of photographs")
    return found


def is_test(photograph: Photograph) -> bool:
    """True for the fifth of the groups that training never sees."""
    return hashlib.sha256(photograph.group.encode()).digest()[0] % _TEST_OF == 0


def read_rgb(path: Path) -> NDArray[np.uint8] | None:
    """(H, W, 3) RGB, or None where the file cannot be read as a picture."""
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return None if bgr is None else cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def is_colour(rgb: NDArray[np.uint8]) -> bool:
    """False for pictures that are gray by any practical standard: mean chroma below 3."""
    small = cv2.resize(rgb, (64, 64), interpolation=cv2.INTER_AREA)
    lab = lab_from_rgb(small.astype(np.float32) / 255)
    return float(np.hypot(lab[1], lab[2]).mean()) >= _LEAST_CHROMA


def load_pictures(photographs: list[Photograph]) -> tuple[list[NDArray[np.uint8]], list[Path]]:
    """Decode all photographs; returns the colour ones as (H, W, 3) uint8 and the paths left out."""
    kept, left_out = [], []
    with ThreadPoolExecutor() as pool:
        for photograph, rgb in zip(photographs, pool.map(lambda p: read_rgb(p.path), photographs), strict=True):
            if rgb is None or min(rgb.shape[:2]) < 32 or not is_colour(rgb):
                left_out.append(photograph.path)
            else:
                kept.append(rgb)
    if not kept:
        raise DataError(f"none of {len(photographs)} pictures is a readable colour photograph")
    return kept, left_out


def _crop(rgb: NDArray[np.uint8], crop_px: int, smallest_px: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A random square, its side log-uniform between ``smallest_px`` and the picture's short side, as ``crop_px``."""
    height, width = rgb.shape[:2]
    largest = min(height, width)
    side = int(np.exp(rng.uniform(np.log(min(smallest_px, largest)), np.log(largest))))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    square = rgb[top : top + side, left : left + side]
    if rng.random() < 0.5:
        square = square[:, ::-1]
    shrinks = side > crop_px
    return cv2.resize(square, (crop_px, crop_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _age(lightness: NDArray[np.float32], recipe: Recipe, rng: np.random.Generator) -> NDArray[np.float32]:
    """What old film does to lightness in [0, 1]: another tone curve and grain. The truth's chroma stays."""
    gamma = np.exp(rng.uniform(-recipe.gamma_jitter, recipe.gamma_jitter))
    aged = np.clip(lightness, 0, 1) ** np.float32(gamma)
    grain = rng.standard_normal(lightness.shape, dtype=np.float32) * np.float32(rng.uniform(0, recipe.noise))
    return np.clip(aged + grain, 0, 1)


def make_batch(
    pictures: list[NDArray[np.uint8]], recipe: Recipe, phase: Phase, step: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The batch of ``step``: (N, 1, S, S) lightness and (N, 2, S, S) chroma, both scaled to [-1, 1]."""
    rng = np.random.default_rng([recipe.seed, step])
    lightness = np.empty((phase.batch, 1, phase.crop_px, phase.crop_px), np.float32)
    chroma = np.empty((phase.batch, 2, phase.crop_px, phase.crop_px), np.float32)
    for i in range(phase.batch):
        square = _crop(pictures[rng.integers(len(pictures))], phase.crop_px, recipe.smallest_crop_px, rng)
        lab = lab_from_rgb(square.astype(np.float32) / np.float32(255))
        lightness[i, 0] = _age(lab[0] / np.float32(100), recipe, rng) * 2 - 1
        chroma[i] = np.clip(lab[1:] / recipe.chroma_scale, -1, 1)
    return lightness, chroma


def batches(
    pictures: list[NDArray[np.uint8]], recipe: Recipe, first_step: int
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Batches of steps ``first_step`` to the recipe's last, made two ahead in a thread."""
    with ThreadPoolExecutor(1) as pool:
        steps = range(first_step, recipe.total_steps)
        ahead = [pool.submit(make_batch, pictures, recipe, recipe.phase_at(s), s) for s in steps[:2]]
        for step in steps:
            batch = ahead.pop(0).result()
            if step + 2 < recipe.total_steps:
                ahead.append(pool.submit(make_batch, pictures, recipe, recipe.phase_at(step + 2), step + 2))
            yield batch
