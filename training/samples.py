"""Grids of gray, generated and true pictures that a training run keeps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.colour.lab import rgb_from_lab
from training.config import Recipe

_GAP_PX = 4


def _rgb(lightness: NDArray[np.float32], colour: NDArray[np.float32], recipe: Recipe) -> NDArray[np.float32]:
    """(N, 1, H, W) and (N, 2 or 3, H, W) in network units to (N, H, W, 3) sRGB in [0, 1]."""
    if recipe.colour == "rgb":
        rgb: NDArray[np.float32] = np.moveaxis((colour + 1) / 2, 1, -1).clip(0, 1)
        return rgb
    pairs = zip((lightness[:, 0] + 1) * 50, colour * np.float32(recipe.chroma_scale), strict=True)
    return np.stack([rgb_from_lab(l_star, chroma) for l_star, chroma in pairs])


def grid(lightness: Tensor, generated: Tensor, truth: Tensor, recipe: Recipe) -> NDArray[np.uint8]:
    """A grid on white with one row for each picture: gray, generated, truth.

    Parameters
    ----------
    lightness : (N, 1, S, S); generated, truth : (N, 2 or 3, S, S); all in [-1, 1]

    Returns
    -------
    (H, W, 3) uint8 RGB
    """
    gray, *coloured = (np.asarray(part.detach().float().cpu(), np.float32) for part in (lightness, generated, truth))
    columns: list[NDArray[np.floating]] = [np.repeat(np.moveaxis((gray + 1) / 2, 1, -1), 3, axis=-1)]
    columns.extend(_rgb(gray, colour, recipe) for colour in coloured)
    edge = ((0, 0), (_GAP_PX, 0), (_GAP_PX, 0), (0, 0))
    rows = np.concatenate([np.pad(column, edge, constant_values=1.0) for column in columns], axis=2)
    pixels = np.rint(rows.reshape(-1, *rows.shape[2:]) * 255).astype(np.uint8)
    return np.pad(pixels, ((0, _GAP_PX), (0, _GAP_PX), (0, 0)), constant_values=255)


def shrunk(pixels: NDArray[np.uint8], longest_px: int) -> NDArray[np.uint8]:
    """(H, W, 3) with its longer side at most ``longest_px``, the aspect ratio kept."""
    scale = longest_px / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    small: NDArray[np.uint8] = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    return small


def write_grid(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an RGB grid as PNG.

    Raises
    ------
    OSError : the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path}: cannot be written")
