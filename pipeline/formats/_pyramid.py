"""The smaller copies of a picture: their shapes, and means of two by two pixels without transparent or nodata ones."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_STRIP_PX = 65_536


def pyramid_levels(shape_yx: tuple[int, int], tile_px: int) -> tuple[tuple[int, int], ...]:
    """Shapes from ``shape_yx`` down, each half the last (rounded up), to the first that fits one tile.

    >>> pyramid_levels((700, 3), 256)
    ((700, 3), (350, 2), (175, 1))
    """
    levels = [shape_yx]
    while max(levels[-1]) > tile_px:
        height, width = levels[-1]
        levels.append(((height + 1) // 2, (width + 1) // 2))
    return tuple(levels)


def halve(samples: NDArray, nodata: int | None = None) -> NDArray:
    """Mean of each 2 x 2 of (h, w, 3 or 4) samples, rounded, halves up; at an odd edge, of the existing pixels.

    A fourth channel is opacity: colours are weighted by it, so that colours of transparent pixels do not bleed into the
    picture. With ``nodata``, pixels that have this value in every channel are left out. If none remains, the mean is
    nodata in every channel; no other mean has that value in any channel.
    """
    if samples.shape[2] == 3 and nodata is None:
        return _area_half(samples)
    # A strip at a time, because weighted sums take more memory than the samples.
    rows = max(_STRIP_PX // samples.shape[1] // 2, 1) * 2
    strips = (samples[y : y + rows] for y in range(0, len(samples), rows))
    halves = [_opaque_half(each) if nodata is None else _there_half(each, nodata) for each in strips]
    return np.concatenate(halves)


def _opaque_half(samples: NDArray) -> NDArray:
    opacity = samples[..., 3]
    if int(opacity.min()) == np.iinfo(samples.dtype).max:
        return _area_half(samples)
    return np.dstack([_weighted_half(samples[..., :3], opacity), _area_half(opacity)])


def _there_half(samples: NDArray, nodata: int) -> NDArray:
    there = (samples != nodata).any(axis=2)
    half = _area_half(samples) if there.all() else _weighted_half(samples, there)
    half[half == nodata] = nodata - 1 if nodata == np.iinfo(samples.dtype).max else nodata + 1
    half[_area_half(there.astype(np.float32)) == 0] = nodata
    return half


def _area_half(samples: NDArray) -> NDArray:
    height, width = samples.shape[:2]
    if height % 2 or width % 2:
        # An edge pixel met twice leaves the mean of its pair (or itself) unchanged.
        samples = cv2.copyMakeBorder(samples, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    half: NDArray = cv2.resize(samples, ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA)
    return half


def _weighted_half(colours: NDArray, weights: NDArray) -> NDArray:
    """Means of (h, w, 3) with (h, w) integer weights; unweighted where all weights are zero."""
    # The sum of four products fits the 24 bits of float32 for 8-bit factors, and the 53 of float64 for 16-bit factors.
    # So sums are exact, and with equal weights the mean equals the unweighted one to the bit.
    kind = np.float32 if weights.dtype == bool or colours.dtype == np.uint8 else np.float64
    weight = weights.astype(kind)
    total = _area_half(weight)[..., None]
    mean = _area_half(colours * weight[..., None]) / np.where(total, total, 1)
    plain = _area_half(colours)
    return np.where(total > 0, np.floor(mean + kind(0.5)), plain).astype(colours.dtype)
