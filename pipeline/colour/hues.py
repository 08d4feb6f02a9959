"""Hues by name: parts of the hue circle of CIELAB that fade into each other, so that no change of one has an edge.

The eight hues that go round the circle share it out: at each angle the weights of two neighbours add up to one. `brown`
is no hue of its own but a dark orange, and lies across them.

Notes
-----
CSS's colours of these names (red and crimson, darkorange, gold, green, turquoise, steelblue, indigo, magenta) belong to
them more than to any neighbour, as do the four unique hues of the Natural Colour System, which lie at 24, 90, 162 and
246 degrees in CIELAB. CSS's pure blue, at 306 degrees, counts as violet: in CIELAB strong blues lean that way.

References
----------
CIE 15:2018, 8.2.1 (hue angle h_ab). CSS Color Module Level 4, 6.1 (named colours). Fairchild, Color Appearance Models,
3rd edition, 2013, 10.4 (unique hues in CIELAB).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

# In degrees of h_ab, once round.
_CENTRES = {
    "red": 30.0,
    "orange": 63.0,
    "yellow": 97.0,
    "green": 140.0,
    "cyan": 200.0,
    "blue": 262.0,
    "violet": 308.0,
    "magenta": 342.0,
}
_BROWN_CENTRE, _BROWN_REACH = 55.0, 40.0
# L* up to which an orange is brown altogether, and from which on it is none.
_BROWN_UP_TO, _BROWN_NOT_FROM = 50.0, 70.0


@dataclass(frozen=True)
class Hue:
    """A part of the hue circle: the middle of it, and how far it reaches to either side until nothing of it is left.

    Attributes
    ----------
    centre, below, above : degrees of h_ab
    is_dark : whether only dark colours are of it
    """

    centre: float
    below: float
    above: float
    is_dark: bool = False

    def weight(self, hue: F32, lightness: F32) -> F32:
        """How much colours are of this hue, from 0 to 1 in the middle.

        Parameters
        ----------
        hue : degrees of h_ab, from -180 to 360
        lightness : CIE L*, of the same shape
        """
        away = (hue - np.float32(self.centre) + np.float32(540)) % np.float32(360) - np.float32(180)
        share = away * np.where(away < 0, np.float32(-1 / self.below), np.float32(1 / self.above))
        weight = smooth_step(np.float32(1) - share)
        return weight * darkness(lightness) if self.is_dark else weight

    def turn_to(self, other: Hue) -> float:
        """Degrees, the short way round, from the middle of this hue to that of another: -180 to 180."""
        return (other.centre - self.centre + 180) % 360 - 180


def darkness(lightness: F32) -> F32:
    """How much a colour of this L* is a dark one, from 0 to 1."""
    return smooth_step((np.float32(_BROWN_NOT_FROM) - lightness) / np.float32(_BROWN_NOT_FROM - _BROWN_UP_TO))


def smooth_step(x: F32) -> F32:
    """0 up to 0, 1 from 1 on, and a curve between without a corner: 3 x**2 - 2 x**3.

    >>> smooth_step(np.float32([-1, 0, 0.5, 1, 2])).tolist()
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    x = np.clip(x, 0, 1).astype(np.float32, copy=False)
    return x * x * (3 - 2 * x)


def _round_the_circle() -> dict[str, Hue]:
    centres = list(_CENTRES.values())
    gaps = [(after - centre) % 360 for centre, after in zip(centres, [*centres[1:], centres[0]], strict=True)]
    return {name: Hue(centre, gaps[index - 1], gaps[index]) for index, (name, centre) in enumerate(_CENTRES.items())}


HUES = {**_round_the_circle(), "brown": Hue(_BROWN_CENTRE, _BROWN_REACH, _BROWN_REACH, is_dark=True)}
