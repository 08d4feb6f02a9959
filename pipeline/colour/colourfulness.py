"""How colourful a picture is, as one number."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def colourfulness(rgb: NDArray) -> float:
    """M3 of Hasler and Süsstrunk: 0 gray, 33 moderately, 109 extremely colourful.

    Parameters
    ----------
    rgb : (..., 3) sRGB-encoded values in [0, 1]; in whatever order, as neighbours do not count

    References
    ----------
    Hasler and Süsstrunk, Measuring colourfulness in natural images, Human Vision and Electronic Imaging VIII, 2003.

    >>> colourfulness(np.full((4, 4, 3), 0.5))
    0.0
    """
    red, green, blue = np.moveaxis(np.asarray(rgb, np.float64) * 255, -1, 0)
    red_green, yellow_blue = red - green, 0.5 * (red + green) - blue
    spread = math.hypot(red_green.std(), yellow_blue.std())
    return spread + 0.3 * math.hypot(red_green.mean(), yellow_blue.mean())
