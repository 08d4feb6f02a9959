"""Pairs of a gray and a colour picture side by side in one file (A|B), as in pix2pix's data sets.

Such a file is recognized by its halves: one has no colour, and everywhere the lightness of the other. The colour half
is the photograph; the network gets its lightness, so the gray half adds nothing. A photograph beside its own gray copy
for any other reason is read in the same way.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]

_LOOK_PX = 64
_MOST_SPREAD = 6.0  # mean spread of R, G, B in a half without colour: a JPEG is not exactly gray


def colour_half(rgb: U8) -> U8:
    """The colour half of a pair, (H, W, 3) RGB; any other picture is returned unchanged."""
    height, width = rgb.shape[:2]
    if width % 2 or width < 4:
        return rgb
    halves = rgb[:, : width // 2], rgb[:, width // 2 :]
    # A few rows rule out most photographs at once, because neither of their halves is gray.
    few = [half[:: max(1, height // 8), :: max(1, width // 32)] for half in halves]
    gray = [_spread(half) <= _MOST_SPREAD for half in few]
    if gray[0] == gray[1]:
        return rgb
    small = [cv2.resize(half, (_LOOK_PX, _LOOK_PX), interpolation=cv2.INTER_AREA) for half in halves]
    plain, colour = (0, 1) if gray[0] else (1, 0)
    lightness = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).astype(np.float32) for each in small]
    # Compared by correlation: programs convert colour to gray differently, and L* is a tone curve lighter than luma.
    if _spread(small[plain]) > _MOST_SPREAD or not _alike(*lightness):
        return rgb
    return np.ascontiguousarray(halves[colour])


def _spread(rgb: U8) -> float:
    return float((rgb.max(axis=2).astype(np.int16) - rgb.min(axis=2)).mean())


def _alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    """True if two (S, S) pictures are the same up to a tone curve."""
    if min(one.std(), other.std()) < 2:
        return False
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1]) > 0.97
