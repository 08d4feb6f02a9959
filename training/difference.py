"""CIEDE2000 of two colours of equal lightness, as a differentiable loss.

At equal lightness its first term is zero and the others do not depend on lightness.

References
----------
Sharma, Wu, Dalal, The CIEDE2000 color-difference formula, Color Research and Application 30(1), 2005.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_FAR = 25.0**7
_TINY = 1e-6


def chroma_difference(one: Tensor, other: Tensor) -> Tensor:
    """(M, 2) and (M, 2) a*, b* of equal lightness to (M,) CIEDE2000."""
    mean_c = (_length(one) + _length(other)) / 2
    grow = 1 + 0.5 * (1 - torch.sqrt(_far_share(mean_c)))
    (a1, b1), (a2, b2) = (((ab[:, 0] * grow), ab[:, 1]) for ab in (one, other))
    c1, c2 = torch.sqrt(a1**2 + b1**2 + _TINY), torch.sqrt(a2**2 + b2**2 + _TINY)
    # 2 sqrt(C1 C2) sin(dh / 2), without angles: its square is the squared distance less the squared difference of C.
    delta_h2 = 2 * (c1 * c2 - (a1 * a2 + b1 * b2))
    across = torch.sqrt(delta_h2.clamp_min(0) + _TINY)
    turn = torch.sign(a1 * b2 - a2 * b1)
    delta_h = torch.where(turn == 0, across, across * turn)
    delta_c = c2 - c1
    middle = torch.atan2(b1 / c1 + b2 / c2 + _TINY, a1 / c1 + a2 / c2 + _TINY)  # the bisector of both hues
    c, h = (c1 + c2) / 2, middle
    t = (
        1
        - 0.17 * torch.cos(h - math.radians(30))
        + 0.24 * torch.cos(2 * h)
        + 0.32 * torch.cos(3 * h + math.radians(6))
        - 0.20 * torch.cos(4 * h - math.radians(63))
    )
    degrees = torch.rad2deg(h) % 360
    rotation = math.radians(60) * torch.exp(-(((degrees - 275) / 25) ** 2))
    turned = -torch.sin(rotation) * 2 * torch.sqrt(_far_share(c))
    part_c, part_h = delta_c / (1 + 0.045 * c), delta_h / (1 + 0.015 * c * t)
    return torch.sqrt((part_c**2 + part_h**2 + turned * part_c * part_h).clamp_min(0) + _TINY)


def _far_share(chroma: Tensor) -> Tensor:
    seventh = chroma**7
    return seventh / (seventh + _FAR) + 1e-12


def _length(ab: Tensor) -> Tensor:
    return torch.sqrt((ab**2).sum(dim=1) + _TINY)
