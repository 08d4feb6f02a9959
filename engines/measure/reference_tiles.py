"""The reference tiles: 48 real gray pictures of 256x256 pixels on which every engine is judged.

``reference/tiles.png`` holds them stacked vertically: people, sky, land and water, towns by day and night, text and
paper margins, aerial photographs, very dark and very bright ones, six with film grain. ``reference/LICENCES.tsv`` lists
their sources; all are CC0 or in the public domain. PNG, because a JPEG's samples depend on the decoder.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelError

F32 = NDArray[np.float32]

FILE = Path(__file__).parents[1] / "reference" / "tiles.png"
COUNT = 48
SIZE_PX = 256
_DELTA = 6.0 / 29.0
_PALETTE_SPREAD = 15.0


def lightness_from_gray(gray: NDArray[np.uint8]) -> F32:
    """CIE L* in [0, 100] of sRGB-encoded 8-bit gray samples; any shape.

    IEC 61966-2-1 and CIE 15:2018, 8.2.1. Gives the same bits as :func:`pipeline.colour.lab.lightness_from_samples`,
    which this package must not import.
    """
    return _lightness_table().take(gray)


@functools.lru_cache(maxsize=1)
def _lightness_table() -> F32:
    encoded = np.arange(256, dtype=np.float64) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    f = np.where(linear > _DELTA**3, np.cbrt(linear), linear / (3 * _DELTA**2) + 4 / 29)
    return (116 * f - 16).astype(np.float32)


def reference_tiles(tile_yx: tuple[int, int] = (SIZE_PX, SIZE_PX), count: int = COUNT, channels: int = 1) -> F32:
    """Real tiles for testing an engine; the same ones every time.

    Other sizes are cut from the middle of a tile, or extended past its edges by reflection. If fewer than all are
    requested, they are spread over the whole set, so that even a handful is varied.

    Parameters
    ----------
    tile_yx : height and width in pixels
    count : 1 to 48
    channels : 1, or 3 for networks that take a palette: smooth colours of all hues, drawn once for each tile

    Returns
    -------
    (count, channels, T, U) float32 L* in [0, 100], and a*, b*

    Raises
    ------
    ValueError : ``count`` or ``tile_yx`` out of range. ModelError : the file is missing or damaged.
    """
    if not 1 <= count <= COUNT or min(tile_yx) < 1:
        raise ValueError(
            f"{count} reference tiles of {tile_yx[0]}x{tile_yx[1]} px: there are {COUNT}, and repeating them would "
            f"count some twice; ask for 1 to {COUNT} tiles of at least 1 px"
        )
    chosen = np.linspace(0, COUNT - 1, count).round().astype(int)
    gray = _samples()[chosen]
    for axis, size in enumerate(tile_yx, start=1):
        gray = _resized(gray, axis, size)
    lightness = lightness_from_gray(gray)[:, None]
    return lightness if channels == 1 else with_palettes(lightness, chosen)


def with_palettes(lightness: F32, numbers: Iterable[int]) -> F32:
    """(N, 1, T, U) L* to (N, 3, T, U) with the enlarged a*, b* of 4 x 4 cells, as strong as in photographs.

    ``numbers`` seed the colours of each tile; equal numbers give equal colours.
    """
    size_xy = lightness.shape[:1:-1]
    made = []
    for number in numbers:
        cells = np.random.default_rng(int(number)).normal(0, _PALETTE_SPREAD, (2, 4, 4)).astype(np.float32)
        made.append([cv2.resize(plane, size_xy, interpolation=cv2.INTER_CUBIC) for plane in cells])
    return np.concatenate([lightness, np.array(made, np.float32)], axis=1)


@functools.lru_cache(maxsize=1)
def _samples() -> NDArray[np.uint8]:
    """(48, 256, 256) gray samples."""
    mosaic = cv2.imread(str(FILE), cv2.IMREAD_GRAYSCALE)
    if mosaic is None or mosaic.shape != (COUNT * SIZE_PX, SIZE_PX):
        raise ModelError(f"{FILE}: missing or damaged: no engine can be judged; install the package again")
    samples: NDArray[np.uint8] = mosaic.reshape(COUNT, SIZE_PX, SIZE_PX)
    return samples


def _resized(gray: NDArray[np.uint8], axis: int, size: int) -> NDArray[np.uint8]:
    """The middle ``size`` pixels along ``axis``, reflected as often as needed."""
    before = (size - SIZE_PX) // 2
    if before < 0:
        return gray.take(range(-before, -before + size), axis)
    pads = [(0, 0)] * gray.ndim
    pads[axis] = (before, size - SIZE_PX - before)
    return np.pad(gray, pads, mode="reflect")
