"""Weights of a tile's pixels where tiles overlap: 1-D windows by name; a tile's weight is the product of two.

Every window is strictly positive, so that a pixel covered by a single tile is defined too. To add a window, write a
function of the tile size, list it in ``WINDOWS``, and its name in :mod:`pipeline.tiling.windows`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.tiling.windows import NAMES, check_window

F32 = NDArray[np.float32]


def average(size: int) -> F32:
    """All ones: the plain mean of the reports."""
    return np.ones(size, np.float32)


def hann(size: int) -> F32:
    """Raised cosine sampled at pixel centres, so that it never reaches zero."""
    weights: F32 = (np.sin(np.pi * (np.arange(size) + 0.5) / size) ** 2).astype(np.float32)
    return weights


def triangle(size: int) -> F32:
    """Linear from half a pixel's weight at the edge to 1 in the middle."""
    centre = np.arange(size) + 0.5
    weights: F32 = (np.minimum(centre, size - centre) * (2 / size)).astype(np.float32)
    return weights


def gaussian(size: int) -> F32:
    """Gaussian with a standard deviation of an eighth of the tile, as nnU-Net weights its tiles."""
    distance = (np.arange(size) + 0.5 - size / 2) / (size / 8)
    weights: F32 = np.exp(-0.5 * distance**2).astype(np.float32)
    return weights


WINDOWS: dict[str, Callable[[int], F32]] = dict(zip(NAMES, (average, hann, triangle, gaussian), strict=True))


def window_weights(name: str, size: int) -> F32:
    """Weights of window ``name`` for a tile of ``size`` pixels: (size,) float32, all above zero.

    Raises
    ------
    UsageError : no such window.
    """
    check_window(name)
    return WINDOWS[name](size)
