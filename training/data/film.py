"""Degrade lightness like scanned old film. A network trained on clean lightness alone mistakes grain for texture.

The steps follow the light: the negative's tone curve, the fading of the print, the blur of the scanner's lens, and
grain as the scan shows it. Every amount is drawn uniformly between zero and the recipe's value.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from training.config import Film

F32 = NDArray[np.float32]

_COARSEST_GRAIN_PX = 3.0


def _grain(shape_yx: tuple[int, int], rng: np.random.Generator) -> F32:
    """Noise with mean square 1 and grains 1 to 3 pixels wide."""
    coarse = rng.uniform(1, _COARSEST_GRAIN_PX)
    height, width = (max(1, math.ceil(n / coarse)) for n in shape_yx)
    noise = rng.standard_normal((height, width), dtype=np.float32)
    noise = cv2.resize(noise, (shape_yx[1], shape_yx[0]), interpolation=cv2.INTER_LINEAR)
    # Interpolation lowers the contrast of coarse grain; scale it to the recipe's value at any coarseness.
    return noise / np.float32(max(1e-6, math.sqrt(float(np.square(noise).mean()))))


def age(lightness: F32, film: Film, rng: np.random.Generator) -> F32:
    """Lightness degraded like old film.

    Parameters
    ----------
    lightness : (H, W) in [0, 1]
    film : the maximum amounts; if all are 0, the result is ``lightness`` itself

    Returns
    -------
    (H, W) float32 in [0, 1]
    """
    aged = lightness
    if film.gamma:
        aged = aged ** np.float32(math.exp(rng.uniform(-film.gamma, film.gamma)))
    if film.fade:
        black, white = rng.uniform(0, film.fade, 2)
        aged = aged * np.float32(max(0.0, 1 - black - white)) + np.float32(black)
    if film.blur_px:
        aged = cv2.GaussianBlur(aged, (0, 0), max(1e-3, rng.uniform(0, film.blur_px)))
    if film.grain:
        aged = aged + _grain(aged.shape, rng) * np.float32(rng.uniform(0, film.grain))
    return lightness if aged is lightness else np.clip(aged, 0, 1)
