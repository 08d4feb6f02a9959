"""CIEDE2000, the difference of two colours as people see it.

References
----------
Sharma, Wu, Dalal, The CIEDE2000 Color-Difference Formula: Implementation Notes, Supplementary Test Data, and
Mathematical Observations, Color Research and Application 30(1), 2005. ISO/CIE 11664-6:2014.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]
_25_TO_7 = 25.0**7
_ROUNDING = 1e-12  # of angles


def ciede2000(one: ArrayLike, other: ArrayLike) -> F64:
    """The difference of each pair of colours, under the formula's reference conditions.

    Parameters
    ----------
    one, other : (3, ...) L*, a*, b*; shapes that broadcast

    Returns
    -------
    (...) float64; 1 is about the least that is seen
    """
    (light_1, a_1, b_1), (light_2, a_2, b_2) = (np.asarray(lab, np.float64) for lab in (one, other))
    gain = 1.5 - 0.5 * _saturated((np.hypot(a_1, b_1) + np.hypot(a_2, b_2)) / 2)
    chroma_1, hue_1 = _polar(a_1 * gain, b_1)
    chroma_2, hue_2 = _polar(a_2 * gain, b_2)
    light, chroma, product = (light_1 + light_2) / 2, (chroma_1 + chroma_2) / 2, chroma_1 * chroma_2
    # From one hue to the other the shorter way round; a gray has no hue, and so the other colour's.
    turn = hue_2 - hue_1
    turn -= 2 * np.pi * np.rint(turn / (2 * np.pi))
    hue = np.where(product == 0, hue_1 + hue_2, _middle(hue_1, hue_2))
    t = (
        1
        - 0.17 * np.cos(hue - np.pi / 6)
        + 0.24 * np.cos(2 * hue)
        + 0.32 * np.cos(3 * hue + np.pi / 30)
        - 0.20 * np.cos(4 * hue - np.radians(63))
    )
    from_50 = (light - 50) ** 2
    d_light = (light_2 - light_1) / (1 + 0.015 * from_50 / np.sqrt(20 + from_50))
    d_chroma = (chroma_2 - chroma_1) / (1 + 0.045 * chroma)
    d_hue = 2 * np.sqrt(product) * np.sin(turn / 2) / (1 + 0.015 * chroma * t)
    in_blues = np.exp(-(((np.degrees(hue) - 275) / 25) ** 2))
    rotation = -2 * np.sin(2 * np.radians(30) * in_blues) * _saturated(chroma)
    # Rounding may leave a square below zero.
    squared = d_light**2 + d_chroma**2 + d_hue**2 + rotation * d_chroma * d_hue
    return np.asarray(np.sqrt(np.maximum(squared, 0)))


def _saturated(chroma: F64) -> F64:
    """From 0 for gray to 1 for strong colours, with the step at a chroma of 25."""
    seventh = chroma**7
    return np.asarray(np.sqrt(seventh / (seventh + _25_TO_7)))


def _polar(a: F64, b: F64) -> tuple[F64, F64]:
    """Chroma, and hue from 0 to 2 pi; that of gray is 0."""
    hue = np.arctan2(b, a)
    return np.hypot(a, b), np.where(hue < 0, hue + 2 * np.pi, hue)


def _middle(hue_1: F64, hue_2: F64) -> F64:
    """The hue half-way between two, on the side where they are nearer; of opposite ones, without their rounding."""
    total = hue_1 + hue_2
    around = np.where(total < 2 * np.pi, total + 2 * np.pi, total - 2 * np.pi)
    return np.asarray(np.where(np.abs(hue_1 - hue_2) <= np.pi + _ROUNDING, total, around) / 2)
