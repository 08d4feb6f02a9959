"""Views of a photograph that the palette network learns from, and the true colour of each cell.

The network sees squares. View 0 is the whole picture squeezed into a square, view 1 the same mirrored and on old film;
the others are square crops, like the windows of a large scan. A view is a function of (seed, picture, number) alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.palette import gray_of
from pipeline.colour.lab import lab_from_rgb
from training.config import Film
from training.data.film import age
from training.data.pictures import Sample
from training.palette.transformer import PATCH_PX

F32 = NDArray[np.float32]

_LEAST_CROP = 0.5  # of the short side
_CLEAN = 0.3  # share of the crops without film


@dataclass(frozen=True)
class Views:
    """How pictures become views of ``cells`` x ``cells`` patches."""

    cells: int = 16
    film: Film = field(default_factory=lambda: Film(gamma=0.35, fade=0.12, grain=0.05, blur_px=1.2))
    seed: int = 0

    @property
    def side_px(self) -> int:
        return self.cells * PATCH_PX

    def view(self, sample: Sample, picture: int, number: int) -> tuple[F32, F32]:
        """View ``number`` of a picture.

        Returns
        -------
        gray : (side_px, side_px) sRGB-encoded gray in [0, 1], the network's input
        chroma : (2, cells, cells) mean a*, b* of each cell, the truth
        """
        rng = np.random.default_rng([self.seed, picture, number])
        pixels = sample.pixels if number < 2 else _square(sample.pixels, rng)
        lab = lab_of(Sample(_resized(pixels, self.side_px), sample.space))
        if number == 1 or (number > 1 and rng.random() < 0.5):
            lab = lab[:, :, ::-1]
        lightness = lab[0]
        if number == 1 or (number > 1 and rng.random() > _CLEAN):
            lightness = age(np.clip(lightness / 100, 0, 1), self.film, rng) * np.float32(100)
        return gray_of(lightness), cell_means(lab[1:], self.cells)


def lab_of(sample: Sample) -> F32:
    """(3, H, W) L*, a*, b* of a decoded picture."""
    if sample.space == "rgb":
        return lab_from_rgb(sample.pixels.astype(np.float32) / np.float32(255))
    lab = sample.pixels.transpose(2, 0, 1).astype(np.float32)
    lab[0] *= np.float32(100 / 255)
    lab[1:] -= np.float32(128)
    return lab


def cell_means(chroma: F32, cells: int) -> F32:
    """(2, H, W) to (2, cells, cells) means over the cells of a grid."""
    planes = [cv2.resize(np.ascontiguousarray(plane), (cells, cells), interpolation=cv2.INTER_AREA) for plane in chroma]
    return np.stack(planes).astype(np.float32)


def _square(pixels: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """A square crop at a random place, its side between half the short side and all of it."""
    height, width = pixels.shape[:2]
    side = max(1, int(min(height, width) * rng.uniform(_LEAST_CROP, 1)))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    return pixels[top : top + side, left : left + side]


def _resized(pixels: NDArray[Any], side_px: int) -> NDArray[Any]:
    """The whole picture as a square; a side that shrinks is averaged over areas."""
    smaller = (min(pixels.shape[0], side_px), min(pixels.shape[1], side_px))
    if smaller != pixels.shape[:2]:
        pixels = cv2.resize(pixels, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != (side_px, side_px):
        pixels = cv2.resize(pixels, (side_px, side_px), interpolation=cv2.INTER_CUBIC)
    return pixels
